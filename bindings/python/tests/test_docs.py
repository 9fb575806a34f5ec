"""The Python code of the documents runs; the examples run."""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

from tests.support import ROOT, Case, need

need("numpy", "torch")

PAGES = ["docs/pytorch.md", "README.md"]


def blocks(path):
    """The Python of a page, with blank lines in place of all else, so that errors have the page's lines."""
    lines, inside = [], False
    for line in (ROOT / path).read_text().split("\n"):
        if line.startswith("```"):
            inside = line.strip() == "```python"
            lines.append("")
        else:
            lines.append(line if inside else "")
    return "\n".join(lines)


def run_page(rank, size, path):
    import torch
    from torch.nn.parallel import DistributedDataParallel
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        names = {"DistributedDataParallel": DistributedDataParallel, "model": torch.nn.Linear(64, 32)}
        exec(compile(blocks(path), path, "exec"), names)
    return True


def program(*words, **environment):
    result = subprocess.run([str(word) for word in words], cwd=ROOT, capture_output=True, text=True, timeout=60,
                            env={**os.environ, **environment})
    return result.returncode, result.stdout + result.stderr


class Documents(Case):
    def test_pages_run(self):
        for path in PAGES:
            with self.subTest(page=path):
                self.assertRegex(blocks(path), r"atomo\.torch\.State\(")
                self.ranks(1, run_page, path)

    def test_docstring_of_the_package(self):
        import atomo
        code = re.sub(r"\n    ", "\n", atomo.__doc__.split("\n\n")[1])
        code, out = program(sys.executable, "-c", code.strip().replace("\n    ", "\n"),
                            PYTHONPATH=str(ROOT / "bindings" / "python"))
        self.assertEqual(code, 0, out)

    def test_training(self):
        code, out = program(sys.executable, "examples/pytorch/train_cifar.py", "--processes", 2, "--batch", 4,
                            "--max-steps", 3, "--epochs", 1)
        self.assertEqual(code, 0, out)
        self.assertRegex(out, r"final test accuracy 0\.\d{4}")
        self.assertRegex(out, r"epoch 1: loss .* kB sent a step")

    def test_training_on_a_damaged_file(self):
        with tempfile.TemporaryDirectory() as folder:
            for name in ("data_batch_1.bin", "test_batch.bin"):
                (pathlib.Path(folder) / name).write_bytes(bytes(3000))
            code, out = program(sys.executable, "examples/pytorch/train_cifar.py", "--processes", 1, "--data", folder)
        self.assertNotEqual(code, 0)
        self.assertIn("3000 bytes, expected a multiple of 3073", out)

    def test_bench(self):
        code, out = program(sys.executable, "examples/pytorch/bench_ddp.py", "--model", "resnet20", "--batch", 2,
                            "--steps", 1, "--rounds", 1, "--compress", "taps:ratio=64")
        self.assertEqual(code, 0, out)
        for way in ("no exchange", "ddp", "fp16 hook", "powersgd hook, rank 2", "atomo taps:ratio=64"):
            self.assertRegex(out, way + r" +\d+\.\d +\d+\.\d +\d+\.\d\d +\d+\.\d\d")
        code, out = program(sys.executable, "examples/pytorch/bench_ddp.py", "--hooks", "ddp fp61")
        self.assertEqual(code, 2)
        self.assertIn("'fp61', expected names of ddp, fp16, powersgd", out)

    @unittest.skipUnless(shutil.which("tc") and os.geteuid() == 0, "networks need root and tc (Debian: iproute2)")
    def test_bench_network(self):
        code, out = program("sh", "examples/pytorch/bench_network.sh", "--hosts", 2, "--rates", "1gbit", "--",
                            "--model", "resnet20", "--batch", 2, "--steps", 1, "--rounds", 1, "--hooks", "ddp")
        if code == 77:
            self.skipTest(out.strip())
        self.assertEqual(code, 0, out)
        for way in ("no exchange", "ddp", "atomo auto:ratio=64"):
            self.assertRegex(out, "1gbit +" + way + r" +\d+\.\d")

    def test_bench_codec(self):
        code, out = program(sys.executable, "examples/pytorch/bench_codec.py", "--elements", 2000, "--rounds", 1,
                            "--compress", "bf16")
        self.assertEqual(code, 0, out)
        self.assertRegex(out, r"bf16 +\d+\.\d+ +\d+\.\d+ +\d+\.\d\d +\d+\.\d+ +\d+\.\d+ +\d+\.\d\d")

    def test_accuracy(self):
        """A stand-in for Python prints an accuracy made of its options."""
        with tempfile.TemporaryDirectory() as folder:
            fake = pathlib.Path(folder) / "python"
            fake.write_text('#!/bin/sh\ncase "$*" in *"--compress none"*) a=6 ;; *) a=5 ;; esac\n'
                            'case "$*" in *"--seed 9"*) exit 3 ;; *"--seed 3"*"--epochs 2"*) b=0 ;; *) b=2 ;; esac\n'
                            'echo "epoch 1: test accuracy 0.1"; echo "final test accuracy 0.${a}${b}00"\n')
            fake.chmod(0o755)
            words = ("sh", "examples/pytorch/accuracy.sh", "--compress", "taps:ratio=64")
            code, out = program(*words, "--seeds", "3 4", "--", "--epochs", 2, PYTHON=str(fake))
            self.assertEqual(code, 0, out)
            self.assertRegex(out, r"pytorch +none +0\.6000 0\.6200  0\.6100")
            self.assertRegex(out, r"pytorch +taps:ratio=64 +0\.5000 0\.5200  0\.5100")
            self.assertEqual(program(*words, "--seeds", "9", PYTHON=str(fake))[0], 1)
            self.assertEqual(program(*words, "--seed", "9", PYTHON=str(fake))[0], 2)

    def test_unknown_option(self):
        code, out = program(sys.executable, "examples/pytorch/train_cifar.py", "--epoch", 3)
        self.assertEqual(code, 2)
        self.assertIn("did you mean --epochs?", out)

    def test_mpi4py(self):
        if not shutil.which("mpirun") or program(sys.executable, "-c", "import mpi4py")[0] != 0:
            self.skipTest("mpi4py or mpirun is not installed (Debian: python3-mpi4py)")
        code, out = program("sh", "scripts/mpirun.sh", "-n", 2, sys.executable, "examples/mpi4py/average.py")
        self.assertEqual(code, 0, out)
        self.assertIn("bit-identical on all ranks", out)


if __name__ == "__main__":
    unittest.main()
