"""Texts of compressors, the list of all, and the statistical checks atomo.verify and atomo.compare."""
import unittest

from tests.support import Case, need

need("numpy")
import numpy as np

import atomo
from atomo import checks, spec
from atomo.patterns import to_regex

RANDOM = np.random.default_rng(1)
G = RANDOM.standard_normal((16, 3, 3, 8)).astype("f")


class Specs(Case):
    def test_texts(self):
        for given, want in (("svd:bits=4, ratio=16", "svd:ratio=16,bits=4"), ("svd: ef", "svd:ef=true"),
                            ({"name": "svd", "ratio": 16, "ef": True}, "svd:ratio=16,ef=true"),
                            ("svd:ratio=64; ^fc=none;conv1=bits=4", "svd:ratio=64;^fc=none;conv1=svd:bits=4"),
                            ({"name": "svd", "ratio": 4, "fold": lambda shape: shape[0]}, "svd:ratio=4,fold=function")):
            self.assertEqual(spec.read(given).text, want)

    def test_mistakes(self):
        for given, *words in (
                ("svdd:ratio=16", "unknown compressor 'svdd'", "did you mean 'svd'", "compressors are auto"),
                ("svd:ration=16", "unknown option 'ration'", "did you mean 'ratio'"),
                ("svd:ratio=zero", "ratio is 'zero'", "expected a number of"), ("svd:ratio=-1", "ratio is '-1'"),
                ("svd:ratio=nan", "ratio is 'nan'"), ("svd:ef=maybe", "true or false"), ("svd:bits=7", "bits is '7'"),
                ("svd:ratio=4,ratio=5", "given twice"), ("svd:=3", "cannot read '=3'"), ("", "expected name"),
                (None, "spec is a NoneType"), ("_list", "unknown compressor"), ("svd:ratio=4;fc", "cannot read 'fc'"),
                ("svd;[=none", "pattern '['"), ("qsgd;fc=none", "share a budget"),
                ("svd:ratio=4;fc=ratio=3", "whole compressor's"), ("svd;fc=qsgd", "neither a set of atoms")):
            with self.subTest(spec=given), self.refuses(atomo.ArgumentError, *words):
                atomo.Compressor(given)
        for overrides in ("^fc=none", {"^fc": "none"}, ["x"], [(3, "none")], 5):
            with self.refuses(atomo.ArgumentError, "taps: overrides is", "[('^fc', 'none')]"):
                atomo.Compressor({"name": "taps", "overrides": overrides})
        for bits in (10**400, -10**400):
            with self.refuses(atomo.ArgumentError, "expected an integer of 2 to 8"):
                atomo.Compressor({"name": "qsgd", "bits": bits})
        with self.refuses(atomo.ArgumentError, "way is ['up']"):
            atomo.Compressor("svd", way=["up"])
        with self.refuses(atomo.ArgumentError, "seed is -1"):
            atomo.Compressor("svd", seed=-1)
        with self.refuses(atomo.ArgumentError, "way is 'left'"):
            atomo.Compressor("svd", way="left")

    def test_patterns(self):
        for pattern, yes, no in (("^fc", "fc.weight", "xfc"), ("conv%d$", "conv1", "conv1.x"), ("a.-b", "axxb", "axx"),
                                 ("l%.weight", "l.weight", "lxweight"), ("[^a-c]x", "dx", "ax"), ("%u", "aB", "ab"),
                                 ("a|b", "a|b", "a")):
            self.assertTrue(to_regex(pattern).search(yes), pattern)
            self.assertFalse(to_regex(pattern).search(no), pattern)
        for pattern in ("%bxy", "%f[a]", "a%", "[%A]", "("):
            with self.refuses(atomo.ArgumentError, "pattern"):
                to_regex(pattern)

    def test_overrides_and_fold(self):
        c = atomo.Compressor("svd:ratio=64;^fc=none")
        g = RANDOM.standard_normal((64, 64)).astype("f")
        messages = c.encode_step([g, g], names=["conv", "fc.weight"])
        self.assertGreater(len(messages[1]), g.nbytes)
        np.testing.assert_array_equal(c.decode(messages[1]), g)
        with self.refuses(atomo.ArgumentError, "result of fold", "0"):
            atomo.Compressor({"name": "svd", "fold": lambda shape: 0}).encode(g)

    def test_names_that_come_later(self):
        """or change: overrides hold for the names of this call."""
        def lengths(c, names):
            return [len(m) for m in c.encode_step([G, G], step=1, names=names)]
        c = atomo.Compressor("taps:ratio=8;^fc=none")
        self.assertLess(max(lengths(c, None)), G.nbytes)
        for names, large in ((["conv", "fc"], 1), (["conv", "fc"], 1), (["fc", "conv"], 0), (None, 0)):
            found = lengths(c, names)
            self.assertGreater(found[large], G.nbytes)
            self.assertLess(found[1 - large], G.nbytes)
        c = atomo.Compressor("taps:ratio=8;^fc=none")
        c.plan(1, G.shape)
        c.plan(1, G.shape, "fc")
        self.assertGreater(len(c.encode(G)), G.nbytes)

    def test_list(self):
        names = [entry.name for entry in atomo.compressors()]
        self.assertIn("taps", names)
        self.assertEqual([entry.name for entry in atomo.compressors() if entry.missing], [])
        self.assertTrue(all(str(entry).strip() and not entry.name.startswith("_") for entry in atomo.compressors()))


class Statistics(Case):
    def test_verify_passes(self):
        for entry in atomo.compressors():
            with self.subTest(name=entry.name):
                report = atomo.verify(entry.name, draws=200, shape=(12, 3, 3, 4))
                self.assertTrue(report.passed, str(report))

    def test_verify_finds_a_bias_and_a_wrong_variance(self):
        class Wrong(atomo.Compressor):
            scale = 1.0

            def decode(self, message):
                return super().decode(message) * np.float32(self.scale)
        original = checks.Compressor
        try:
            checks.Compressor = Wrong
            Wrong.scale = 1.1
            report = atomo.verify("taps:ratio=8", draws=300)
        finally:
            checks.Compressor = original
        failed = [row.check for row in report.rows if not row.passed]
        self.assertIn("unbiased", failed)
        self.assertIn("FAILED", str(report))

    def test_compare(self):
        result = atomo.compare(["taps:ratio=16", "topk:ratio=16"], [G, G[:4]], draws=50)
        unbiased, biased = result.lines
        self.assertAlmostEqual(unbiased.ratio, 16, delta=1.6)
        self.assertLess(abs(unbiased.measured - unbiased.stated), 5 * unbiased.error + 0.02 * unbiased.stated)
        self.assertLess(unbiased.bias, 0.1 * unbiased.measured)
        self.assertGreater(biased.bias, 0.9 * biased.measured)
        self.assertIn("taps:ratio=16", str(result))
        self.assertEqual(str(atomo.compare(iter(["taps:ratio=16"]), iter([G]), draws=2)),
                         str(atomo.compare(["taps:ratio=16"], [G], draws=2)))
        for wrong in (("taps", [G]), (["taps"], []), ([], [G]), (["taps"], 5), (["taps"], [np.zeros(3, "f")])):
            with self.assertRaises(atomo.ArgumentError):
                atomo.compare(*wrong)

    def test_arguments_of_the_checks(self):
        for wrong in ({"shape": ()}, {"shape": 8}, {"shape": (4, -1)}, {"shape": "ab"}, {"draws": 100.5}, {"draws": "x"},
                      {"draws": 99}, {"seed": -1}):
            with self.subTest(wrong=wrong), self.assertRaises(atomo.ArgumentError):
                atomo.verify("taps:ratio=16", **wrong)
        for wrong in ({"draws": 1}, {"draws": 2.5}, {"seed": None}):
            with self.subTest(wrong=wrong), self.assertRaises(atomo.ArgumentError):
                atomo.compare(["taps:ratio=16"], [G], **wrong)

    def test_probabilities(self):
        p = atomo.probabilities(np.array([8.0, 1, 1, 0], "f"), 2)
        np.testing.assert_allclose(p, [1, 0.5, 0.5, 0])
        p = atomo.probabilities(np.array([1, 1], "f"), 3, cost=np.array([1, 4], "f"))
        self.assertAlmostEqual(float(p @ [1, 4]), 3, places=5)
        with self.refuses(atomo.ShapeError, "cost"):
            atomo.probabilities(np.ones(2, "f"), 1, cost=np.ones(1, "f"))
        with self.assertRaises(atomo.ArgumentError):
            atomo.probabilities(np.ones(2, "f"), -1)


if __name__ == "__main__":
    unittest.main()
