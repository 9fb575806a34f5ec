"""Unusual uses of a state: by two DistributedDataParallel, dropped, copied, of other groups, ranks and models."""
import copy
import gc
import os
import tempfile
import threading
import unittest
import warnings
import weakref

from tests.support import Case, need, processes

need("numpy", "torch")
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel as DDP

import atomo
import atomo.torch
from tests import models
from tests.test_hook import same_everywhere, wrapped


def layers(n):
    return torch.nn.Sequential(*[torch.nn.Linear(64, 64) for _ in range(n)])


def two_in_one_backward(rank, size):
    """Two networks and one state: what was sent and the residual are all gradients."""
    torch.manual_seed(3)
    both = torch.nn.ModuleList([layers(3), layers(2)])
    state = atomo.torch.State("taps:ratio=8,ef=true", both)
    parallel = [models.parallel(network) for network in both]
    for one in parallel:
        one.register_comm_hook(state, atomo.torch.hook)
    got, want = {}, {}
    for step in range(5):
        x = torch.randn(4, 64, generator=torch.Generator().manual_seed(10 * step + rank))
        both.zero_grad()
        sum(one(x) for one in parallel).square().sum().backward()
        alone = copy.deepcopy(both)
        alone.zero_grad()
        sum(one(x) for one in alone).square().sum().backward()
        for (name, p), q in zip(both.named_parameters(), alone.parameters()):
            dist.all_reduce(q.grad)
            got[name], want[name] = got.get(name, 0) + p.grad, want.get(name, 0) + q.grad / size
    worst = 0
    for p in [p for p in state.layout.parameters if p.coded]:
        left = torch.from_numpy(state.compressor.residual(p.number))
        dist.all_reduce(left)
        worst = max(worst, float((got[p.name] + left / size - want[p.name]).abs().max() / want[p.name].abs().max()))
    return state.step, worst


def dropped(rank, size):
    """The threads, the compressor and the buffers of states that nothing holds any more."""
    gone = []
    for _ in range(3):
        model, parallel, state = wrapped("taps:ratio=8")
        models.backward(parallel, rank)
        gone += [weakref.ref(state), weakref.ref(state.compressor), weakref.ref(state.pipeline)]
        threads = state.pipeline.running
        del model, parallel, state
        gc.collect()
        for thread in threads:
            thread.join(20)
        del threads, thread
    gc.collect()
    return [ref() is None for ref in gone], [t.name for t in threading.enumerate() if t.name.startswith("atomo")]


def groups(rank, size, kind):
    """Ranks 0 and 1 train one model, 2 and 3 another."""
    own = [dist.new_group([k, k + 1]) for k in (0, 2)][rank // 2]
    given = [dist.new_group([k, k + 1], backend="gloo") for k in (0, 2)][rank // 2]
    model = models.make(seed=rank // 2)
    if kind == "wrapped":
        atomo.torch.State("none", DDP(model, process_group=own))
    elif kind in ("default", "theirs", "none"):
        group = {"default": dist.group.WORLD, "theirs": own, "none": 5}[kind]
        atomo.torch.State("none", DDP(model, process_group=own), process_group=group)
    state = atomo.torch.State("none", model, process_group=given if kind == "given" else None)
    found = {}
    for hook in (True, False):
        parallel = DDP(model, process_group=own)
        if hook:
            parallel.register_comm_hook(state, atomo.torch.hook)
        model.zero_grad()
        model.norm.reset_running_stats()
        models.backward(parallel, rank)
        found[hook] = models.gradients(model)
    return max(float((found[True][name] - g).abs().max()) for name, g in found[False].items())


def drifted(rank, size):
    model, parallel, _ = wrapped("taps:ratio=8")
    model.fc.weight.data[0, 0] += rank
    models.backward(parallel, rank)


def copies(rank, size):
    """A copy has the state; attached to a model it continues, as does one that is attached again."""
    model, parallel, state = wrapped("taps:ratio=8,ef=true")
    models.backward(parallel, rank)
    other = copy.deepcopy(state)
    texts = []
    for use in (other.stats, other.traffic, lambda: other.step, lambda: other.load_state_dict(state.state_dict())):
        try:
            use()
        except AttributeError as problem:
            texts.append("state.attach(model)" in str(problem))
    same = []
    for one in (other, other, state):
        before = one.state_dict()["tensors"]
        one.attach(models.make())
        after = one.state_dict()["tensors"]
        same.append((one.step, before.keys() == after.keys() and all(torch.equal(before[k], after[k]) for k in before)))
    for wrong in (torch.nn.Linear(64, 64), models.make().requires_grad_(False)):
        try:
            state.attach(wrong)
        except atomo.AtomoError:
            same.append((state.state_dict()["step"], "memory:conv.weight" in state.state_dict()["tensors"]))
    return texts, same


def ended(rank, size, folder, topology):
    """After destroy_process_group the state is saved and copied, and continues when there is a group again."""
    model, parallel, state = wrapped("taps:ratio=8,ef=true", state={"topology": topology})
    models.backward(parallel, rank)
    before = state.state_dict()
    dist.destroy_process_group()
    after, copied = state.state_dict(), copy.deepcopy(state)
    same = [torch.equal(before["tensors"][key], one["tensors"][key]) for one in (after, copied.state_dict())
            for key in before["tensors"]]
    try:
        state.attach(model)
    except atomo.AtomoError as problem:
        same.append("init_process_group" in str(problem))
    dist.init_process_group("gloo", init_method=f"file://{folder}/{topology}", rank=rank, world_size=size)
    state.attach(model)
    parallel = DDP(model)
    parallel.register_comm_hook(state, atomo.torch.hook)
    models.backward(parallel, rank)
    return all(same), after["rank"], state.step, same_everywhere(list(models.gradients(model).values()))


def saved(rank, size, folder):
    _, parallel, state = wrapped("taps:ratio=8,ef=true")
    models.backward(parallel, rank)
    torch.save(state.state_dict(), os.path.join(folder, str(rank)))


def loaded(rank, size, folder, whose):
    state = wrapped("taps:ratio=8,ef=true")[2]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        state.load_state_dict(torch.load(os.path.join(folder, str(rank if whose is None else whose))))
    return [str(w.message) for w in told]


def warned(state, other):
    """Loads the state_dict of `other` into state; the warnings."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        state.load_state_dict(other.state_dict())
    return [str(w.message) for w in told]


def moved(rank, size):
    """Warnings that memories are not used any more: their tensors have other owners, or nodes have other leaders."""
    def state(frozen=False, **options):
        model = layers(3)
        model[0].requires_grad_(not frozen)
        return atomo.torch.State("taps:ratio=8,ef=true", model, **options)
    sharded = [state(frozen, topology="sharded") for frozen in (True, False, False)]
    nodes = [state(topology="hierarchical", node=node) for node in ("a", f"{rank}", "b")]
    return [warned(sharded[1], sharded[0]), warned(sharded[2], sharded[1]), warned(nodes[1], nodes[0]),
            warned(nodes[2], nodes[0])]


def layouts(rank, size):
    """Convolutions with parametrizations: coded as [out, kh, kw, in], and not changed by State. Ignored parameters."""
    normed = torch.nn.utils.parametrizations.spectral_norm(torch.nn.Conv2d(8, 24, 3))
    model = torch.nn.Sequential(normed, torch.nn.utils.weight_norm(torch.nn.Conv2d(24, 16, 3)), torch.nn.Linear(64, 64))
    DDP._set_params_and_buffers_to_ignore_for_model(model, ["2.weight"])
    before = model[0].parametrizations.weight[0]._u.clone()
    found = {p.name: p.shape for p in atomo.torch.State("taps:ratio=8", model).layout.parameters}
    return torch.equal(before, model[0].parametrizations.weight[0]._u), found


def budgets(rank, size):
    """The warnings that small tensors leave no budget."""
    model, found = torch.nn.Sequential(*[torch.nn.BatchNorm1d(64) for _ in range(30)], torch.nn.Linear(64, 64)), []
    for spec, small in (("taps:ratio=64", "auto"), ("taps:ratio=64", "compress"), ("taps:ratio=1.5", "auto"),
                        ("auto:ratio=64", "auto"), ("bf16", "auto")):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            atomo.torch.State(spec, model, small=small)
        found.append([str(w.message) for w in told])
    return found


class HookUse(Case):
    def test_one_state_for_two_networks(self):
        for steps, far in self.ranks(2, two_in_one_backward):
            self.assertEqual(steps, 10)
            self.assertLess(far, 1e-5)

    def test_states_that_are_dropped(self):
        for gone, threads in self.ranks(2, dropped):
            self.assertEqual(gone, [True] * 9)
            self.assertEqual(threads, [])

    def test_process_groups(self):
        self.assertEqual(self.ranks(4, groups, "given"), [0, 0, 0, 0])
        for kind, word in (("wrapped", "averages over 2 processes, the state over 4"), ("theirs", "would mix with"),
                           ("default", "is the default one"), ("none", "process_group is a int"),
                           ("other", "disagree: rank 0 has parameter values of checksum")):
            with self.subTest(kind=kind):
                for result in processes(4, groups, kind):
                    self.assertEqual(result[0], "raised")
                    self.assertIn(word, result[2])

    def test_replicas_that_differ(self):
        for result in processes(2, drifted):
            self.assertIn("disagree: rank 0 has parameter values of checksum", result[2])

    def test_copies(self):
        for texts, same in self.ranks(2, copies):
            self.assertEqual(texts, [True] * 4)
            self.assertEqual(same, [(1, True)] * 5)

    def test_group_that_has_ended(self):
        with tempfile.TemporaryDirectory() as folder:
            for topology in ("allgather", "sharded", "hierarchical"):
                with self.subTest(topology=topology):
                    self.assertEqual(self.ranks(2, ended, folder, topology), [(True, k, 2, True) for k in (0, 1)])

    def test_states_of_other_ranks(self):
        with tempfile.TemporaryDirectory() as folder:
            self.ranks(3, saved, folder)
            self.assertEqual(self.ranks(3, loaded, folder, None), [[]] * 3)
            for size, whose in ((2, None), (3, 0)):
                for rank, told in enumerate(self.ranks(size, loaded, folder, whose)):
                    if size == 3 and rank == 0:
                        self.assertEqual(told, [])
                    else:
                        self.assertRegex(told[0], f"rank {rank} of {size}, .* rank {rank if whose is None else 0} of 3")

    def test_memories_that_no_process_uses(self):
        for owners, same_owners, leaders, same_leaders in self.ranks(2, moved):
            self.assertRegex(owners[0], "another process now encodes the averages of [12].weight: their memories")
            self.assertRegex(leaders[0], r"leaders of the nodes are ranks \[0, 1\], and were \[0\]")
            self.assertEqual((same_owners, same_leaders), ([], []))

    def test_layouts(self):
        for same, shapes in self.ranks(1, layouts):
            self.assertTrue(same)
            self.assertEqual(shapes, {"0.bias": (24,), "0.parametrizations.weight.original": (24, 3, 3, 8),
                                      "1.bias": (16,), "1.weight_g": (16, 1, 1, 1), "1.weight_v": (16, 3, 3, 24),
                                      "2.bias": (64,)})

    def test_budgets_that_small_tensors_take(self):
        (taps, *others), = self.ranks(1, budgets)
        self.assertRegex(taps[0], "take 15616 bytes per step, the budget of 'taps:ratio=64' .* 500")
        self.assertEqual(others, [[]] * 4)


if __name__ == "__main__":
    unittest.main()
