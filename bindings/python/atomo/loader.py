"""Finds and loads the C library, and turns its statuses into exceptions.

The library is searched in this order: the file or folder that the environment variable ATOMO_LIBRARY names; the
system's libraries; the folder ``build`` of the source tree that contains this package. In each place
libatomo-codec.so.0, which needs neither MPI nor Lua, comes before libatomo.so.0. """
from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Iterator, Optional

from . import functions
from .errors import BY_STATUS, ArgumentError, AtomoError, LibraryError

NAMES = ("libatomo-codec.so.0", "libatomo.so.0")
HELP = ("build it (sh scripts/test.sh --only build in the source tree of atomo-lua) and set ATOMO_LIBRARY to the build "
        "folder, or install it (cmake --install build)")


def candidates(variable: Optional[str]) -> Iterator[str]:
    """The candidates, best first. variable: the value of ATOMO_LIBRARY; if it is set, only the libraries that it
    names."""
    if variable:
        path = Path(variable).expanduser()
        if path.is_dir():
            yield from (str(path / name) for name in NAMES)
        else:
            yield str(path)
        return
    yield from NAMES  # searched by the dynamic linker
    tree = Path(__file__).resolve().parents[3]
    yield from (str(tree / "build" / name) for name in NAMES)


def open_first(variable: Optional[str]) -> ctypes.CDLL:
    """Loads the first candidate that can be loaded; LibraryError lists the candidates and why each failed."""
    tried = []
    for name in candidates(variable):
        if os.sep in name and not os.path.exists(name):
            tried.append(f"  {name}: there is no such file")
            continue
        try:
            return ctypes.CDLL(name)
        except OSError as problem:
            tried.append(f"  {name}: {problem}")
    where = f"ATOMO_LIBRARY={variable}" if variable else "ATOMO_LIBRARY is not set"
    raise LibraryError(f"the C library of atomo was not found ({where}); tried\n" + "\n".join(tried) + "\n" + HELP)


def check_abi(library: ctypes.CDLL) -> None:
    """LibraryError unless the library has the ABI that this package was written for."""
    try:
        functions.declare(library)
    except AttributeError as problem:
        raise LibraryError(f"{library._name} is not the C library of atomo, or of another version: {problem}") from None
    found = library.atomo_codec_abi()
    if found != functions.ABI:
        raise LibraryError(f"{library._name} (version {library.atomo_version().decode()}) has ABI {found}, this "
                           f"package expects {functions.ABI}: use library and package of the same version; " + HELP)


class Library:
    """The loaded library. ``lib.codec_new(...)`` calls atomo_codec_new; a status below 0 raises with the C text."""

    def __init__(self, variable: Optional[str]) -> None:
        self.c = open_first(variable)
        check_abi(self.c)
        for name, (result, _) in functions.SIGNATURES.items():
            call = getattr(self.c, name)
            setattr(self, name[len("atomo_"):], self.checked(call) if result == functions.Status else call)
        self.path: str = self.c._name
        self.version: str = self.c.atomo_version().decode()

    if TYPE_CHECKING:  # the functions that __init__ sets
        def __getattr__(self, name: str) -> Callable[..., Any]: ...

    def checked(self, call: Callable[..., int]) -> Callable[..., int]:
        def checked_call(*arguments: object) -> int:
            try:
                status = call(*arguments)
            except ctypes.ArgumentError as problem:  # a value that is no number, which Python functions do not check
                raise ArgumentError(f"{call.__name__}: {problem}") from None  # type: ignore[attr-defined]
            return status if status >= 0 else self.fail(status)

        return checked_call

    def fail(self, status: int) -> int:
        """Raises the exception of a status, with the text of this thread's last failure."""
        name = self.c.atomo_status_name(status).decode()
        problem = BY_STATUS.get(name, AtomoError)(self.c.atomo_last_error().decode("utf-8", "replace"))
        problem.status = name
        raise problem


_loaded: Optional[Library] = None


def library() -> Library:
    """The library, loaded at first use."""
    global _loaded
    if _loaded is None:
        _loaded = Library(os.environ.get("ATOMO_LIBRARY"))
    return _loaded
