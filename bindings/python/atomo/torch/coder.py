"""Buckets to packets and back; run by the coding thread only."""
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Dict, List, Tuple

import numpy as np
import torch

from ..compressor import Compressor
from ..errors import AtomoError, FormatError, NonFiniteError
from .layout import Parameter
from .packet import FAILED, FINE, HEAD, NONFINITE, Head, Packet, write_head


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


class Coder:
    """Encodes and decodes with one compressor. stage: memory for gradients that are not contiguous float32. rooms:
    memory for the packets of each bucket, by the numbers of its tensors."""

    def __init__(self, compressor: Compressor, rank: int) -> None:
        self.compressor, self.rank = compressor, rank
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

    def room_for(self, bucket: Bucket) -> np.ndarray:
        key = bucket.key
        if key not in self.rooms:
            for other in [k for k in self.rooms if set(k) & set(key)]:  # DDP has rebuilt its buckets
                del self.rooms[other]
            lengths = [self.compressor.wire_max(p.number) if p.coded else 4 * p.numel for p in bucket.members]
            self.rooms[key] = np.empty(HEAD.size + sum(lengths), np.uint8)
        return self.rooms[key]

    def begin(self, step: int) -> None:
        """Begins the step at its first bucket. A step that an error in backward has left open is given up."""
        if self.open:
            self.compressor.undo_step()
        self.compressor.begin_step(step, self.rank)
        self.open = True

    def close(self, keep: bool) -> None:
        """Ends the step, or gives it up, which restores the memories."""
        if self.open:
            self.open = False
            (self.compressor.end_step if keep else self.compressor.undo_step)()

    def encode(self, bucket: Bucket) -> Packet:
        """The packet of a bucket. An error becomes a packet with its text, so that all processes learn of it."""
        try:
            if bucket.index == 0:
                self.begin(bucket.step)
            if not self.open:
                raise FormatError("the step has been given up")
            return self.write(bucket)
        except AtomoError as problem:
            status = NONFINITE if isinstance(problem, NonFiniteError) else FAILED
            return self.told(bucket, status, str(problem))

    def told(self, bucket: Bucket, status: int, text: str) -> Packet:
        data = text.encode()
        packet = np.empty(HEAD.size + len(data), np.uint8)
        write_head(packet, Head(status, bucket.step, bucket.index, packet.size))
        packet[HEAD.size:] = np.frombuffer(data, np.uint8)
        return Packet(packet, packet.size)

    def write(self, bucket: Bucket) -> Packet:
        out, at = self.room_for(bucket), HEAD.size
        for p, grad in zip(bucket.members, bucket.grads):
            if not p.coded:
                at += self.put_plain(p, grad, out[at:])
        for p, grad in zip(bucket.members, bucket.grads):
            if p.coded:
                g = self.staged(grad)
                if g is not grad:
                    g.copy_(grad)
                at += self.compressor.push(p.number, g.numpy().reshape(p.shape or (1,)), out[at:])
        write_head(out, Head(FINE, bucket.step, bucket.index, at))
        return Packet(out, at)

    def put_plain(self, p: Parameter, grad: torch.Tensor, out: np.ndarray) -> int:
        values = grad.float().reshape(-1).numpy()
        if not np.isfinite(values).all():
            first = int(np.flatnonzero(~np.isfinite(values))[0])
            raise NonFiniteError(f"gradient of {p.name} has NaN or Inf, first at element {first} of {values.size}")
        out[:4 * p.numel] = values.view(np.uint8)
        return 4 * p.numel

    def decode(self, bucket: Bucket, packets: List[np.ndarray]) -> None:
        """Writes the averages of all processes' packets into DDP's buffer. All processes add in the same order, so
        their averages are bit-identical."""
        at = HEAD.size
        for p, grad in zip(bucket.members, bucket.grads):
            if not p.coded:
                total = packets[0][at:at + 4 * p.numel].copy().view(np.float32)
                for packet in packets[1:]:
                    total += packet[at:at + 4 * p.numel].copy().view(np.float32)
                total *= np.float32(1 / len(packets))
                grad.copy_(torch.from_numpy(total).view(grad.shape))
                at += 4 * p.numel
        rest = [packet[at:] for packet in packets]
        for p, grad in zip(bucket.members, bucket.grads):
            if p.coded:
                g = self.staged(grad)
                used = self.compressor.average(p.number, bucket.step, rest, g.numpy().reshape(p.shape or (1,)))
                if g is not grad:
                    grad.copy_(g)
                rest = [row[n:] for row, n in zip(rest, used)]
        for rank, row in enumerate(rest):
            if row.size:
                raise FormatError(f"{row.size} bytes follow the last message of rank {rank}")
