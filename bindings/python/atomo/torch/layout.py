"""The model's parameters as the compressor's tensors: numbers, names, shapes, and views of DDP's buckets.

Tensor numbers follow the order of model.named_parameters(), so that a parameter keeps its memories (residual, prices)
when DDP makes other buckets after the first iteration. Weights of convolutions are [out, in, kh, kw] in PyTorch and are
coded as [out, kh, kw, in]: by strides, without a copy, if the model is in torch.channels_last.
"""
from __future__ import annotations

import warnings
import zlib
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

import torch

from ..compressor import Compressor
from ..errors import ArgumentError, DtypeError, ShapeError

FLOATS = (torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Parameter:
    """number: the compressor's tensor number. order: the permutation of dimensions in which it is coded. coded: whether
    it is sent as a message; otherwise it is sent as float32."""

    number: int
    name: str
    order: Tuple[int, ...]
    shape: Tuple[int, ...]
    numel: int
    coded: bool

    def seen(self, grad: torch.Tensor) -> torch.Tensor:
        """The gradient's view in the coded order of dimensions."""
        return grad.permute(self.order)


def convolutions(model: torch.nn.Module) -> Iterator[int]:
    """The ids of all weights of convolutions; those that a parametrization or weight_norm makes a weight of count, too.
    (Reading module.weight would compute it, and spectral_norm would take a step.)"""
    for module in model.modules():
        if isinstance(module, torch.nn.modules.conv._ConvNd):
            yield from (id(p) for p in module.parameters()
                        if not torch.nn.parameter.is_lazy(p) and p.dim() == 2 + len(module.kernel_size))


def refuse_sparse(model: torch.nn.Module) -> None:
    """Raises if a module (an Embedding) has sparse gradients, which DDP's buckets hold as sparse tensors."""
    for name, module in model.named_modules():
        if getattr(module, "sparse", False) is True:
            raise ArgumentError(f"module {name or type(module).__name__} has sparse gradients, expected dense ones: "
                                "make it with sparse=False")


COMPILED = "_orig_mod"  # where torch.compile keeps the module that it wraps


def unwrapped(model: torch.nn.Module) -> torch.nn.Module:
    """The model inside DistributedDataParallel and torch.compile, in whatever order they wrap it."""
    while True:
        if isinstance(model, torch.nn.parallel.DistributedDataParallel):
            model = model.module
        elif isinstance(getattr(model, COMPILED, None), torch.nn.Module):
            model = getattr(model, COMPILED)
        else:
            return model


def group_of(model: torch.nn.Module) -> Any:
    """The process group of DistributedDataParallel if it wraps the model, else None."""
    while not isinstance(model, torch.nn.parallel.DistributedDataParallel):
        model = getattr(model, COMPILED, None)
        if not isinstance(model, torch.nn.Module):
            return None
    return model.process_group


def plain_name(name: str) -> str:
    """A parameter's name without what torch.compile adds to the names of a compiled part of the model."""
    return ".".join(part for part in name.split(".") if part != COMPILED)


def refuse_buffer(buffer: torch.Tensor) -> None:
    """Raises if the model was moved or converted after the state was made."""
    if buffer.device.type != "cpu":
        raise ArgumentError(f"a bucket of gradients is on {buffer.device}, expected the CPU: the model was moved after "
                            "the state was made")
    if buffer.dtype not in FLOATS:
        raise DtypeError(f"a bucket of gradients is {buffer.dtype}, expected float32, float16 or bfloat16: the model "
                         "was converted after the state was made")


def refuse(name: str, p: torch.Tensor) -> None:
    """Raises for a parameter whose gradients cannot be coded."""
    if torch.nn.parameter.is_lazy(p):
        raise ArgumentError(f"parameter {name} has no shape yet: run a batch through the model before State")
    if p.device.type != "cpu":
        raise ArgumentError(f"parameter {name} is on {p.device}, expected the CPU: the codec computes in host memory. "
                            "Train with model.cpu() and the gloo backend, or on GPUs use a hook of PyTorch, such as "
                            "fp16_compress_hook")
    if p.dtype not in FLOATS:
        raise DtypeError(f"parameter {name} is {p.dtype}, expected float32, float16 or bfloat16: model.float() converts "
                         "it")
    if p.numel() == 0:
        raise ArgumentError(f"parameter {name} of shape {tuple(p.shape)} is empty: freeze it by requires_grad_(False)")


def is_dense(p: torch.Tensor) -> bool:
    """Do the elements fill their memory without holes or overlaps, in whatever order? DDP keeps the strides of such
    parameters in its buckets."""
    expected = 1
    for stride, size in sorted((s, n) for s, n in zip(p.stride(), p.shape) if n != 1):
        if stride != expected:
            return False
        expected *= size
    return True


def gradient_view(flat: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    """The gradient of p in DDP's bucket. GradBucket.gradients() ignores strides; DDP itself writes by those of p."""
    return flat.as_strided(p.shape, p.stride(), flat.storage_offset()) if is_dense(p) else flat.view(p.shape)


class Layout:
    """All parameters that have gradients. small: whether small tensors are coded, too."""

    def __init__(self, model: torch.nn.Module, compressor: Compressor, small: bool, min_size: int) -> None:
        self.by_id: Dict[int, Parameter] = {}
        self.parameters: List[Parameter] = []
        self.held: List[torch.Tensor] = []  # so that no id is used again
        refuse_sparse(model)
        images = set(convolutions(model))
        ignored = getattr(model, "_ddp_params_and_buffers_to_ignore", ())  # by DistributedDataParallel
        for number, (full_name, p) in enumerate(model.named_parameters(), 1):
            name = plain_name(full_name)
            if not p.requires_grad or full_name in ignored:
                continue
            refuse(name, p)
            order = (0, *range(2, p.dim()), 1) if id(p) in images else tuple(range(p.dim()))
            shape = tuple(p.shape[d] for d in order)
            other = compressor.parsed.override_of(name)
            is_small = p.dim() < 2 or p.numel() < min_size
            coded = other.atoms != "none" if other else small or not is_small
            one = Parameter(number, name, order, shape, p.numel(), coded)
            self.by_id[id(p)] = one
            self.parameters.append(one)
            self.held.append(p)
        if not self.parameters:
            raise ArgumentError("atomo.torch.State: no parameter of the model requires a gradient")

    def plan(self, compressor: Compressor, parameters: Optional[Sequence[Parameter]] = None) -> None:
        """Plans coded parameters, by default all; the budget includes those that are not coded."""
        chosen = self.parameters if parameters is None else parameters
        for one in chosen:
            if one.coded:
                compressor.plan(one.number, one.shape or (1,), one.name)
        rest = sum(one.numel for one in chosen if not one.coded)
        compressor.reserve(rest, 4 * rest)

    def warn_of_rest(self, compressor: Compressor) -> None:
        """Warns if the tensors that are not coded leave less than a tenth of a ratio's budget to the others."""
        ratio = compressor.parsed.given("ratio")
        rest, whole = (sum(p.numel for p in self.parameters if not (only and p.coded)) for only in (True, False))
        if ratio and rest < whole and rest > 0.9 * whole / ratio:
            warnings.warn(f"State: tensors that are sent in float32 take {4 * rest} bytes per step, the budget of "
                          f"'{compressor.text}' for all is {4 * whole / ratio:.0f}: small=\"compress\" codes small "
                          "tensors, too; or lower the ratio", stacklevel=3)

    def of(self, p: torch.Tensor) -> Parameter:
        if id(p) not in self.by_id:
            raise ArgumentError(f"a bucket has a parameter of shape {tuple(p.shape)} that is not among the "
                                f"{len(self.parameters)} that required gradients when the state was made: make State "
                                "and DistributedDataParallel of the same model, after freezing")
        one = self.by_id[id(p)]
        if tuple(p.shape[d] for d in one.order) != one.shape:
            before = tuple(one.shape[one.order.index(d)] for d in range(len(one.shape)))
            raise ShapeError(f"parameter {one.name} has shape {tuple(p.shape)}, expected {before}, as when the state was "
                             "made: make a new State")
        return one

    def checksum(self) -> int:
        """A checksum of numbers, names and shapes. (Which ones are coded follows from the compressor.)"""
        return zlib.crc32(repr([(p.number, p.name, p.shape) for p in self.parameters]).encode())

    def checksum_of_values(self) -> int:
        """A checksum of the parameters' values, which are the same in all replicas of a model."""
        found = 0
        for p in self.held:
            found = zlib.crc32(p.detach().reshape(-1).view(torch.uint8).numpy(), found)
        return found
