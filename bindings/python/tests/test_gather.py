"""Rows of all processes: by gloo's all_gather, and by a ring if they are long."""
import os
import unittest

from tests.support import Case, need, processes

need("numpy", "torch")
import numpy as np
import torch
import torch.distributed as dist

from atomo.torch import gather
from tests import models
from tests.test_hook import wrapped


def row_of(rank, n):
    return np.random.default_rng(rank).integers(0, 256, n).astype(np.uint8)


def gathered(rank, size, members):
    """Lengths and memories for which rows are not those of the members."""
    group, wrong = dist.new_group(members, backend="gloo"), []
    if rank not in members:
        return wrong
    for n in (1, gather.LONG - 1, gather.LONG, 3 * gather.LONG + 1):
        for into in (None, torch.empty((len(members), n + 7), dtype=torch.uint8)):
            own = row_of(rank, n)
            for _ in range(3):
                rows = gather.all_gather(group, len(members), own, into)
                if not all(np.array_equal(row, row_of(other, n)) for row, other in zip(rows, members)):
                    wrong.append((n, into is None))
            if not np.array_equal(own, row_of(rank, n)):
                wrong.append((n, "own row"))
    return wrong


def trained(rank, size, longest):
    """The gradients of some steps; rows longer than `longest` go round a ring."""
    gather.LONG = longest
    model, parallel, state = wrapped("auto:ratio=8,ef=true")
    found = []
    for step in range(4):
        parallel.zero_grad()
        models.backward(parallel, 10 * step + rank)
        found += [g.numpy() for g in models.gradients(model).values()]
    return found, tuple(state.traffic())


def leaves(rank, size):
    """Rank 1 is gone while the others exchange long rows."""
    group = dist.new_group(backend="gloo")
    for step in range(4):
        if rank == 1 and step == 2:
            os._exit(0)
        gather.all_gather(group, size, row_of(rank, 40 * gather.LONG))


class Gather(Case):
    def test_rows(self):
        for size, members in ((1, [0]), (2, [0, 1]), (3, [0, 1, 2]), (4, [0, 1, 2, 3]), (4, [1, 3]), (4, [1, 2, 3])):
            with self.subTest(size=size, members=members):
                self.assertEqual(self.ranks(size, gathered, members), [[]] * size)

    def test_training_by_a_ring(self):
        for size in (2, 3):
            usual, by_ring = self.ranks(size, trained, 2**40), self.ranks(size, trained, 1)
            for (want, traffic), (found, of_ring) in zip(usual, by_ring):
                self.assertTrue(all(np.array_equal(a, b) for a, b in zip(want, found)))
                self.assertEqual(traffic, of_ring)

    def test_a_peer_that_leaves(self):
        """Not a hang: the others raise."""
        for size in (2, 3):
            results = processes(size, leaves)
            self.assertEqual([result[0] for result in results], ["raised", "ended", "raised"][:size])


if __name__ == "__main__":
    unittest.main()
