"""Targets whose runtime works in a process of its own."""

import concurrent.futures
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from kfcn_mobile.bundle import BundleError
from kfcn_mobile.targets import Target

Result = TypeVar("Result")


class Apart(Target):
    """Base of such targets: what a file makes the runtime do does not end this process."""

    _pool: concurrent.futures.ProcessPoolExecutor | None = None

    def start(self) -> None:
        self._pool = concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))

    def close(self) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def _there(
        self, file: Path | str, runtime: str, work: Callable[..., Result], *arguments: object
    ) -> Result:
        """What a function gives in that process.

        Raises:
            BundleError: the process ended: the runtime crashed on the file.
        """
        assert self._pool is not None, "the target is not started"
        try:
            return self._pool.submit(work, *arguments).result()
        except concurrent.futures.BrokenExecutor:
            raise BundleError(f"{file}: {runtime} crashed") from None
