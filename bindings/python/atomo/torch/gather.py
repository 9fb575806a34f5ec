"""Rounds of one exchange over a gloo process group; run by the communication thread only."""
from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Sequence, Tuple

import numpy as np
import torch
import torch.distributed as dist

from ..errors import MismatchError
from .packet import HEAD, Packet, PlannedLength, read_heads

if TYPE_CHECKING:
    from .coder import Bucket

FACTS = 1024  # bytes that compare shows of a text; its checksum is over the whole text
CHECKSUM = 4  # bytes
LONG = 2**16  # bytes from which on all_gather is a ring


def all_gather(group: Any, size: int, row: np.ndarray, into: Optional[torch.Tensor] = None) -> List[np.ndarray]:
    """The rows [n, uint8] of all processes; into [size, n or more]: memory for them."""
    if size == 1:
        return [row]
    rows = torch.empty((size, row.size), dtype=torch.uint8) if into is None else into[:, :row.size]
    if row.size >= LONG:
        return ring(group, size, row, list(rows))
    dist.all_gather(list(rows), torch.from_numpy(row), group=group)
    return list(rows.numpy())


def ring(group: Any, size: int, row: np.ndarray, rows: List[torch.Tensor]) -> List[np.ndarray]:
    """all_gather of long rows, which are received where they stay: gloo's all_gather allocates memory for all of them
    in every call, and copies them from there. Each process passes on to the next what it has received."""
    rank = dist.get_rank(group)
    after, before = (dist.get_global_rank(group, (rank + k) % size) for k in (1, -1))
    rows[rank] = torch.from_numpy(row)
    for k in range(size - 1):
        sent = dist.isend(rows[(rank - k) % size], after, group=group)
        dist.recv(rows[(rank - k - 1) % size], before, group=group)
        sent.wait()
    return [one.numpy() for one in rows]


def compare(group: Any, size: int, text: str) -> None:
    """MismatchError on every process, naming two and what they have, unless all have the same text."""
    data = text.encode()
    own = np.zeros(CHECKSUM + FACTS, np.uint8)
    shown = data[:FACTS]
    own[:CHECKSUM] = np.frombuffer(zlib.crc32(data).to_bytes(CHECKSUM, "little"), np.uint8)
    own[CHECKSUM:CHECKSUM + len(shown)] = np.frombuffer(shown, np.uint8)
    rows = [row.tobytes() for row in all_gather(group, size, own)]
    first = facts(rows[0])
    for rank, row in enumerate(rows):
        if row != rows[0]:
            differing = [(a, b) for a, b in zip(first, facts(row)) if a != b]
            raise MismatchError("processes disagree: " + "; ".join(f"rank 0 has {a}, rank {rank} has {b}"
                                                                   for a, b in differing)
                                if differing else f"processes disagree: ranks 0 and {rank} differ behind the first "
                                                  f"{FACTS} bytes of: {' '.join(first)}")


def facts(row: bytes) -> List[str]:
    """The lines of a row of compare."""
    return row[CHECKSUM:].rstrip(b"\0").decode("utf-8", "replace").split("\n")


class Gatherer:
    """Exchanges packets. names: of the group's processes, for error texts. lengths, rooms: the planned length of each
    bucket, and memory for all processes' packets, by the numbers of its tensors."""

    def __init__(self, group: Any, names: Sequence[str]) -> None:
        self.group, self.size, self.names = group, len(names), names
        self.lengths: Dict[Tuple[int, ...], PlannedLength] = {}
        self.rooms: Dict[Tuple[int, ...], torch.Tensor] = {}
        self.rounds = self.nbytes = 0  # rounds of all_gather, and bytes that this process gave to them

    def round(self, row: np.ndarray, into: Optional[torch.Tensor] = None) -> List[np.ndarray]:
        self.rounds += 1
        self.nbytes += row.size
        return all_gather(self.group, self.size, row, into)

    def room_for(self, key: Tuple[int, ...], length: int) -> torch.Tensor:
        """Memory for the packets of a bucket, used again in every step."""
        if key not in self.rooms or self.rooms[key].shape[1] < length:
            for other in [k for k in self.rooms if set(k) & set(key)]:  # DDP has rebuilt its buckets
                del self.rooms[other]
            self.rooms[key] = torch.empty((self.size, length + length // 16), dtype=torch.uint8)
        return self.rooms[key]

    def first_length(self, packet: Packet, bucket: Bucket) -> int:
        """The longest packet of a new bucket, exchanged in a separate round that also compares the bucket's tensors."""
        own = np.array([packet.length, bucket.step, bucket.index, zlib.crc32(repr(bucket.key).encode())], np.int64)
        rows = [row.view(np.int64) for row in self.round(own.view(np.uint8))]
        for name, row in zip(self.names, rows):
            if row[1:].tolist() != rows[0][1:].tolist():
                raise MismatchError(f"bucket {bucket.index} of step {bucket.step}: {name} has other tensors, or is at "
                                    "another step, than rank 0: is the model the same in all processes, and are all "
                                    "buckets of the same size (bucket_cap_mb)?")
        return max(int(row[0]) for row in rows)

    def exchange(self, bucket: Bucket, packet: Packet) -> List[np.ndarray]:
        """The packets of all processes, without padding."""
        key = bucket.key
        if self.size == 1:
            return [packet.bytes]
        length = self.lengths.setdefault(key, PlannedLength())
        planned = max(length.planned() or self.first_length(packet, bucket), HEAD.size)
        rows = self.round(packet.row(0, planned), self.room_for(key, planned))
        heads = read_heads(rows, bucket.step, bucket.index, self.names)
        longest = max(head.length for head in heads)
        if longest > planned:
            rest = self.round(packet.row(planned, longest - planned))
            rows = [np.concatenate(pair) for pair in zip(rows, rest)]
        if all(head.status == 0 for head in heads):
            length.note(longest)
        return [row[:head.length] for row, head in zip(rows, heads)]
