"""The hook of atomo.torch under DistributedDataParallel with gloo: bits, means, options, memories, checkpoints."""
import io
import subprocess
import sys
import tempfile
import unittest

from tests.support import ROOT, Case, need

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
    "plain": {}, "many buckets": {"bucket_cap_mb": 0.004}, "views": {"gradient_as_bucket_view": True},
    "unused": {"find_unused_parameters": True, "bucket_cap_mb": 0.004}, "static": {"static_graph": True},
    "static, many": {"static_graph": True, "bucket_cap_mb": 0.004, "gradient_as_bucket_view": True},
}


def wrapped(spec, channels_last=False, state=None, ddp=None, **options):
    model = models.make(channels_last=channels_last)
    made = atomo.torch.State(spec, model, **(state or {}))
    parallel = DDP(model, **{"bucket_cap_mb": 0.004, **(ddp or {}), **options})
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


def matrix(rank, size, options, specs):
    """Trains some steps with every option and compressor; returns what went wrong."""
    wrong = []
    for k, (name, ddp) in enumerate(options):
        for j, spec in enumerate(specs):
            channels_last = (k + j) % 2 == 1
            model, parallel, state = wrapped(spec, channels_last, ddp=ddp)
            optimizer = torch.optim.SGD(parallel.parameters(), 0.01, momentum=0.9)
            for step in range(3):
                optimizer.zero_grad()
                models.backward(parallel, 100 * step + rank)
                optimizer.step()
            if not same_everywhere(model.parameters()) or state.step != 3:
                wrong.append(f"{name}, {spec}: replicas differ, or {state.step} steps of 3")
            if any(not torch.isfinite(p).all() for p in model.parameters()):
                wrong.append(f"{name}, {spec}: not finite")
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


def means(rank, size, spec, draws):
    """(mean - exact) in standard errors along random directions, over the draws of a fixed gradient."""
    want = exact(rank, size, [3])
    model, parallel, state = wrapped(spec)
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


def accumulation(rank, size):
    """no_sync: the hook gets the sum of the gradients of two backward passes."""
    model, parallel, state = wrapped("none")
    with parallel.no_sync():
        models.backward(parallel, rank)
    steps = state.step
    models.backward(parallel, 50 + rank)
    found = models.gradients(model)
    plain = models.make()
    parallel = DDP(plain)
    with parallel.no_sync():
        models.backward(parallel, rank)
    models.backward(parallel, 50 + rank)
    want = models.gradients(plain)
    return steps, state.step, max(float((found[n] - want[n]).abs().max()) for n in want)


def residuals(rank, size, spec):
    """Memories follow parameters when buckets are rebuilt: what was sent and the residual are all gradients."""
    model, parallel, state = wrapped(spec)
    total, steps = {}, 4
    for step in range(steps):
        parallel.zero_grad()
        models.backward(parallel, 20 + rank)
        for name, g in models.gradients(model).items():
            total[name] = total.get(name, 0) + g
    worst, want = 0, exact(rank, size, [20])
    held = {p.name: torch.from_numpy(state.compressor.residual(p.number)) for p in state.layout.parameters if p.coded}
    for p in state.layout.parameters:
        if not p.coded:
            continue
        mean = held[p.name].clone()
        dist.all_reduce(mean)
        left = p.seen(total[p.name]) + mean / size - steps * p.seen(want[p.name])
        worst = max(worst, float(left.abs().max() / want[p.name].abs().max()))
    return worst


def resumed(rank, size, spec, how):
    """The averages of steps 3 and 4: without a break, and by a new model and state from a checkpoint after step 2."""
    def steps(model, parallel, first, last):
        grads = []
        for step in range(first, last):
            parallel.zero_grad()
            models.backward(parallel, 30 + 7 * step + rank)
            grads.append(models.gradients(model))
        return grads
    model, parallel, state = wrapped(spec, bucket_cap_mb=25)  # one bucket, in which the order is always the same
    steps(model, parallel, 0, 2)
    file = io.BytesIO()
    torch.save(state.state_dict() if how == "dict" else state, file)
    want = steps(model, parallel, 2, 4)
    file.seek(0)
    fresh = models.make()
    other = atomo.torch.State(spec, fresh) if how == "dict" else torch.load(file)
    if how == "dict":
        other.load_state_dict(torch.load(file))
    else:
        other.attach(fresh)
    parallel = DDP(fresh)
    parallel.register_comm_hook(other, atomo.torch.hook)
    found = steps(fresh, parallel, 2, 4)
    return [n for a, b in zip(want, found) for n in a if not torch.equal(a[n], b[n])], other.step


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


def unused(rank, size):
    """Branches that differ from step to step."""
    model = models.make(spare=True)
    state = atomo.torch.State("auto:ratio=8,ef=true", model)
    parallel = DDP(model, find_unused_parameters=True, bucket_cap_mb=0.004)
    parallel.register_comm_hook(state, atomo.torch.hook)
    optimizer, equal = torch.optim.SGD(parallel.parameters(), 0.1), []
    for step in range(4):
        model.use_spare = (step + rank) % 2 == 1 if step < 3 else True
        optimizer.zero_grad(set_to_none=True)
        models.backward(parallel, step + rank)
        optimizer.step()
        equal.append(same_everywhere(model.parameters()))
    return equal, state.step


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


def error_in_backward(rank, size):
    """Every rank's backward fails on the way. A new DistributedDataParallel with the same state goes on, as if the step
    had not begun."""
    def train(fails):
        model, parallel, state = wrapped("taps:ratio=8,ef=true")
        for step in range(3):
            parallel.zero_grad()
            models.backward(parallel, step + rank)
        if fails:
            def planted(g):
                raise ValueError("planted")
            handle = model.conv0.weight.register_hook(planted)
            try:
                models.backward(parallel, 5 + rank)
                raise AssertionError("backward did not fail")
            except ValueError:
                handle.remove()
        model.zero_grad()
        model.norm.reset_running_stats()
        parallel = DDP(model)
        parallel.register_comm_hook(state, atomo.torch.hook)
        models.backward(parallel, 6 + rank)
        return models.gradients(model), state.step
    (want, steps), (found, others) = train(False), train(True)
    return [n for n in want if not torch.equal(want[n], found[n])], steps, others


def with_workers(rank, size):
    """A DataLoader's workers are forks of a process that has used the hook."""
    model, parallel, state = wrapped("taps:ratio=8")
    x, y = models.batch(rank, 32)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=8, num_workers=2)
    for epoch in range(2):
        for images, labels in loader:
            parallel.zero_grad()
            torch.nn.functional.cross_entropy(parallel(images), labels).backward()
    return state.step


ENDS = """
import sys
sys.path.insert(0, {root!r})
import torch, torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel as DDP
import atomo.torch
dist.init_process_group("gloo", init_method="file://" + sys.argv[1], rank=0, world_size=1)
model = torch.nn.Linear(64, 64)
state = atomo.torch.State("taps:ratio=8", model)
ddp = DDP(model)
ddp.register_comm_hook(state, atomo.torch.hook)
ddp(torch.ones(2, 64)).sum().backward()
"""


class Hook(Case):
    def test_data_loader_workers(self):
        self.assertEqual(self.ranks(2, with_workers), [8, 8])

    def test_a_program_ends_after_backward(self):
        """At the end of the program the threads are not in PyTorch's code, which would end it by SIGABRT."""
        with tempfile.TemporaryDirectory() as folder:
            for k in range(3):
                result = subprocess.run([sys.executable, "-c", ENDS.format(root=str(ROOT / "bindings" / "python")),
                                         f"{folder}/{k}"], capture_output=True, text=True, timeout=60)
                self.assertEqual(result.returncode, 0, result.stderr)

    def test_packets_longer_than_planned(self):
        for rounds, far, equal in self.ranks(2, longer):
            self.assertGreaterEqual(rounds, 1)
            self.assertLess(far, 0.5)
            self.assertTrue(equal)

    def test_error_in_backward(self):
        for differing, steps, others in self.ranks(2, error_in_backward):
            self.assertEqual((differing, steps, others), ([], 4, 4))

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

    def test_no_sync(self):
        for before, after, far in self.ranks(2, accumulation):
            self.assertEqual((before, after), (0, 1))
            self.assertLess(far, 1e-6)

    def test_residuals_follow_parameters(self):
        for worst in self.ranks(2, residuals, "taps:ratio=8,ef=true"):
            self.assertLess(worst, 1e-4)

    def test_checkpoint(self):
        for spec in ("auto:ratio=8,ef=true", "powersgd:ef=true"):
            for how in ("dict", "pickle"):
                with self.subTest(spec=spec, how=how):
                    for differing, step in self.ranks(2, resumed, spec, how):
                        self.assertEqual(step, 4)
                        self.assertEqual(differing, [])

    def test_half_precision(self):
        for grads, equal in self.ranks(2, half, torch.float16):
            self.assertTrue(equal)
            self.assertEqual(grads, {"weight": ("torch.float16", 0.375, 0.375), "bias": ("torch.float16", 64, 64)})

    def test_unused_parameters(self):
        for equal, steps in self.ranks(2, unused):
            self.assertEqual(equal, [True] * 4)
            self.assertEqual(steps, 4)

    def test_padding(self):
        """Packets take one round each in most steps, and little padding."""
        for rounds, nbytes, sent in self.ranks(2, lengths, "taps:ratio=8", 30):
            self.assertLess(rounds, 3 * 1.5)
            self.assertLess(nbytes, 1.3 * sent + 3000)


if __name__ == "__main__":
    unittest.main()
