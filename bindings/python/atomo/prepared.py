"""Arrays that come again from step to step: what was checked of them, and their C tensors, are kept.

An array is known by its present address, shape, strides and dtype, not by its object: every call reads them and
compares them with those that were checked. So an array that was resized, converted or pointed to other memory
is checked anew, and a new array at the address of a freed one is not taken for it. Nothing here holds an array of the
caller, who holds it during the call.
"""
from __future__ import annotations

import ctypes
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np

from . import functions
from .arrays import Wrapped, doubles

Place = Tuple[Any, ...]  # kind, address, shape, strides, dtype, and what else the checks depend on
NUMPY, OTHER_NUMPY, TORCH = range(3)
MOST = 1024  # C tensors, and lists of them, that are kept


def address(a: np.ndarray) -> int:
    """The address of an array's first element."""
    return numpy_place(a)[1]


def numpy_place(a: np.ndarray) -> Place:
    try:
        return NUMPY, ctypes.addressof(ctypes.c_char.from_buffer(a)), a.shape, a.strides, a.dtype
    except (TypeError, ValueError, BufferError):  # read-only, not contiguous, empty: a.ctypes takes four times as long
        return OTHER_NUMPY, a.ctypes.data, a.shape, a.strides, a.dtype, a.flags.writeable


def torch_place(t: Any) -> Place:
    return TORCH, t.data_ptr(), t.shape, t.stride(), t.dtype, t.is_cpu, t.is_neg()


class Readers(Dict[type, Callable[[Any], Place]]):
    """The functions that return the place of an array, for exactly these types. KeyError for others."""

    def __missing__(self, kind: type) -> Callable[[Any], Place]:
        if (kind.__module__, kind.__name__) not in (("torch", "Tensor"), ("torch.nn.parameter", "Parameter")):
            raise KeyError(kind)
        self[kind] = torch_place
        return torch_place


READERS = Readers({np.ndarray: numpy_place})


def places(xs: Sequence[Any]) -> Optional[List[Place]]:
    """What the C tensors of arrays depend on; None if one is of another type, or has no memory."""
    try:
        return [READERS[type(x)](x) for x in xs]
    except (KeyError, RuntimeError):  # RuntimeError: sparse tensors and others without memory
        return None


class Prepared:
    """The C tensors of a list of arrays, as C takes them.

    wrapped, shapes: of each array. pointers, numbers, lengths: C arrays [n] of the tensors, of their numbers, and for
    the lengths of their messages. places: of the arrays when they were checked; None: some were converted or copied.
    planned, names, most: for the compressor, see Compressor.plan_all."""

    __slots__ = ("wrapped", "shapes", "pointers", "numbers", "lengths", "places", "planned", "names", "most")

    def __init__(self, wrapped: List[Wrapped], first: int, now: Optional[List[Place]]) -> None:
        n = max(len(wrapped), 1)
        self.wrapped = wrapped
        self.shapes = [w.shape for w in wrapped]
        self.pointers = (functions.TensorP * n)(*(w.pointer for w in wrapped))
        self.numbers = (ctypes.c_int32 * n)(*range(first, first + len(wrapped)))
        self.lengths = doubles([0] * n)
        self.places = now if all(w.array is None for w in wrapped) else None
        self.planned, self.most = -1, 0
        self.names: List[str] = []


class Kept:
    """C tensors by place, and lists of them by the numbers of their tensors. check: arrays.readable or writable, which
    refuses an array or makes it float32. For one thread at a time."""

    def __init__(self, check: Callable[[Any, str], np.ndarray]) -> None:
        self.check = check
        self.by_place: Dict[Place, Wrapped] = {}
        self.lists: Dict[Tuple[int, int], Prepared] = {}

    def of(self, x: Any, what: str, now: Optional[Place] = None) -> Wrapped:
        """The C tensor of an array. what: for errors. now: the array's place, if it is known."""
        if now is None:
            found = places((x,))
            now = found[0] if found else None
        kept = self.by_place.get(now) if now else None
        if kept is not None:
            return kept
        a = self.check(x, what)
        made = Wrapped(a)
        if now is not None and address(a) == now[1]:  # not a copy
            if len(self.by_place) >= MOST:
                self.by_place.clear()
            made.array = None
            self.by_place[now] = made
        return made

    def of_list(self, xs: Sequence[Any], first: int, what: str, names: Optional[Sequence[str]] = None) -> Prepared:
        """The C tensors of arrays for tensors first, first + 1, ... names: of the tensors, for errors."""
        now, key = places(xs), (first, len(xs))
        kept = self.lists.get(key)
        if kept is not None and now is not None and kept.places == now:
            return kept
        wrapped = [self.of(x, f"{what} {names[k] if names else first + k}", now[k] if now else None)
                   for k, x in enumerate(xs)]
        made = Prepared(wrapped, first, now)
        if made.places is not None:
            if len(self.lists) >= MOST:
                self.lists.clear()
            self.lists[key] = made
        return made
