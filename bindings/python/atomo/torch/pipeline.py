"""The threads of a state. The coding thread encodes buckets in the order in which backward completes them, and decodes
what has arrived. Each network operation of the route has a thread and a process group of its own, and takes one bucket
after the other. So all processes call the same operations in the same order, and backward waits for none of them."""
from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections import deque
from typing import Any, Callable, Deque, List, Optional, Tuple

from ..errors import ArgumentError
from ..loader import Library
from .coder import Bucket
from .packet import Why
from .route import Route

LEAVE = 2.0  # seconds that end waits for each thread
Entry = Tuple[Bucket, Any]


class Pipeline:
    """agree: called once by the first network thread before its first round. close: called by the coding thread with
    the buckets of a complete step, and what stopped it. Both are methods of the state, which is not held: it calls end
    when it is deleted. threads: of encoding and decoding.

    to_code[k], to_transport[k]: the buckets that wait for operation k of the route's code and transport."""

    def __init__(self, route: Route, lib: Library, agree: Callable[[], None], threads: int,
                 close: Callable[[List[Bucket], Why], None]) -> None:
        self.route, self.lib, self.threads = route, lib, threads
        self.agree, self.close = weakref.WeakMethod(agree), weakref.WeakMethod(close)
        self.lock = threading.Condition()
        self.to_code: List[Deque[Entry]] = [deque() for _ in route.code]
        self.to_transport: List[Deque[Entry]] = [deque() for _ in route.transport]
        self.step: List[Bucket] = []  # the buckets of the step that have arrived
        self.stopped: Why = None  # why the step cannot be kept
        self.broken: Optional[BaseException] = None
        self.waiting: List[Bucket] = []  # buckets whose futures are not set
        self.process = os.getpid()
        work = [("code", self.code), *((f"transport {k}", self.transport(k)) for k in range(len(route.transport)))]
        self.running = [threading.Thread(target=self.run, args=(what,), name=f"atomo {name}", daemon=True)
                        for name, what in work]
        for thread in self.running:
            thread.start()
        pipelines.add(self)

    def end(self) -> None:
        """Ends the threads when they have done what they are doing, and waits for them: one that is still in PyTorch's
        code at the end of the program would end it by SIGABRT, as may the process groups that it drops. One that waits
        for a process that does not answer is left."""
        if self.process != os.getpid():
            return
        with self.lock:
            self.broken = self.broken or ArgumentError("State: its threads have ended")
            self.lock.notify_all()
        for thread in self.running:
            if thread is not threading.current_thread():  # which may have held the state last
                thread.join(LEAVE)

    def begin(self) -> None:
        """Waits for the steps before, of which some are left if two DistributedDataParallel have one state. One that an
        error in backward has ended is given up."""
        with self.lock:
            while self.waiting and not self.waiting[-1].last:
                self.waiting.pop().result.set_result(ArgumentError("State: another backward has begun before this one's "
                                                                   "last bucket"))
            while self.waiting and not self.broken:
                self.lock.wait()

    def start(self, bucket: Bucket) -> None:
        with self.lock:
            if self.broken:
                raise self.broken
            self.waiting.append(bucket)
            self.to_code[0].append((bucket, None))
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
                if not bucket.result.done():
                    bucket.result.set_result(problem)

    def next(self, queues: List[Deque[Entry]]) -> Tuple[int, Optional[Entry]]:
        """Waits for the first entry of the first queue that has one; the queue's position, and the entry."""
        with self.lock:
            while not self.broken:
                for k, queue in enumerate(queues):
                    if queue:
                        return k, queue.popleft()
                self.lock.wait()
            return 0, None

    def put(self, queue: Deque[Entry], entry: Entry) -> None:
        with self.lock:
            queue.append(entry)
            self.lock.notify_all()

    def code(self) -> None:
        self.lib.set_num_threads(self.threads)
        while True:
            k, entry = self.next(self.to_code)  # earlier operations first: other processes wait for them
            if entry is None:
                return
            bucket, x = entry
            y = self.route.code[k](bucket, x)
            if k < len(self.to_transport):
                self.put(self.to_transport[k], (bucket, y))
            else:
                self.arrived(bucket, y)

    def transport(self, k: int) -> Callable[[], None]:
        """The work of the thread of network operation k."""
        def work() -> None:
            agreed = k > 0
            while True:
                _, entry = self.next([self.to_transport[k]])
                if entry is None:
                    return
                agree = None if agreed else self.agree()
                if agree:
                    agree()
                agreed = True
                del agree  # a method holds its state
                bucket, x = entry
                self.put(self.to_code[k + 1], (bucket, self.route.transport[k](bucket, x)))
        return work

    def arrived(self, bucket: Bucket, why: Why) -> None:
        """Notes a bucket; with the last of a step, closes the step and sets the futures of all its buckets."""
        if bucket.index == 0:
            self.step, self.stopped = [], None
        self.step.append(bucket)
        self.stopped = self.stopped or why
        if bucket.last:
            done, stopped = self.step, self.stopped
            self.step, self.stopped = [], None
            close = self.close()
            if close:
                close(done, stopped)
            with self.lock:
                self.waiting = [b for b in self.waiting if b not in done]
                self.lock.notify_all()


pipelines: "weakref.WeakSet[Pipeline]" = weakref.WeakSet()


@atexit.register
def stop() -> None:
    """Ends all threads at the end of the program."""
    for pipeline in list(pipelines):
        pipeline.end()
