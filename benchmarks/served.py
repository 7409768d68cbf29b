"""`wizard serve` in a process of its own, for benchmarks, and what it takes of the machine."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio
from attrs import frozen

__all__ = ["Process", "served"]


@frozen
class Process:
    """A server that is under load, and listens on `port` of this machine."""

    port: int
    pid: int

    @property
    def rss(self) -> int:
        """Bytes of memory that its process has."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) * 1024

    @property
    def cpu(self) -> float:
        """Seconds of a processor that it has had."""
        status = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(status[11]) + int(status[12])) / os.sysconf("SC_CLK_TCK")


@asynccontextmanager
async def served(config: str, scheme: str, **env: str) -> AsyncIterator[Process]:
    """Serve `config`, a TOML text with port 0, for the length of a block, with `env` added to the environment. The
    endpoint is the one whose URL has that scheme. Raises `RuntimeError` where it does not start.
    """
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("WIZARD_")}
    with tempfile.TemporaryDirectory() as folder:
        file = trio.Path(folder, "wizard.toml")
        await file.write_text(config, encoding="utf-8")
        command = [sys.executable, "-m", "wizard_actors", "serve", "--config", str(file)]
        process = await trio.lowlevel.open_process(command, stderr=subprocess.PIPE, env=inherited | env)
        try:
            assert process.stderr is not None  # noqa: S101 - for the type checker
            yield Process(await _port(process.stderr, scheme), process.pid)
        finally:
            with trio.CancelScope(shield=True):
                process.kill()
                await process.wait()
                if process.stderr is not None:
                    await process.stderr.aclose()


async def _port(stderr: trio.abc.ReceiveStream, scheme: str) -> int:
    """Return the port that a server says it serves on. What it says later stays in the pipe: it is some lines."""
    said = b""
    serving = re.compile(rb"serving " + scheme.encode() + rb"://127\.0\.0\.1:(\d+) ")
    while not (found := serving.search(said)):
        more = await stderr.receive_some()
        if not more:
            raise RuntimeError(f"the server did not start: {said.decode()}")
        said += more
    return int(found[1])
