"""Arrays that come again: what was kept of them is used, and never for an array that has changed since."""
import ctypes
import gc
import unittest
import weakref

from tests.support import Case, need

need("numpy")
import numpy as np

import atomo

try:
    import torch
except ImportError:
    torch = None

RANDOM = np.random.default_rng(2)
SHAPES = [(16, 3, 3, 8), (10, 16), (40,)]


def gradients():
    return [RANDOM.standard_normal(shape).astype("f") for shape in SHAPES]


def values(xs):
    return [np.array(x.detach().float() if torch and isinstance(x, torch.Tensor) else x, np.float32) for x in xs]


class Prepared(Case):
    def same(self, c, xs, step=1):
        """c encodes what xs are now: as a new compressor does with copies."""
        self.assertEqual(c.encode_step(xs, step=step), atomo.Compressor(c.text).encode_step(values(xs), step=step))

    def kept(self, c):
        return c.gradients.lists[1, len(SHAPES)]


class NumPy(Prepared):
    def test_what_was_checked_is_used_again(self):
        c, xs = atomo.Compressor("taps:ratio=4"), gradients()
        self.same(c, xs)
        first = self.kept(c)
        for x in xs:
            x += 1
        self.same(c, list(xs), 2)  # other values, another list
        self.assertIs(self.kept(c), first)

    def test_arrays_are_not_held(self):
        c, xs = atomo.Compressor("taps:ratio=4"), gradients()
        c.encode_step(xs)
        c.decode_add_step(c.encode_step(xs), 1, xs)
        xs[2].resize((41,))  # NumPy refuses it for an array that others refer to
        gone = [weakref.ref(x) for x in xs]
        del xs
        gc.collect()
        self.assertEqual([ref() for ref in gone], [None] * len(SHAPES))

    def test_another_array_in_the_list(self):
        c, xs = atomo.Compressor("none"), gradients()
        self.same(c, xs)
        xs[1] = gradients()[1]
        self.same(c, xs)

    def test_moved(self):
        """The array is the same object, of the same shape, elsewhere in memory."""
        c, xs = atomo.Compressor("none"), gradients()
        self.same(c, xs)
        before = xs[2].ctypes.data
        blocks = []
        while xs[2].ctypes.data == before:
            xs[2].resize((10**6,), refcheck=False)
            blocks.append(np.ones(40, "f"))  # takes the old place
            xs[2].resize((40,), refcheck=False)
        xs[2][:] = 7
        self.same(c, xs)

    def test_other_strides(self):
        c, xs = atomo.Compressor("none"), gradients()
        square = RANDOM.standard_normal((8, 8)).astype("f")
        xs[1] = square
        self.same(c, xs)
        square.strides = (4, 32)  # transposed in place
        self.same(c, xs)
        self.same(c, [xs[0], square[::-1], xs[2]])

    def test_views_that_begin_at_the_same_address(self):
        c, square = atomo.Compressor("none"), RANDOM.standard_normal((8, 8)).astype("f")
        for x in (square, square[:4], square[:2], square[:4, ::2], square[::2, :4], square.T[:4, ::2]):
            np.testing.assert_array_equal(c.decode(c.encode(x)), x)

    def test_other_dtype_at_the_same_address(self):
        c, xs = atomo.Compressor("none"), gradients()
        self.same(c, xs)
        xs[2].dtype = np.int32
        with self.refuses(atomo.DtypeError, "gradient 3 is int32"):
            c.encode_step(xs)
        xs[2].dtype = np.dtype(">f4")
        with self.refuses(atomo.DtypeError, "gradient 3 is >f4"):
            c.encode_step(xs)
        half = RANDOM.standard_normal(80).astype(np.float16)
        xs[2] = half.view("f")
        xs[2][:] = 1
        self.same(c, xs)
        half[:] = 2
        self.same(c, [xs[0], xs[1], half[:40]])

    def test_address_of_a_freed_array(self):
        """Arrays that are made and freed get the same addresses, with other shapes and dtypes."""
        c = atomo.Compressor("none")
        room = ctypes.create_string_buffer(4096)
        for k in range(20):
            shape, kind = [((40,), "f"), ((40,), "e"), ((40,), "i")][k % 3]
            x = np.frombuffer(room, kind, 40).reshape(shape)
            x[:] = k
            if kind == "i":
                with self.refuses(atomo.DtypeError, "is int32"):
                    c.encode(x)
            else:
                np.testing.assert_array_equal(c.decode(c.encode(x)), np.full(40, k, "f"))
            del x

    def test_converted_arrays_are_converted_every_time(self):
        c, xs = atomo.Compressor("none"), gradients()
        xs[1] = xs[1].astype(np.float16)
        for step in range(3):
            xs[1] += 1
            self.same(c, xs, step)
        self.assertNotIn((1, len(SHAPES)), c.gradients.lists)

    def test_read_only(self):
        c, accs = atomo.Compressor("none"), gradients()
        for x in accs:
            x.flags.writeable = False
        messages = c.encode_step(accs)
        self.same(c, accs)
        with self.refuses(atomo.ArgumentError, "acc 1 is read-only"):
            c.decode_add_step(messages, 1, accs)
        for x in accs:
            x.flags.writeable = True
        c.decode_add_step(messages, 1, accs)
        accs[1].flags.writeable = False
        with self.refuses(atomo.ArgumentError, "acc 2 is read-only"):
            c.decode_add_step(messages, 1, accs)
        with self.refuses(atomo.ArgumentError, "acc is read-only"):
            c.decode_add(messages[1], 1, accs[1])

    def test_shapes_must_stay(self):
        c, xs = atomo.Compressor("taps:ratio=4"), gradients()
        names = ["conv", "fc", "bias"]
        c.encode_step(xs, names=names)
        xs[1].shape = (16, 10)
        with self.refuses(atomo.ShapeError, "taps: gradient fc has shape (16, 10), expected (10, 16)",
                          "plan(2, shape)"):
            c.encode_step(xs, names=names)
        with self.refuses(atomo.ShapeError, "gradient 2 has shape"):
            c.encode_step(xs)
        c.plan(2, (16, 10))
        self.same(c, xs)
        c.plan(2, (10, 16))  # the arrays are as before, the plan is not
        with self.refuses(atomo.ShapeError, "gradient 2 has shape (16, 10), expected (10, 16)"):
            c.encode_step(xs)


@unittest.skipUnless(torch, "PyTorch is not installed")
class PyTorch(Prepared):
    def tensors(self):
        return [torch.from_numpy(g).clone() for g in gradients()]

    def test_what_was_checked_is_used_again(self):
        c, xs = atomo.Compressor("taps:ratio=4"), self.tensors()
        xs[1] = torch.nn.Parameter(xs[1])
        self.same(c, xs)
        first = self.kept(c)
        for x in xs:
            x.data.add_(1)
        self.same(c, xs, 2)
        self.assertIs(self.kept(c), first)

    def test_tensors_are_not_held(self):
        c, xs = atomo.Compressor("taps:ratio=4"), self.tensors()
        c.encode_step(xs)
        gone = [weakref.ref(x) for x in xs]
        del xs
        gc.collect()
        self.assertEqual([ref() for ref in gone], [None] * len(SHAPES))

    def test_other_memory(self):
        """The same tensor objects: set_, .data, resize_. (PyTorch does not let grow what NumPy has seen.)"""
        c, xs = atomo.Compressor("none"), self.tensors()
        self.same(c, xs)
        xs[0].set_(torch.full(SHAPES[0], 3.0))
        self.same(c, xs)
        xs[1].data = torch.full(SHAPES[1], 6.0)
        self.same(c, xs)
        xs[1].resize_(10, 8)
        with self.refuses(atomo.ShapeError, "gradient 2 has shape (10, 8), expected (10, 16)"):
            c.encode_step(xs)
        xs[1].resize_(10, 16)
        self.same(c, xs)

    def test_other_strides_at_the_same_address(self):
        c, square = atomo.Compressor("none"), torch.randn(8, 8)
        for x in (square, square.t(), square, square[:4], square[:2], square[:4, ::2], square[::2, :4]):
            np.testing.assert_array_equal(c.decode(c.encode(x)), x.numpy())
        square.t_()
        np.testing.assert_array_equal(c.decode(c.encode(square)), square.numpy())

    def test_other_dtype(self):
        c, xs = atomo.Compressor("none"), self.tensors()
        self.same(c, xs)
        xs[1].data = xs[1].data.bfloat16()
        for _ in range(2):
            xs[1].data.mul_(2)
            self.same(c, xs)
        with self.refuses(atomo.DtypeError, "gradient 3 is int32"):
            c.encode_step([*xs[:2], xs[2].view(torch.int32)])
        with self.refuses(atomo.DtypeError, "acc 2 is torch.bfloat16"):
            c.decode_add_step(c.encode_step(xs), 1, xs)

    def test_negated_view_of_the_same_memory(self):
        c, z = atomo.Compressor("none"), torch.ones(40, dtype=torch.complex64) * 1j
        c.encode(z.imag)
        with self.refuses(atomo.ArgumentError, "negation"):
            c.encode(z.conj().imag)

    def test_without_memory(self):
        c, xs = atomo.Compressor("none"), self.tensors()
        self.same(c, xs)
        with self.refuses(atomo.ArgumentError, "gradient 2 is torch.sparse_coo"):
            c.encode_step([xs[0], xs[1].to_sparse(), xs[2]])
        with self.refuses(atomo.ArgumentError, "gradient 2 is on meta"):
            c.encode_step([xs[0], xs[1].to("meta"), xs[2]])
        with self.refuses(atomo.ArgumentError, "gradient 2 is torch._mkldnn"):
            c.encode_step([xs[0], xs[1].to_mkldnn(), xs[2]])
        freed = xs[1].clone()
        freed.storage().resize_(0)
        with self.refuses(atomo.ArgumentError, "gradient 2 has no memory"):
            c.encode_step([xs[0], freed, xs[2]])
        with self.refuses(atomo.ArgumentError, "acc has no memory"):
            c.decode_add(c.encode(xs[1]), 1, freed)

    def test_array_and_tensor_of_one_memory(self):
        c, x = atomo.Compressor("none"), np.ones((1,), "f")
        for both in (x, torch.from_numpy(x), x):
            np.testing.assert_array_equal(c.decode(c.encode(both)), x)


class DecodeStep(Prepared):
    def test_as_message_by_message(self):
        for text in ("taps:ratio=4", "svd:ratio=4", "auto:ratio=8", "bf16", "qsgd:bits=2"):
            c, xs = atomo.Compressor(text), gradients()
            room = bytearray(10**5)
            messages = c.encode_step(xs, step=3, rank=1, out=room)
            want, accs = gradients(), None
            for kind in ("memory", "bytes", "list"):
                accs = [x.copy() for x in want] if kind == "memory" else accs
                found = [x.copy() for x in accs]
                given = {"memory": memoryview(room)[:sum(map(len, messages))], "list": messages,
                         "bytes": b"".join(messages)}[kind]
                self.assertIs(c.decode_add_step(given, 0.5, found, step=3, rank=1), found)
                for message, x in zip(messages, want if kind == "memory" else []):
                    c.decode_add(message, 0.5, x)
                for x, y in zip(found, want):
                    np.testing.assert_array_equal(x, y)

    def test_refused(self):
        c, xs = atomo.Compressor("taps:ratio=4"), gradients()
        messages, accs = c.encode_step(xs, step=3), [np.zeros_like(x) for x in xs]
        for text, given, targets, key in (("1 bytes follow the last message of block 1", [*messages, b"x"], accs, {}),
                                          ("bytes follow", messages, accs[:2], {}),
                                          ("message for 3 [40] ends in its magic", messages[:2], accs, {}),
                                          ("tensor at byte 3 is 3, expected 2", messages[::2], accs, {}),
                                          ("step at byte 5 is 3, expected 4", messages, accs, {"step": 4}),
                                          ("rank at byte 4 is 0, expected 2", messages, accs, {"rank": 2})):
            with self.refuses(atomo.FormatError, text):
                c.decode_add_step(given, 1, targets, **key)
        with self.refuses(atomo.ShapeError, "tensor is [10,16], expected 1 [16,3,3,8]"):
            c.decode_add_step(messages, 1, accs[1:])
        with self.refuses(atomo.DtypeError, "acc 2 is float64"):
            c.decode_add_step(messages, 1, [accs[0], accs[1].astype("d"), accs[2]])
        with self.refuses(atomo.ArgumentError, "scale is nan"):
            c.decode_add_step(messages, float("nan"), accs)
        self.assertFalse(any(x.any() for x in accs))
        bad = bytearray(b"".join(messages))
        bad[len(messages[0]) + len(messages[1]) - 1] ^= 1
        with self.refuses(atomo.FormatError, "message for 2 [10,16]: checksum"):
            c.decode_add_step(bad, 1, accs)
        np.testing.assert_array_equal(accs[0], c.decode(messages[0]))
        self.assertFalse(accs[2].any())
        c.decode_add_step(b"", 1, [])


if __name__ == "__main__":
    unittest.main()
