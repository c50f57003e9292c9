"""kfcn-launch: starts the workers of a multi-worker run on this machine."""

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

FINAL = (0, 1, 2, 130, 143, 149)
"""Exit codes after which nothing is started again: done, an error that was told, a wrong request,
stopped by Ctrl-C, SIGTERM or (on Windows) SIGBREAK with its state saved."""

# A group of its own: Ctrl-C reaches the workers through us, and only once.
_APART: dict[str, Any] = (
    {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    if sys.platform == "win32"
    else {"start_new_session": True}
)

GRACE = 20.0
"""Seconds between asking a worker to stop and killing it; a signal is answered after a step."""


def parser() -> argparse.ArgumentParser:
    cli = argparse.ArgumentParser(
        prog="kfcn-launch",
        usage="kfcn-launch --workers N [--restarts R] -- COMMAND ...",
        description="Start N workers of COMMAND on this machine, with TF_CONFIG set for each. "
        "Their output is passed on behind the worker's number. When one is lost, the others are "
        "stopped and all start again, on new ports, from the last checkpoint.",
    )
    cli.add_argument("--workers", type=int, required=True, metavar="N", help="how many, 1 or more")
    cli.add_argument(
        "--restarts", type=int, default=3, metavar="R", help="how often to start again (3)"
    )
    cli.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND")
    return cli


def main(argv: Sequence[str] | None = None) -> int:
    cli = parser()
    args = cli.parse_args(argv)
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if args.workers < 1 or args.restarts < 0 or not command:
        cli.error("expected --workers of 1 or more, --restarts of 0 or more, and -- COMMAND ...")
    return launch(command, args.workers, args.restarts)


def launch(command: Sequence[str], workers: int, restarts: int) -> int:
    """Runs the workers to their end and returns the exit code.

    0 when all are done. An error that a worker told is not tried again, and neither is a run that
    a signal stopped; everything else counts as a lost worker.
    """
    stopped = []

    def stop(number, frame):
        stopped.append(number)

    before = {s: signal.signal(s, stop) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        for attempt in range(restarts + 1):
            codes, lost = _run_once(command, workers, stopped)
            if stopped:
                return 128 + stopped[0]
            if not any(codes):
                return 0
            told = [code for code in codes if code in FINAL and code]
            if told:
                return told[0]
            named = ", ".join(f"worker {w} ({_words(codes[w])})" for w in lost)
            again = f"starting all again ({attempt + 1} of {restarts})"
            _say(f"lost {named}; {again if attempt < restarts else 'no restart is left'}")
        return 1
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run_once(
    command: Sequence[str], workers: int, stopped: list[int]
) -> tuple[list[int], list[int]]:
    """Starts all workers, waits for them; gives their exit codes and who failed first."""
    addresses = _free_addresses(workers)
    processes, readers, lost = [], [], []
    try:
        for worker in range(workers):
            process = _start(command, worker, addresses)
            reader = threading.Thread(target=_pass_on, args=(process.stdout, worker), daemon=True)
            reader.start()
            processes.append(process)
            readers.append(reader)
        while any(process.poll() is None for process in processes):
            lost = [worker for worker, process in enumerate(processes) if process.poll()]
            if stopped or lost:
                _end(processes, stopped)
                break
            time.sleep(0.1)
    finally:
        _kill(processes)
    for reader in readers:
        reader.join(timeout=5)
    codes = [process.returncode for process in processes]
    return codes, lost or [worker for worker, code in enumerate(codes) if code]


def _start(command: Sequence[str], worker: int, addresses: list[str]) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    if len(addresses) > 1:
        config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": worker}}
        environment["TF_CONFIG"] = json.dumps(config)
    try:
        return subprocess.Popen(
            command, env=environment, errors="replace", bufsize=1,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            encoding="utf-8", **_APART,
        )  # fmt: skip
    except OSError as error:
        raise SystemExit(f"kfcn-launch: error: {command[0]}: {error.strerror}") from error


def _end(processes: list[subprocess.Popen], stopped: list[int]) -> None:
    """Lets the workers end by themselves when they were asked to; kills what is left.

    After a loss the others cannot go on and only say so; after a signal they save first.
    """
    if stopped:
        for process in processes:
            _ask(process, stopped[0])
    until = time.monotonic() + (GRACE if stopped else 5.0)
    while time.monotonic() < until and any(process.poll() is None for process in processes):
        time.sleep(0.1)
    _kill(processes)


def _ask(process: subprocess.Popen, number: int) -> None:
    """Passes a signal on to a worker and whatever it has started, as long as it runs."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            if sys.platform == "win32":
                process.send_signal(signal.CTRL_BREAK_EVENT)
            else:
                os.killpg(process.pid, number)


def _kill(processes: list[subprocess.Popen]) -> None:
    """Ends the workers and whatever they have started, at once."""
    for process in processes:
        if sys.platform == "win32":
            process.kill()
        else:
            _ask(process, signal.SIGKILL)
        process.wait()


def _pass_on(stream, worker: int) -> None:
    for line in stream:
        print(f"[{worker}] {line}", end="", flush=True)


def _free_addresses(count: int) -> list[str]:
    """Addresses on this machine whose ports nobody uses at the moment."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for taken in sockets:
            taken.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{taken.getsockname()[1]}" for taken in sockets]


def _words(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return f"killed by {signal.Signals(-code).name}"
    return f"killed by signal {-code}"


def _say(text: str) -> None:
    print(f"kfcn-launch: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
