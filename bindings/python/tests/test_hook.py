"""The hook of atomo.torch under DistributedDataParallel with gloo: bits, means, options, lengths of packets."""
import unittest

from tests.support import Case, need

need("numpy", "torch")
import numpy as np
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel as DDP

import atomo
import atomo.torch
from tests import models

SPECS = ["none", "bf16", "auto:ratio=16", "taps:ratio=8", "svd:ratio=8,bits=4,ef=true", "rotated:ratio=16",
         "powersgd:rank=2,ef=true", "qsgd:bits=4", "signsgd:ef=true", "entry:atoms=100", "taps:ratio=8;^fc=none"]
OPTIONS = {
    "plain": {"bucket_cap_mb": 25}, "many buckets": {}, "views": {"gradient_as_bucket_view": True},
    "unused": {"find_unused_parameters": True}, "static": {"static_graph": True, "bucket_cap_mb": 25},
    "static, many": {"static_graph": True, "gradient_as_bucket_view": True},
}


def wrapped(spec, channels_last=False, state=None, ddp=None, **options):
    model = models.make(channels_last=channels_last)
    made = atomo.torch.State(spec, model, **(state or {}))
    parallel = models.parallel(model, **{**(ddp or {}), **options})
    parallel.register_comm_hook(made, atomo.torch.hook)
    return model, parallel, made


def same_everywhere(tensors):
    """Have all ranks the same bits?"""
    flat = torch.cat([t.contiguous().view(-1) for t in tensors]).view(torch.int32)
    rows = [torch.empty_like(flat) for _ in range(dist.get_world_size())]
    dist.all_gather(rows, flat)
    return all(torch.equal(row, rows[0]) for row in rows)


def exact(rank, size, seeds, channels_last=False):
    """The mean over the ranks of the gradients, by DDP without a hook."""
    model = models.make(channels_last=channels_last)
    parallel = DDP(model)
    for seed in seeds:
        parallel.zero_grad()
        models.backward(parallel, seed + rank)
    return models.gradients(model)


def three_steps(rank, what, model, parallel, state):
    """Trains three steps; returns what went wrong, as texts that begin with `what`."""
    optimizer = torch.optim.SGD(parallel.parameters(), 0.01, momentum=0.9)
    for step in range(3):
        optimizer.zero_grad()
        models.backward(parallel, 100 * step + rank)
        optimizer.step()
    wrong = []
    if not same_everywhere(model.parameters()) or state.step != 3:
        wrong.append(f"{what}: replicas differ, or {state.step} steps of 3")
    if any(not torch.isfinite(p).all() for p in model.parameters()):
        wrong.append(f"{what}: not finite")
    return wrong


def matrix(rank, size, options, specs):
    """Trains some steps with every option and compressor; returns what went wrong."""
    wrong = []
    for k, (name, ddp) in enumerate(options):
        for j, spec in enumerate(specs):
            channels_last = (k + j) % 2 == 1
            model, parallel, state = wrapped(spec, channels_last, ddp=ddp)
            wrong += three_steps(rank, f"{name}, {spec}", model, parallel, state)
            if (len(state.members) > 1) == ("bucket_cap_mb" in ddp):
                wrong.append(f"{name}, {spec}: {len(state.members)} buckets")
    return wrong


def lossless(rank, size, spec, tolerance, channels_last, ddp):
    """Compares with DDP without a hook after two iterations, so that buckets have been rebuilt."""
    want = exact(rank, size, [100], channels_last)
    model, parallel, state = wrapped(spec, channels_last, ddp=ddp)
    for seed in (7, 100):
        parallel.zero_grad()
        model.norm.reset_running_stats()
        models.backward(parallel, seed + rank)
    found = models.gradients(model)
    return {name: float((found[name] - g).abs().max() / g.abs().max()) for name, g in want.items()
            if (found[name] - g).abs().max() > tolerance * g.abs().max()}


def by_hand(rank, size, spec, channels_last):
    """The averages of two steps, and those that compressors of all ranks give for the same gradients."""
    model, parallel, state = wrapped(spec, channels_last, state={"seed": 5})
    codecs = [atomo.Compressor(spec, seed=5) for _ in range(size)]
    for codec in codecs:
        state.layout.plan(codec)
    wrong, order = [], []
    for step in range(3):
        parallel.zero_grad()
        models.backward(parallel, 10 * step + rank)
        found = models.gradients(model)
        local = []
        for other in range(size):
            copy = models.make(channels_last=channels_last)
            models.backward(copy, 10 * step + other)
            local.append(models.gradients(copy))
        order = sorted((p for p in state.layout.parameters if p.coded), key=lambda p: -p.number)
        messages = {}
        for other, codec in enumerate(codecs):
            codec.begin_step(step, other)
            for p in order:
                out = np.empty(codec.wire_max(p.number), np.uint8)
                n = codec.push(p.number, p.seen(local[other][p.name]).contiguous(), out)
                messages[p.number, other] = out[:n]
            codec.end_step()
        for p in order:
            out = np.empty(p.shape, np.float32)
            codecs[0].average(p.number, step, [messages[p.number, other] for other in range(size)], out)
            if not np.array_equal(out, p.seen(found[p.name]).numpy()):
                wrong.append((step, p.name))
    return wrong, state.stats().nbytes, len(order)


def means(rank, size, spec, draws, options=None):
    """(mean - exact) in standard errors along random directions, over the draws of a fixed gradient."""
    want = exact(rank, size, [3])
    model, parallel, state = wrapped(spec, state=options)
    names = sorted(want)
    target = torch.cat([want[n].reshape(-1) for n in names]).double()
    random = torch.Generator().manual_seed(0)
    looks = torch.stack([target] + [torch.randint(0, 2, target.shape, generator=random).double() * 2 - 1
                                    for _ in range(15)])
    along = []
    for _ in range(draws):
        parallel.zero_grad()
        models.backward(parallel, 3 + rank)
        g = models.gradients(model)
        along.append(looks @ (torch.cat([g[n].reshape(-1) for n in names]).double() - target))
    along = torch.stack(along[1:])
    return float((along.mean(0).abs() / (along.std(0) / len(along)**0.5)).max()), float(along.std())


class Scale(torch.nn.Module):
    """Products only: PyTorch 1.13 has no matrix products in float16 on CPUs."""

    def __init__(self, dtype):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(64, 32, dtype=dtype))
        self.bias = torch.nn.Parameter(torch.ones(32, dtype=dtype))

    def forward(self, x):
        return (self.weight * x + self.bias).float().sum()


def half(rank, size, dtype):
    """Parameters in half precision: the gradients are x, and 64."""
    model = Scale(dtype)
    state = atomo.torch.State("none", model)
    parallel = DDP(model)
    parallel.register_comm_hook(state, atomo.torch.hook)
    parallel(torch.full((64, 32), 0.25 * (rank + 1), dtype=dtype)).backward()
    own = models.gradients(model)
    return {n: (str(g.dtype), float(g.float().min()), float(g.float().max())) for n, g in own.items()}, same_bits(own)


def same_bits(grads):
    return same_everywhere([g.float() for g in grads.values()])


def lengths(rank, size, spec, steps):
    model, parallel, state = wrapped(spec)
    for step in range(3):
        models.backward(parallel, step + rank)
    before = state.traffic()
    sent = 0
    for step in range(steps):
        parallel.zero_grad()
        models.backward(parallel, step + rank)
        sent += state.stats().nbytes
    after = state.traffic()
    return (after.rounds - before.rounds) / steps, (after.nbytes - before.nbytes) / steps, sent / steps


def longer(rank, size):
    """Packets that are longer than planned, since the budget was raised."""
    model, parallel, state = wrapped("taps:ratio=32")
    rounds = [0]
    for step in range(5):
        parallel.zero_grad()
        if step == 4:
            state.compressor.set_budget(ratio=2)
        models.backward(parallel, 9 + rank)
        rounds.append(state.traffic().rounds)
    more = rounds[5] - rounds[4] - (rounds[4] - rounds[3])
    want, found = exact(rank, size, [9]), models.gradients(model)
    far = float((found["conv.weight"] - want["conv.weight"]).norm() / want["conv.weight"].norm())
    return more, far, same_everywhere(list(found.values()))


class Hook(Case):
    def test_packets_longer_than_planned(self):
        for rounds, far, equal in self.ranks(2, longer):
            self.assertGreaterEqual(rounds, 1)
            self.assertLess(far, 0.5)
            self.assertTrue(equal)

    def test_options_and_compressors(self):
        for size, options in ((1, ["many buckets"]), (2, list(OPTIONS)), (3, ["unused"]),
                              (4, ["many buckets", "static, many"]), (8, ["many buckets"])):
            specs = SPECS if size == 2 else SPECS[2:6] if size < 8 else SPECS[2:4]
            with self.subTest(size=size):
                chosen = [(name, OPTIONS[name]) for name in options]
                for wrong in self.ranks(size, matrix, chosen, specs):
                    self.assertEqual(wrong, [])

    def test_without_loss_it_is_ddp(self):
        for spec, tolerance in (("none", 1e-5), ("fp16", 1e-3), ("entry:bytes=100000000", 1e-2)):
            for channels_last in (False, True):
                for name in ("many buckets", "views"):
                    with self.subTest(spec=spec, channels_last=channels_last, options=name):
                        for far in self.ranks(2, lossless, spec, tolerance, channels_last, OPTIONS[name]):
                            self.assertEqual(far, {})

    def test_averages_are_those_of_the_messages(self):
        for spec in ("taps:ratio=8", "svd:ratio=8,bits=4,ef=true", "qsgd:bits=4"):
            with self.subTest(spec=spec):
                for wrong, nbytes, tensors in self.ranks(2, by_hand, spec, spec.startswith("svd")):
                    self.assertEqual(wrong, [])
                    self.assertGreater(nbytes, 0)
                    self.assertEqual(tensors, 2)

    def test_mean_is_the_gradient(self):
        for spec in ("auto:ratio=8", "taps:ratio=8"):
            with self.subTest(spec=spec):
                figure, spread = self.ranks(2, means, spec, 300)[0]
                self.assertGreater(spread, 0)
                self.assertLess(figure, 5.5)  # exceeded by 16 normals with probability 6e-7

    def test_half_precision(self):
        for grads, equal in self.ranks(2, half, torch.float16):
            self.assertTrue(equal)
            self.assertEqual(grads, {"weight": ("torch.float16", 0.375, 0.375), "bias": ("torch.float16", 64, 64)})

    def test_padding(self):
        """Packets take one round each in most steps, and little padding."""
        for rounds, nbytes, sent in self.ranks(2, lengths, "taps:ratio=8", 30):
            self.assertLess(rounds, 3 * 1.5)
            self.assertLess(nbytes, 1.3 * sent + 3000)


if __name__ == "__main__":
    unittest.main()
