"""atomo.Compressor: arrays in and out, one budget over a step, states, and what is refused."""
import array
import os
import threading
import unittest

from tests.support import Case, need

need("numpy")
import numpy as np

import atomo

try:
    import torch
except ImportError:
    torch = None

RANDOM = np.random.default_rng(1)
G = RANDOM.standard_normal((16, 3, 3, 8)).astype("f")


class Buffer:
    """An array of another library, with DLPack only."""

    def __init__(self, a, device=(1, 0)):
        self.a, self.device = a, device

    def __dlpack__(self, *args, **kwargs):
        return self.a.__dlpack__(*args, **kwargs)

    def __dlpack_device__(self):
        return self.device


class Arrays(Case):
    def test_all_kinds_give_the_same_message(self):
        c = atomo.Compressor("taps:ratio=8", seed=3)
        want = c.encode(G, step=1)
        odd = np.zeros(G.shape, np.dtype([("x", "f"), ("y", "i2")]))["x"]
        odd[:] = G
        unaligned = np.empty(G.nbytes + 1, np.uint8)[1:].view("f").reshape(G.shape)
        unaligned[:] = G
        kinds = [odd, unaligned, np.asfortranarray(G), memoryview(G), Buffer(G), G[::-1].copy()[::-1]]
        if torch:
            t = torch.from_numpy(G)
            kinds += [t, t.clone().requires_grad_(True), t.permute(3, 0, 1, 2).contiguous().permute(1, 2, 3, 0)]
        for k, x in enumerate(kinds):
            with self.subTest(kind=k):
                self.assertEqual(c.encode(x, step=1), want)

    def test_half_precision_is_converted(self):
        c = atomo.Compressor("none")
        half = G.astype(np.float16)
        np.testing.assert_array_equal(c.decode(c.encode(half)), half.astype("f"))
        if torch:
            b = torch.from_numpy(G).bfloat16()
            np.testing.assert_array_equal(c.decode(c.encode(b)), b.float().numpy())

    def test_decode_add_writes_in_place(self):
        c = atomo.Compressor("none")
        message = c.encode(G)
        targets = [np.ones_like(G), np.ones(G.shape, "f", order="F"), np.ones(G.shape, "f")[::-1]]
        targets += [torch.ones(G.shape)] if torch else []
        for acc in targets + [memoryview(np.ones_like(G))]:
            self.assertIs(c.decode_add(message, 2, acc), acc)
            np.testing.assert_allclose(np.asarray(acc), 1 + 2 * G, rtol=1e-6)

    def test_encode_into_given_memory(self):
        c = atomo.Compressor("taps:ratio=8")
        want = c.encode(G, step=1)
        out = np.zeros(c.wire_max(), np.uint8)
        message = c.encode(G, step=1, out=out)
        self.assertEqual(bytes(message), want)
        self.assertEqual(out[:len(want)].tobytes(), want)
        np.testing.assert_array_equal(c.decode(message), c.decode(want))
        with self.refuses(atomo.ArgumentError, "bytes are left in out"):
            c.encode(G, step=1, out=out[:100])
        with self.refuses(atomo.DtypeError, "out is float32"):
            c.encode(G, step=1, out=G)
        with self.refuses(atomo.ArgumentError, "out is read-only"):
            c.encode(G, step=1, out=want)

    def test_encode_step_into_given_memory(self):
        one, two = atomo.Compressor("taps:ratio=8"), atomo.Compressor("taps:ratio=8")
        want = one.encode_step([G, G[:8]], step=2)
        room = bytearray(one.wire_max())
        found = two.encode_step([G, G[:8]], step=2, out=room)
        self.assertEqual([bytes(m) for m in found], want)
        self.assertEqual(bytes(room[:len(want[0])]), want[0])
        with self.refuses(atomo.ArgumentError, "100 bytes are left in out"):
            two.encode_step([G, G[:8]], out=bytearray(100))

    def test_arrays_that_come_and_go(self):
        """C tensors are kept by address: other arrays there, of other shapes and strides, and more than are kept."""
        from atomo import prepared
        c, room = atomo.Compressor("none"), np.zeros(4 * 1152, "f")
        for k in range(prepared.MOST + 20):
            a = room[k % 8:k % 8 + 1152].reshape(G.shape if k % 2 else (8, 144))[::1 if k % 3 else -1]
            a[:] = RANDOM.standard_normal(a.shape)
            back = np.zeros_like(a)
            c.decode_add(c.encode(a, step=k), 1, back)
            np.testing.assert_array_equal(back, a)
        self.assertLessEqual(len(c.sums.by_place), prepared.MOST)

    def test_messages_in_any_memory(self):
        c = atomo.Compressor("taps:ratio=8")
        m = c.encode(G)
        want = c.decode(m)
        for message in (bytearray(m), memoryview(m), np.frombuffer(m, np.uint8)) + (
                (torch.frombuffer(bytearray(m), dtype=torch.uint8),) if torch else ()):
            np.testing.assert_array_equal(c.decode(message), want)

    def test_refused(self):
        c = atomo.Compressor("taps:ratio=8")
        m = c.encode(G)
        with self.refuses(atomo.DtypeError, "gradient 1 is float64", "float32, float16 or bfloat16"):
            c.encode(G.astype("d"))
        with self.refuses(atomo.DtypeError, "gradient 1 is a list", "NumPy array"):
            c.encode([1.0, 2.0])
        with self.refuses(atomo.DtypeError, "gradient 1 is int32"):
            c.encode(array.array("i", [1, 2]))
        with self.refuses(atomo.ArgumentError, "gradient 1 is on cuda", "x.cpu()"):
            c.encode(Buffer(G, (2, 0)))
        odd = np.zeros(G.shape, np.dtype([("x", "f"), ("y", "i2")]))["x"]
        with self.refuses(atomo.ShapeError, "acc of shape", "strides", "multiples of 4"):
            c.decode_add(m, 1, odd)
        with self.refuses(atomo.DtypeError, "acc is float16", "written to"):
            c.decode_add(m, 1, np.zeros(G.shape, np.float16))
        with self.refuses(atomo.ShapeError, "expected 1 [16,3,3,8]"):
            c.decode_add(m, 1, np.zeros((3, 3), "f"))
        frozen = np.zeros_like(G)
        frozen.flags.writeable = False
        with self.refuses(atomo.ArgumentError, "acc is read-only"):
            c.decode_add(m, 1, frozen)
        with self.refuses(atomo.DtypeError, "message is float32"):
            c.decode(G)
        for bad in (float("nan"), float("inf")):
            g = G.copy()
            g[2, 1, 1, 1] = bad
            with self.refuses(atomo.NonFiniteError, "NaN"):
                c.encode(g)
        if torch:
            with self.refuses(atomo.ArgumentError, "on meta", "x.cpu()"):
                c.encode(torch.empty(3, device="meta"))
            with self.refuses(atomo.ArgumentError, "sparse", "to_dense"):
                c.encode(torch.ones(3, 3).to_sparse())
            with self.refuses(atomo.DtypeError, "acc is torch.bfloat16"):
                c.decode_add(m, 1, torch.zeros(G.shape, dtype=torch.bfloat16))
            with self.refuses(atomo.DtypeError, "qint8", "NumPy cannot read"):
                c.encode(torch.quantize_per_tensor(torch.ones(3), 1.0, 0, torch.qint8))
            with self.refuses(atomo.ArgumentError, "negation", "resolve_neg"):
                c.encode(torch.ones(3, dtype=torch.complex64).conj().imag)
            with self.refuses(atomo.DtypeError, "DLPack", "float32 or float16"):
                c.encode(Buffer(torch.ones(3, dtype=torch.bfloat16)))

    def test_numbers_are_checked(self):
        c = atomo.Compressor("taps:ratio=8")
        m = c.encode(G)
        for step in ("a", -1, 2**32, 0.5, float("nan"), None):
            with self.refuses(atomo.ArgumentError, f"step is {step!r}", "0 to 4294967295"):
                c.encode(G, step=step)
        with self.refuses(atomo.ArgumentError, "rank is 16777216", "0 to 16777215"):
            c.begin_step(1, 2**24)
        with self.refuses(atomo.ArgumentError, "atomo_codec_decode_add: argument 7"):
            c.decode_add(m, "x", np.zeros_like(G))
        with self.refuses(atomo.ArgumentError, "1 names for 2 gradients"):
            c.encode_step([G, G], names=["a"])
        with self.refuses(atomo.ArgumentError, "no messages"):
            c.average(1, 0, [], np.zeros_like(G))

    def test_memory_of_messages_is_checked(self):
        """push and average would else read and write beyond it, or elsewhere."""
        c = atomo.Compressor("taps:ratio=8")
        want = c.encode(G)
        frozen = np.zeros(6000, np.uint8)
        frozen.flags.writeable = False
        for out, kind, word in ((np.zeros(6000, np.uint8)[::-1], atomo.ShapeError, "not contiguous"),
                                (np.zeros(12000, np.uint8)[::2], atomo.ShapeError, "not contiguous"),
                                (np.zeros(6000), atomo.DtypeError, "out is float64"),
                                (frozen, atomo.ArgumentError, "read-only"), (None, atomo.DtypeError, "NoneType")):
            c.begin_step(0)
            with self.refuses(kind, word):
                c.push(1, G, out)
            c.undo_step()
        c.begin_step(0)
        self.assertGreater(c.push(1, G, bytearray(6000)), 0)
        c.end_step()
        acc = np.zeros_like(G)
        self.assertEqual(c.average(1, 0, [want], acc), [len(want)])
        np.testing.assert_array_equal(acc, c.decode(want))
        with self.refuses(atomo.ShapeError, "not contiguous"):
            c.average(1, 0, [np.frombuffer(want, np.uint8)[::-1]], acc)
        with self.refuses(atomo.ShapeError, "not contiguous"):
            c.decode(memoryview(np.repeat(np.frombuffer(want, np.uint8), 2))[::2])
        for arguments in (("x", 0, [want]), (1, 0.5, [want])):
            with self.refuses(atomo.ArgumentError, "expected a whole number"):
                c.average(*arguments, acc)

    def test_messages_that_overlap_gradients_are_refused(self):
        for text in ("none", "bf16", "taps:ratio=8"):
            c, room = atomo.Compressor(text), np.zeros(12000, np.uint8)
            inside, message = room[8:8 + G.nbytes].view("f").reshape(G.shape), c.encode(G)
            inside[:] = G
            with self.refuses(atomo.ArgumentError, "share memory"):
                c.encode(inside, out=room)
            np.testing.assert_array_equal(inside, G)
            room[:len(message)] = np.frombuffer(message, np.uint8)
            with self.refuses(atomo.ArgumentError, "share memory"):
                c.decode_add(room[:len(message)], 1, inside)
            with self.refuses(atomo.ArgumentError, "share memory"):
                c.decode_add_step(room[:len(message)], 1, [inside])
            self.assertEqual(room[:len(message)].tobytes(), message)

    def test_shapes_and_names_are_checked(self):
        c = atomo.Compressor("taps:ratio=8")
        for shape in ((3.7, 2), 5, "ab", None, [None], (float("nan"),)):
            with self.refuses(atomo.ArgumentError, "shape of tensor 2", "whole number"):
                c.plan(2, shape)
        for tensor in ("x", 1.5, -1, 2**31):
            for use in (c.wire_max, c.stats, c.residual):
                with self.refuses(atomo.ArgumentError, f"tensor is {tensor!r}"):
                    use(tensor)
        with self.refuses(atomo.ArgumentError, "name of tensor 1 is 3"):
            c.encode_step([G], names=[3])
        for grads in (None, 3.0, iter([G]), np.float32(3), np.zeros((), "f")):
            with self.refuses(atomo.ArgumentError, "expected a list"):
                c.encode_step(grads)
        with self.refuses(atomo.ArgumentError, "masked array", "filled"):
            c.encode(np.ma.masked_array(G, G > 0))
        with self.refuses(atomo.ArgumentError, "'\u00b2'"):
            c.load_state_dict({"\u00b2": np.zeros(3, "f")})

    @unittest.skipUnless(torch, "PyTorch is not installed")
    def test_subclasses_of_tensors(self):
        class Own(torch.Tensor):
            pass
        own = torch.from_numpy(G).as_subclass(Own).requires_grad_(True)
        c = atomo.Compressor("taps:ratio=8")
        self.assertEqual(c.encode(own, step=1), c.encode(G, step=1))


class Steps(Case):
    def test_one_budget_over_a_step(self):
        """A tensor with all the energy gets most of the bytes."""
        c = atomo.Compressor("entry:ratio=16")
        grads = [100 * G, 0.01 * RANDOM.standard_normal((64, 64)).astype("f")]
        messages = c.encode_step(grads, step=1)
        total = sum(map(len, messages))
        self.assertAlmostEqual(total / (4 * sum(g.size for g in grads) / 16), 1, delta=0.1)
        self.assertGreater(len(messages[0]), 5 * len(messages[1]))
        self.assertEqual(c.stats().nbytes, total)
        for k, g in enumerate(grads):
            self.assertEqual(c.decode(messages[k]).shape, g.shape)
            self.assertEqual(c.stats(k + 1).nbytes, len(messages[k]))

    def test_another_shape_replaces_the_plan(self):
        c = atomo.Compressor("taps:ratio=8")
        m = c.encode(G)
        c.encode(G[:8])
        with self.refuses(atomo.FormatError, "hash"):
            c.decode(m)
        with self.refuses(atomo.ShapeError):
            c.begin_step(1)
            c.push(1, G, np.empty(10000, np.uint8))

    def test_state_goes_on_bit_for_bit(self):
        for text in ("auto:ratio=8,ef=true", "powersgd:ef=true", "svd:ratio=8"):
            with self.subTest(text=text):
                one, two = atomo.Compressor(text), atomo.Compressor(text)
                self.stream(one, 0, 3)
                two.load_state_dict(one.state_dict())
                self.assertEqual(self.stream(one, 3, 6), self.stream(two, 3, 6))

    def stream(self, c, first, last):
        messages = []
        c.plan(1, G.shape)
        for step in range(first, last):
            out = np.empty(c.wire_max(), np.uint8)
            c.begin_step(step)
            n = c.push(1, G * (1 + step), out)
            c.end_step()
            messages.append(out[:n].tobytes())
        return messages

    def test_undo(self):
        one, two = atomo.Compressor("taps:ratio=8,ef=true"), atomo.Compressor("taps:ratio=8,ef=true")
        self.stream(one, 0, 2), self.stream(two, 0, 2)
        one.begin_step(2)
        one.push(1, 1000 * G, np.empty(one.wire_max(), np.uint8))
        one.undo_step()
        self.assertEqual(self.stream(one, 2, 4), self.stream(two, 2, 4))

    def test_states_are_checked(self):
        one = atomo.Compressor("auto:ratio=8,ef=true")
        one.encode(G)
        state = one.state_dict()
        other = atomo.Compressor("auto:ratio=8,ef=true")
        other.plan(1, G.shape)
        with self.refuses(atomo.ShapeError, "memory of tensor", "expected 1152"):
            other.load_state_dict({**state, "1": state["1"][:-1]})
        with self.refuses(atomo.ShapeError, "learnt state"):
            other.load_state_dict({**state, "learnt.1": state["learnt.1"][:-8]})
        with self.refuses(atomo.ArgumentError, "'x'", "number"):
            other.load_state_dict({"x": state["1"]})
        with self.refuses(atomo.DtypeError, "'learnt.1'"):
            other.load_state_dict({"learnt.1": state["1"]})
        with self.refuses(atomo.ArgumentError, "a NoneType, expected a dict"):
            other.load_state_dict(None)

    def test_tensors_that_a_state_lacks_begin_anew(self):
        for text in ("topk:ratio=8,ef=true", "powersgd:ef=true", "auto:ratio=8,ef=true;^b$=entry:step=1"):
            with self.subTest(text=text):
                one = atomo.Compressor(text, seed=2)
                self.stream(one, 0, 2)
                state = one.state_dict()
                one.plan(2, (48, 24), "b")
                one.encode(np.ones((48, 24), "f"), tensor=2, step=1)
                self.stream(one, 2, 3)
                one.load_state_dict(state)
                two = atomo.Compressor(text, seed=2)
                two.load_state_dict(state)
                two.plan(2, (48, 24), "b")
                messages = [(c.encode(np.resize(G, (48, 24)), tensor=2, step=4), self.stream(c, 5, 7))
                            for c in (one, two)]
                self.assertEqual(*messages)

    def test_a_state_is_kept_until_it_is_used(self):
        one, two, three = (atomo.Compressor("taps:ratio=8,ef=true") for _ in range(3))
        self.stream(one, 0, 2)
        two.load_state_dict(one.state_dict())
        three.load_state_dict(two.state_dict())
        self.assertEqual(self.stream(one, 2, 4), self.stream(three, 2, 4))

    def test_a_refused_state_changes_nothing(self):
        one, two = (atomo.Compressor("taps:ratio=8,ef=true") for _ in range(2))
        self.stream(one, 0, 2), self.stream(two, 0, 2)
        other = atomo.Compressor("taps:ratio=8,ef=true")
        other.encode(7 * G)
        state = other.state_dict()
        for bad in ({**state, "learnt.1": state["learnt.1"][:-1]}, {**state, "2": state["1"]}):
            with self.subTest(keys=sorted(bad)):
                two.plan(2, (4, 4))
                with self.assertRaises(atomo.ShapeError):
                    two.load_state_dict(bad)
                self.assertEqual({k: v.tobytes() for k, v in one.state_dict().items() if k in ("1", "learnt.1")},
                                 {k: v.tobytes() for k, v in two.state_dict().items() if k in ("1", "learnt.1")})

    def test_messages_of_another_step_rank_way_and_compressor(self):
        c = atomo.Compressor("taps:ratio=8")
        m = c.encode(G, step=4, rank=1)
        acc = np.zeros_like(G)
        with self.refuses(atomo.FormatError, "step", "is 4, expected 5"):
            c.decode_add(m, 1, acc, step=5)
        with self.refuses(atomo.FormatError, "rank", "is 1, expected 0"):
            c.decode_add(m, 1, acc, rank=0)
        for other in (atomo.Compressor("entry:ratio=8"), atomo.Compressor("taps:ratio=8", way="down")):
            other.plan(1, G.shape)
            with self.refuses(atomo.FormatError):
                other.decode_add(m, 1, acc)
        with self.refuses(atomo.FormatError, "1 bytes follow"):
            c.decode(m + b"x")
        with self.refuses(atomo.FormatError):
            c.decode(m[:-1])
        with self.refuses(atomo.ArgumentError, "tensor 1, which is not planned"):
            atomo.Compressor("taps:ratio=8").decode(m)
        self.assertFalse(acc.any())

    def test_threads_share_a_compressor(self):
        c, found = atomo.Compressor("taps:ratio=8"), {}
        want = [c.encode(G, step=step) for step in range(40)]

        def work(step):
            found[step] = c.encode(G, step=step)
        threads = [threading.Thread(target=work, args=(step,)) for step in range(40)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual([found[step] for step in range(40)], want)

    def test_fork(self):
        c = atomo.Compressor("taps:ratio=8")
        c.encode(G)
        reader, writer = os.pipe()
        if os.fork() == 0:
            try:
                c.encode(G)
                os.write(writer, b"nothing")
            except atomo.ArgumentError as problem:
                os.write(writer, str(problem).encode())
            os._exit(0)
        os.wait()
        self.assertIn("after a fork", os.read(reader, 1000).decode())


if __name__ == "__main__":
    unittest.main()
