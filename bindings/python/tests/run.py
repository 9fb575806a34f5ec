"""run.py [FILE]... - runs test files (test_hook, ...; default all) and ends with "N passed, N failed, N skipped"."""
import pathlib
import sys
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))


def main(names):
    suite, left_out = unittest.TestSuite(), 0
    for name in names or sorted(path.stem for path in HERE.glob("test_*.py")):
        try:
            suite.addTests(unittest.defaultTestLoader.loadTestsFromName(f"tests.{name}"))
        except unittest.SkipTest as why:
            print(f"skipped: {name}: {why}")
            left_out += 1
    result = unittest.TextTestRunner(stream=sys.stdout).run(suite)
    for test, why in result.skipped:
        print(f"skipped: {test}: {why}")
    failed = len({test.id().split(" ")[0] for test, _ in result.failures + result.errors})
    passed = result.testsRun - failed - len(result.skipped)
    print(f"{passed} passed, {failed} failed, {len(result.skipped) + left_out} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
