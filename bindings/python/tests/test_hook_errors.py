"""What goes wrong under the hook: it is named on every rank, and none waits for ever."""
import io
import os
import unittest

from tests.support import Case, need, processes

need("numpy", "torch")
import torch
from torch.nn.parallel import DistributedDataParallel as DDP

import atomo
import atomo.torch
from atomo.torch import layout
from tests import models
from tests.test_hook import same_everywhere, wrapped


def other_spec(rank, size):
    _, parallel, _ = wrapped("taps:ratio=8" if rank == 0 else "taps:ratio=16")
    models.backward(parallel, rank)


def other_long_spec(rank, size):
    """They differ behind the text that fits into the comparison."""
    layers = "".join(f";^layer{k}.{'x' * 20}$=none" for k in range(40))
    _, parallel, _ = wrapped("taps:ratio=8" + layers + (";^fc=none" if rank else ";^fc=entry:step=1"))
    models.backward(parallel, rank)


def other_seed(rank, size):
    _, parallel, _ = wrapped("taps:ratio=8", state={"seed": rank})
    models.backward(parallel, rank)


def other_version(rank, size):
    _, parallel, state = wrapped("taps:ratio=8")
    state.compressor.lib.version = f"0.{rank}.0"
    models.backward(parallel, rank)


def other_step(rank, size):
    _, parallel, state = wrapped("taps:ratio=8")
    models.backward(parallel, rank)
    models.backward(parallel, rank)
    state.step += rank
    models.backward(parallel, rank)


def poison(model, rank, name="conv.weight", value=float("nan")):
    """Makes the next gradient of a parameter of rank 1 non-finite."""
    parameter = dict(model.named_parameters())[name]
    return parameter.register_hook(lambda g: g.index_fill(0, torch.tensor([2]), value) if rank == 1 else g)


def nonfinite_abort(rank, size, name, spec):
    model, parallel, _ = wrapped(spec)
    models.backward(parallel, rank)
    poison(model, rank, name)
    models.backward(parallel, rank)


def with_and_without_skip(rank, spec, options):
    """Takes a step twice, after a skipped step and without it. Returns the names of the gradients that differ, expected
    none, and the gradients."""
    def train(poisoned):
        model, parallel, state = wrapped(spec, state=options)
        models.backward(parallel, rank)
        models.backward(parallel, 5 + rank)
        if poisoned:
            parallel.zero_grad()
            handle = poison(model, rank, value=float("inf"))
            models.backward(parallel, 6 + rank)
            handle.remove()
            zero = all(not g.any() for g in models.gradients(model).values())
            assert zero and state.skipped == 1, (zero, state.skipped)
        state.step = 3  # the key of the draws
        parallel.zero_grad()
        model.norm.reset_running_stats()
        models.backward(parallel, 7 + rank)
        return models.gradients(model)
    without, after = train(False), train(True)
    return [n for n in without if not torch.equal(without[n], after[n])], after


def nonfinite_skip(rank, size, spec):
    differing, after = with_and_without_skip(rank, spec, {"nonfinite": "skip"})
    return differing, same_everywhere(list(after.values()))


def peer_leaves(rank, size):
    _, parallel, _ = wrapped("taps:ratio=8", broadcast_buffers=False)
    for step in range(50):
        if rank == 1 and step == 2:
            os._exit(0)
        models.backward(parallel, rank)


def forked(rank, size):
    """Used in a child of fork: refused there, and works on in the parent."""
    _, parallel, state = wrapped("taps:ratio=8")
    models.backward(parallel, rank)
    reader, writer = os.pipe()
    if os.fork() == 0:
        texts = []
        for use in (lambda: state.compressor.encode(torch.ones(3), step=1), lambda: state.exchange(None)):
            try:
                use()
                texts.append("nothing was raised")
            except atomo.ArgumentError as problem:
                texts.append(str(problem))
        os.write(writer, "\n".join(texts).encode())
        os._exit(0)
    os.wait()
    models.backward(parallel, rank)
    return os.read(reader, 4096).decode(), state.step


def truncated(rank, size, cut):
    _, parallel, state = wrapped("auto:ratio=8,ef=true")
    models.backward(parallel, rank)
    saved = state.state_dict()
    key = next(k for k in saved["tensors"] if k == "memory:conv.weight")
    if cut == "tensor":
        saved["tensors"][key] = saved["tensors"][key][:-1]
    elif cut == "learnt":
        saved["tensors"]["learnt:conv.weight"] = saved["tensors"]["learnt:conv.weight"][:-1]
    elif cut == "entry":
        del saved["tensors"][key]
    elif cut == "field":
        del saved["step"]
    elif cut == "nothing":
        saved = None
    elif cut == "tensors":
        saved["tensors"] = None
    elif cut == "step":
        saved["step"] = "x"
    else:
        saved["spec"] = "taps:ratio=8"
    state.load_state_dict(saved)


def cut_file(rank, size):
    state = wrapped("auto:ratio=8,ef=true")[2]
    file = io.BytesIO()
    torch.save(state.state_dict(), file)
    torch.load(io.BytesIO(file.getvalue()[:-100]))


def unattached(rank, size):
    state = wrapped("taps:ratio=8")[2]
    other = atomo.torch.State.__new__(atomo.torch.State)
    other.__setstate__(state.__getstate__())
    parallel = DDP(models.make())
    parallel.register_comm_hook(other, atomo.torch.hook)
    models.backward(parallel, 0)


def other_model(rank, size):
    state = atomo.torch.State("taps:ratio=8", models.make())
    parallel = DDP(models.make())
    parallel.register_comm_hook(state, atomo.torch.hook)
    models.backward(parallel, 0)


def changed_later(rank, size, kind):
    """The model changes between State and the first step."""
    model = models.make()
    if kind == "grown":
        model.fc.requires_grad_(False)
    state = atomo.torch.State("taps:ratio=8", model)
    if kind == "double":
        model.double()
    elif kind == "shape":
        model.fc.weight.data, model.fc.bias.data = torch.zeros(40, 24), torch.zeros(40)
    else:
        model.fc.requires_grad_(True)
    parallel = DDP(model)
    parallel.register_comm_hook(state, atomo.torch.hook)
    x, y = models.batch(rank)
    torch.nn.functional.cross_entropy(parallel(x.to(model.fc.weight.dtype)), y % 40).backward()


def changed_between_steps(rank, size):
    """An unused parameter gets another shape. (Of a used one, PyTorch refuses the gradient before the hook.)"""
    model = models.make(spare=True)
    state = atomo.torch.State("taps:ratio=8", model)
    parallel = DDP(model, find_unused_parameters=True)
    parallel.register_comm_hook(state, atomo.torch.hook)
    models.backward(parallel, rank)
    models.backward(parallel, rank)
    model.spare.weight.data = torch.zeros(24, 48)
    models.backward(parallel, rank)


def options(rank, size, kind):
    model = models.make()
    if kind == "lazy":
        atomo.torch.State("none", torch.nn.LazyLinear(3))
    elif kind == "meta":
        atomo.torch.State("none", torch.nn.Linear(3, 3, device="meta"))
    elif kind == "double":
        atomo.torch.State("none", model.double())
    elif kind == "small":
        atomo.torch.State("none", model, small="dens")
    elif kind == "nonfinite":
        atomo.torch.State("none", model, nonfinite="ignore")
    elif kind == "frozen":
        atomo.torch.State("none", model.requires_grad_(False))
    elif kind == "model":
        atomo.torch.State("none", [model])
    elif kind == "budget":
        models.backward(wrapped("taps:bytes=9")[1], 0)


class HookErrors(Case):
    def test_ranks_that_disagree(self):
        self.raised(2, ["disagree", "rank 0 has compressor taps:ratio=8, rank 1 has compressor taps"], other_spec)
        self.raised(2, ["differ behind the first 1024 bytes", "taps:ratio=8;^layer0"], other_long_spec)
        self.raised(2, ["rank 0 has seed 0, rank 1 has seed 1"], other_seed)
        self.raised(2, ["rank 0 has version 0.0.0", "rank 1 has version 0.1.0"], other_version)

    def test_message_of_another_step(self):
        self.raised(2, ["bucket 0 of step", "have all processes made the same number"], other_step)

    def test_nonfinite(self):
        for name, spec in (("conv.weight", "taps:ratio=8"), ("norm.bias", "taps:ratio=8"), ("conv.weight", "none")):
            self.raised(2, ["step 1", "rank 1", name, "NaN or Inf"], nonfinite_abort, name, spec)

    def test_nonfinite_steps_are_skipped(self):
        for differing, equal in self.ranks(2, nonfinite_skip, "auto:ratio=8,ef=true"):
            self.assertEqual(differing, [])
            self.assertTrue(equal)

    def test_a_peer_that_leaves(self):
        """Not a hang: the other process raises."""
        first, second = processes(2, peer_leaves)
        self.assertEqual(first[0], "raised")
        self.assertEqual(second[0], "ended")

    def test_fork_after_use(self):
        text, step = self.ranks(1, forked)[0]
        self.assertEqual(step, 2)
        first, second = text.split("\n")
        self.assertIn("after a fork", first)
        self.assertIn("after a fork", second)

    def test_states(self):
        for cut, words in (("tensor", ["conv.weight", "was it saved with other options"]),
                           ("learnt", ["conv.weight", "expected"]), ("entry", ["'memory:conv.weight' is missing"]),
                           ("field", ["'step' is missing"]),
                           ("nothing", ["a NoneType, expected a dict"]), ("tensors", ["tensors a NoneType"]),
                           ("step", ["step is 'x'"]), ("spec", ["spec is taps:ratio=8, expected auto"])):
            with self.subTest(cut=cut):
                self.raised(1, words, truncated, cut)
        self.raised(1, [], cut_file)
        self.raised(1, ["call state.attach(model)"], unattached)
        self.raised(1, ["make State and DistributedDataParallel of the same model"], other_model)

    def test_models_that_change_after_the_state(self):
        for kind, words in (("double", ["torch.float64", "converted after the state was made"]),
                            ("shape", ["fc.weight has shape (40, 24)", "(48, 24)", "new State"]),
                            ("grown", ["shape (48, 24)", "after freezing"])):
            with self.subTest(kind=kind):
                self.raised(1, words, changed_later, kind)
        self.raised(2, ["spare.weight has shape (24, 48)", "expected (48, 24)", "new State"], changed_between_steps)

    def test_buffers_elsewhere(self):
        """No other device is at hand; a meta tensor stands for one."""
        with self.refuses(atomo.ArgumentError, "on meta", "moved after the state was made"):
            layout.refuse_buffer(torch.empty(3, device="meta"))

    def test_options(self):
        for kind, words in (("lazy", ["weight has no shape yet", "run a batch"]),
                            ("meta", ["parameter weight is on meta", "CPU", "fp16_compress_hook"]),
                            ("double", ["parameter conv0.weight is torch.float64", "float32, float16 or bfloat16"]),
                            ("small", ["small is 'dens'", "'dense'"]), ("nonfinite", ["'ignore'", "'skip'"]),
                            ("frozen", ["no parameter"]), ("model", ["model is a list"]),
                            ("budget", ["rank 0", "bytes=9", "expected a larger budget"])):
            with self.subTest(kind=kind):
                self.raised(1, words, options, kind)


if __name__ == "__main__":
    unittest.main()
