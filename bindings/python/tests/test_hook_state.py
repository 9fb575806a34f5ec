"""What the hook keeps from step to step: memories, checkpoints, steps that fail, processes that fork or end."""
import io
import subprocess
import sys
import tempfile
import unittest

from tests.support import ROOT, Case, need

need("numpy", "torch")
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel as DDP

import atomo
import atomo.torch
from tests import models
from tests.test_hook import exact, same_everywhere, wrapped


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


def resumed(rank, size, spec, how, options=None):
    """The averages of steps 3 and 4: without a break, and by a new model and state from a checkpoint after step 2."""
    def steps(model, parallel, first, last):
        grads = []
        for step in range(first, last):
            parallel.zero_grad()
            models.backward(parallel, 30 + 7 * step + rank)
            grads.append(models.gradients(model))
        return grads
    options = options or {}
    # one bucket, in which the order is always the same
    model, parallel, state = wrapped(spec, state=options, bucket_cap_mb=25)
    steps(model, parallel, 0, 2)
    file = io.BytesIO()
    torch.save(state.state_dict() if how == "dict" else state, file)
    want = steps(model, parallel, 2, 4)
    file.seek(0)
    fresh = models.make()
    other = atomo.torch.State(spec, fresh, **options) if how == "dict" else torch.load(file)
    if how == "dict":
        other.load_state_dict(torch.load(file))
    else:
        other.attach(fresh)
    parallel = DDP(fresh)
    parallel.register_comm_hook(other, atomo.torch.hook)
    found = steps(fresh, parallel, 2, 4)
    return [n for a, b in zip(want, found) for n in a if not torch.equal(a[n], b[n])], other.step


def unused(rank, size):
    """Branches that differ from step to step."""
    model = models.make(spare=True)
    state = atomo.torch.State("auto:ratio=8,ef=true", model)
    parallel = models.parallel(model, find_unused_parameters=True)
    parallel.register_comm_hook(state, atomo.torch.hook)
    optimizer, equal = torch.optim.SGD(parallel.parameters(), 0.1), []
    for step in range(4):
        model.use_spare = (step + rank) % 2 == 1 if step < 3 else True
        optimizer.zero_grad(set_to_none=True)
        models.backward(parallel, step + rank)
        optimizer.step()
        equal.append(same_everywhere(model.parameters()))
    return equal, state.step


def branch_memories(rank, size, topology):
    """Branches that no process uses in some steps, and one process in others: DDP leaves the averages of the former
    unused. What arrived and the residuals are all gradients, of each parameter."""
    model = models.make(spare=True)
    state = atomo.torch.State("auto:ratio=8,ef=true", model, topology=topology)
    parallel = models.parallel(model, find_unused_parameters=True)
    parallel.register_comm_hook(state, atomo.torch.hook)
    alone = models.make(spare=True)
    got, want = {}, {}
    for step, spare in enumerate((True, False, False, rank == 1, True, False)):
        for one, run, sums in ((model, parallel, got), (alone, alone, want)):
            one.use_spare = spare
            one.zero_grad(set_to_none=True)
            models.backward(run, 10 * step + rank)
            for name, p in one.named_parameters():
                sums[name] = sums.get(name, 0) + (torch.zeros_like(p) if p.grad is None else p.grad)
    worst = 0
    for p in state.layout.parameters:
        processes = size if state.node else 1  # whose average the compressor encodes
        left = p.seen(want[p.name]) - processes * torch.from_numpy(state.compressor.residual(p.number))
        if state.ways and state.ways.owner[p.number] == rank:
            left -= size * torch.from_numpy(state.ways.down.compressor.residual(p.number))
        dist.all_reduce(left)
        dist.all_reduce(want[p.name])
        worst = max(worst, float((left - size * p.seen(got[p.name])).abs().max() / want[p.name].abs().max()))
    return worst


def error_in_backward(rank, size):
    """Every rank's backward fails on the way. A new DistributedDataParallel with the same state continues, as if the step
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


def uneven(rank, size, spec):
    """DistributedDataParallel.join: rank 1 has two more batches. Parameters with a hook, and without one."""
    def train(hook):
        model, parallel, state = wrapped(spec) if hook else (models.make(), None, None)
        parallel = parallel or models.parallel(model)
        optimizer = torch.optim.SGD(parallel.parameters(), 0.01)
        with parallel.join():
            for step in range(3 + 2 * rank):
                optimizer.zero_grad()
                models.backward(parallel, 10 * step + rank)
                optimizer.step()
        return list(model.parameters()), state
    (found, state), (want, _) = train(True), train(False)
    return state.step, same_everywhere(found), max(float((a - b).abs().max()) for a, b in zip(found, want))


class Compiled(torch.nn.Module):
    """What torch.compile of PyTorch 2 returns, as far as names are concerned."""

    def __init__(self, module):
        super().__init__()
        self._orig_mod = module


def compiled(rank, size):
    """(name, coded) of all parameters: of a model, of a compiled one, of one with a compiled part."""
    spec, layouts = "taps:ratio=8;^conv.weight$=none", []
    for kind in ("plain", "whole", "part", "parallel"):
        model = models.make()
        if kind == "whole":
            model = Compiled(model)
        elif kind == "part":
            model.conv = Compiled(model.conv)
        elif kind == "parallel":
            model = Compiled(DDP(Compiled(model)))
        layout = atomo.torch.State(spec, model).layout
        layouts.append([(p.name, p.coded, p.order) for p in layout.parameters])
    return layouts


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


def preferences(rank, size):
    return [wrapped(spec)[2].compressor.text for spec in ("auto:ratio=4", "auto:ratio=4,prefer=variance", "entry:ratio=4")]


class HookState(Case):
    def test_auto_prefers_accuracy(self):
        """as in the exchange, unless told otherwise"""
        expected = ["auto:ratio=4,prefer=accuracy", "auto:ratio=4", "entry:ratio=4"]
        self.assertEqual(self.ranks(1, preferences), [expected])

    def test_uneven_inputs(self):
        for spec, tolerance in (("none", 1e-6), ("taps:ratio=8,ef=true", 1)):
            for steps, equal, far in self.ranks(2, uneven, spec):
                self.assertEqual((steps, equal), (5, True))
                self.assertLess(far, tolerance)

    def test_compiled_models(self):
        plain, *others = self.ranks(1, compiled)[0]
        self.assertIn(("conv.weight", False, (0, 2, 3, 1)), plain)
        for layout in others:
            self.assertEqual(layout, plain)

    def test_data_loader_workers(self):
        self.assertEqual(self.ranks(2, with_workers), [8, 8])

    def test_a_program_ends_after_backward(self):
        """At the end of the program the threads are not in PyTorch's code, which would end it by SIGABRT."""
        with tempfile.TemporaryDirectory() as folder:
            for k in range(3):
                result = subprocess.run([sys.executable, "-c", ENDS.format(root=str(ROOT / "bindings" / "python")),
                                         f"{folder}/{k}"], capture_output=True, text=True, timeout=60)
                self.assertEqual(result.returncode, 0, result.stderr)

    def test_error_in_backward(self):
        for differing, steps, others in self.ranks(2, error_in_backward):
            self.assertEqual((differing, steps, others), ([], 4, 4))

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

    def test_memories_of_unused_parameters(self):
        for topology in ("allgather", "sharded", "hierarchical"):
            with self.subTest(topology=topology):
                for worst in self.ranks(2, branch_memories, topology):
                    self.assertLess(worst, 1e-5)

    def test_unused_parameters(self):
        for equal, steps in self.ranks(2, unused):
            self.assertEqual(equal, [True] * 4)
            self.assertEqual(steps, 4)


if __name__ == "__main__":
    unittest.main()
