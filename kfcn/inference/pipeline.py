"""Reading, computing and writing at the same time."""

import itertools
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import TypeVar

from kfcn.errors import KfcnError

AHEAD = 2
"""How many items are read before they are wanted."""
WRITERS = 4
"""Items that are written at the same time: most of that is waiting for the disk."""

Item = TypeVar("Item")
Read = TypeVar("Read")
Made = TypeVar("Made")
Result = TypeVar("Result")


def pipelined(
    items: Iterable[Item],
    read: Callable[[Item], Read],
    work: Callable[[Read], Made],
    write: Callable[[Item, Read, Made], Result],
    large: Callable[[Read], bool] = lambda given: False,
    at_once: int = 1,
) -> Generator[tuple[Item, Result | KfcnError], None, None]:
    """Reads, works on and writes items, each step beside the others.

    When it is interrupted, what is being written is written to its end and nothing else is begun.

    Args:
        items: what is to be done.
        read: returns what `work` takes; in a thread of its own.
        work: the main step; in this thread, or where several are worked on in several.
        write: takes an item, what was read and what was made of it; in several threads.
        large: whether what was read is so large that nothing else may be worked on or wait to be
            written.
        at_once: items that are worked on at the same time.

    Yields:
        Each item in order, with the result of `write`, or with the KfcnError of the step that
        failed.
    """
    remaining = iter(items)
    reading: deque[tuple[Item, Future[Read]]] = deque()
    pending: deque[tuple[Item, Future[Result] | KfcnError]] = deque()
    most = at_once + WRITERS
    turns, stopped = threading.Semaphore(at_once), threading.Event()
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(most) as others:

        def read_ahead() -> None:
            for item in itertools.islice(remaining, AHEAD - len(reading)):
                reading.append((item, reader.submit(read, item)))

        def work_and_write(item: Item, given: Read) -> Result:
            try:
                made = work(given)
            finally:
                turns.release()
            if stopped.is_set():
                raise CancelledError
            return write(item, given, made)

        try:
            read_ahead()
            while reading:
                turns.acquire()
                item, future = reading.popleft()
                waiting = most - 1
                try:
                    given = future.result()
                    alone = large(given)
                    if alone:
                        waiting = 0
                        while pending:
                            yield _outcome(*pending.popleft())
                    read_ahead()
                    if alone or at_once == 1:
                        made = work(given)
                        turns.release()
                        pending.append((item, others.submit(write, item, given, made)))
                        del made
                    else:
                        pending.append((item, others.submit(work_and_write, item, given)))
                    del given  # a picture may be large
                except KfcnError as error:
                    turns.release()
                    read_ahead()
                    pending.append((item, error))
                while len(pending) > waiting:
                    yield _outcome(*pending.popleft())
            while pending:
                yield _outcome(*pending.popleft())
        finally:
            stopped.set()
            for pool in (reader, others):
                pool.shutdown(wait=False, cancel_futures=True)


def _outcome(item: Item, future: "Future[Result] | KfcnError") -> "tuple[Item, Result | KfcnError]":
    if isinstance(future, KfcnError):
        return item, future
    try:
        return item, future.result()
    except KfcnError as error:
        return item, error
