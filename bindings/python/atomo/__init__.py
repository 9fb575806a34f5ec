"""Unbiased gradient compression (ATOMO) for NumPy and PyTorch: Python bindings of the C library of atomo-lua.

    import atomo, numpy
    c = atomo.Compressor("taps:ratio=16")
    g = numpy.random.randn(64, 3, 3, 64).astype("f")   # a gradient, [out, kh, kw, in]
    message = c.encode(g, step=1)                      # bytes
    ghat = c.decode(message)                           # the expected ghat is g
    print(len(message), c.stats().variance)            # E||ghat - g||^2, by its formula

``atomo.torch`` has a communication hook for PyTorch's DistributedDataParallel; docs/pytorch.md describes it.
"""
from .comparison import Comparison, compare
from .compressor import Compressor, Stats
from .errors import (ArgumentError, AtomoError, DtypeError, FormatError, LibraryError, LimitError, MismatchError,
                     NonFiniteError, NumericError, OutOfMemoryError, ShapeError, UnsupportedError)
from .loader import library
from .registry import Entry, Option, compressors
from .sampling import probabilities
from .checks import Report, Row, verify

__version__ = "0.2.0"
__all__ = ["ArgumentError", "AtomoError", "Comparison", "Compressor", "DtypeError", "Entry", "FormatError",
           "LibraryError", "LimitError", "MismatchError", "NonFiniteError", "NumericError", "Option",
           "OutOfMemoryError", "Report", "Row", "ShapeError", "Stats", "UnsupportedError", "compare", "compressors",
           "library", "probabilities", "verify"]
