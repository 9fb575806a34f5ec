"""Topology sharded: every tensor has an owner among the processes. Messages go to the owners, which average, encode the
average again with a random stream of their own, and all-gather that. Both draws are unbiased, so the result is; its
variance is that of the average plus that of the second draw. A process's traffic does not grow with the number of
processes.

Owners have whole tensors, the same in all steps, so that memories of error feedback stay where they are.
"""
from __future__ import annotations

import math
import zlib
from typing import Any, Dict, List, Sequence, Tuple, Union

import numpy as np
import torch
import torch.distributed as dist

from ..compressor import Compressor
from ..errors import AtomoError, MismatchError
from .coder import Bucket, Coder, Pairs, why_of
from .gather import all_gather
from .layout import Layout, Parameter
from .packet import FINE, Why
from .route import Route

Stop = Tuple[int, str]  # status and text of what cannot be exchanged
TEXT = 512  # bytes of a text


def owners(parameters: Sequence[Parameter], size: int) -> Dict[int, int]:
    """The owner of each parameter by its number: the largest first, each to the process that has least so far."""
    held, found = [0] * size, {}
    for p in sorted(parameters, key=lambda p: (-p.numel, p.number)):
        owner = held.index(min(held))
        held[owner] += p.numel
        found[p.number] = owner
    return found


def second(up: Compressor, layout: Layout, own: Sequence[Parameter]) -> Compressor:
    """A compressor of averages that has the tensors `own` and their part of the budget: of what tensors that are not
    coded leave of it, in proportion to the elements."""
    down = Compressor(up.given, seed=up.seed, way="down", standard=up.standard)
    all_coded, all_plain = elements(layout.parameters)
    coded, plain = elements(own)
    for key, name, all_taken, taken in (("bytes", "nbytes", 4 * all_plain, 4 * plain), ("atoms", "atoms", 0, 0)):
        j = down.parsed.entry.index(key)
        if coded and j is not None and not math.isnan(down.parsed.values[j]):
            left = max(0.0, down.parsed.values[j] - all_taken)
            down.set_budget(**{name: max(1.0, taken + left * coded / all_coded)})
    layout.plan(down, own)
    return down


def elements(parameters: Sequence[Parameter]) -> Tuple[int, int]:
    """The numbers of elements of those that are coded, and of the others."""
    return sum(p.numel for p in parameters if p.coded), sum(p.numel for p in parameters if not p.coded)


class Ways:
    """The two ways. up, down: coders of gradients, and of the averages that this process owns. reader: of the averages
    that others own."""

    def __init__(self, up: Coder, layout: Layout, size: int, groups: Sequence[Any]) -> None:
        self.size, self.rank, self.up = size, up.rank, up
        self.owner = owners(layout.parameters, size)
        self.own = [p for p in layout.parameters if self.owner[p.number] == self.rank]
        self.down = Coder(second(up.compressor, layout, self.own), self.rank, up.names)
        self.reader = Coder(second(up.compressor, layout, layout.parameters), self.rank, up.names)
        self.groups = groups
        self.nbytes = self.rounds = 0

    def parts(self, bucket: Bucket) -> List[Pairs]:
        """(parameter, gradient) of a bucket, by owner."""
        out: List[List[Tuple[Parameter, torch.Tensor]]] = [[] for _ in range(self.size)]
        for p, grad in zip(bucket.members, bucket.grads):
            out[self.owner[p.number]].append((p, grad))
        return list(out)

    def route(self) -> Route:
        return Route([self.encode, self.average, self.decode], [self.to_owners, self.to_all], [self.up, self.down],
                     [self])

    # ---- the first way ----------------------------------------------------------------------------------------------

    def encode(self, bucket: Bucket, _: None) -> Union[Stop, Tuple[np.ndarray, List[int]]]:
        """The bytes for all owners, one after the other, and their lengths."""
        try:
            self.up.begin(bucket)
            out, lengths = self.up.room_for(bucket.key, self.up.most(bucket.members)), []
            for pairs in self.parts(bucket):
                lengths.append(self.up.write(pairs, out[sum(lengths):]))
            return out, lengths
        except AtomoError as problem:
            return why_of(problem)

    def to_owners(self, bucket: Bucket, x: Any) -> Union[Stop, List[np.ndarray]]:
        """What all processes have for this owner."""
        heads = self.heads(0, bucket, x, x[1] if isinstance(x[0], np.ndarray) else [0] * self.size)
        if isinstance(heads, tuple):
            return heads
        out, sent = x[0], x[1]
        taken = [int(row[self.rank]) for row in heads]
        if self.size == 1:
            return [out[:sum(sent)]]
        rows = torch.empty(sum(taken), dtype=torch.uint8)
        dist.all_to_all_single(rows, torch.from_numpy(out[:sum(sent)]), taken, sent, group=self.groups[0])
        self.count(sum(sent) - sent[self.rank])
        return np.split(rows.numpy(), np.cumsum(taken[:-1]))

    # ---- the second way ---------------------------------------------------------------------------------------------

    def average(self, bucket: Bucket, x: Any) -> Union[Stop, np.ndarray]:
        """The owner's averages, encoded again."""
        if isinstance(x, tuple):
            return x
        pairs = self.parts(bucket)[self.rank]
        try:
            if any(p.coded for p in self.own):
                self.down.begin(bucket)
            self.up.read(pairs, bucket.step, x)
            out = self.down.room_for(bucket.key, self.down.most([p for p, _ in pairs]))
            return out[:self.down.write(pairs, out)]
        except AtomoError as problem:
            return why_of(problem)

    def to_all(self, bucket: Bucket, x: Any) -> Union[Stop, List[np.ndarray]]:
        """What all owners have. An error that all know from the first way ends here, too."""
        heads = self.heads(1, bucket, x, [x.size] if isinstance(x, np.ndarray) else [0])
        if isinstance(heads, tuple):
            return heads
        lengths = [int(row[0]) for row in heads]
        row = np.zeros(max(lengths), np.uint8)
        row[:x.size] = x
        rows = all_gather(self.groups[1], self.size, row) if row.size else [row] * self.size
        self.count(row.size)
        return [row[:n] for row, n in zip(rows, lengths)]

    def decode(self, bucket: Bucket, x: Any) -> Why:
        if isinstance(x, tuple):
            return x
        try:
            for rank, (pairs, row) in enumerate(zip(self.parts(bucket), x)):
                self.reader.read(pairs, bucket.step, [row], rank)
        except AtomoError as problem:
            return why_of(problem)
        return None

    # ---- rounds -----------------------------------------------------------------------------------------------------

    def count(self, nbytes: int) -> None:
        self.nbytes += nbytes
        self.rounds += 1

    def heads(self, way: int, bucket: Bucket, x: Any, lengths: List[int]) -> Union[Stop, List[np.ndarray]]:
        """The lengths [int64] of all processes, or what stopped the first that cannot send."""
        status, text = x if isinstance(x, tuple) and isinstance(x[0], int) else (FINE, "")
        key = zlib.crc32(repr(bucket.key).encode())
        own = np.array([status, bucket.step, bucket.index, key, *lengths], np.int64)
        rows = [row.view(np.int64) for row in all_gather(self.groups[way], self.size, own.view(np.uint8))]
        self.count(own.nbytes)
        for name, row in zip(self.up.names, rows):
            if row[1:4].tolist() != rows[0][1:4].tolist():
                raise MismatchError(f"bucket {bucket.index} of step {bucket.step}: {name} has other tensors, or is "
                                    "at another step, than rank 0: have all processes made the same number of backward "
                                    "passes?")
        if any(row[0] for row in rows):
            return self.first_stop(way, [int(row[0]) for row in rows], text)
        return [row[4:] for row in rows]

    def first_stop(self, way: int, statuses: List[int], text: str) -> Stop:
        """Exchanges the texts. A status of NONFINITE counts only if no process has another failure."""
        own = np.zeros(TEXT, np.uint8)
        data = text.encode()[:TEXT]
        own[:len(data)] = np.frombuffer(data, np.uint8)
        rows = all_gather(self.groups[way], self.size, own)
        self.count(TEXT)
        rank = statuses.index(max(statuses))
        said = rows[rank].tobytes().rstrip(b"\0").decode("utf-8", "replace")
        return statuses[rank], f"{self.up.names[rank]}: {said}"
