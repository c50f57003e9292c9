"""Reading, computing and writing at the same time."""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from kfcn.errors import KfcnError

AHEAD = 2
"""How many items are read before they are wanted, and how many wait to be written: enough to hide
the slower ones, and few, because an item may be a picture of a hundred megapixels."""

Item, Read, Made, Result = (TypeVar(name) for name in ("Item", "Read", "Made", "Result"))


def pipelined(
    items: Iterable[Item],
    read: Callable[[Item], Read],
    work: Callable[[Read], Made],
    write: Callable[[Item, Read, Made], Result],
    ahead: int = AHEAD,
) -> Iterator[tuple[Item, Result | KfcnError]]:
    """Reads, works on and writes items, each step beside the others; work is done in this thread.

    When it is interrupted, what is being written is written to its end and nothing else is begun.

    Args:
        items: what is to be done.
        read: gives what `work` takes.
        work: the main step.
        write: takes an item, what was read and what was made of it.
        ahead: how many items are read ahead, and how many wait to be written.

    Yields:
        Each item in order, with the result of `write`, or with the KfcnError of the step that
        failed.
    """
    remaining = iter(items)
    reading: deque[tuple[Item, Future[Read]]] = deque()
    writing: deque[tuple[Item, Future[Result] | KfcnError]] = deque()
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:

        def read_ahead() -> None:
            for item in itertools.islice(remaining, ahead - len(reading)):
                reading.append((item, reader.submit(read, item)))

        try:
            read_ahead()
            while reading:
                item, future = reading.popleft()
                try:
                    given = future.result()
                    read_ahead()
                    made = work(given)
                    writing.append((item, writer.submit(write, item, given, made)))
                except KfcnError as error:
                    read_ahead()
                    writing.append((item, error))
                while len(writing) > ahead:
                    yield _outcome(*writing.popleft())
            while writing:
                yield _outcome(*writing.popleft())
        finally:
            for pool in (reader, writer):
                pool.shutdown(wait=False, cancel_futures=True)


def _outcome(item: Item, future: "Future[Result] | KfcnError") -> "tuple[Item, Result | KfcnError]":
    if isinstance(future, KfcnError):
        return item, future
    try:
        return item, future.result()
    except KfcnError as error:
        return item, error
