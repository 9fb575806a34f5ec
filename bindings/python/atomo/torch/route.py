"""Routes: the operations that turn a bucket of gradients into their averages, alternately on the coding thread and on
the network. A route is data; pipeline.py runs it. topology= of State chooses one."""
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Sequence

from .coder import Bucket, Coder
from .gather import Gatherer


@dataclass
class Route:
    """code[k](bucket, x) runs on the coding thread. Its result is x of transport[k](bucket, x), which has a thread and a
    process group to itself. code has one operation more; its last one returns why the step cannot be kept: (status,
    text), or None. coders: their steps are open until the step is closed."""

    code: List[Callable[[Bucket, Any], Any]]
    transport: List[Callable[[Bucket, Any], Any]]
    coders: List[Coder]
    traffic: Sequence[Any] = field(default_factory=list)  # each has nbytes and rounds

    def close(self, keep: bool) -> None:
        for coder in self.coders:
            coder.close(keep)

    def total(self) -> Dict[str, int]:
        """Bytes that this process gave to the network, and rounds."""
        return {key: sum(getattr(one, key) for one in self.traffic) for key in ("nbytes", "rounds")}


def allgather(coder: Coder, gatherer: Gatherer) -> Route:
    """Every process's packet to every process."""
    return Route([coder.encode, coder.decode], [gatherer.exchange], [coder], [gatherer])
