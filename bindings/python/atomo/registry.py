"""The compressors and their options, read from the C library's tables."""
from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import lru_cache
from typing import Dict, List, Optional, Tuple

from .functions import CodecInfo, OptionInfo
from .loader import library

KINDS = ("float", "int", "bool", "enum")  # ATOMO_OPTION_FLOAT, ...


@dataclass(frozen=True)
class Option:
    """An option of a compressor. standard: the value if none is given, NaN: not set. choices: words of an enum, or the
    integers that are allowed."""

    key: str
    kind: str
    standard: float
    min: float
    max: float
    choices: Tuple[str, ...]
    help: str


@dataclass(frozen=True)
class Entry:
    """A compressor. unbiased: with its standard options. linear: its messages can be added before they are decoded.
    number: its place in the C table."""

    name: str
    summary: str
    source: str
    unbiased: bool
    linear: bool
    options: Tuple[Option, ...]
    number: int

    @property
    def missing(self) -> str:
        """The reason why it cannot run with this library on this machine, with the package to install; "" if it can."""
        return library().codec_missing(self.number).decode()

    def __str__(self) -> str:
        return f"{self.name:<10} {self.summary}"

    def index(self, key: str) -> Optional[int]:
        """The position of an option in the table, None if there is none of that name."""
        return next((j for j, o in enumerate(self.options) if o.key == key), None)

    @property
    def has_budget(self) -> bool:
        """Is it a set of atoms, which shares a budget with other tensors?"""
        return self.index("atoms") is not None and self.index("ratio") is not None


def read_option(i: int, j: int) -> Option:
    o = OptionInfo()
    library().codec_option(i, j, ctypes.byref(o))
    choices = tuple(o.choices.decode().split("|")) if o.choices else ()
    return Option(o.key.decode(), KINDS[o.type], o.standard, o.min, o.max, choices, (o.help or b"").decode())


@lru_cache(maxsize=None)
def table() -> Dict[str, Entry]:
    """All compressors by name, in the order of the C table."""
    entries, about = {}, CodecInfo()
    for i in range(library().codec_count()):
        library().codec_about(i, ctypes.byref(about))
        name = about.name.decode()
        if name.startswith("_"):  # for compressors written in Lua
            continue
        entries[name] = Entry(name, about.summary.decode(), about.source.decode(), bool(about.unbiased),
                              bool(about.linear), tuple(read_option(i, j) for j in range(about.options)), i)
    return entries


def compressors() -> List[Entry]:
    """All compressors of the C library; str() of one returns a line with its name and summary."""
    return list(table().values())
