"""atomo.compare: compressors side by side on the same gradients."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Iterable, List, Sequence

import numpy as np

from .arrays import readable, whole
from .compressor import Compressor
from .errors import ArgumentError
from .spec import Spec


@dataclass(frozen=True)
class Line:
    """The result of one compressor. nbytes: mean bytes of a step. ratio: bytes in float32 over nbytes. stated,
    measured: E||ghat - g||^2 / ||g||^2, by its formula and over the draws, with the standard error of the latter. bias:
    the squared distance of the mean ghat from g, in the same units, less what the noise of the mean explains."""

    spec: str
    nbytes: float
    ratio: float
    stated: float
    measured: float
    error: float
    bias: float


@dataclass(frozen=True)
class Comparison:
    """The results in the order of the specs; str() returns a table."""

    lines: List[Line]
    draws: int

    def __str__(self) -> str:
        rows = [f"{'compressor':<34} {'bytes':>10} {'ratio':>7} {'stated':>9} {'measured':>20} {'bias':>9}"]
        rows += [f"{x.spec:<34} {x.nbytes:>10.0f} {x.ratio:>7.1f} {x.stated:>9.4g} {x.measured:>10.4g} +-"
                 f"{x.error:>8.2g} {x.bias:>9.2g}" for x in self.lines]
        return "\n".join(rows + [f"variances relative to ||g||^2, over {self.draws} draws"])


def compare_one(spec: Spec, grads: Sequence[np.ndarray], draws: int, seed: int) -> Line:
    norm = sum(float(np.square(g, dtype=np.float64).sum()) for g in grads)
    sums = [np.zeros(g.shape) for g in grads]
    square, stated, nbytes = np.zeros(draws), 0.0, 0
    c = Compressor(spec, seed=seed)
    for k in range(draws):
        if not c.unbiased:
            c = Compressor(spec, seed=seed)  # no residual of an earlier draw
        for total, g, message in zip(sums, grads, c.encode_step(grads, step=k)):
            error = c.decode(message).astype(np.float64) - g
            total += error / draws
            square[k] += np.square(error).sum()
            nbytes += len(message)
        stated += c.stats().variance / draws
    entries, mean = sum(g.size for g in grads), sum(float(np.square(s).sum()) for s in sums)
    spread = float(square.std(ddof=1)) / draws**0.5
    return Line(c.text, nbytes / draws, 4 * entries * draws / nbytes, stated / norm, float(square.mean()) / norm,
                spread / norm, (mean - float(square.mean()) / draws) / norm)


def compare(specs: Sequence[Spec], arrays: Sequence[Any], *, draws: int = 100, seed: int = 0) -> Comparison:
    """Compares compressors on the gradients of one step (a list of arrays, weights of convolutions as [out, kh, kw,
    in]), each under one budget over all of them, over `draws` (2 or more) draws."""
    draws, seed = whole(draws, "compare: draws", 2), whole(seed, "compare: seed", 0, 2**53)
    lists = all(isinstance(x, Iterable) and not isinstance(x, (str, dict)) for x in (specs, arrays))
    specs, arrays = (list(specs), list(arrays)) if lists else ([], [])
    if not specs or not arrays:
        raise ArgumentError("compare: expected a list of compressors and a list of one array or more")
    grads = [readable(a, f"compare: array {k}") for k, a in enumerate(arrays)]
    if not any(np.any(g) for g in grads):
        raise ArgumentError("compare: all arrays are zero, so relative variances do not exist")
    return Comparison([compare_one(spec, grads, draws, seed) for spec in specs], draws)
