"""Arrays of the caller: NumPy arrays, PyTorch CPU tensors, and objects with DLPack or the buffer protocol.

float32 is used in place, whatever its strides. float16 and bfloat16 are converted to float32 in a copy.
"""
from __future__ import annotations

import ctypes
from typing import Any, Optional, Sequence, Tuple

import numpy as np

from . import functions
from .errors import ArgumentError, DtypeError, ShapeError
from .loader import library

BUFFERS = (bytes, bytearray, memoryview)
MOST = 2**53  # size of a dimension that C takes, as a double
CPU = 1  # kDLCPU of DLPack
DEVICES = {2: "cuda", 4: "opencl", 7: "vulkan", 8: "metal", 10: "rocm", 14: "oneapi"}  # of DLPack


def is_torch(x: Any) -> bool:
    """Is x a PyTorch tensor, or of a subclass of it? Does not import torch."""
    return any(c.__name__ == "Tensor" and c.__module__.split(".")[0] == "torch" for c in type(x).__mro__)


def refuse_device(device: str, what: str) -> None:
    raise ArgumentError(f"{what} is on {device}, expected host memory: the codec computes on the CPU; pass x.cpu()")


def of_torch(x: Any, what: str) -> np.ndarray:
    if x.device.type != "cpu":
        refuse_device(str(x.device), what)
    if str(x.layout) != "torch.strided":
        raise ArgumentError(f"{what} is {x.layout}, expected a dense tensor: pass x.to_dense()")
    if x.is_neg() or x.is_conj():
        raise ArgumentError(f"{what} is a lazy negation or conjugate, expected values in memory: pass x.resolve_neg() "
                            "or x.resolve_conj()")
    x = x.detach()
    try:
        if x.numel() and not x.data_ptr():  # resize_(0) of its storage; NumPy would allocate other memory
            raise ArgumentError(f"{what} has no memory: its storage was freed")
        return (x.float() if str(x.dtype) == "torch.bfloat16" else x).numpy()
    except (RuntimeError, TypeError) as problem:  # a quantised tensor, a subclass without memory
        raise DtypeError(f"{what} is a tensor of {x.dtype} that NumPy cannot read: {problem}") from None


def as_numpy(x: Any, what: str) -> np.ndarray:
    """x as a NumPy array that shares its memory (bfloat16: a float32 copy)."""
    if isinstance(x, np.ndarray):
        if isinstance(x, np.ma.MaskedArray):
            raise ArgumentError(f"{what} is a masked array, expected one without a mask: pass x.filled(0)")
        return x
    if is_torch(x):
        return of_torch(x, what)
    if hasattr(x, "__dlpack__"):
        kind = x.__dlpack_device__()[0]
        if kind != CPU:
            refuse_device(DEVICES.get(kind, f"device {kind} of DLPack"), what)
        try:
            return np.from_dlpack(x)
        except (RuntimeError, BufferError) as problem:  # bfloat16, among others
            raise DtypeError(f"{what} has DLPack in a type that NumPy cannot read, expected float32 or float16: "
                             f"{problem}") from None
    try:
        return np.asarray(memoryview(x))
    except TypeError:
        raise DtypeError(f"{what} is a {type(x).__name__}, expected a NumPy array, a PyTorch tensor, or an object with "
                         "DLPack or the buffer protocol") from None


def readable(x: Any, what: str) -> np.ndarray:
    """x as a float32 array, in place if it is one."""
    a = as_numpy(x, what)
    if a.dtype != np.float32:
        if a.dtype != np.float16:
            raise DtypeError(f"{what} is {a.dtype}, expected float32, float16 or bfloat16: convert it first")
        a = a.astype(np.float32)
    return a if is_whole(a) and a.flags.aligned else a.copy()


def writable(x: Any, what: str) -> np.ndarray:
    """x as a float32 array that is written in place; raises for anything else."""
    a = as_numpy(x, what)
    if a.dtype != np.float32 or (is_torch(x) and str(x.dtype) != "torch.float32"):
        raise DtypeError(f"{what} is {x.dtype if is_torch(x) else a.dtype}, expected float32, as it is written to")
    if not is_whole(a):
        raise ShapeError(f"{what} of shape {a.shape} has strides of {a.strides} bytes, expected multiples of "
                         f"{a.itemsize}, as it is written to in place")
    if not a.flags.writeable:
        imported = a is not x and hasattr(x, "__dlpack__")
        why = ": NumPy imports memory of DLPack for reading only; pass a NumPy array or a tensor of it" if imported else ""
        raise ArgumentError(f"{what} is read-only{why}")
    return a


def doubles(values: Sequence[float]) -> Any:
    """Numbers as a C array of doubles, with room for at least one."""
    return (ctypes.c_double * max(len(values), 1))(*values)


def is_whole(a: np.ndarray) -> bool:
    """Are the strides whole numbers of elements?"""
    size = a.itemsize
    for s in a.strides:
        if s % size:
            return False
    return True


class Wrapped:
    """A C tensor of an array's memory, valid while this object lives. pointer: atomo_tensor *. array: held so that its
    memory lives, too; None: the caller holds it."""

    __slots__ = ("pointer", "array", "shape")

    def __init__(self, a: np.ndarray, dtype: int = functions.F32) -> None:
        self.pointer = functions.TensorP()
        if a.ndim > functions.MAX_DIM:
            raise ShapeError(f"an array of {a.ndim} dimensions, at most {functions.MAX_DIM} are possible")
        self.array: Optional[np.ndarray] = a
        self.shape: Tuple[int, ...] = a.shape
        strides = doubles([s // a.itemsize for s in a.strides])
        library().tensor_wrap(dtype, a.ndim, doubles(a.shape), strides, a.ctypes.data, ctypes.byref(self.pointer))

    def __del__(self) -> None:
        if self.pointer:
            library().c.atomo_tensor_free(self.pointer)


def copy_and_free(pointer: Any) -> np.ndarray:
    """A copy of a C tensor that a C function made. The C tensor is freed."""
    t = pointer.contents
    kind = np.float32 if t.dtype == functions.F32 else np.uint8
    shape = tuple(int(t.shape[d]) for d in range(t.ndim))
    out = np.empty(shape, kind)
    if out.size:
        ctypes.memmove(out.ctypes.data, t.data, out.nbytes)
    library().c.atomo_tensor_free(pointer)
    return out


def bytes_of(message: Any, what: str) -> np.ndarray:
    """A message (bytes, bytearray, memoryview, uint8 array or tensor) as a contiguous uint8 array, without a copy."""
    if isinstance(message, np.ndarray) or (type(message) not in BUFFERS and is_torch(message)):
        a = as_numpy(message, what)
        if a.dtype != np.uint8:
            raise DtypeError(f"{what} is {a.dtype}, expected bytes or uint8")
        if not a.flags.c_contiguous:
            raise ShapeError(f"{what} is not contiguous")
        return a.reshape(-1)
    try:
        return np.frombuffer(message, np.uint8)
    except BufferError:  # a memoryview with a step
        raise ShapeError(f"{what} is not contiguous") from None
    except (TypeError, ValueError):
        raise DtypeError(f"{what} is a {type(message).__name__}, expected bytes or uint8") from None


def writable_bytes(x: Any, what: str) -> np.ndarray:
    """A writable buffer (bytearray, memoryview, uint8 array or tensor) as a contiguous uint8 array, without a copy."""
    a = bytes_of(x, what)
    if not a.flags.writeable:
        raise ArgumentError(f"{what} is read-only")
    return a


def shape_of(shape: Any, what: str) -> Tuple[int, ...]:
    """shape as a tuple of ints; ArgumentError unless it is a sequence of whole numbers."""
    try:
        sizes = list(shape)
    except TypeError:
        raise ArgumentError(f"{what} is {shape!r}, expected a list of whole numbers") from None
    return tuple(whole(n, f"{what}: size", -MOST) for n in sizes)


def whole(value: Any, what: str, least: int, most: Optional[int] = None) -> int:
    """value as an int; ArgumentError unless it is a whole number of least .. most."""
    try:
        number = int(value)
        good = number == value and number >= least and (most is None or number <= most)
    except (TypeError, ValueError, OverflowError):
        good = False
    if not good:
        limit = f"{least} or more" if most is None else f"{least} to {most}"
        raise ArgumentError(f"{what} is {value!r}, expected a whole number of {limit}")
    return number
