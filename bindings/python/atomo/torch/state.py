"""The state of the hook: the compressor, the parameters it is for, and the threads that exchange."""
from __future__ import annotations

import os
import warnings
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Set, Tuple

import torch
import torch.distributed as dist

from ..arrays import whole
from ..compressor import Compressor, Stats
from ..errors import ArgumentError, FormatError, NonFiniteError, AtomoError
from ..functions import ABI
from ..spec import Spec
from .coder import Bucket, Coder
from .gather import Gatherer, compare
from .hierarchical import Node, node_of
from .layout import Layout, Parameter, gradient_view, group_of, refuse_buffer, unwrapped
from .packet import NONFINITE
from .pipeline import Pipeline
from .route import Route, allgather
from .sharded import Ways

FORMAT = 1  # of state_dict


def refuse_topology(topology: str, inter_node: Optional[str], node: Optional[str], process_group: Any) -> None:
    """Raises for a topology that is not known, or that needs other process groups than the one given."""
    if topology not in ("allgather", "sharded", "hierarchical"):
        raise ArgumentError(f"State: topology is {topology!r}, expected 'allgather', 'sharded' or 'hierarchical'")
    if topology != "hierarchical" and not (inter_node is None and node is None):
        raise ArgumentError(f"State: inter_node and node are for topology 'hierarchical', topology is {topology!r}")
    if inter_node not in (None, "allgather", "sharded"):
        raise ArgumentError(f"State: inter_node is {inter_node!r}, expected 'allgather' or 'sharded'")
    if topology != "allgather" and process_group is not None:
        raise ArgumentError(f"State: process_group is given, and topology {topology!r} makes several of all processes: "
                            "leave process_group out, or choose topology 'allgather'")


class Traffic(NamedTuple):
    """Totals since the state was made. nbytes: bytes that this process passed to other processes, padding included;
    what all others receive counts once. rounds: exchanges of all processes. node_bytes: dense bytes passed to processes of
    the same node (topology hierarchical)."""

    nbytes: int
    rounds: int
    node_bytes: int


def buffer_of(result: "torch.futures.Future") -> torch.Tensor:
    """The buffer; raises if the result is an exception. (DDP shows the text of Future.set_exception as that of a failed
    conversion to a tensor.)"""
    value = result.value()
    if isinstance(value, BaseException):
        raise value
    return value


class State:
    """What ``ddp.register_comm_hook(state, atomo.torch.hook)`` needs. [collective: all processes make it]

    Args:
      spec: a compressor, such as "auto:ratio=64" (atomo.compressors()). A budget is that of a step of one process.
        Option prefer of the compressor auto is "accuracy" here unless it is given: the averages train a network.
      model: the model, before or after DistributedDataParallel wraps it. Freeze its parameters before.
      seed: of the random streams; the same on all processes, which draw independently.
      small: how tensors of less than min_size elements, biases and norms are sent: "compress"; or "dense", in float32;
        or "auto": "compress" for the compressor auto, else "dense".
      nonfinite: what a NaN or Inf in a gradient of any process does. "abort": every process raises, naming rank and
        parameter. "skip": all averages of the step are zero on every process, the compressor is as before, and
        ``skipped`` counts it. A training loop compares it before and after backward, and then leaves out
        optimizer.step().
      topology: "allgather": every process's messages go to all others. "sharded": they go to owners, which average,
        encode again, and send that to all; traffic does not grow with the number of processes, the variance has that
        of the second draw added, and the compressor must be unbiased or have ef=true. "hierarchical": sums are dense
        within a node, and only between the nodes' first processes compressed. Averages are bit-identical on all
        processes with each.
      inter_node: with "hierarchical", the topology between the nodes: "allgather" (default) or "sharded".
      node: with "hierarchical", a name that the processes of one node share; default: the host's.
      process_group: a gloo group of DistributedDataParallel's processes that nothing else uses; default: a new one of
        all processes. Topologies other than "allgather" make several, of all processes.
      threads: of encoding and decoding, default torch.get_num_threads(). PyTorch's matrix products take the same
        number where both use one OpenBLAS, as in Debian.

    Attributes:
      step: number of averaged steps.
      skipped: number of skipped steps among them.
      compressor: an atomo.Compressor whose tensor k is the k-th of model.named_parameters().
    """

    def __init__(self, spec: Spec, model: torch.nn.Module, *, seed: int = 0, small: str = "auto", min_size: int = 1024,
                 nonfinite: str = "abort", topology: str = "allgather", inter_node: Optional[str] = None,
                 node: Optional[str] = None, process_group: Any = None, threads: Optional[int] = None) -> None:
        if small not in ("auto", "dense", "compress"):
            raise ArgumentError(f"State: small is {small!r}, expected 'auto', 'dense' or 'compress'")
        if nonfinite not in ("abort", "skip"):
            raise ArgumentError(f"State: nonfinite is {nonfinite!r}, expected 'abort' or 'skip'")
        refuse_topology(topology, inter_node, node, process_group)
        if not isinstance(model, torch.nn.Module):
            raise ArgumentError(f"State: model is a {type(model).__name__}, expected a torch.nn.Module")
        min_size = whole(min_size, "State: min_size", 0)
        threads = None if threads is None else whole(threads, "State: threads", 1, 1024)
        self.options: Dict[str, Any] = {"spec": spec, "seed": seed, "small": small, "min_size": min_size,
                                        "nonfinite": nonfinite, "threads": threads, "topology": topology,
                                        "inter_node": inter_node, "node": node}
        self.step = self.skipped = 0
        self.process = os.getpid()
        self.compressor = Compressor(spec, seed=seed, standard={"prefer": "accuracy"})
        ddp_group, model = group_of(model), unwrapped(model)
        codes_small = small == "compress" or (small == "auto" and self.compressor.name == "auto")
        self.layout = Layout(model, self.compressor, codes_small, min_size)
        self.layout.plan(self.compressor)
        self.layout.warn_of_rest(self.compressor)
        if "sharded" in (topology, inter_node) and not (self.compressor.unbiased or self.compressor.parsed.given("ef")):
            raise ArgumentError(f"State: sharded encodes the average a second time, which needs an unbiased compressor "
                                f"or ef=true; '{self.compressor.text}' is biased")
        self.attached = True
        self.saved: Optional[Mapping[str, Any]] = None
        self.group = self.make_group(process_group, ddp_group)
        self.pipeline: Optional[Pipeline] = None
        self.rank, self.size = dist.get_rank(self.group), dist.get_world_size(self.group)
        if ddp_group is not None and dist.get_world_size(ddp_group) != self.size:
            raise ArgumentError(f"State: DistributedDataParallel averages over {dist.get_world_size(ddp_group)} processes, "
                                f"the state over {self.size}: pass process_group=, a gloo group of the same processes")
        self.node: Optional[Node] = None
        self.ways: Optional[Ways] = None  # those of topology sharded
        self.route = self.make_route()
        self.members: Dict[int, Any] = {}  # of each bucket by its index: (place, parameters, gradients)

    def make_route(self) -> Route:
        """The route of the topology, with the process groups that it needs. [collective]"""
        compare(self.group, self.size, f"topology {self.options['topology']}")  # before groups are made for it
        rank, names = self.rank, [f"rank {k}" for k in range(self.size)]
        if self.options["topology"] == "hierarchical":
            self.node = Node(self.group, self.size, node_of(self.options["node"]))
            names = [f"rank {k} for its node" for k in self.node.firsts]
            if not self.node.leads:
                return self.node.route(None)
            place = self.node.firsts.index(rank)
            inner = self.between(self.options["inter_node"] or "allgather", place, names, self.node.leaders)
            return self.node.route(inner)
        sharded = self.options["topology"] == "sharded"
        groups = [self.group, dist.new_group(backend="gloo")] if sharded else [self.group]
        return self.between(self.options["topology"], rank, names, groups)

    def between(self, topology: str, rank: int, names: List[str], groups: List[Any]) -> Route:
        """The route of processes that all encode: rank of names, on process groups."""
        self.compressor.set_ranks(len(names))
        coder = Coder(self.compressor, rank, names)
        if topology == "allgather":
            return allgather(coder, Gatherer(groups[0], names))
        self.ways = Ways(coder, self.layout, len(names), groups)
        return self.ways.route()

    @staticmethod
    def make_group(process_group: Any, ddp_group: Any) -> Any:
        if not dist.is_available() or not dist.is_initialized():
            raise ArgumentError("State: there is no process group yet: call torch.distributed.init_process_group first")
        if process_group is not None and not isinstance(process_group, dist.ProcessGroup):
            raise ArgumentError(f"State: process_group is a {type(process_group).__name__}, expected a process group that "
                                "this process belongs to")
        if process_group is not None and process_group in (dist.group.WORLD, ddp_group):
            raise ArgumentError("State: process_group is the default one, or DistributedDataParallel's, whose operations "
                                "would mix with the state's: make another by torch.distributed.new_group(backend='gloo')")
        group = process_group if process_group is not None else dist.new_group(backend="gloo")
        backend = dist.get_backend(group)
        if backend != "gloo" and "cpu:gloo" not in backend.split(","):  # PyTorch 2 has a backend for each device
            raise ArgumentError(f"State: process_group has backend {backend}, expected gloo: messages "
                                "are in host memory; make it by torch.distributed.new_group(backend='gloo')")
        return group

    # ---- a step -----------------------------------------------------------------------------------------------------

    def exchange(self, bucket: dist.GradBucket) -> "torch.futures.Future[torch.Tensor]":
        """Starts the exchange of a bucket; the future's value is its buffer with the averages."""
        if not self.attached:
            raise ArgumentError("this state was unpickled: call state.attach(model) before training")
        if self.process != os.getpid():
            raise ArgumentError(f"State: made in process {self.process}, used in {os.getpid()} after a fork: its "
                                "threads do not exist there; make the state in the process that trains")
        parameters, buffer = bucket.parameters(), bucket.buffer()
        refuse_buffer(buffer)
        members, grads = self.members_of(bucket, parameters, buffer)
        result: "torch.futures.Future" = torch.futures.Future()
        if self.pipeline is None:
            threads = self.options["threads"] or torch.get_num_threads()
            self.pipeline = Pipeline(self.route, self.compressor.lib, self.agree, threads, self.close)
        if bucket.index() == 0:
            self.pipeline.begin()
        self.pipeline.start(Bucket(bucket.index(), bucket.is_last(), self.step, buffer, members, grads, result))
        return result.then(buffer_of)

    def members_of(self, bucket: dist.GradBucket, parameters: List[torch.Tensor],
                   buffer: torch.Tensor) -> Tuple[List[Parameter], List[torch.Tensor]]:
        """The parameters of a bucket and their gradients in its buffer, kept until DDP makes other buckets, or a
        parameter has another shape, which is refused."""
        place = (buffer.data_ptr(), [id(p) for p in parameters], [p.shape for p in parameters])
        if self.members.get(bucket.index(), (None,))[0] != place:
            pairs = [(self.layout.of(p), gradient_view(flat, p)) for p, flat in zip(parameters, bucket.gradients())]
            pairs.sort(key=lambda pair: -pair[0].number)  # prices depend on the order, which DDP changes: it rebuilds
            self.members[bucket.index()] = place, [m for m, _ in pairs], [m.seen(view) for m, view in pairs]
        _, members, grads = self.members[bucket.index()]
        return members, grads

    def agree(self) -> None:
        """Compares what must be the same on all processes. [collective]"""
        facts = [f"seed {self.compressor.seed}", f"version {self.compressor.lib.version}, ABI {ABI}",
                 f"min_size {self.options['min_size']}",
                 f"small {self.options['small']}", f"nonfinite {self.options['nonfinite']}", f"step {self.step}",
                 f"inter_node {self.options['inter_node']}",
                 f"{len(self.layout.parameters)} parameters of checksum {self.layout.checksum():08x}",
                 f"parameter values of checksum {self.layout.checksum_of_values():08x}",
                 f"compressor {self.compressor.text}"]  # last, as it may be longer than compare shows
        compare(self.group, self.size, "\n".join(facts))

    def close(self, buckets: List[Bucket], why: Optional[Tuple[int, str]]) -> None:
        """Ends a step whose buckets have all arrived: keeps it, skips it, or raises in all processes."""
        self.route.close(keep=why is None)
        if why is None or (why[0] == NONFINITE and self.options["nonfinite"] == "skip"):
            self.step += 1
            self.skipped += why is not None
            for bucket in buckets:
                bucket.result.set_result(bucket.buffer if why is None else bucket.buffer.zero_())
            return
        kind = NonFiniteError if why[0] == NONFINITE else AtomoError
        for bucket in buckets:
            bucket.result.set_result(kind(f"step {self.step}: {why[1]}"))

    # ---- statistics -------------------------------------------------------------------------------------------------

    def stats(self, name: Optional[str] = None) -> Stats:
        """Statistics of this process's messages in the last step: of parameter `name`, or summed over all coded
        ones."""
        if name is None:
            return self.compressor.stats()
        return self.compressor.stats(self.number_of(name))

    def number_of(self, name: str) -> int:
        for p in self.layout.parameters:
            if p.name == name and p.coded:
                return p.number
        raise ArgumentError(f"State: no coded parameter is called '{name}'")

    def traffic(self) -> Traffic:
        return Traffic(**self.route.total(), node_bytes=self.node.nbytes if self.node else 0)

    # ---- checkpoints ------------------------------------------------------------------------------------------------

    def state_dict(self) -> Dict[str, Any]:
        """For a checkpoint of this process (residuals differ between processes). Training that resumes from it, with
        the same model and optimizer, is bit-identical if DDP makes the same buckets. (The buckets of a process's first
        iteration may differ from later ones: then the first step has other draws.) Keys contain parameter names."""
        if not self.attached:
            return dict(self.saved or {})
        names = {str(p.number): p.name for p in self.layout.parameters}
        tensors = {}
        for prefix, compressor in self.compressors().items():
            for key, value in compressor.state_dict().items():
                learnt, _, number = key.rpartition(".")
                tensors[f"{prefix}{learnt or 'memory'}:{names.get(number, '')}"] = torch.from_numpy(value)
        return {"format": FORMAT, "spec": self.compressor.text, "seed": self.compressor.seed, "step": self.step,
                "skipped": self.skipped, "topology": self.options["topology"], "rank": self.rank,
                "ranks": self.size, **({"leaders": self.leaders()} if self.node else {}), "keys": sorted(tensors),
                "tensors": tensors}

    def compressors(self) -> Dict[str, Compressor]:
        """All compressors that have a state, by the prefix of their keys in state_dict."""
        return {"": self.compressor, **({"second ": self.ways.down.compressor} if self.ways else {})}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores a state_dict(); FormatError or ShapeError if it is incomplete, or of another compressor or model. Warns
        if it has memories (residuals) of another rank, of a rank of another number of processes, or that another process
        would need now, as owner or leader."""
        if not isinstance(state, Mapping):
            raise FormatError(f"State: load_state_dict: a {type(state).__name__}, expected a dict of state_dict()")
        for key in ("format", "spec", "seed", "step", "skipped", "keys", "tensors"):
            if key not in state:
                raise FormatError(f"State: load_state_dict: '{key}' is missing: is the state truncated?")
        if state["format"] != FORMAT:
            raise FormatError(f"State: load_state_dict: format {state['format']}, expected {FORMAT}")
        for key, own in (("spec", self.compressor.text), ("seed", self.compressor.seed),
                         ("topology", self.options["topology"])):
            if state.get(key, "allgather") != own:  # earlier states have no topology
                raise FormatError(f"State: load_state_dict: {key} is {state.get(key, 'allgather')}, expected {own}")
        keys, tensors = state["keys"], state["tensors"]
        if not isinstance(keys, (list, tuple)) or not isinstance(tensors, Mapping):
            raise FormatError(f"State: load_state_dict: keys is a {type(keys).__name__} and tensors a "
                              f"{type(tensors).__name__}, expected a list and a dict: is the state damaged?")
        step, skipped = whole(state["step"], "State: step", 0), whole(state["skipped"], "State: skipped", 0)
        lost = sorted(set(keys) - set(tensors))
        if lost:
            raise FormatError(f"State: load_state_dict: '{lost[0]}' is missing: is the state truncated?")
        self.load_tensors(tensors)
        self.step, self.skipped = step, skipped
        text = self.lost_memories(state)
        if text:
            warnings.warn(f"State: load_state_dict: {text}", stacklevel=2)

    def lost_memories(self, state: Mapping[str, Any]) -> Optional[str]:
        """Which memories (residuals) of a state_dict() no process uses, as a warning; None if all are used."""
        held = [str(key) for key in state["tensors"] if "memory:" in str(key)]
        saved, leaders = (state.get("rank", self.rank), state.get("ranks", self.size)), self.leaders()
        if saved != (self.rank, self.size) and held:
            return (f"this is rank {self.rank} of {self.size}, the memories (residuals) are those of rank {saved[0]} of "
                    f"{saved[1]}: what other ranks had not sent is lost; save a state_dict() on each rank")
        if state.get("leaders", leaders) != leaders and held:
            return (f"the leaders of the nodes are ranks {leaders}, and were {state['leaders']}: what ranks had not sent "
                    "that lead no more is lost")
        moved = sorted({key.partition(":")[2] for key in held if key.startswith("second ")} - self.owned())
        if moved:
            return (f"another process now encodes the averages of {moved[0]}" +
                    (f" and {len(moved) - 1} more" if moved[1:] else "") + ": their memories (residuals) are lost, as the "
                    "parameters are not those of the state")
        return None

    def owned(self) -> Set[str]:
        """The names of the parameters whose averages this process encodes with topology sharded."""
        return {p.name for p in self.ways.own} if self.ways else set()

    def leaders(self) -> Optional[List[int]]:
        """The ranks that encode with topology hierarchical, else None."""
        return self.node.firsts if self.node else None

    def load_tensors(self, tensors: Mapping[str, Any]) -> None:
        """Sets the states of all compressors, or of none."""
        compressors = self.compressors()
        parts: Dict[str, Dict[str, Any]] = {prefix: {} for prefix in compressors}
        for key, value in tensors.items():
            first, space, rest = str(key).partition(" ")
            prefix, plain = (first + space, rest) if space and first + space in parts else ("", str(key))
            own, name = self.key_of(plain), plain.partition(":")[2]
            if not prefix or not name or name in self.owned():
                parts[prefix][own] = value
        before = {prefix: compressor.state_dict() for prefix, compressor in compressors.items()}
        try:
            for prefix, compressor in compressors.items():
                compressor.load_state_dict(parts[prefix])
        except AtomoError:
            for prefix, compressor in compressors.items():
                compressor.load_state_dict(before[prefix])
            raise

    def key_of(self, key: str) -> str:
        """The compressor's key of a key of state_dict."""
        kind, _, name = key.partition(":")
        number = self.number_of(name) if name else 0
        return str(number) if kind == "memory" else f"learnt.{number}"

    def __getstate__(self) -> Dict[str, Any]:
        """For pickle: options and state_dict, without model, process group and threads."""
        return {"options": self.options, "state": self.state_dict() if self.attached else self.saved}

    def __setstate__(self, pickled: Mapping[str, Any]) -> None:
        self.attached, self.saved, self.options = False, pickled["state"], pickled["options"]

    def attach(self, model: torch.nn.Module, process_group: Any = None) -> None:
        """Makes a state that was unpickled or copied usable for a model, in this process and group; or continues one with
        another model of the same parameters. [collective]"""
        saved = self.state_dict()
        self.__del__()
        try:
            self.__init__(model=model, process_group=process_group, **self.options)  # type: ignore[misc]
            self.load_state_dict(saved)
        except Exception:
            self.attached, self.saved = False, saved
            raise

    def __getattr__(self, name: str) -> Any:
        """Called for attributes that are missing: those of a state that is not attached."""
        hint = ": it was unpickled or copied, call state.attach(model) first" if "saved" in self.__dict__ else ""
        raise AttributeError(f"State has no attribute '{name}'{hint}")

    def __del__(self) -> None:
        pipeline = self.__dict__.get("pipeline")
        if pipeline is not None:
            pipeline.end()
