"""Gradients of a bucket to bytes and back; run by the coding thread only."""
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Dict, List, Sequence, Tuple

import numpy as np
import torch

from ..compressor import Compressor
from ..errors import AtomoError, FormatError, NonFiniteError
from .layout import Parameter
from .packet import FAILED, FINE, HEAD, NONFINITE, Head, Packet, Why, told, write_head


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


def why_of(problem: AtomoError) -> Tuple[int, str]:
    """The status and text of an error, for a packet."""
    return NONFINITE if isinstance(problem, NonFiniteError) else FAILED, str(problem)


class Coder:
    """Encodes and decodes with one compressor. rank: of the random streams. names: of all
    ranks, for error texts. stage: memory for gradients that are not
    contiguous float32. rooms: memory for the packets of each bucket, by the numbers of its tensors."""

    def __init__(self, compressor: Compressor, rank: int, names: Sequence[str]) -> None:
        self.compressor, self.rank, self.names = compressor, rank, names
        self.stage = torch.empty(0)
        self.rooms: Dict[Tuple[int, ...], np.ndarray] = {}
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
            if self.open:
                self.compressor.undo_step()
            self.compressor.begin_step(bucket.step, self.rank)
            self.open = True
        elif not self.open:
            raise FormatError("the step has been given up")

    def close(self, keep: bool) -> None:
        """Ends the step, or gives it up, which restores the memories."""
        if self.open:
            self.open = False
            (self.compressor.end_step if keep else self.compressor.undo_step)()

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

    def write(self, pairs: Pairs, out: np.ndarray) -> int:
        """Writes tensors to out: first those that are not coded, in float32, then messages. Returns their bytes."""
        at = 0
        for p, grad in pairs:
            if not p.coded:
                at += self.put_plain(p, grad, out[at:])
        for p, grad in pairs:
            if p.coded:
                g = self.staged(grad)
                if g is not grad:
                    g.copy_(grad)
                at += self.compressor.push(p.number, g.numpy().reshape(p.shape or (1,)), out[at:])
        return at

    def put_plain(self, p: Parameter, grad: torch.Tensor, out: np.ndarray) -> int:
        values = grad.float().reshape(-1).numpy()
        if not np.isfinite(values).all():
            first = int(np.flatnonzero(~np.isfinite(values))[0])
            raise NonFiniteError(f"gradient of {p.name} has NaN or Inf, first at element {first} of {values.size}")
        out[:4 * p.numel] = values.view(np.uint8)
        return 4 * p.numel

    def read(self, pairs: Pairs, step: int, rows: List[np.ndarray], first: int = 0) -> None:
        """Sets tensors to the averages of what ranks first, first + 1, ... wrote. All processes add in the same order,
        so their averages are bit-identical."""
        at = 0
        for p, grad in pairs:
            if not p.coded:
                total = rows[0][at:at + 4 * p.numel].copy().view(np.float32)
                for row in rows[1:]:
                    total += row[at:at + 4 * p.numel].copy().view(np.float32)
                total *= np.float32(1 / len(rows))
                grad.copy_(torch.from_numpy(total).view(grad.shape))
                at += 4 * p.numel
        rest = [row[at:] for row in rows]
        for p, grad in pairs:
            if p.coded:
                g = self.staged(grad)
                out = g.numpy().reshape(p.shape or (1,))
                used = self.compressor.average(p.number, step, rest, out, first=first)
                if g is not grad:
                    grad.copy_(g)
                rest = [row[n:] for row, n in zip(rest, used)]
        for rank, row in enumerate(rest, first):
            if row.size:
                raise FormatError(f"{row.size} bytes follow the last message of rank {rank}")


def text_packet(why: Tuple[int, str], step: int, bucket: int) -> Packet:
    """A packet that says why there is no other."""
    data = why[1].encode()
    packet = np.empty(HEAD.size + len(data), np.uint8)
    write_head(packet, Head(why[0], step, bucket, packet.size))
    packet[HEAD.size:] = np.frombuffer(data, np.uint8)
    return Packet(packet, packet.size)
