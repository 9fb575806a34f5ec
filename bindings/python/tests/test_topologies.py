"""Topologies sharded and hierarchical of the hook: bits, means, bytes, checkpoints, and what goes wrong."""
import os
import unittest

from tests.support import Case, need, processes

need("numpy", "torch")
import torch
from torch.nn.parallel import DistributedDataParallel as DDP

import atomo
import atomo.torch
from tests import models
from tests.test_hook import OPTIONS, Scale, exact, means, same_bits, same_everywhere, three_steps, wrapped
from tests.test_hook_errors import with_and_without_skip
from tests.test_hook_state import resumed

KINDS = ("sharded", "nodes", "nodes, sharded")


def topology(kind, rank, first=2):
    """The options of State. Nodes have `first` processes, the last one fewer if they do not divide."""
    if kind == "sharded":
        return {"topology": "sharded"}
    return {"topology": "hierarchical", "node": f"node{rank // first}",
            **({"inter_node": "sharded"} if kind == "nodes, sharded" else {})}


def trained(rank, size, kinds, specs):
    """Trains some steps with each; returns what went wrong."""
    wrong = []
    for k, kind in enumerate(kinds):
        for j, spec in enumerate(specs):
            ddp = list(OPTIONS.values())[(k + j) % len(OPTIONS)]
            made = wrapped(spec, (k + j) % 2 == 1, topology(kind, rank), ddp)
            wrong += three_steps(rank, f"{kind}, {spec}", *made)
    return wrong


def without_loss(rank, size, kind):
    """The largest relative distance to the average by DDP without a hook."""
    want = exact(rank, size, [100])
    model, parallel, _ = wrapped("none", state=topology(kind, rank))
    for seed in (7, 100):
        parallel.zero_grad()
        model.norm.reset_running_stats()
        models.backward(parallel, seed + rank)
    found = models.gradients(model)
    return max(float((found[n] - g).abs().max() / g.abs().max()) for n, g in want.items())


def half(rank, size, kind):
    model = Scale(torch.float16)
    parallel = DDP(model)
    parallel.register_comm_hook(atomo.torch.State("none", model, **topology(kind, rank)), atomo.torch.hook)
    parallel(torch.full((64, 32), 0.25 * (rank + 1), dtype=torch.float16)).backward()
    own = models.gradients(model)
    return {n: (str(g.dtype), float(g.float().min()), float(g.float().max())) for n, g in own.items()}, same_bits(own)


def traffic(rank, size, kind, spec="taps:ratio=4"):
    """Of a step: bytes and bytes within the node of this process, bytes of its messages, all bytes of gradients."""
    model, parallel, state = wrapped(spec, state=topology(kind, rank), bucket_cap_mb=25)
    before, steps = None, 8
    for step in range(2 + steps):
        if step == 2:
            before = state.traffic()
        parallel.zero_grad()
        models.backward(parallel, step + rank)
    after = state.traffic()
    dense = 4 * sum(p.numel() for p in model.parameters() if p.requires_grad)
    return ((after.nbytes - before.nbytes) / steps, (after.node_bytes - before.node_bytes) / steps,
            state.stats().nbytes, state.ways.down.compressor.stats().nbytes if state.ways else 0, dense)


def nonfinite(rank, size, kind, policy):
    """abort: raises. skip: returns the names of the gradients that the skipped step has changed."""
    return with_and_without_skip(rank, "auto:ratio=8,ef=true", {"nonfinite": policy, **topology(kind, rank)})[0]


def leaves(rank, size, kind):
    _, parallel, _ = wrapped("taps:ratio=8", broadcast_buffers=False, state=topology(kind, rank))
    for step in range(50):
        if rank == 1 and step == 2:
            os._exit(0)
        models.backward(parallel, rank)


def options(rank, size, kind):
    model, state = models.make(), atomo.torch.State
    if kind == "name":
        state("none", model, topology="shard")
    elif kind == "inter_node":
        state("none", model, topology="hierarchical", inter_node="ps")
    elif kind == "node":
        state("none", model, topology="sharded", node="a")
    elif kind == "empty":
        state("none", model, topology="hierarchical", node="")
    elif kind == "group":
        state("none", model, topology="sharded", process_group=torch.distributed.new_group(backend="gloo"))
    elif kind == "biased":
        state("topk:ratio=8", model, topology="sharded")
    elif kind == "ranks":
        state("none", model, topology=("sharded", "allgather")[rank])
    elif kind == "inter":
        models.backward(wrapped("none", state=topology(("nodes", "nodes, sharded")[rank], rank, 1))[1], rank)
    elif kind == "state":
        state("none", model, topology="sharded").load_state_dict(state("none", models.make()).state_dict())


class Topologies(Case):
    def test_averages_are_bit_identical(self):
        specs = ["none", "auto:ratio=8", "taps:ratio=8,ef=true"]
        for size, kinds in ((1, KINDS), (2, KINDS[:2]), (3, KINDS), (5, KINDS[2:])):
            with self.subTest(size=size):
                for wrong in self.ranks(size, trained, kinds, specs if size == 3 else specs[1:]):
                    self.assertEqual(wrong, [])

    def test_without_loss_it_is_ddp(self):
        """Nodes of 2 and 1 processes count by their numbers of processes."""
        for kind in KINDS:
            with self.subTest(kind=kind):
                for far in self.ranks(3, without_loss, kind):
                    self.assertLess(far, 1e-5)

    def test_half_precision(self):
        for kind in KINDS:
            with self.subTest(kind=kind):
                for grads, equal in self.ranks(2, half, kind):
                    self.assertTrue(equal)
                    self.assertEqual(grads["weight"], ("torch.float16", 0.375, 0.375))
                    self.assertEqual(grads["bias"], ("torch.float16", 64, 64))

    def test_mean_is_the_gradient(self):
        figure, spread = self.ranks(2, means, "taps:ratio=8", 200, {"topology": "sharded"})[0]
        self.assertGreater(spread, 0)
        self.assertLess(figure, 5.5)  # exceeded by 16 normals with probability 6e-7

    def test_bytes_of_sharded(self):
        """A process sends its messages to the owners, and the averages that it owns to all: no more with 5 processes
        than with 2. A budget in bytes is shared by the owners."""
        two, five = self.ranks(2, traffic, "sharded"), self.ranks(5, traffic, "sharded")
        for results in (two, five):
            for nbytes, node_bytes, first, second, dense in results:
                self.assertEqual(node_bytes, 0)
                self.assertLess(nbytes, 0.75 * dense)
        self.assertLess(max(r[0] for r in five), 1.3 * max(r[0] for r in two))
        parts = self.ranks(3, traffic, "sharded", "entry:bytes=3000")
        for result in parts:
            self.assertAlmostEqual(result[2], 3000 - 4 * 320, delta=170)  # 320 elements are sent in float32
        self.assertAlmostEqual(sum(result[3] for result in parts), 3000 - 4 * 320, delta=340)

    def test_bytes_of_hierarchical(self):
        """Only leaders use the network; in a node, gradients go up and averages down."""
        results = self.ranks(4, traffic, "nodes")
        for rank, (nbytes, node_bytes, first, second, dense) in enumerate(results):
            self.assertEqual(node_bytes, dense)
            if rank % 2:
                self.assertEqual(nbytes, 0)
            else:
                self.assertLess(first, nbytes)
                self.assertLess(nbytes, 0.5 * dense)

    def test_checkpoint(self):
        for spec in ("taps:ratio=8,ef=true", "powersgd:ef=true"):
            for differing, step in self.ranks(2, resumed, spec, "dict", {"topology": "sharded"}):
                self.assertEqual((differing, step), ([], 4))

    def test_nonfinite(self):
        for kind, who in (("sharded", "rank 1: "), ("nodes", "rank 0 for its node: ")):
            with self.subTest(kind=kind):
                self.raised(3, [who, "conv.weight", "NaN"], nonfinite, kind, "abort")
                for differing in self.ranks(3, nonfinite, kind, "skip"):
                    self.assertEqual(differing, [])

    def test_a_peer_that_leaves(self):
        for kind in ("sharded", "nodes"):
            with self.subTest(kind=kind):
                results = processes(2, leaves, kind)
                self.assertEqual([result[0] for result in results], ["raised", "ended"])

    def test_options(self):
        for size, kind, words in (
                (1, "name", ["topology is 'shard'", "'sharded'"]),
                (1, "inter_node", ["inter_node is 'ps'", "'sharded'"]),
                (1, "node", ["for topology 'hierarchical'", "'sharded'"]),
                (1, "empty", ["node is ''", "1 to 256 bytes"]),
                (1, "group", ["process_group is given", "'allgather'"]),
                (1, "biased", ["second time", "topk", "ef=true"]),
                (2, "ranks", ["rank 0 has topology sharded, rank 1 has topology allgather"]),
                (2, "inter", ["rank 0 has inter_node None, rank 1 has inter_node sharded"]),
                (1, "state", ["topology is allgather, expected sharded"])):
            with self.subTest(kind=kind):
                self.raised(size, words, options, kind)


if __name__ == "__main__":
    unittest.main()
