"""Topology hierarchical: gradients are summed dense within a node, whose processes share memory; the first process of
each node, its leader, exchanges the sum with the other leaders by another route; the averages are broadcast within the
node. Only one process per node uses the network, and it encodes one sum per node."""
from __future__ import annotations

import socket
from typing import Any, Callable, List, Optional

import numpy as np
import torch
import torch.distributed as dist

from ..errors import ArgumentError
from .coder import Bucket
from .gather import all_gather
from .packet import FINE, HEAD, Head, Packet, Why, text_packet, told, write_head
from .route import Route

NAME = 256  # bytes of a node's name
TEXT = 512  # bytes of a status with its text


def node_of(name: Optional[str]) -> bytes:
    """The name of this process's node as bytes; default: the host's."""
    data = (socket.gethostname() if name is None else name).encode() if name is None or isinstance(name, str) else b""
    if not 0 < len(data) <= NAME:
        raise ArgumentError(f"State: node is {name!r}, expected a name of 1 to {NAME} bytes")
    return data


def nodes(group: Any, size: int, name: bytes) -> List[List[int]]:
    """The ranks of each node, in the order of their first ones. [collective]"""
    own = np.zeros(NAME, np.uint8)
    own[:len(name)] = np.frombuffer(name, np.uint8)
    found: dict = {}
    for rank, row in enumerate(all_gather(group, size, own)):
        found.setdefault(row.tobytes(), []).append(rank)
    return list(found.values())


class Node:
    """This process's node. up, down: its process groups, for the sum and for the broadcast. leaders: the group of all
    leaders and another one like it. ranks: of the node, the leader first. weight: what a sum is multiplied by, so that
    the average over the leaders is that over all processes, even if nodes have different numbers of them. nbytes: dense
    bytes that this process gave to its node's groups."""

    def __init__(self, group: Any, size: int, name: bytes) -> None:
        every = nodes(group, size, name)
        rank = dist.get_rank(group)
        for ranks in every:  # all processes make all groups, in the same order
            up, down = dist.new_group(ranks, backend="gloo"), dist.new_group(ranks, backend="gloo")
            if rank in ranks:
                self.ranks, self.up, self.down = ranks, up, down
        self.firsts = [ranks[0] for ranks in every]
        self.leaders = [dist.new_group(self.firsts, backend="gloo") for _ in range(2)]
        self.leads = rank == self.ranks[0]
        self.weight = len(every) / size
        self.nbytes = 0

    def route(self, inner: Optional[Route]) -> Route:
        """inner: the leaders' route; None in other processes."""
        begin: List[Callable[[Bucket, Any], Any]] = [lambda bucket, x: None]
        if inner is None:
            return Route([*begin, lambda bucket, x: None, lambda bucket, why: why], [self.sum, self.broadcast], [], [])
        return Route([*begin, *inner.code, lambda bucket, why: why], [self.sum, *inner.transport, self.broadcast],
                     inner.coders, inner.traffic)

    def sum(self, bucket: Bucket, x: None) -> None:
        """Sums the node's buffers into the leader's, weighted."""
        if len(self.ranks) > 1:
            values = bucket.buffer.float()  # the buffer itself if it is float32
            dist.reduce(values, self.ranks[0], group=self.up)
            self.nbytes += 0 if self.leads else 4 * values.numel()
            if self.leads:
                bucket.buffer.copy_(values.mul_(self.weight))
        elif self.weight != 1:
            bucket.buffer.mul_(self.weight)

    def broadcast(self, bucket: Bucket, why: Why) -> Why:
        """Sends the averages to the node, or why there are none."""
        if len(self.ranks) == 1:
            return why
        row = np.zeros(TEXT, np.uint8)
        if self.leads:
            put(row, bucket, why)
        dist.broadcast(torch.from_numpy(row), self.ranks[0], group=self.down)
        why = told([row[:HEAD.unpack_from(row.data)[-1]]], [""])
        if why is None:
            dist.broadcast(bucket.buffer.view(torch.uint8), self.ranks[0], group=self.down)
            self.nbytes += bucket.buffer.numel() * bucket.buffer.element_size() if self.leads else 0
        return why


def put(row: np.ndarray, bucket: Bucket, why: Why) -> None:
    """Writes a status to row."""
    if why is None:
        write_head(row, Head(FINE, bucket.step, bucket.index, HEAD.size))
        return
    text = why[1].encode()[:TEXT - HEAD.size].decode("utf-8", "ignore")
    packet: Packet = text_packet((why[0], text), bucket.step, bucket.index)
    row[:packet.length] = packet.bytes
