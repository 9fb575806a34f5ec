"""Reads a compressor's text, "svd:ratio=16,bits=8", or dict, {"name": "svd", "ratio": 16}, and checks it against the
option tables of the C library, as the Lua side does. No compressor's name is known here."""
from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass, replace
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple, Union

from .errors import ArgumentError
from .patterns import to_regex
from .registry import Entry, Option, table

Spec = Union[str, Mapping[str, Any]]
SHARED = ("atoms", "ratio", "bytes", "sampling", "ef", "overrides")  # of the whole compressor, not of one tensor


def suggest(word: str, names: Sequence[str]) -> str:
    """", did you mean 'rank'?" if a name is near the word, else ""."""
    near = difflib.get_close_matches(word, names, 1)
    return f", did you mean '{near[0]}'?" if near else ""


@dataclass(frozen=True)
class Override:
    """Tensors whose names match `pattern` are encoded by other atoms, or unchanged (atoms "none")."""

    pattern: str
    atoms: str
    values: Tuple[float, ...]
    text: str

    def matches(self, name: str) -> bool:
        return to_regex(self.pattern).search(name) is not None


@dataclass(frozen=True)
class Parsed:
    """A compressor with its option values in the order of the C table (NaN: not given) and its canonical text."""

    entry: Entry
    values: Tuple[float, ...]
    fold: Optional[Callable[[Tuple[int, ...]], int]]
    overrides: Tuple[Override, ...]
    text: str

    def given(self, key: str) -> Optional[float]:
        """The value of an option, its default if none was given; None if the compressor does not have it."""
        j = self.entry.index(key)
        if j is None:
            return None
        return self.entry.options[j].standard if math.isnan(self.values[j]) else self.values[j]

    def override_of(self, name: Optional[str]) -> Optional[Override]:
        return next((o for o in self.overrides if name and o.matches(name)), None)


def number_of(value: Any) -> float:
    """value as a number, NaN if it is none."""
    try:
        return math.nan if "_" in str(value) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def convert(name: str, option: Option, value: Any) -> float:
    """An option's value as the number that C expects; ArgumentError if it is not valid."""
    what = f"{name}: {option.key} is {value!r}, expected "
    if option.kind == "enum":
        if isinstance(value, str) and value in option.choices:
            return option.choices.index(value)
        hint = suggest(value, option.choices) if isinstance(value, str) else ""
        raise ArgumentError(what + " or ".join(option.choices) + hint)
    if option.kind == "bool":
        if value in (True, "true", "1"):
            return 1
        if value in (False, "false", "0"):
            return 0
        raise ArgumentError(what + "true or false")
    number = number_of(value)
    if option.choices:
        if number not in [float(c) for c in option.choices]:
            raise ArgumentError(what + ", ".join(option.choices))
    elif not option.min <= number <= option.max or (option.kind == "int" and number != int(number)):
        kind = "an integer" if option.kind == "int" else "a number"
        raise ArgumentError(f"{what}{kind} of {option.min:g} to {option.max:g}")
    return number


def parse_items(name: str, text: str) -> Dict[str, Any]:
    """The options "key=value,key" of a text."""
    options: Dict[str, Any] = {}
    for item in filter(None, text.split(",")):
        match = re.fullmatch(r"\s*(\w+)\s*(?:=\s*(.*?)\s*)?", item)
        if not match:
            raise ArgumentError(f"{name}: cannot read '{item}', expected key=value")
        key, value = match[1], "true" if match[2] is None else match[2]
        if key in options:
            raise ArgumentError(f"{name}: option '{key}' is given twice")
        options[key] = value
    return options


def parse_overrides(text: str) -> List[Tuple[str, Any]]:
    """The pieces "pattern=override", separated by ";"."""
    pieces = []
    for piece in filter(None, text.split(";")):
        pattern, equals, what = (part.strip() for part in piece.partition("="))
        if not (pattern and equals and what):
            raise ArgumentError(f"overrides: cannot read '{piece}', expected pattern=none, pattern=name:key=value or "
                                "pattern=key=value")
        pieces.append((pattern, what))
    return pieces


def parse_text(text: str) -> Dict[str, Any]:
    head, _, pieces = text.partition(";")
    match = re.fullmatch(r"\s*([\w-]+)\s*(?::(.*))?", head)
    if not match:
        raise ArgumentError(f"compressor: '{head}', expected name or name:key=value,key=value")
    options = {"name": match[1], **parse_items(match[1], match[2] or "")}
    if pieces:
        options["overrides"] = parse_overrides(pieces)
    return options


def read_override(pattern: str, what: Any, base: Entry, options: Mapping[str, Any]) -> Override:
    to_regex(pattern)
    if isinstance(what, str) and re.match(r"\s*\w+\s*=", what):
        what = parse_items(f"overrides: for '{pattern}'", what)
    if what == "none":
        return Override(pattern, "none", (), "none")
    if isinstance(what, Mapping):
        same = what.get("name", base.name) == base.name
        what = {**({k: v for k, v in options.items() if k not in SHARED} if same else {}), **what}
    other = read(what)
    if not other.entry.has_budget or other.fold:
        raise ArgumentError(f"overrides: for '{pattern}': '{other.entry.name}' is neither a set of atoms (entry, svd, "
                            "fourier, ...) nor none")
    for option, value in zip(other.entry.options, other.values):
        if option.key in SHARED and not math.isnan(value):
            raise ArgumentError(f"overrides: for '{pattern}': {option.key} is the whole compressor's, not one tensor's")
    return Override(pattern, other.entry.name, other.values, other.text)


def read_overrides(entry: Entry, options: Mapping[str, Any]) -> Tuple[Override, ...]:
    given = options.get("overrides") or ()
    if not isinstance(given, (list, tuple)) or not all(isinstance(pair, (list, tuple)) and len(pair) == 2 and
                                                       isinstance(pair[0], str) for pair in given):
        raise ArgumentError(f"{entry.name}: overrides is {given!r}, expected a list of pairs (pattern, override), such as "
                            "[('^fc', 'none')]")
    if given and not entry.has_budget:
        raise ArgumentError(f"{entry.name}: overrides: only sets of atoms (entry, svd, auto, ...) share a budget with "
                            "others")
    return tuple(read_override(pattern, what, entry, options) for pattern, what in given)


def text_of(entry: Entry, values: Sequence[float], fold: Any, overrides: Sequence[Override]) -> str:
    """The canonical text: the options that differ from their defaults, in the order of the table."""
    parts = []
    for option, value in zip(entry.options, values):
        if option.key == "fold" and fold:
            parts.append("fold=function")
        elif not math.isnan(value) and value != option.standard:
            shown = (option.choices[int(value)] if option.kind == "enum"
                     else str(value != 0).lower() if option.kind == "bool" else f"{value:.14g}")
            parts.append(f"{option.key}={shown}")
    return (entry.name + (":" + ",".join(parts) if parts else "") +
            "".join(f";{o.pattern}={o.text}" for o in overrides))


def read(spec: Spec) -> Parsed:
    """Reads a text or a dict; ArgumentError names what is wrong, where, and what was expected."""
    if isinstance(spec, str):
        options: Mapping[str, Any] = parse_text(spec)
    elif isinstance(spec, Mapping):
        options = spec
    else:
        raise ArgumentError(f"compressor: spec is a {type(spec).__name__}, expected a text such as \"svd:ratio=16\", "
                            "or a dict")
    entries, name = table(), options.get("name")
    if not isinstance(name, str) or name not in entries:
        raise ArgumentError(f"compressor: unknown compressor '{name}'{suggest(str(name), list(entries))}; compressors "
                            f"are {', '.join(entries)}")
    entry, fold = entries[name], None
    values = [math.nan] * len(entry.options)
    for key, value in options.items():
        j = entry.index(key)
        if j is not None and key == "fold" and callable(value):
            fold = value
        elif j is not None:
            values[j] = convert(name, entry.options[j], value)
        elif key not in ("name", "overrides"):
            keys = [o.key for o in entry.options]
            raise ArgumentError(f"{name}: unknown option '{key}'{suggest(str(key), keys)}; options are "
                                f"{', '.join(keys)}")
    overrides = read_overrides(entry, options)
    return Parsed(entry, tuple(values), fold, overrides, text_of(entry, values, fold, overrides))


def with_standard(parsed: Parsed, standard: Mapping[str, Any]) -> Parsed:
    """parsed, with other defaults for the options that the compressor has and that were not given."""
    entry, values = parsed.entry, list(parsed.values)
    for key, value in standard.items():
        j = entry.index(key)
        if j is not None and math.isnan(values[j]):
            values[j] = convert(entry.name, entry.options[j], value)
    return replace(parsed, values=tuple(values), text=text_of(entry, values, parsed.fold, parsed.overrides))
