"""How parameters are coded: numbers, shapes, strides, packets and their planned lengths."""
import unittest

from tests.support import Case, need

need("numpy", "torch")
import numpy as np
import torch

import atomo
from atomo.torch.coder import Bucket, Coder, text_packet
from atomo.torch.layout import Layout, gradient_view, is_dense
from atomo.torch.packet import Packet, PlannedLength, read_heads
from tests import models


def layout_of(model, spec="taps:ratio=8", small=False):
    compressor = atomo.Compressor(spec)
    layout = Layout(model, compressor, small, 1024)
    layout.plan(compressor)
    return layout, compressor


class Layouts(Case):
    def test_parameters(self):
        model = models.make()
        layout, compressor = layout_of(model)
        found = {p.name: (p.number, p.shape, p.coded) for p in layout.parameters}
        self.assertEqual(found["conv.weight"], (3, (24, 3, 3, 8), True))
        self.assertEqual(found["fc.weight"][1:], ((48, 24), True))
        self.assertEqual(found["conv0.weight"][1:], ((8, 3, 3, 3), False))
        self.assertEqual(found["norm.bias"][1:], ((24,), False))
        self.assertNotIn("frozen.weight", found)
        self.assertEqual(compressor.shapes, {3: (24, 3, 3, 8), found["fc.weight"][0]: (48, 24)})
        self.assertTrue(all(p.coded for p in layout_of(model, small=True)[0].parameters))
        other = {p.name: p.coded for p in layout_of(model, "taps:ratio=8;^fc=none;norm=entry")[0].parameters}
        self.assertEqual((other["fc.weight"], other["norm.bias"], other["conv.weight"]), (False, True, True))

    def test_other_convolutions(self):
        model = torch.nn.Sequential(torch.nn.Conv1d(4, 8, 5), torch.nn.Conv3d(2, 3, (1, 2, 3)),
                                    torch.nn.ConvTranspose2d(6, 7, 3))
        shapes = {p.name: p.shape for p in layout_of(model)[0].parameters if len(p.shape) > 1}
        self.assertEqual(shapes, {"0.weight": (8, 5, 4), "1.weight": (3, 1, 2, 3, 2), "2.weight": (6, 3, 3, 7)})

    def test_gradients_are_seen_by_strides(self):
        for channels_last in (False, True):
            model = models.make(channels_last=channels_last)
            layout, compressor = layout_of(model)
            p = next(p for p in layout.parameters if p.name == "conv.weight")
            flat = torch.arange(float(p.numel))
            view = gradient_view(flat, model.conv.weight)
            self.assertEqual(view.stride(), model.conv.weight.stride())
            seen = p.seen(view)
            self.assertEqual(float(seen[5, 1, 2, 3]), float(view[5, 3, 1, 2]))
            coder = Coder(compressor, 0, ["rank 0"])
            self.assertEqual(coder.staged(seen) is seen, channels_last)  # in place, or a copy
            self.assertEqual(seen.data_ptr(), flat.data_ptr())

    def test_scalars(self):
        """A parameter without dimensions, coded and plain."""
        model = torch.nn.Module()
        model.scale = torch.nn.Parameter(torch.tensor(1.0))
        for small in (False, True):
            layout, compressor = layout_of(model, "none", small)
            self.assertEqual(layout.parameters[0].coded, small)
            flat = torch.tensor([2.5])
            seen = layout.parameters[0].seen(gradient_view(flat, model.scale))
            coder = Coder(compressor, 0, ["rank 0"])
            bucket = Bucket(0, True, 0, flat, layout.parameters, [seen], None)
            packet = coder.encode(bucket, None)
            flat.zero_()
            self.assertIsNone(coder.decode(bucket, [packet.bytes]))
            self.assertEqual(float(flat), 2.5)

    def test_sparse_gradients_are_refused(self):
        model = torch.nn.Sequential(torch.nn.Embedding(8, 8, sparse=True))
        with self.refuses(atomo.ArgumentError, "module 0 has sparse gradients", "sparse=False"):
            layout_of(model)

    def test_dense_memory(self):
        self.assertTrue(is_dense(torch.empty(3, 1, 4)))
        self.assertTrue(is_dense(torch.empty(3, 4).t()))
        self.assertFalse(is_dense(torch.empty(3, 4)[:, :2]))
        self.assertFalse(is_dense(torch.empty(3, 1).expand(3, 4)))

    def test_bfloat16_is_converted(self):
        """A bucket of bfloat16: coded as float32, averages rounded back."""
        model = torch.nn.Linear(64, 32).bfloat16()
        layout, compressor = layout_of(model, "none")
        coder = Coder(compressor, 0, ["rank 0"])
        grads = [torch.randn(p.shape).bfloat16() for p in layout.parameters]
        want = [g.clone() for g in grads]
        bucket = Bucket(0, True, 0, torch.empty(0), layout.parameters, grads, None)
        packet = coder.encode(bucket, None)
        for g in grads:
            g.zero_()
        self.assertIsNone(coder.decode(bucket, [packet.bytes]))
        for g, w in zip(grads, want):
            self.assertTrue(torch.equal(g, w))


class Packets(Case):
    def test_planned_length(self):
        length = PlannedLength()
        self.assertIsNone(length.planned())
        length.note(1000)
        self.assertGreaterEqual(length.planned(), 1000)
        length.note(3000)
        self.assertGreaterEqual(length.planned(), 3000)
        for _ in range(80):
            length.note(1000)
        self.assertLess(length.planned(), 1100)

    def test_padding(self):
        for room in (4, 6):  # too short for the row, and long enough
            packet = Packet(np.arange(9, 9 + room, dtype=np.uint8), 3)
            np.testing.assert_array_equal(packet.bytes, [9, 10, 11])
            np.testing.assert_array_equal(packet.row(0, 2), [9, 10])
            np.testing.assert_array_equal(packet.row(0, 5), [9, 10, 11, 0, 0])
            np.testing.assert_array_equal(packet.row(2, 3), [11, 0, 0])
            np.testing.assert_array_equal(packet.row(4, 2), [0, 0])

    def test_heads(self):
        packet, names = text_packet((1, "text"), 7, 2), ["rank 0"]
        self.assertEqual(read_heads([packet.bytes], 7, 2, names)[0].length, packet.length)
        with self.refuses(atomo.MismatchError, "rank 0 is at bucket 2 of step 7, this process at bucket 2 of step 8"):
            read_heads([packet.bytes], 8, 2, names)
        with self.refuses(atomo.MismatchError, "rank 0 sent no packet of version"):
            read_heads([np.zeros(64, np.uint8)], 7, 2, names)


if __name__ == "__main__":
    unittest.main()
