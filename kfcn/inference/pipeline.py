"""Reading, computing and writing at the same time."""

import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
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
) -> Generator[tuple[Item, Result | KfcnError], None, None]:
    """Reads, works on and writes items, each step beside the others; work is done in this thread.

    When it is interrupted, what is being written is written to its end and nothing else is begun.

    Args:
        items: what is to be done.
        read: gives what `work` takes.
        work: the main step.
        write: takes an item, what was read and what was made of it; in several threads.
        large: whether what was read is so large that nothing else may wait to be written.

    Yields:
        Each item in order, with the result of `write`, or with the KfcnError of the step that
        failed.
    """
    remaining = iter(items)
    reading: deque[tuple[Item, Future[Read]]] = deque()
    writing: deque[tuple[Item, Future[Result] | KfcnError]] = deque()
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(WRITERS) as writers:

        def read_ahead() -> None:
            for item in itertools.islice(remaining, AHEAD - len(reading)):
                reading.append((item, reader.submit(read, item)))

        try:
            read_ahead()
            while reading:
                item, future = reading.popleft()
                waiting = WRITERS
                try:
                    given = future.result()
                    if large(given):
                        waiting = 0
                        while writing:
                            yield _outcome(*writing.popleft())
                    read_ahead()
                    made = work(given)
                    writing.append((item, writers.submit(write, item, given, made)))
                    del given, made  # a picture may be large
                except KfcnError as error:
                    read_ahead()
                    writing.append((item, error))
                while len(writing) > waiting:
                    yield _outcome(*writing.popleft())
            while writing:
                yield _outcome(*writing.popleft())
        finally:
            for pool in (reader, writers):
                pool.shutdown(wait=False, cancel_futures=True)


def _outcome(item: Item, future: "Future[Result] | KfcnError") -> "tuple[Item, Result | KfcnError]":
    if isinstance(future, KfcnError):
        return item, future
    try:
        return item, future.result()
    except KfcnError as error:
        return item, error
