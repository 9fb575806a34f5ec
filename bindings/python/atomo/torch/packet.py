"""Packets: what one process sends of one bucket. A head, then the tensors that are not coded in float32, then messages.

gloo's all_gather takes equal lengths, so packets are padded to a planned length, which every process derives from the
lengths of all processes in earlier steps: no round for lengths is needed. A packet that is longer than planned is sent
in two rounds; every process sees that in the heads of the first.
"""
from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import List, Optional, Sequence, Tuple

import numpy as np

from ..errors import MismatchError

HEAD = struct.Struct("<4sBBHIIQ")  # magic, version, status, 0, step, bucket, length of the packet
MAGIC, VERSION = b"ATPK", 1
FINE, NONFINITE, FAILED = 0, 1, 2  # status; a packet that is not FINE has a text in place of gradients
Why = Optional[Tuple[int, str]]  # why a step cannot be kept: status and text; None if it can
MARGIN, DECAY, ROUND = 1.02, 0.1, 64


@dataclass(frozen=True)
class Packet:
    """length bytes at the beginning of room [uint8], which may be longer."""

    room: np.ndarray
    length: int

    def row(self, first: int, n: int) -> np.ndarray:
        """The bytes first .. first + n - 1 of a packet, zeros behind its end; a view if the room is long enough."""
        if self.room.size >= first + n:
            self.room[self.length:first + n] = 0
            return self.room[first:first + n]
        out = np.zeros(n, np.uint8)
        mine = self.room[first:self.length]
        out[:mine.size] = mine[:n]
        return out

    @property
    def bytes(self) -> np.ndarray:
        return self.room[:self.length]


@dataclass(frozen=True)
class Head:
    status: int
    step: int
    bucket: int
    length: int


def write_head(out: np.ndarray, head: Head) -> None:
    HEAD.pack_into(out.data, 0, MAGIC, VERSION, head.status, 0, head.step, head.bucket, head.length)


def text_packet(why: Tuple[int, str], step: int, bucket: int) -> Packet:
    """A packet that says why there is no other."""
    data = why[1].encode()
    packet = np.empty(HEAD.size + len(data), np.uint8)
    write_head(packet, Head(why[0], step, bucket, packet.size))
    packet[HEAD.size:] = np.frombuffer(data, np.uint8)
    return Packet(packet, packet.size)


def read_heads(rows: List[np.ndarray], step: int, bucket: int, names: Sequence[str]) -> List[Head]:
    """The heads of all processes' packets; MismatchError names one that is of another step or bucket. names: of the
    processes, "rank 0"."""
    heads = []
    for name, row in zip(names, rows):
        magic, version, status, _, its_step, its_bucket, length = HEAD.unpack_from(row.data)
        if magic != MAGIC or version != VERSION:
            raise MismatchError(f"{name} sent no packet of version {VERSION}: do all processes use the same "
                                "version, and does anything else use the state's process group?")
        if (its_step, its_bucket) != (step, bucket):
            raise MismatchError(f"{name} is at bucket {its_bucket} of step {its_step}, this process at bucket "
                                f"{bucket} of step {step}: have all processes made the same number of backward passes?")
        heads.append(Head(status, its_step, its_bucket, length))
    return heads


def told(packets: List[np.ndarray], names: Sequence[str]) -> Why:
    """(status, text) of the first process that could not encode; None if all could. A status of NONFINITE counts only
    if no process has another failure. names: of the processes, before the text."""
    found = None
    for name, packet in zip(names, packets):
        status = HEAD.unpack_from(packet.data)[2]
        if status != FINE and (found is None or (found[0] == NONFINITE and status != NONFINITE)):
            text = packet[HEAD.size:].tobytes().decode("utf-8", "replace")
            found = (status, f"{name}: {text}" if name else text)
    return found


class PlannedLength:
    """The padded length of a bucket's packets, the same on all processes. It follows the longest packets of the last
    steps: it rises at once, and falls by a fraction DECAY per step."""

    def __init__(self) -> None:
        self.high = 0.0

    def planned(self) -> Optional[int]:
        """The planned length in bytes; None before the first packet."""
        return -(-int(self.high * MARGIN) // ROUND) * ROUND if self.high else None

    def note(self, longest: int) -> None:
        self.high = max(longest, self.high + DECAY * (longest - self.high))
