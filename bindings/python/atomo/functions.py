"""Types of the C functions that this package calls (atomo_codec.h), for ctypes."""
from __future__ import annotations

import ctypes
from ctypes import POINTER, Structure, c_char_p, c_double, c_int, c_int32, c_void_p

ABI = 1  # ATOMO_CODEC_ABI of the header that these types were written from
F32, U8 = 0, 2  # ATOMO_F32, ATOMO_U8
MAX_DIM = 8  # ATOMO_MAX_DIM


class Tensor(Structure):
    """atomo_tensor."""

    _fields_ = [("data", c_void_p), ("storage", c_void_p), ("dtype", c_int32), ("ndim", c_int32), ("numel", c_double),
                ("shape", c_double * MAX_DIM), ("stride", c_double * MAX_DIM)]


class CodecInfo(Structure):
    """atomo_codec_info."""

    _fields_ = [("name", c_char_p), ("summary", c_char_p), ("source", c_char_p), ("unbiased", c_int),
                ("linear", c_int), ("options", c_int)]


class OptionInfo(Structure):
    """atomo_option_info."""

    _fields_ = [("key", c_char_p), ("choices", c_char_p), ("help", c_char_p), ("type", c_int), ("standard", c_double),
                ("min", c_double), ("max", c_double)]


class CodecStats(Structure):
    """atomo_codec_stats."""

    _fields_ = [(name, c_double) for name in ("nbytes", "atoms_expected", "atoms_sent", "variance", "square", "T")]


class Block(Structure):
    """atomo_codec_block."""

    _fields_ = [("at", c_void_p), ("left", c_double), ("rank", c_double)]


DECODE_FIRST, DECODE_LAST, DECODE_ALL = 1, 2, 4  # ATOMO_DECODE_...
TensorP = POINTER(Tensor)
DoubleP = POINTER(c_double)

# name: (result, arguments). A result of Status is checked: below 0 it becomes an exception.
Status = "status"
SIGNATURES = {
    "atomo_codec_abi": (c_int, []),
    "atomo_version": (c_char_p, []),
    "atomo_status_name": (c_char_p, [c_int]),
    "atomo_last_error": (c_char_p, []),
    "atomo_set_num_threads": (Status, [c_int]),
    "atomo_tensor_wrap": (Status, [c_int, c_int, DoubleP, DoubleP, c_void_p, POINTER(TensorP)]),
    "atomo_tensor_free": (None, [TensorP]),
    "atomo_probabilities": (Status, [TensorP, c_double, TensorP, POINTER(TensorP)]),
    "atomo_codec_count": (c_int, []),
    "atomo_codec_about": (Status, [c_int, POINTER(CodecInfo)]),
    "atomo_codec_missing": (c_char_p, [c_int]),
    "atomo_codec_option": (Status, [c_int, c_int, POINTER(OptionInfo)]),
    "atomo_codec_new": (Status, [c_char_p, c_int, DoubleP, c_double, c_int, POINTER(c_void_p)]),
    "atomo_codec_free": (None, [c_void_p]),
    "atomo_codec_plan": (Status, [c_void_p, c_int, c_int, DoubleP, c_double, c_char_p]),
    "atomo_codec_plan_as": (Status, [c_void_p, c_int, c_int, DoubleP, c_double, c_char_p, c_char_p, c_int, DoubleP]),
    "atomo_codec_wire_max": (c_double, [c_void_p, c_int]),
    "atomo_codec_set_budget": (Status, [c_void_p, c_double, c_double, c_double]),
    "atomo_codec_set_ranks": (Status, [c_void_p, c_int]),
    "atomo_codec_reserve": (Status, [c_void_p, c_double, c_double]),
    "atomo_codec_encode": (Status, [c_void_p, c_int, POINTER(c_int32), POINTER(TensorP), c_double, c_double, c_void_p,
                                    c_double, DoubleP]),
    "atomo_codec_begin": (Status, [c_void_p, c_double, c_double]),
    "atomo_codec_push": (Status, [c_void_p, c_int, TensorP, c_void_p, c_double, DoubleP]),
    "atomo_codec_end": (Status, [c_void_p]),
    "atomo_codec_undo": (Status, [c_void_p]),
    "atomo_codec_restart": (Status, [c_void_p]),
    "atomo_codec_is_unbiased": (c_int, [c_void_p]),
    "atomo_codec_residual": (Status, [c_void_p, c_int, POINTER(TensorP)]),
    "atomo_codec_get_stats": (None, [c_void_p, c_int, POINTER(CodecStats)]),
    "atomo_codec_family": (c_char_p, [c_void_p, c_int]),
    "atomo_codec_tensor_of": (Status, [c_void_p, c_double]),
    "atomo_codec_length_of": (Status, [c_void_p, c_double, DoubleP]),
    "atomo_codec_memory": (Status, [c_void_p, c_int, POINTER(TensorP)]),
    "atomo_codec_set_memory": (Status, [c_void_p, c_int, TensorP]),
    "atomo_codec_learnt": (Status, [c_void_p, c_int, POINTER(TensorP)]),
    "atomo_codec_set_learnt": (Status, [c_void_p, c_int, TensorP]),
    "atomo_codec_decode_add": (Status, [c_void_p, c_int, c_double, c_double, c_void_p, c_double, c_double, TensorP,
                                        DoubleP]),
    "atomo_codec_decode_add_step": (Status, [c_void_p, c_int, POINTER(c_int32), c_double, c_int, POINTER(Block),
                                             c_double, c_int, POINTER(TensorP)]),
    "atomo_codec_finish": (Status, [c_void_p, c_int, c_double, TensorP]),
}


def declare(library: ctypes.CDLL) -> None:
    """Sets the types of all functions; AttributeError names one that the library does not have."""
    for name, (result, arguments) in SIGNATURES.items():
        function = getattr(library, name)
        function.restype = c_int if result == Status else result
        function.argtypes = arguments
