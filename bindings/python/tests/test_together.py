"""Draws of several ranks that cancel in the mean of their messages: Compressor.set_ranks, and those of a DDP state."""
import unittest

from tests.support import Case, need

need("numpy", "torch")
import numpy as np
import torch.distributed as dist

import atomo
from tests.test_hook import wrapped


def error_of_mean(spec, ranks, told):
    """E||mean of ghat - g||^2 over steps, for ranks that all have the gradient g."""
    c, g = atomo.Compressor(spec), np.random.default_rng(1).standard_normal((60, 50)).astype(np.float32)
    c.set_ranks(told)
    error = 0.0
    for step in range(20):
        mean = sum(c.decode(c.encode(g, step=step, rank=rank)) for rank in range(ranks)) / ranks
        error += float(np.square(mean - g).sum()) / 20
    return error


def ranks_of_new(rank, size):
    """Does a new compressor, and that of a DDP state, expect all processes?"""
    g = np.random.default_rng(1).standard_normal((60, 50)).astype(np.float32)
    alone, new, told = (atomo.Compressor("qsgd") for _ in range(3))
    alone.set_ranks(1)
    told.set_ranks(size)
    state = wrapped("qsgd")[2]
    mine = [c.encode(g, step=5, rank=rank) for c in (alone, new, told)]
    return mine[1] == mine[2] != mine[0], state.compressor.text, dist.get_world_size()


class Together(Case):
    def test_the_mean_varies_less(self):
        for spec, least in (("qsgd:bits=8", 0.9), ("taps:ratio=4", 0.9), ("natural", 0.7)):
            for ranks in (2, 4, 8):
                gain = error_of_mean(spec, ranks, 1) / error_of_mean(spec, ranks, ranks)
                self.assertGreater(gain, least * ranks, f"{spec}, {ranks} ranks")

    def test_off(self):
        g = np.random.default_rng(1).standard_normal((60, 50)).astype(np.float32)
        on, off = atomo.Compressor("qsgd"), atomo.Compressor("qsgd:together=false")
        off.set_ranks(4)
        self.assertEqual(on.encode(g, step=1), off.encode(g, step=1))
        on.set_ranks(4)
        message = on.encode(g, step=1)
        self.assertNotEqual(message, off.encode(g, step=1))
        np.testing.assert_array_equal(on.decode(message), off.decode(message))  # the same format

    def test_refused(self):
        c = atomo.Compressor("qsgd")
        for ranks in (0, -1, 1.5, 2**25, None):
            with self.refuses(atomo.ArgumentError, "qsgd: ranks"):
                c.set_ranks(ranks)

    def test_processes_are_the_ranks(self):
        self.assertEqual(self.ranks(2, ranks_of_new), [(True, "qsgd", 2)] * 2)


if __name__ == "__main__":
    unittest.main()
