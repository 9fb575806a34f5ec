"""What the tests share: the build folder, and functions that run in several processes with a gloo process group."""
import contextlib
import multiprocessing
import os
import pathlib
import pickle
import sys
import tempfile
import traceback
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[3]
BUILD = ROOT / "build"
sys.path.insert(0, str(ROOT / "bindings" / "python"))
os.environ.setdefault("ATOMO_LIBRARY", str(BUILD))
os.environ.setdefault("OMP_NUM_THREADS", "1")

LIMIT = 60  # seconds that a test's processes may take


def need(*modules):
    """Skips a test file, saying why, if a module or the C library is missing."""
    for module in modules:
        try:
            __import__(module)
        except ImportError as problem:
            raise unittest.SkipTest(f"{module} is not installed: {problem}")
    if not any(BUILD.glob("libatomo*.so.0")):
        raise unittest.SkipTest("build/ has no libatomo.so.0: run  sh scripts/test.sh --only build")


def child(rank, size, store, path, function, arguments):
    import torch
    import torch.distributed as dist
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size)
    try:
        result = ("ok", function(rank, size, *arguments))
    except BaseException as problem:
        result = ("raised", type(problem).__name__, str(problem), traceback.format_exc())
    with open(path, "wb") as f:
        pickle.dump(result, f)
    os._exit(0)  # threads of a failed exchange must not keep the process


def processes(size, function, *arguments):
    """Runs function(rank, size, *arguments) in `size` processes; returns ("ok", result) or ("raised", type, text,
    traceback) of each. The parent must not have used the library or run a parallel loop before: they are forks."""
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        paths = [os.path.join(folder, f"rank{rank}") for rank in range(size)]
        ranks = [context.Process(target=child, args=(rank, size, os.path.join(folder, "store"), paths[rank], function,
                                                     arguments)) for rank in range(size)]
        for p in ranks:
            p.start()
        for p in ranks:
            p.join(LIMIT)
        stuck = [rank for rank, p in enumerate(ranks) if p.is_alive()]
        for p in ranks:
            if p.is_alive():
                p.kill()
                p.join()
        if stuck:
            raise AssertionError(f"{function.__name__}: ranks {stuck} of {size} did not end within {LIMIT} s")
        results = []
        for rank, path in enumerate(paths):
            if not os.path.exists(path):
                results.append(("ended", f"with code {ranks[rank].exitcode} and no result"))
                continue
            with open(path, "rb") as f:
                results.append(pickle.load(f))
        return results


class Case(unittest.TestCase):
    def ranks(self, size, function, *arguments):
        """The results of all ranks; fails if one raised."""
        results = processes(size, function, *arguments)
        for rank, result in enumerate(results):
            self.assertEqual(result[0], "ok", f"rank {rank}: {result[-1]}")
        return [result[1] for result in results]

    def raised(self, size, words, function, *arguments):
        """Every rank must raise, with these words in its text."""
        for rank, result in enumerate(processes(size, function, *arguments)):
            self.assertEqual(result[0], "raised", f"rank {rank} raised nothing")
            for word in words:
                self.assertIn(word, result[2], f"rank {rank}")

    @contextlib.contextmanager
    def refuses(self, kind, *words):
        """The block must raise `kind`, with these words in its text."""
        with self.assertRaises(kind) as caught:
            yield
        for word in words:
            self.assertIn(word, str(caught.exception))
