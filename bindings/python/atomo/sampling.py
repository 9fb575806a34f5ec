"""The keep-probabilities of ATOMO (stage 5 of a gradient's path)."""
from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from . import functions
from .arrays import Wrapped, copy_and_free, readable
from .loader import library


def probabilities(weights: Any, s: float, cost: Any = None) -> np.ndarray:
    """Algorithm 1 of ATOMO: the probabilities p_i with which atoms of coefficients `weights` [n] are kept, for s
    expected atoms, or with cost [n] (> 0) for an expected cost sum(cost * p) of s. All are float32; returns [n]."""
    w, out = Wrapped(readable(weights, "probabilities: weights")), functions.TensorP()
    c = None if cost is None else Wrapped(readable(cost, "probabilities: cost"))
    library().probabilities(w.pointer, s, c.pointer if c else None, ctypes.byref(out))
    return copy_and_free(out)
