"""Processes that write to a storage until they are killed, or done: forked from one that has imported everything.

`python -m tests.storage.killing FD` is that one. It is told over a socket what to fork, and reaps what it forked; a
writer announces on a pipe what it was told is saved, after the call returned.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NoReturn

import trio
from attrs import define, field

from wizard_actors.errors import SessionConflictError
from wizard_actors.session_record import SessionRecord
from wizard_actors.storage.base import SessionStorage
from wizard_actors.storage.file import FileStorage
from wizard_actors.storage.sqlite import SqliteStorage
from wizard_actors.testing.storage_bench import born, later

__all__ = ["MOST", "NAMES", "Writer", "Zygote", "open_storage", "version_of", "zygote"]

ROOT: Final = Path(__file__).resolve().parent.parent.parent

NAMES: Final = tuple(f"session {number}" for number in range(8))
"""The sessions that `grow` writes."""

MOST: Final = 10
"""The version after which `grow` deletes a session and begins it anew, so that sessions stay small."""

Announce = Callable[[str], None]


def open_storage(backend: str, folder: Path) -> AbstractAsyncContextManager[SessionStorage]:
    """Return the storage of a folder, to be opened."""
    return FileStorage.open(folder / "sessions") if backend == "file" else SqliteStorage.open(folder / "sessions.db")


def version_of(session: str, created_at: float, version: int) -> SessionRecord:
    """Return what `grow` saves as a version of a session: it follows from the name, the time and the number alone."""
    record = born(session, created_at)
    while record.version < version:
        record = later(record, f"{session}, created at {created_at}, turn {record.version}")
    return record


# -- what writers do ---------------------------------------------------------------------------------


async def grow(storage: SessionStorage, announce: Announce, epoch: float) -> None:
    """Write to all sessions at once, each by a task of its own: versions, deletions, and the sessions made anew."""

    async def one(session: str) -> None:
        created_at = epoch
        record = await storage.load(session)
        while True:
            if record is not None and record.version >= MOST:
                await storage.delete(session)
                record = None
                announce(f"deleted\t{session}")
                continue
            created_at += record is None
            born_at, version = (created_at, 1) if record is None else (record.created_at, record.version + 1)
            record = version_of(session, born_at, version)
            await storage.save(record)
            announce(f"saved\t{session}\t{born_at}\t{version}")

    async with trio.open_nursery() as nursery:
        for session in NAMES:
            nursery.start_soon(one, session)


async def append(storage: SessionStorage, announce: Announce, name: str, sessions: int, seconds: float) -> None:
    """Add turns to a few sessions that others add to as well, for some seconds."""

    async def one(writer: int) -> None:
        number = 0
        while trio.current_time() < end:
            session = NAMES[(writer + number) % sessions]
            text = f"{name} {writer}, turn {number}"
            record = await storage.load(session)
            try:
                await storage.save(born(session) if record is None else later(record, text))
            except SessionConflictError:
                announce(f"conflict\t{session}")
                continue
            if record is not None:
                announce(f"saved\t{session}\t{text}")
                number += 1

    end = trio.current_time() + seconds
    async with trio.open_nursery() as nursery:
        for writer in range(2):
            nursery.start_soon(one, writer)


async def stop_inside(storage: SessionStorage, announce: Announce, session: str) -> None:
    """Save a session, and be stopped in the middle of it, with all locks held."""
    sync = os.fsync

    def stopped(fd: Any) -> None:  # noqa: ANN401 - as in `os`
        announce("stopping")
        os.kill(os.getpid(), signal.SIGSTOP)
        os.fsync = sync
        sync(fd)

    record = await storage.load(session)
    os.fsync = stopped
    await storage.save(born(session) if record is None else later(record, "by the stopped one"))
    announce("saved")


async def open_and_save(storage: SessionStorage, announce: Announce, session: str) -> None:
    """Save a new session."""
    await storage.save(born(session))
    announce(f"saved\t{session}")


JOBS: Final[Mapping[str, Callable[..., Awaitable[None]]]] = {
    "grow": grow,
    "append": append,
    "open_and_save": open_and_save,
    "stop_inside": stop_inside,
}


def _work(job: str, backend: str, folder: str, options: Mapping[str, object], pipe: int) -> None:
    def announce(line: str) -> None:
        os.write(pipe, f"{line}\n".encode())  # at once, and whole: it is shorter than a pipe's unit

    async def run() -> None:
        async with open_storage(backend, Path(folder)) as storage:
            await JOBS[job](storage, announce, **options)

    trio.run(run)


# -- the one that forks ------------------------------------------------------------------------------


def _serve(channel: socket.socket) -> None:
    """Fork and reap as told, until the other end is closed."""
    while True:
        data, pipes, _, _ = socket.recv_fds(channel, 4096, 1)
        if not data:
            return
        told = json.loads(data)
        if "reap" in told:
            _, status = os.waitpid(told["reap"], 0)
            channel.sendall(json.dumps(os.waitstatus_to_exitcode(status)).encode())
            continue
        child = os.fork()
        if not child:
            channel.close()
            _run_and_exit(told, pipes[0])
        os.close(pipes[0])
        channel.sendall(json.dumps(child).encode())


def _run_and_exit(told: Mapping[str, Any], pipe: int) -> NoReturn:
    """Work, and end: nothing of the forking process may run on in a fork of it."""
    status = 1
    try:
        _work(**told, pipe=pipe)
        status = 0
    except Exception:  # noqa: BLE001 - it is told, and the exit code tells too
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)


@define
class Writer:
    """A process that writes."""

    pid: int
    _zygote: Zygote
    _pipe: int
    _heard: bytes = field(default=b"", init=False)

    def kill(self) -> Sequence[Sequence[str]]:
        """Kill it, at once and for good, and return all that it announced."""
        os.kill(self.pid, signal.SIGKILL)
        lines, _ = self.ended()
        return lines

    def signal(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def heard(self, line: str, seconds: float = 30) -> None:
        """Wait until it has announced a line."""
        end = time.monotonic() + seconds
        while line not in self._heard.decode().splitlines():
            ready = select.select([self._pipe], [], [], max(0.0, end - time.monotonic()))[0]
            data = os.read(self._pipe, 65536) if ready else b""
            assert data, f"a writer did not say {line!r}"
            self._heard += data

    def ended(self) -> tuple[Sequence[Sequence[str]], int]:
        """Wait for its end; return all that it announced, and its exit code, less than 0 for a signal."""
        while data := os.read(self._pipe, 65536):
            self._heard += data
        os.close(self._pipe)
        self._zygote.writers.remove(self)
        code = self._zygote.told({"reap": self.pid})
        return [line.split("\t") for line in self._heard.decode().splitlines()], code


@define(eq=False)
class Zygote:
    """The process that forks writers."""

    _channel: socket.socket
    writers: list[Writer] = field(factory=list, init=False)

    def start(self, job: str, backend: str, folder: Path, **options: object) -> Writer:
        """Fork a writer."""
        reader, pipe = os.pipe()
        message = {"job": job, "backend": backend, "folder": str(folder), "options": options}
        try:
            socket.send_fds(self._channel, [json.dumps(message).encode()], [pipe])
        finally:
            os.close(pipe)
        writer = Writer(int(self._channel.recv(64)), self, reader)
        self.writers.append(writer)
        return writer

    def told(self, message: object) -> int:
        """Tell it something, and return its answer."""
        self._channel.sendall(json.dumps(message).encode())
        return int(self._channel.recv(64))


@contextmanager
def zygote() -> Iterator[Zygote]:
    """Start the process that forks; what it forked is killed at the end, where it runs still."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            command = [sys.executable, "-m", "tests.storage.killing", str(theirs.fileno())]
            process = subprocess.Popen(command, pass_fds=[theirs.fileno()], cwd=ROOT)
        forking = Zygote(ours)
        try:
            yield forking
        finally:
            for writer in [*forking.writers]:
                with suppress(ProcessLookupError):
                    writer.kill()
            ours.close()
            process.wait(30)


if __name__ == "__main__":
    with contextlib.closing(socket.socket(fileno=int(sys.argv[1]))) as told:
        _serve(told)
