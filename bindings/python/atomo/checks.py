"""atomo.verify: tests whether a compressor is unbiased, has the variance that it states, and decodes safely.

The statistics are those of the Lua side: the mean is compared along directions (the gradient, its signs, random signs),
each within its standard error. A statistical row fails for a correct compressor with probability 1e-6, others never.
"""
from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np

from .arrays import shape_of, whole
from .compressor import Compressor
from .errors import ArgumentError, AtomoError
from .spec import Parsed, Spec, read

ALPHA = 1e-6  # probability of a false alarm of a statistical row
LOOKS = 16  # directions along which the mean is compared


@dataclass(frozen=True)
class Row:
    """A check: it passes if figure <= bound."""

    check: str
    figure: float
    bound: float
    note: str

    @property
    def passed(self) -> bool:
        return self.figure <= self.bound


@dataclass
class Report:
    """The result of verify; str() returns a table."""

    spec: str
    shape: Tuple[int, ...]
    draws: int
    rows: List[Row] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return all(row.passed for row in self.rows)

    def __str__(self) -> str:
        lines = [f"verify {self.spec} on {list(self.shape)}, {self.draws} draws"]
        lines += [f"  {'pass' if r.passed else 'FAIL'} {r.check:<34} {r.figure:12.4g} <= {r.bound:<10.4g} {r.note}"
                  for r in self.rows]
        failed = [r.check for r in self.rows if not r.passed]
        return "\n".join(lines + ["  FAILED: " + "; ".join(failed) if failed else "  all passed"])


def normal_bound(count: int) -> float:
    """The bound that the largest of `count` standard normals exceeds with probability below ALPHA."""
    return math.sqrt(2 * math.log(count / ALPHA))


def gradient(shape: Sequence[int], random: np.random.Generator) -> np.ndarray:
    """A typical gradient: entries of very different sizes, and one strong direction."""
    n = int(np.prod(shape))
    i, across = np.arange(n), shape[-1]
    g = random.standard_normal(n) * np.exp(-5 * random.random(n)) + 0.2 * np.cos(i % across) * np.sin(1 + i // across)
    return g.astype(np.float32).reshape(shape)


class Subject:
    """A compressor's text, a gradient, and new compressors of changed options."""

    def __init__(self, spec: Spec, shape: Sequence[int], seed: int) -> None:
        self.parsed, self.seed = read(spec), seed
        self.random = np.random.default_rng(seed)
        self.g = gradient(shape, self.random)
        self.small = gradient((5, 1, 1, 4), self.random)
        self.spec = spec

    def make(self, changes: Optional[Dict[str, Any]] = None) -> Compressor:
        """A new compressor, with these options changed."""
        return Compressor(with_options(self.parsed, changes) if changes else self.spec, seed=self.seed)


def with_options(parsed: Parsed, changes: Dict[str, Any]) -> Dict[str, Any]:
    """The compressor as a dict, with options changed (None: removed)."""
    options: Dict[str, Any] = {"name": parsed.entry.name}
    for option, value in zip(parsed.entry.options, parsed.values):
        if not math.isnan(value):
            options[option.key] = option.choices[int(value)] if option.kind == "enum" else (
                value != 0 if option.kind == "bool" else value)
    if parsed.fold:
        options["fold"] = parsed.fold
    options.update(changes)
    return {key: value for key, value in options.items() if value is not None}


def full_budget(subject: Subject) -> Optional[Row]:
    entry = subject.parsed.entry
    j = entry.index("bytes")
    if not entry.has_budget or j is None:
        return None
    changes: Dict[str, Any] = {"ratio": None, "atoms": None, "bytes": entry.options[j].max}
    changes.update({key: value for key, value in (("bits", 32), ("step", 0)) if entry.index(key) is not None})
    try:
        c = subject.make(changes)
    except ArgumentError:  # its precision cannot be raised
        return None
    ghat = c.decode(c.encode(subject.g, step=1))
    worst = float(np.abs(ghat - subject.g).max() / np.abs(subject.g).max())
    return Row("full budget reproduces g", worst, 2e-5, "largest error over largest entry")


def statistics(subject: Subject, draws: int) -> List[Row]:
    """Mean, variance, and length against the budget."""
    c, g = subject.make(), subject.g.ravel().astype(np.float64)
    looks = np.stack([g, np.where(g < 0, -1.0, 1.0)] +
                     [subject.random.choice([-1.0, 1.0], g.size) for _ in range(LOOKS - 2)])
    looks /= np.linalg.norm(looks, axis=1, keepdims=True)
    along, square, stated, nbytes = np.empty((draws, LOOKS)), np.empty(draws), 0.0, 0
    for k in range(draws):
        c = c if c.unbiased else subject.make()  # no residual of an earlier draw
        message = c.encode(subject.g, step=k)
        error = c.decode(message).ravel().astype(np.float64) - g
        along[k], square[k] = looks @ error, error @ error
        stated += c.stats().variance / draws
        nbytes += len(message)
    norm, rows = float(np.linalg.norm(g)), []
    if c.unbiased:
        rows.append(mean_row(along, norm))
    rows.append(variance_row(square, stated, norm, "variance as stated" if c.unbiased else "squared error as stated"))
    budget = budget_bytes(c.parsed, g.size)
    if budget:
        rows.append(Row("mean length within the budget", nbytes / draws, 1.02 * budget + 8,
                        f"budget {budget:.0f} bytes"))
    return rows


def mean_row(along: np.ndarray, norm: float) -> Row:
    error = np.maximum(along.std(axis=0, ddof=1) / math.sqrt(len(along)), 1e-300)
    figure = float((np.maximum(np.abs(along.mean(axis=0)) - 2e-6 * norm, 0) / error).max())
    return Row("unbiased", figure, normal_bound(LOOKS), f"|mean - g| in standard errors, worst of {LOOKS} directions")


def variance_row(square: np.ndarray, stated: float, norm: float, name: str) -> Row:
    error = max(square.std(ddof=1) / math.sqrt(len(square)), 1e-300)
    slack = 0.01 * stated + 1e-11 * norm**2
    figure = max(0.0, abs(square.mean() - stated) - slack) / error
    return Row(name, figure, normal_bound(1), f"standard errors beyond 1 %; measured {square.mean() / norm**2:.4g}, "
               f"stated {stated / norm**2:.4g} x ||g||^2")


def budget_bytes(parsed: Parsed, entries: int) -> Optional[float]:
    """The budget of a spec in bytes for a tensor of `entries` entries; None if the budget is not in bytes."""
    bytes_, atoms, ratio = (parsed.given(key) for key in ("bytes", "atoms", "ratio"))
    if not parsed.entry.has_budget:
        return None
    if bytes_ is not None and not math.isnan(bytes_):
        return bytes_
    if (atoms is not None and not math.isnan(atoms)) or ratio is None:
        return None
    return 4 * entries / (16 if math.isnan(ratio) else ratio)


def same_key(subject: Subject) -> Row:
    key = {"step": 3, "rank": 2, "tensor": 3}
    different = subject.make().encode(subject.g, **key) != subject.make().encode(subject.g, **key)
    return Row("same key, same bytes", float(different), 0, "1: they differ")


def linear(subject: Subject) -> Row:
    c, worst = subject.make(), 0.0
    message = c.encode(subject.g, step=5)
    ghat = c.decode(message)
    for scale in (0, 1, -0.5, 3):
        acc = c.decode_add(message, scale, np.ones_like(ghat))
        worst = max(worst, float(np.abs(acc - (1 + scale * ghat)).max() / (1 + abs(scale) * np.abs(ghat).max())))
    return Row("decode_add linear in scale", worst, 2e-6, "relative, at 0, 1, -0.5 and 3")


def refusals(subject: Subject) -> Row:
    c = subject.make()
    message = c.encode(subject.small, step=3)
    acc, taken = np.zeros_like(subject.small), 0
    stride = max(1, len(message) // 200)
    damaged = [message[:n] for n in range(0, len(message), stride)] + [message + b"x"]
    damaged += [message[:i] + bytes([message[i] ^ 1 << bit]) + message[i + 1:]
                for i in range(0, len(message), stride) for bit in range(8)]
    for bad in damaged:
        try:
            c.decode_add(bad, 1, acc)
            taken += 1
        except AtomoError:
            pass
    return Row("damaged messages refused", taken + float(np.any(acc)), 0,
               f"taken, of {len(damaged)} truncated, extended, flipped")


def nonfinite(subject: Subject) -> Row:
    taken = 0
    for bad in (math.nan, math.inf, -math.inf):
        c, g = subject.make(), subject.small.copy()
        g.flat[3] = bad
        try:
            c.encode(g, step=1)
            taken += 1
        except ArithmeticError:
            c.encode(subject.small, step=1)  # it still works
    return Row("NaN, Inf refused", taken, 0, "encoded, of 3")


def feedback(subject: Subject) -> Optional[Row]:
    if subject.parsed.entry.index("ef") is None:
        return None
    try:
        c = subject.make({"ef": True})
        sent, steps = np.zeros_like(subject.g), 20
        for step in range(steps):
            c.decode_add(c.encode(subject.g, step=step), 1, sent)
    except ArgumentError:  # these options exclude error feedback
        return None
    total = sent + c.residual(1)
    figure = float(np.abs(total - steps * subject.g).max() / np.abs(steps * subject.g).max())
    return Row("error feedback loses nothing", figure, 1e-4, "sent + residual over all gradients")


def verify(spec: Spec, *, shape: Sequence[int] = (24, 3, 3, 8), draws: int = 1000, seed: int = 1) -> Report:
    """Checks a compressor on a gradient of a shape over `draws` random draws (100 or more); see Report and Row."""
    draws, seed = whole(draws, "verify: draws", 100), whole(seed, "verify: seed", 0, 2**53)
    shape = tuple(whole(n, "verify: shape: size", 1) for n in shape_of(shape, "verify: shape"))
    if not shape:
        raise ArgumentError("verify: shape is (), expected one size or more")
    subject = Subject(spec, shape, seed)
    checks: Sequence[Callable[[Subject], Optional[Row]]] = (full_budget, feedback, same_key, linear, refusals,
                                                            nonfinite)
    rows = statistics(subject, draws) + [row for row in (check(subject) for check in checks) if row]
    return Report(subject.parsed.text, tuple(shape), draws, rows)
