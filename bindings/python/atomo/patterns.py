"""Lua patterns as regular expressions, so that the overrides of a compressor's text mean the same as in Lua."""
from __future__ import annotations

import re

from .errors import ArgumentError

CLASSES = {"a": "A-Za-z", "d": "0-9", "l": "a-z", "u": "A-Z", "w": "A-Za-z0-9", "s": r" \t\n\r\f\v", "x": "A-Fa-f0-9",
           "p": re.escape("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")}


def escape_class(c: str, pattern: str, in_set: bool) -> str:
    """The regular expression of %c."""
    if c.lower() in CLASSES and c.isalpha():
        if c.isupper() and in_set:
            raise ArgumentError(f"overrides: pattern '{pattern}': %{c} inside [] is not supported in Python")
        return CLASSES[c] if in_set else f"[{'^' if c.isupper() else ''}{CLASSES[c.lower()]}]"
    if c.isalnum():
        raise ArgumentError(f"overrides: pattern '{pattern}': %{c} is not supported in Python")
    return re.escape(c)


def to_regex(pattern: str) -> "re.Pattern[str]":
    """Compiles a Lua pattern: anchors, sets, %a %d %l %s %u %w %x %p, captures, and the repetitions * + - ?."""
    out, i, in_set = [], 0, False
    while i < len(pattern):
        c = pattern[i]
        if c == "%":
            i += 1
            if i == len(pattern):
                raise ArgumentError(f"overrides: pattern '{pattern}' ends with %")
            out.append(escape_class(pattern[i], pattern, in_set))
        elif in_set:
            in_set = c != "]"
            out.append("\\[" if c == "[" else "\\\\" if c == "\\" else c)
        elif c == "[":
            in_set = True
            out.append("[")
        elif c == "-" and out:
            out.append("*?")
        elif c in ".*+?()":
            out.append(c)
        elif (c == "^" and i == 0) or (c == "$" and i == len(pattern) - 1):
            out.append("^" if c == "^" else r"\Z")
        else:
            out.append(re.escape(c))
        i += 1
    try:
        return re.compile("".join(out), re.DOTALL)
    except re.error as problem:
        raise ArgumentError(f"overrides: pattern '{pattern}': {problem}") from None
