"""Compressors: a gradient to a message, messages to an estimate of the gradient (the codecs of the C library)."""
from __future__ import annotations

import ctypes
import os
import re
import sys
import threading
from itertools import accumulate
from types import MappingProxyType
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from . import arrays, functions, spec as specs
from .arrays import Wrapped, bytes_of, doubles, readable, whole, writable
from .errors import ArgumentError, AtomoError, FormatError, ShapeError
from .loader import library
from .prepared import Kept, Prepared, address

WAYS = {"up": 0, "down": 1}  # ATOMO_WAY_UP, ATOMO_WAY_DOWN
MOST = 2**31 - 1
MOST_STEP, MOST_RANK = 2**32 - 1, 2**24 - 1


StateEntry = Tuple[int, str, np.ndarray]  # tensor, "learnt." or "" for the memory, value


class Stats(NamedTuple):
    """Of the last encode or step. nbytes: length of the messages. atoms_expected, atoms_sent: numbers of atoms.
    variance: E||ghat - g||^2 by its formula, in the gradient's units squared. square: ||g||^2. family: what `auto`
    chose for the tensor, such as "entry:step=1", else ""."""

    nbytes: int
    atoms_expected: float
    atoms_sent: float
    variance: float
    square: float
    family: str


def world_size() -> int:
    """The number of processes of torch.distributed, 1 without a process group."""
    distributed = sys.modules.get("torch.distributed")
    in_use = distributed is not None and distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if in_use else 1


def blocks_of(memory: Sequence[Tuple[int, int]], first: int) -> Any:
    """A C array of blocks of messages, (address, bytes), of ranks first, first + 1, ..."""
    return (functions.Block * len(memory))(*((at, nbytes, rank) for rank, (at, nbytes) in enumerate(memory, first)))


class Compressor:
    """A compressor, such as ``Compressor("taps:ratio=64")``. ``atomo.compressors()`` lists all.

    Args:
      spec: "name:key=value,key=value", or a dict {"name": ..., key: value}. "name:...;pattern=other" encodes tensors
        whose names match a Lua pattern differently (docs/compressors.md). In a dict, fold may be a function of the
        shape that returns the number of rows of the matrix.
      seed: an integer in [0, 2^53], the key of the random streams with step, rank and tensor number: the same key and
        gradient give the same message (svd, powersgd: with the same number of threads).
      way: "up", or "down" for averages that are encoded again.
      standard: other defaults, {option: value}, for options that the compressor has.

    Gradients are arrays of float32 (float16 and bfloat16 are converted) in host memory: NumPy, PyTorch, DLPack or the
    buffer protocol. Weights of convolutions are taken as [out, kh, kw, in]. Tensors are numbered from 1. One thread
    uses a compressor at a time (others wait); different compressors run in parallel. Errors of C are atomo.AtomoError.
    """

    def __init__(self, spec: specs.Spec, *, seed: int = 0, way: str = "up",
                 standard: Mapping[str, Any] = MappingProxyType({})) -> None:
        self.given, self.standard = spec, standard
        self.parsed = specs.with_standard(specs.read(spec), standard)
        self.seed = whole(seed, "compressor: seed", 0, 2**53)
        if way not in tuple(WAYS):
            raise ArgumentError(f"compressor: way is {way!r}, expected 'up' or 'down'")
        self.way = way
        self.name, self.text = self.parsed.entry.name, self.parsed.text
        self.linear = self.parsed.entry.linear
        self.lib, self.handle, self.process = library(), ctypes.c_void_p(), os.getpid()
        values = self.parsed.values
        self.lib.codec_new(self.name.encode(), len(values), doubles(values), self.seed, WAYS[way],
                           ctypes.byref(self.handle))
        self.lock = threading.RLock()
        self.set_ranks(world_size())
        self.shapes: Dict[int, Tuple[int, ...]] = {}
        self.labels: Dict[int, Optional[str]] = {}  # the names of tensors
        self.pending: Dict[int, List[Tuple[str, np.ndarray]]] = {}  # loaded for tensors that are not planned yet
        self.plannings = 0  # calls of plan that planned
        self.block = (functions.Block * 1)()
        self.scratch, self.gradients, self.sums = np.empty(0, np.uint8), Kept(readable), Kept(writable)

    def __del__(self) -> None:
        if getattr(self, "handle", None) and self.process == os.getpid():
            self.lib.c.atomo_codec_free(self.handle)

    def __repr__(self) -> str:
        return f"atomo.Compressor({self.text!r}, seed={self.seed})"

    def __reduce__(self) -> Any:
        raise TypeError("a compressor cannot be pickled: save state_dict() and load it into a new one of the same spec")

    @property
    def unbiased(self) -> bool:
        """Is the expected decoded message the gradient? False with ef=true."""
        return self.lib.codec_is_unbiased(self.handle) == 1

    def set_ranks(self, ranks: int) -> None:
        """Says that the messages of `ranks` ranks are averaged, each encoded with a rank below that, and with the same
        seed and step. With option together the draws then cancel: each message is as it would be alone, the mean varies
        less. At first: the world size of torch.distributed if that is in use, else 1. A DDP state sets the number of
        processes that encode."""
        ranks = whole(ranks, f"{self.name}: ranks", 1, 2**24)
        self.same_process()
        with self.lock:
            self.lib.codec_set_ranks(self.handle, ranks)

    def same_process(self) -> None:
        if self.process != os.getpid():
            raise ArgumentError(f"{self.text}: made in process {self.process}, used in {os.getpid()} after a fork: the "
                                "library's threads do not exist there; make the compressor in the child process")

    # ---- plan -------------------------------------------------------------------------------------------------------

    def plan(self, tensor: int, shape: Sequence[int], name: Optional[str] = None) -> None:
        """Plans tensor number `tensor` for a shape, unless it is planned for it already; another shape, or a name that
        other overrides match, replaces the plan. name: for error texts and overrides."""
        self.same_process()
        tensor = whole(tensor, f"{self.name}: tensor", 1, MOST)
        shape = arrays.shape_of(shape, f"{self.name}: shape of tensor {tensor}")
        if not (name is None or isinstance(name, str)):
            raise ArgumentError(f"{self.name}: name of tensor {tensor} is {name!r}, expected a text")
        other = self.parsed.override_of(name)
        if self.shapes.get(tensor) == shape and (name is None or other is self.parsed.override_of(self.labels[tensor])):
            return
        if len(shape) > functions.MAX_DIM:
            raise ShapeError(f"{self.name}: tensor {tensor} has {len(shape)} dimensions, at most {functions.MAX_DIM} "
                             "are possible")
        rows, label = self.rows_of(shape), name.encode("utf-8", "replace") if name else None
        with self.lock:
            if other:
                self.lib.codec_plan_as(self.handle, tensor, len(shape), doubles(shape), rows, label,
                                       other.atoms.encode(), len(other.values), doubles(other.values))
            else:
                self.lib.codec_plan(self.handle, tensor, len(shape), doubles(shape), rows, label)
            self.shapes[tensor], self.labels[tensor] = shape, name
            self.plannings += 1
            for learnt, value in self.pending.pop(tensor, []):
                self.put_state(learnt, tensor, value)

    def rows_of(self, shape: Tuple[int, ...]) -> float:
        """The rows that the function given as fold returns, 0 without one."""
        if self.parsed.fold is None:
            return 0
        return whole(self.parsed.fold(shape), f"{self.name}: the result of fold for {shape}", 1)

    def wire_max(self, tensor: int = 0) -> int:
        """The largest message of a tensor in bytes; tensor 0: the sum over all planned tensors."""
        return int(self.lib.codec_wire_max(self.handle, whole(tensor, f"{self.name}: tensor", 0, MOST)))

    def reserve(self, entries: int, nbytes: int) -> None:
        """Tells that a step also has tensors of `entries` entries that are sent otherwise, in nbytes bytes: the budgets
        ratio= and bytes= include them."""
        with self.lock:
            self.lib.codec_reserve(self.handle, entries, nbytes)

    def set_budget(self, *, atoms: float = 0, ratio: float = 0, nbytes: float = 0) -> None:
        """Sets the budget from the next encode on: expected atoms, ratio to 4-byte entries, or bytes of a step; give
        one."""
        with self.lock:
            self.lib.codec_set_budget(self.handle, atoms, ratio, nbytes)

    # ---- encode -----------------------------------------------------------------------------------------------------

    def encode(self, g: Any, *, step: int = 0, tensor: int = 1, rank: int = 0, out: Any = None) -> Any:
        """Encodes one gradient [any shape] under the budget; returns the message as bytes. step: 0 to 2^32 - 1, rank: 0
        to 2^24 - 1. out: contiguous uint8 memory of at least wire_max(tensor) elements to write the message to; a
        memoryview of its beginning is returned then. Raises NonFiniteError for NaN or Inf."""
        tensor = whole(tensor, f"{self.name}: tensor", 1, MOST)
        return self.encode_list([g], tensor, step, rank, None, out)[0]

    def encode_step(self, grads: Sequence[Any], *, step: int = 0, rank: int = 0,
                    names: Optional[Sequence[str]] = None, out: Any = None) -> List[Any]:
        """Encodes all gradients of a step under one budget, with one price for all; returns a message for each.
        Gradient k of the list (from 0) is tensor k + 1; ShapeError if its shape is not the one of the steps before.
        out: contiguous uint8 memory of at least wire_max() elements to write the messages to, one after the other;
        memoryviews of it are returned then, else bytes. Arrays that come again, at the same place and of the same
        shape, strides and dtype, are not converted or checked again."""
        if names is not None and len(names) != len(grads):
            raise ArgumentError(f"{self.name}: {len(names)} names for {len(grads)} gradients")
        return self.encode_list(grads, 1, step, rank, names, out, same_shapes=True)

    def encode_list(self, grads: Sequence[Any], first: int, step: int, rank: int, names: Optional[Sequence[str]],
                    out: Any, same_shapes: bool = False) -> List[Any]:
        """The messages of tensors first, first + 1, ...: memoryviews of out, or bytes if it is None."""
        self.same_process()
        step, rank = self.key(step, rank)
        if not hasattr(grads, "__len__") or getattr(grads, "ndim", 1) == 0:
            raise ArgumentError(f"{self.name}: gradients are a {type(grads).__name__}, expected a list")
        with self.lock:
            ready = self.gradients.of_list(grads, first, f"{self.name}: gradient", names)
            if ready.planned != self.plannings or (names and self.parsed.overrides and ready.names != list(names)):
                self.plan_all(ready, first, names, same_shapes)
            room = self.buffer(ready.most) if out is None else arrays.writable_bytes(out, f"{self.name}: out")
            self.lib.codec_encode(self.handle, len(grads), ready.numbers, ready.pointers, step, rank, address(room),
                                  room.size, ready.lengths)
            ends, memory = list(accumulate(map(int, ready.lengths[:len(grads)]))), room.data
            messages = [memory[begin:end] for begin, end in zip([0, *ends], ends)]
            return messages if out is not None else [bytes(message) for message in messages]

    def plan_all(self, ready: Prepared, first: int, names: Optional[Sequence[str]], same_shapes: bool) -> None:
        """Plans tensors first, first + 1, ... for a list of gradients, unless they are planned. Sets ready.planned, the
        number of plannings, ready.names, and ready.most, the bytes of the longest messages. same_shapes: refuses another
        shape."""
        for k, shape in enumerate(ready.shapes):
            tensor, name = first + k, names[k] if names else None
            before = self.shapes.get(tensor, shape)
            if same_shapes and shape != before:
                raise ShapeError(f"{self.name}: gradient {name or tensor} has shape {shape}, expected {before}, as in "
                                 f"the steps before; plan({tensor}, shape) replaces the shape")
            self.plan(tensor, shape, name)
        ready.planned, ready.names = self.plannings, list(names) if names else []
        ready.most = sum(self.wire_max(first + k) for k in range(len(ready.shapes)))

    def key(self, step: int, rank: int, least: int = 0) -> Tuple[int, int]:
        return (whole(step, f"{self.name}: step", least, MOST_STEP),
                whole(rank, f"{self.name}: rank", least, MOST_RANK))

    def buffer(self, nbytes: int) -> np.ndarray:
        """A buffer of at least nbytes that later calls use again."""
        if self.scratch.size < nbytes:
            self.scratch = np.empty(nbytes, np.uint8)
        return self.scratch

    # ---- a step, tensor by tensor -----------------------------------------------------------------------------------

    def begin_step(self, step: int, rank: int = 0) -> None:
        """Begins a step whose gradients come one by one: push each, then end_step. The price comes from the last step,
        corrected so that the bytes stay close to the budget of all planned tensors."""
        self.same_process()
        step, rank = self.key(step, rank)
        with self.lock:
            self.lib.codec_begin(self.handle, step, rank)

    def push(self, tensor: int, g: Any, out: Any) -> int:
        """Writes the message of a planned tensor to the beginning of out, contiguous uint8 memory; returns its length in
        bytes."""
        self.same_process()
        tensor = whole(tensor, f"{self.name}: tensor", 1, MOST)
        room = arrays.writable_bytes(out, f"{self.name}: out")
        return self.push_wrapped(tensor, Wrapped(readable(g, f"{self.name}: gradient {tensor}")), address(room),
                                 room.size)

    def push_wrapped(self, tensor: int, g: Wrapped, address: int, capacity: int) -> int:
        """push, for a C tensor and memory that the caller keeps from step to step."""
        used = ctypes.c_double()
        with self.lock:
            self.lib.codec_push(self.handle, tensor, g.pointer, address, capacity, ctypes.byref(used))
        return int(used.value)

    def end_step(self) -> None:
        """Ends the step: what it changed in the compressor's state is kept."""
        with self.lock:
            self.lib.codec_end(self.handle)

    def undo_step(self) -> None:
        """Call it in place of end_step to give up the step: the state is as before begin_step."""
        with self.lock:
            self.lib.codec_undo(self.handle)

    # ---- decode -----------------------------------------------------------------------------------------------------

    def decode(self, message: Any) -> np.ndarray:
        """Decodes a message to a new float32 array of the tensor's shape: the estimate of the gradient. The tensor must
        be planned. Raises FormatError for a damaged message, or one of another compressor."""
        data = bytes_of(message, f"{self.name}: message")
        tensor = self.lib.codec_tensor_of(data.ctypes.data, data.size)
        if tensor not in self.shapes:
            raise ArgumentError(f"{self.name}: decode: the message is for tensor {tensor}, which is not planned")
        return self.decode_add(message, 1, np.zeros(self.shapes[tensor], np.float32))

    def decode_add(self, message: Any, scale: float, acc: Any, *, tensor: int = 0, step: int = -1,
                   rank: int = -1) -> Any:
        """acc += scale * (the message's gradient), in place; returns acc. acc: contiguous float32 of the tensor's
        shape. tensor, step, rank: what the message must be for; 0 and -1: anything. acc is unchanged after a
        FormatError."""
        self.same_process()
        step, rank = self.key(step, rank, -1)
        data, used = bytes_of(message, f"{self.name}: message"), ctypes.c_double()
        place = address(data)
        self.lib.codec_length_of(place, data.size, ctypes.byref(used))
        if used.value < data.size:
            raise FormatError(f"{self.name}: {data.size - used.value:.0f} bytes follow the message of {used.value:.0f} "
                              "bytes")
        with self.lock:
            target = self.sums.of(acc, f"{self.name}: acc")
            self.lib.codec_decode_add(self.handle, tensor, step, rank, place, data.size, scale, target.pointer,
                                      ctypes.byref(used))
        return acc

    def decode_add_step(self, messages: Any, scale: float, accs: Sequence[Any], *, step: int = -1,
                        rank: int = -1) -> Sequence[Any]:
        """decode_add for the messages of a whole step, in one call: accs[k] += scale * (the gradient of tensor k + 1).
        messages: contiguous uint8 memory with one message for each of accs, one after the other, as encode_step writes
        them to out; or a list of messages. Nothing is changed by a FormatError, unless the body of a message is
        damaged: then its acc is not valid, and those before it are complete."""
        self.same_process()
        step, rank = self.key(step, rank, -1)
        what = f"{self.name}: messages"
        data = bytes_of(b"".join(bytes_of(m, what).data for m in messages)
                        if isinstance(messages, (list, tuple)) else messages, what)
        with self.lock:
            ready = self.sums.of_list(accs, 1, f"{self.name}: acc")
            self.block[0] = address(data), data.size, rank
            self.decode_blocks(ready.numbers, ready.pointers, len(accs), step, self.block, scale, functions.DECODE_ALL)
        return accs

    def decode_blocks(self, numbers: Any, pointers: Any, count: int, step: int, blocks: Any, scale: float,
                      which: int) -> None:
        """atomo_codec_decode_add_step, for C arrays of tensor numbers, C tensors and blocks."""
        with self.lock:
            self.lib.codec_decode_add_step(self.handle, count, numbers, step, len(blocks), blocks, scale, which,
                                           pointers)

    def finish(self, acc: Any, scale: float, tensor: int = 1) -> Any:
        """Turns acc = scale * (the sum of all ranks' messages of a tensor) into the update, in place. It changes acc
        only for compressors that vote (signsgd:vote=true)."""
        target = Wrapped(writable(acc, f"{self.name}: acc"))
        with self.lock:
            self.lib.codec_finish(self.handle, tensor, scale, target.pointer)
        return acc

    def average(self, tensor: int, step: int, messages: Sequence[Any], out: Any, *, first: int = 0) -> List[int]:
        """Writes the average of the ranks' messages of a tensor to out (float32); returns the lengths of the messages.
        messages[r]: memory [uint8] that begins with the message of rank first + r in this step. The result depends on
        the messages only, bit for bit."""
        self.same_process()
        step, first = self.key(step, first)
        tensor = whole(tensor, f"{self.name}: tensor", 1, MOST)
        if len(messages) == 0:
            raise ArgumentError(f"{self.name}: average: there are no messages")
        data = [bytes_of(m, f"{self.name}: message") for m in messages]
        blocks = blocks_of([(address(m), m.size) for m in data], first)
        target = Wrapped(writable(out, f"{self.name}: out"))
        self.average_blocks((ctypes.c_int32 * 1)(tensor), (functions.TensorP * 1)(target.pointer), 1, step, blocks)
        return [m.size - int(block.left) for m, block in zip(data, blocks)]

    def average_blocks(self, numbers: Any, pointers: Any, count: int, step: int, blocks: Any) -> None:
        """Writes the averages over the blocks to C tensors, and sets the blocks to the messages that follow."""
        self.decode_blocks(numbers, pointers, count, step, blocks, 1 / len(blocks),
                           functions.DECODE_FIRST | functions.DECODE_LAST)

    # ---- statistics and state ---------------------------------------------------------------------------------------

    def stats(self, tensor: int = 0) -> Stats:
        """Statistics of the last encode or step: of one tensor, or summed over all (tensor 0)."""
        s, tensor = functions.CodecStats(), whole(tensor, f"{self.name}: tensor", 0, MOST)
        with self.lock:
            self.lib.codec_get_stats(self.handle, tensor, ctypes.byref(s))
            family = self.lib.codec_family(self.handle, tensor).decode() if tensor else ""
        return Stats(int(s.nbytes), s.atoms_expected, s.atoms_sent, s.variance, s.square, family)

    def residual(self, tensor: int = 1) -> np.ndarray:
        """A copy of the residual of error feedback (ef=true): all gradients so far minus all that was sent."""
        return self.read_state(self.lib.codec_residual, tensor)

    def read_state(self, read: Callable[..., int], tensor: int) -> np.ndarray:
        out, tensor = functions.TensorP(), whole(tensor, f"{self.name}: tensor", 0, MOST)
        with self.lock:
            read(self.handle, tensor, ctypes.byref(out))
        return arrays.copy_and_free(out)

    def put_state(self, learnt: str, tensor: int, value: np.ndarray) -> None:
        kind, put = (functions.U8, self.lib.codec_set_learnt) if learnt else (functions.F32, self.lib.codec_set_memory)
        with self.lock:
            put(self.handle, tensor, Wrapped(value, kind).pointer)

    def state_dict(self) -> Dict[str, np.ndarray]:
        """What the next messages depend on, with the keys of the Lua side: "1": the memory of tensor 1 (float32:
        residual, PowerSGD's factor); "learnt.1": its prices and choices (uint8); "learnt.0": the step's."""
        state = {f"{learnt}{tensor}": data.copy() for tensor, loaded in self.pending.items() for learnt, data in loaded}
        state["learnt.0"] = self.read_state(self.lib.codec_learnt, 0)
        for tensor in sorted(self.shapes):
            state[str(tensor)] = self.read_state(self.lib.codec_memory, tensor)
            state[f"learnt.{tensor}"] = self.read_state(self.lib.codec_learnt, tensor)
        return {key: value for key, value in state.items() if value.size}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores a state. That of a tensor that is not planned yet is set when it is; a tensor that the state lacks
        begins anew. The messages that follow are those of the compressor that saved it, bit for bit. Raises ShapeError
        for a truncated one; the compressor is then as before."""
        entries = self.read_entries(state)
        before = self.read_entries(self.state_dict())
        lacking = {e[:2] for e in before} - {e[:2] for e in entries}
        fresh = self.read_entries(self.beginning()) if lacking else []
        self.pending = {}
        try:
            self.put_entries([e for e in fresh if e[:2] in lacking])
            self.put_entries(entries)
        except AtomoError:
            self.put_entries(before)
            raise

    def beginning(self) -> Dict[str, np.ndarray]:
        """The state of a new compressor of the same tensors."""
        new = Compressor(self.given, seed=self.seed, way=self.way, standard=self.standard)
        for tensor, shape in self.shapes.items():
            new.plan(tensor, shape, self.labels[tensor])
        return new.state_dict()

    def read_entries(self, state: Mapping[str, Any]) -> List[StateEntry]:
        """The entries of a state_dict, with copies of their values."""
        if not isinstance(state, Mapping):
            raise ArgumentError(f"{self.name}: load_state_dict: a {type(state).__name__}, expected a dict of "
                                "state_dict()")
        entries = []
        for key, value in state.items():
            learnt, _, number = str(key).rpartition(".")
            if learnt not in ("", "learnt") or not re.fullmatch("[0-9]{1,10}", number) or (number == "0" and not learnt):
                raise ArgumentError(f"{self.name}: load_state_dict: '{key}', expected a tensor's number, or learnt. "
                                    "and a number")
            what = f"{self.name}: load_state_dict: '{key}'"
            data = bytes_of(value, what).copy() if learnt else readable(value, what).copy()
            entries.append((int(number), f"{learnt}." if learnt else "", data))
        return entries

    def put_entries(self, entries: Sequence[StateEntry]) -> None:
        for tensor, learnt, data in entries:
            if tensor == 0 or tensor in self.shapes:
                self.put_state(learnt, tensor, data)
            else:
                self.pending.setdefault(tensor, []).append((learnt, data))

    def restart(self) -> None:
        """Drops what was learnt from earlier steps (prices, kept bases), and keeps the memory (residuals)."""
        with self.lock:
            self.lib.codec_restart(self.handle)
