"""Messages and states have the bits of the Lua side: for all compressors, seeds, steps, ranks and forms."""
import collections
import os
import subprocess
import tempfile
import unittest

from tests.support import BUILD, ROOT, need

need("numpy")
import numpy as np

import atomo

PROGRAM = BUILD / "atomo-lua"


@unittest.skipUnless(PROGRAM.exists(), "build/atomo-lua is not built")
class Golden(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with tempfile.TemporaryDirectory() as folder:
            environment = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
            subprocess.run([PROGRAM, ROOT / "bindings" / "python" / "tests" / "golden.lua", folder], check=True,
                           env=environment, timeout=60)
            cls.grads = [np.load(f"{folder}/g{i}.npy") for i in (1, 2, 3)]
            cls.messages = collections.defaultdict(dict)
            with open(f"{folder}/messages") as lines:
                for line in lines:
                    spec, form, step, rank, tensor, data = line.rstrip("\n").split("\t")
                    cls.messages[spec][form, int(step), int(rank), int(tensor)] = data

    def compare(self, spec, found):
        for key, data in found.items():
            self.assertEqual(bytes(data).hex(), self.messages[spec][key], f"{spec}: {key}")

    def test_encode(self):
        for spec in self.messages:
            c = atomo.Compressor(spec, seed=11)
            self.compare(spec, {("one", step, 2, 5): c.encode(self.grads[0], step=step, rank=2, tensor=5)
                                for step in (3, 4)})

    def test_encode_step(self):
        for spec in self.messages:
            c = atomo.Compressor(spec, seed=2**40 + 1, way="down")
            messages = c.encode_step(self.grads, step=1, rank=1)
            self.compare(spec, {("all", 1, 1, i + 1): m for i, m in enumerate(messages)})

    def test_a_step_tensor_by_tensor(self):
        for spec in self.messages:
            c, found = atomo.Compressor(spec), {}
            for i, (g, name) in enumerate(zip(self.grads, "abc")):
                c.plan(i + 1, g.shape, name)
            c.reserve(2000 - sum(g.size for g in self.grads), 120)
            buffer = np.empty(c.wire_max(), np.uint8)
            for step in range(3):
                c.begin_step(step, 1)
                for i, g in enumerate(self.grads):
                    n = c.push(i + 1, g, buffer)
                    found["streamed", step, 1, i + 1] = buffer[:n].tobytes()
                c.end_step()
            self.compare(spec, found)
            for key, value in c.state_dict().items():
                if key.startswith("learnt"):
                    self.compare(spec, {(key, 0, 0, 0): value})

    def test_all_compressors_are_here(self):
        self.assertLessEqual({entry.name for entry in atomo.compressors()}, set(self.messages))


if __name__ == "__main__":
    unittest.main()
