"""Gradients of a bucket to bytes and back; run by the coding thread only."""
from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from typing import Any, Dict, List, Sequence, Tuple

import numpy as np
import torch

from .. import functions
from ..arrays import Wrapped
from ..compressor import Compressor, blocks_of
from ..errors import AtomoError, FormatError, NonFiniteError
from ..prepared import address
from .layout import Parameter
from .packet import FAILED, FINE, HEAD, NONFINITE, Head, Packet, Why, text_packet, told, write_head


@dataclass(eq=False)
class Bucket:
    """A bucket of one step. grads: views in DDP's buffer, in the coded order of dimensions."""

    index: int
    last: bool
    step: int
    buffer: torch.Tensor
    members: List[Parameter]
    grads: List[torch.Tensor]
    result: "torch.futures.Future" = field(repr=False)  # set to the buffer, or to an exception

    @property
    def key(self) -> Tuple[int, ...]:
        return tuple(p.number for p in self.members)


Pairs = Sequence[Tuple[Parameter, torch.Tensor]]


def is_zero(grad: torch.Tensor) -> bool:
    """Are all elements 0? Most gradients show in a part that they are not."""
    return not (grad.dim() > 0 and bool(grad.select(0, 0).any())) and not bool(grad.any())


def why_of(problem: AtomoError) -> Tuple[int, str]:
    """The status and text of an error, for a packet."""
    return NONFINITE if isinstance(problem, NonFiniteError) else FAILED, str(problem)


class Coder:
    """Encodes and decodes with one compressor. rank: of the random streams. names: of all ranks, for error texts.
    stage: memory for gradients that are not contiguous float32. rooms: memory for the packets of each bucket, by the
    numbers of its tensors. held: with error feedback, the memories of tensors that have no gradient in this step."""

    def __init__(self, compressor: Compressor, rank: int, names: Sequence[str]) -> None:
        self.compressor, self.rank, self.names = compressor, rank, names
        self.stage = torch.empty(0)
        self.rooms: Dict[Tuple[int, ...], np.ndarray] = {}
        self.kept: Dict[int, Tuple[int, Wrapped]] = {}  # C tensors of gradients, with their addresses, by number
        self.feedback = bool(compressor.parsed.given("ef"))
        self.held: Dict[int, np.ndarray] = {}
        self.open = False

    def staged(self, grad: torch.Tensor) -> torch.Tensor:
        """grad, or memory of its shape if it is not contiguous float32."""
        if grad.dtype == torch.float32 and grad.is_contiguous():
            return grad
        if self.stage.numel() < grad.numel():
            self.stage = torch.empty(grad.numel())
        return self.stage[:grad.numel()].view(grad.shape)

    def room_for(self, key: Tuple[int, ...], nbytes: int) -> np.ndarray:
        """Memory for what is written of a bucket, used again in every step."""
        if key not in self.rooms:
            for other in [k for k in self.rooms if set(k) & set(key)]:  # DDP has rebuilt its buckets
                del self.rooms[other]
            self.rooms[key] = np.empty(nbytes, np.uint8)
        return self.rooms[key]

    def most(self, members: Sequence[Parameter]) -> int:
        """The largest number of bytes that write returns."""
        return sum(self.compressor.wire_max(p.number) if p.coded else 4 * p.numel for p in members)

    def begin(self, bucket: Bucket) -> None:
        """Begins a step at its first bucket. A step that an error in backward has left open is given up."""
        if bucket.index == 0:
            self.close(keep=False)
            self.compressor.begin_step(bucket.step, self.rank)
            self.open = True
        elif not self.open:
            raise FormatError("the step has been given up")

    def close(self, keep: bool) -> None:
        """Ends the step, or gives it up, which restores the memories."""
        if self.open:
            self.open = False
            (self.compressor.end_step if keep else self.compressor.undo_step)()
            held, self.held = self.held, {}
            for number, memory in held.items() if keep else ():
                self.compressor.put_state("", number, memory)

    # ---- packets of all_gather --------------------------------------------------------------------------------------

    def encode(self, bucket: Bucket, _: None) -> Packet:
        """The packet of a bucket. An error becomes a packet with its text, so that all processes learn of it."""
        try:
            self.begin(bucket)
            out = self.room_for(bucket.key, HEAD.size + self.most(bucket.members))
            n = HEAD.size + self.write(list(zip(bucket.members, bucket.grads)), out[HEAD.size:])
            write_head(out, Head(FINE, bucket.step, bucket.index, n))
            return Packet(out, n)
        except AtomoError as problem:
            return text_packet(why_of(problem), bucket.step, bucket.index)

    def decode(self, bucket: Bucket, packets: List[np.ndarray]) -> Why:
        """Writes the averages of all processes' packets into DDP's buffer. Returns why it cannot, None if it has."""
        why = told(packets, self.names)
        if why is None:
            try:
                self.read(list(zip(bucket.members, bucket.grads)), bucket.step, [row[HEAD.size:] for row in packets])
            except AtomoError as problem:
                why = why_of(problem)
        return why

    # ---- bytes ------------------------------------------------------------------------------------------------------

    def wrapped(self, p: Parameter, grad: torch.Tensor) -> Wrapped:
        """The C tensor of a gradient, or of the stage for one that is not contiguous float32. Gradients lie in DDP's
        buffers, which stay where they are, so that C tensors are kept."""
        memory = self.staged(grad)
        place, kept = self.kept.get(p.number, (0, None))
        if kept is None or place != memory.data_ptr():
            kept = Wrapped(memory.numpy().reshape(p.shape or (1,)))
            self.kept[p.number] = memory.data_ptr(), kept
        return kept

    def write(self, pairs: Pairs, out: np.ndarray) -> int:
        """Writes tensors to out: first those that are not coded, in float32, then messages. Returns their bytes."""
        at, place, size = self.write_plain([(p, grad) for p, grad in pairs if not p.coded], out), address(out), out.size
        for p, grad in pairs:
            if p.coded:
                g = self.wrapped(p, grad)
                if self.staged(grad) is not grad:
                    self.staged(grad).copy_(grad)
                if self.feedback and is_zero(grad):
                    g = self.cancelling(p)
                at += self.compressor.push_wrapped(p.number, g, place + at, size - at)
        return at

    def cancelling(self, p: Parameter) -> Wrapped:
        """With error feedback, what is pushed of a tensor whose gradient is 0: its residual with the other sign. So the
        message says 0, and the tensor's memory is put back at the end of the step. Else the message would have a part of
        the residual; DDP leaves the average of a parameter unused if no process has used it, and that part would be
        lost."""
        memory = self.compressor.read_state(self.compressor.lib.codec_memory, p.number)
        self.held[p.number] = memory
        return Wrapped(-memory[:p.numel].reshape(p.shape or (1,)))

    def write_plain(self, pairs: Pairs, out: np.ndarray) -> int:
        if not pairs:
            return 0
        values = torch.cat([grad.reshape(-1) for _, grad in pairs]).float().numpy()
        if not np.isfinite(values).all():
            raise self.not_finite(pairs)
        out[:values.nbytes] = values.view(np.uint8)
        return values.nbytes

    def not_finite(self, pairs: Pairs) -> NonFiniteError:
        """The error that names the first NaN or Inf."""
        p, bad = next((p, bad) for p, grad in pairs for bad in [~torch.isfinite(grad.reshape(-1))] if bad.any())
        return NonFiniteError(f"gradient of {p.name} has NaN or Inf, first at element {int(bad.nonzero()[0])} of "
                              f"{p.numel}")

    def read(self, pairs: Pairs, step: int, rows: List[np.ndarray], first: int = 0) -> None:
        """Sets tensors to the averages of what ranks first, first + 1, ... wrote. All processes add in the same order,
        so their averages are bit-identical."""
        at = self.read_plain([(p, grad) for p, grad in pairs if not p.coded], rows)
        blocks = blocks_of([(address(row) + at, row.size - at) for row in rows], first)
        coded = [(p, grad) for p, grad in pairs if p.coded]
        if all(self.staged(grad) is grad for _, grad in coded):
            self.average(coded, step, blocks)
        else:  # they share the stage
            for pair in coded:
                self.average([pair], step, blocks)
                pair[1].copy_(self.staged(pair[1]))
        for rank, block in enumerate(blocks, first):
            if block.left:
                raise FormatError(f"{block.left:.0f} bytes follow the last message of rank {rank}")

    def average(self, pairs: Pairs, step: int, blocks: Any) -> None:
        """Sets tensors, or the stage, to the averages of the next messages in the blocks."""
        n = len(pairs)
        numbers = (ctypes.c_int32 * max(n, 1))(*(p.number for p, _ in pairs))
        pointers = (functions.TensorP * max(n, 1))(*(self.wrapped(p, grad).pointer for p, grad in pairs))
        self.compressor.average_blocks(numbers, pointers, n, step, blocks)

    def read_plain(self, pairs: Pairs, rows: List[np.ndarray]) -> int:
        nbytes = 4 * sum(p.numel for p, _ in pairs)
        for rank, row in enumerate(rows):
            if row.size < nbytes:
                raise FormatError(f"{row.size} bytes of rank {rank}, expected {nbytes} or more")
        if pairs:
            total = rows[0][:nbytes].copy().view(np.float32)
            for row in rows[1:]:
                total += row[:nbytes].copy().view(np.float32)
            total *= np.float32(1 / len(rows))
            parts = torch.from_numpy(total).split([p.numel for p, _ in pairs])
            for (_, grad), part in zip(pairs, parts):
                grad.copy_(part.view(grad.shape))
        return nbytes
