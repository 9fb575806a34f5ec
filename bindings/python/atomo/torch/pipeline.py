"""The two threads of a state. The coding thread encodes buckets in the order in which backward completes them, and
decodes what has arrived; the communication thread exchanges packets, one bucket after the other, on a process group
that nothing else uses. So all processes call the same operations in the same order, and backward waits for none of
them."""
from __future__ import annotations

import atexit
import os
import threading
from collections import deque
from typing import Any, Callable, Deque, List, Optional, Tuple

import numpy as np

from ..errors import ArgumentError, AtomoError
from .coder import Bucket, Coder
from .gather import Gatherer
from .packet import FAILED, FINE, HEAD, NONFINITE, Packet

LEAVE = 2.0  # seconds that stop waits for each thread
Arrived = Tuple[Bucket, List[np.ndarray]]


class Pipeline:
    """agree: called once by the communication thread before its first round. close: called by the coding thread with
    the buckets of a complete step, and what stopped it: (status, text), or None."""

    def __init__(self, coder: Coder, gatherer: Gatherer, agree: Callable[[], None], threads: int,
                 close: Callable[[List[Bucket], Optional[Tuple[int, str]]], None]) -> None:
        self.coder, self.gatherer, self.agree, self.close = coder, gatherer, agree, close
        self.threads = threads
        self.lock = threading.Condition()
        self.to_encode: Deque[Bucket] = deque()
        self.to_send: Deque[Tuple[Bucket, Packet]] = deque()
        self.to_decode: Deque[Arrived] = deque()
        self.step: List[Bucket] = []  # the buckets of the step that have arrived
        self.stopped: Optional[Tuple[int, str]] = None  # why the step cannot be kept
        self.broken: Optional[BaseException] = None
        self.waiting: List[Bucket] = []  # buckets whose futures are not set
        self.process = os.getpid()
        self.running = [threading.Thread(target=self.run, args=(work,), name=f"atomo {work.__name__}", daemon=True)
                        for work in (self.code, self.communicate)]
        for thread in self.running:
            thread.start()
        atexit.register(self.stop)

    def stop(self) -> None:
        """Ends the threads. Runs at the end of the program, because a thread that is then still in PyTorch's code would
        end the program by SIGABRT. A thread that waits for a process that does not answer is left."""
        if self.process != os.getpid():
            return
        with self.lock:
            self.broken = self.broken or ArgumentError("State: its threads have ended with the program")
            self.lock.notify_all()
        for thread in self.running:
            thread.join(LEAVE)

    def start(self, bucket: Bucket) -> None:
        with self.lock:
            if self.broken:
                raise self.broken
            if bucket.index == 0:
                self.waiting = []  # of a step that an error in backward has ended: nobody waits for them
            self.waiting.append(bucket)
            self.to_encode.append(bucket)
            self.lock.notify_all()

    def run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as problem:  # a peer is gone, processes disagree: nothing more can be exchanged
            with self.lock:
                self.broken = self.broken or problem
                left, self.waiting = self.waiting, []
                self.lock.notify_all()
            for bucket in left:
                bucket.result.set_result(problem)

    def next(self, *queues: Deque[Any]) -> Tuple[Optional[Deque[Any]], Any]:
        """Waits for the first entry of the first queue that has one."""
        with self.lock:
            while True:
                if self.broken:
                    return None, None
                for queue in queues:
                    if queue:
                        return queue, queue.popleft()
                self.lock.wait()

    def put(self, queue: Deque[Any], entry: Any) -> None:
        with self.lock:
            queue.append(entry)
            self.lock.notify_all()

    def code(self) -> None:
        self.coder.compressor.lib.set_num_threads(self.threads)
        while True:
            queue, entry = self.next(self.to_encode, self.to_decode)  # other processes wait for what is encoded
            if queue is None:
                return
            if queue is self.to_encode:
                self.put(self.to_send, (entry, self.coder.encode(entry)))
            else:
                self.arrived(*entry)

    def communicate(self) -> None:
        self.agree()
        while True:
            queue, entry = self.next(self.to_send)
            if queue is None:
                return
            bucket, packet = entry
            self.put(self.to_decode, (bucket, self.gatherer.exchange(packet, bucket.key, bucket.step, bucket.index)))

    def arrived(self, bucket: Bucket, packets: List[np.ndarray]) -> None:
        """Decodes a bucket; with the last of a step, closes the step and sets the futures of all its buckets."""
        if bucket.index == 0:
            self.step, self.stopped = [], None
        self.step.append(bucket)
        self.stopped = self.stopped or told(packets)
        if not self.stopped:
            try:
                self.coder.decode(bucket, packets)
            except AtomoError as problem:
                self.stopped = (FAILED, str(problem))
        if bucket.last:
            done, why = self.step, self.stopped
            self.step, self.stopped = [], None
            with self.lock:
                self.waiting = [b for b in self.waiting if b not in done]
            self.close(done, why)


def told(packets: List[np.ndarray]) -> Optional[Tuple[int, str]]:
    """(status, text) of the first process that could not encode; None if all could. A status of NONFINITE counts only
    if no process has another failure."""
    found = None
    for rank, packet in enumerate(packets):
        status = HEAD.unpack_from(packet.data)[2]
        if status != FINE and (found is None or (found[0] == NONFINITE and status != NONFINITE)):
            found = (status, f"rank {rank}: {packet[HEAD.size:].tobytes().decode('utf-8', 'replace')}")
    return found
