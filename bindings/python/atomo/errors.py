"""Exceptions. Each status of the C library has a class, which is also the built-in kind of error closest to it."""
from __future__ import annotations


class AtomoError(Exception):
    """An error of this package. ``status`` is the name of the C library's status, such as "ESHAPE"; "" if the error
    does not come from C."""

    status = ""


class LibraryError(AtomoError, OSError):
    """The C library is missing, does not load, or has another ABI than this package was written for."""


class ArgumentError(AtomoError, ValueError):
    status = "EARG"


class ShapeError(AtomoError, ValueError):
    status = "ESHAPE"


class DtypeError(AtomoError, TypeError):
    status = "EDTYPE"


class OutOfMemoryError(AtomoError, MemoryError):
    status = "ENOMEM"


class NonFiniteError(AtomoError, ArithmeticError):
    """A gradient has NaN or Inf. The text names the tensor, their number and the first position."""

    status = "ENONFINITE"


class FormatError(AtomoError, ValueError):
    """A message or a state is damaged, or was made with other options."""

    status = "EFORMAT"


class LimitError(AtomoError, ValueError):
    status = "ELIMIT"


class NumericError(AtomoError, ArithmeticError):
    status = "ENUMERIC"


class UnsupportedError(AtomoError, NotImplementedError):
    """The C library was built without a library that this needs; the text names it."""

    status = "EUNSUPPORTED"


class MismatchError(AtomoError, RuntimeError):
    """Processes that exchange gradients disagree: on the compressor, the version, the model or the step."""

    status = "EMISMATCH"


BY_STATUS = {
    kind.status: kind
    for kind in (ArgumentError, ShapeError, DtypeError, OutOfMemoryError, NonFiniteError, FormatError, LimitError,
                 NumericError, UnsupportedError, MismatchError)
}
