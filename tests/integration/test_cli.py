"""The program in a process of its own: pipes, signals, bytes that are no text, and an upstream of real sockets."""

import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from signal import Signals as Signal

import msgspec
import pytest
import trio
from attrs import Factory, define

from tests.loopback import Wire, chunk, response, serving
from tests.wizard_cli import PROGRAM, SIMULATED, Ran, Wizard, clean_environment, start, two_models

CANARY = "sk-canary-0123456789abcdef"
PATIENCE = 30.0
"""Seconds after which a test that waits for a process has failed."""

EVENT_STREAM = {"content-type": "text/event-stream"}


def event(delta: dict[str, object], finish: str | None = None) -> bytes:
    """Return one event of a streamed answer."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: " + msgspec.json.encode({"id": "1", "model": "upstream", "choices": [choice]}) + b"\n\n"


def openai(base_url: str, *, more: str = "") -> str:
    """Return a configuration of one model at `base_url`, whose key is the canary's."""
    return (
        f'[[models]]\nname = "primary"\nprovider = "openai"\nbase_url = "{base_url}"\napi_key_env = "CANARY_KEY"\n'
        f"retry = {{ max_attempts = 1 }}\n{more}"
    )


# -- an answer that drips -------------------------------------------------------------------------------------------


@define
class Drip:
    """An upstream that sends a word each 200 ms, fifty times; `first_sent` is when the first one left."""

    first_sent: float = 0.0
    words: int = 0
    word_sent: trio.Event = Factory(trio.Event)
    """Set, and replaced, at each word."""
    hung_up: trio.Event = Factory(trio.Event)

    async def __call__(self, wire: Wire) -> None:
        await wire.request()
        head = response(200, EVENT_STREAM, [event({"role": "assistant", "content": ""})], cut=True)
        await wire.send(head)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, wire, nursery.cancel_scope)
            for _ in range(50):
                self.first_sent = self.first_sent or trio.current_time()
                await wire.send(chunk(event({"content": "drip "})))
                self.words += 1
                self.word_sent.set()
                self.word_sent = trio.Event()
                await trio.sleep(0.2)

    async def _watch(self, wire: Wire, drip: trio.CancelScope) -> None:
        await wire.gone()
        self.hung_up.set()
        drip.cancel()


async def collect(stream: trio.abc.ReceiveStream, into: bytearray) -> None:
    """Read a stream to its end."""
    async for data in stream:
        into.extend(data)


async def end_of(process: trio.Process) -> tuple[int, bytes]:
    """Wait for the process's end; return its status and what it said on standard error."""
    said = bytearray()
    assert process.stderr is not None
    await collect(process.stderr, said)
    return await process.wait(), bytes(said)


async def test_the_first_byte_comes_with_the_first_word(tmp_path: Path, report_line: Callable[[str], None]) -> None:
    """It is written at most half a second after the upstream sent it, into a pipe too."""
    drip = Drip()
    async with serving(drip) as base_url:
        (tmp_path / "wizard.toml").write_text(openai(base_url), encoding="utf-8")
        with trio.fail_after(PATIENCE):
            process = await start("ask", "--stream", "Why?", cwd=tmp_path, env={"CANARY_KEY": CANARY})
            assert process.stdout is not None
            async with process.stdout:
                first = await process.stdout.receive_some()
                after = trio.current_time() - drip.first_sent
                process.send_signal(signal.SIGINT)
                await end_of(process)
    report_line(f"first byte of `wizard ask --stream`: {after * 1000:.0f} ms after the upstream sent the first word")
    assert first.startswith(b"drip")
    assert after <= 0.5


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_a_signal_mid_stream_stops_in_order(tmp_path: Path, number: Signal, status: int) -> None:
    """The upstream call is cancelled, the status names the signal, and standard error stays empty."""
    drip = Drip()
    async with serving(drip) as base_url:
        (tmp_path / "wizard.toml").write_text(openai(base_url), encoding="utf-8")
        with trio.fail_after(PATIENCE):
            process = await start("ask", "--stream", "Why?", cwd=tmp_path, env={"CANARY_KEY": CANARY})
            assert process.stdout is not None
            async with process.stdout:
                await process.stdout.receive_some()
                process.send_signal(number)
                assert await end_of(process) == (status, b"")
            await drip.hung_up.wait()
    assert drip.words < 50


async def test_a_broken_pipe_is_silent(tmp_path: Path) -> None:
    """`wizard ask --stream ... | head -1`: the next word finds nobody, the call is cancelled, nothing is said."""
    drip = Drip()
    async with serving(drip) as base_url:
        (tmp_path / "wizard.toml").write_text(openai(base_url), encoding="utf-8")
        with trio.fail_after(PATIENCE):
            process = await start("ask", "--stream", "Why?", cwd=tmp_path, env={"CANARY_KEY": CANARY})
            assert process.stdout is not None
            await process.stdout.receive_some()
            await process.stdout.aclose()
            assert await end_of(process) == (141, b"")
            await drip.hung_up.wait()
    assert drip.words < 50


async def test_ctrl_c_works_while_the_reader_has_stopped(tmp_path: Path) -> None:
    """A full pipe holds the answer up, and nothing else."""
    drip = Drip()
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    while True:
        try:
            os.write(writer, bytes(4096))
        except BlockingIOError:
            break
    os.set_blocking(writer, True)
    async with serving(drip) as base_url:
        (tmp_path / "wizard.toml").write_text(openai(base_url), encoding="utf-8")
        with trio.fail_after(PATIENCE):
            process = await start("ask", "--stream", "Why?", cwd=tmp_path, stdout=writer, env={"CANARY_KEY": CANARY})
            for _ in range(3):
                await drip.word_sent.wait()
            process.send_signal(signal.SIGINT)
            assert await end_of(process) == (130, b"")
            await drip.hung_up.wait()
    os.close(reader)
    os.close(writer)


# -- before there is an answer --------------------------------------------------------------------------------------


async def test_ctrl_c_works_while_the_configuration_is_read(tmp_path: Path) -> None:
    """A pipe in its place may never say anything."""
    pipe = tmp_path / "pipe.toml"
    os.mkfifo(pipe)
    with trio.fail_after(PATIENCE):
        process = await start("ask", "--config", "pipe.toml", "Why?", cwd=tmp_path)
        writer = await trio.to_thread.run_sync(os.open, pipe, os.O_WRONLY)  # returns once the other end is open
        process.send_signal(signal.SIGINT)
        assert await end_of(process) == (130, b"")
    os.close(writer)


async def test_ctrl_c_works_while_the_prompt_is_read(tmp_path: Path) -> None:
    """Standard input may never end."""
    (tmp_path / "wizard.toml").write_text(SIMULATED, encoding="utf-8")
    with trio.fail_after(PATIENCE):
        process = await start("ask", "-", cwd=tmp_path, stdin=subprocess.PIPE)
        assert process.stdin is not None
        async with process.stdin:
            await process.stdin.send_all(bytes(2**20))  # more than a pipe holds: it is being read
            process.send_signal(signal.SIGINT)
            assert await end_of(process) == (130, b"")


# -- odd input and output -------------------------------------------------------------------------------------------


async def ended(*arguments: str | bytes, cwd: Path, stdin: bytes = b"") -> Ran:
    """Run the program to its end."""
    with trio.fail_after(PATIENCE):
        run = await trio.run_process(
            [*PROGRAM, *arguments],
            cwd=cwd,
            env=clean_environment(),
            stdin=stdin,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
    return Ran(run.returncode, run.stdout.decode(), run.stderr.decode())


async def test_a_megabyte_from_a_pipe_reaches_the_upstream(tmp_path: Path) -> None:
    """Byte for byte, and the answer comes back."""
    text = "größer " * (2**20 // 8)
    received: list[object] = []

    async def upstream(wire: Wire) -> None:
        request = await wire.request()
        assert request is not None
        received.append(request.json["messages"])
        words = [event({"content": "Done."}), event({}, "stop"), b"data: [DONE]\n\n"]
        await wire.send(response(200, EVENT_STREAM, words))

    async with serving(upstream) as base_url:
        config = openai(base_url).replace('api_key_env = "CANARY_KEY"\n', "")
        (tmp_path / "wizard.toml").write_text(config, encoding="utf-8")
        ran = await ended("ask", "-", cwd=tmp_path, stdin=text.encode())
    assert (ran.status, ran.out, ran.err) == (0, "Done.\n", "")
    assert received == [[{"role": "user", "content": text}]]


async def test_arguments_and_input_that_are_no_text_are_refused(tmp_path: Path) -> None:
    """Status 2 and one line, whatever the bytes."""
    (tmp_path / "wizard.toml").write_text(SIMULATED, encoding="utf-8")
    runs: list[Ran] = []

    async def refused(*arguments: str | bytes, stdin: bytes = b"") -> None:
        runs.append(await ended("ask", *arguments, cwd=tmp_path, stdin=stdin))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(refused, b"gr\xfc\xdfe")
        nursery.start_soon(partial(refused, "-", stdin=b"gr\xfc\xdfe"))
    assert [(run.status, run.out, run.err.count("\n")) for run in runs] == [(2, "", 1)] * 2
    assert not any("Traceback" in run.err for run in runs)


async def test_a_failure_is_one_line(tmp_path: Path) -> None:
    """The package's own log of it stays silent, also where nobody has set up logging."""
    (tmp_path / "wizard.toml").write_text(two_models(), encoding="utf-8")
    ran = await ended("ask", "--model", "first", "Why?", cwd=tmp_path)
    assert (ran.status, ran.out) == (1, "")
    assert ran.err == "wizard: first: the provider failed (HTTP 500): simulated failure\n"


@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
async def test_a_closed_standard_output_is_a_broken_pipe(tmp_path: Path, closed: str) -> None:
    """Nobody reads it, and no other file is taken for it."""
    (tmp_path / "wizard.toml").write_text(SIMULATED, encoding="utf-8")
    with trio.fail_after(PATIENCE):
        run = await trio.run_process(
            ["sh", "-c", f'exec "$@" {closed}', "sh", *PROGRAM, "ask", "Why?"],
            cwd=tmp_path,
            env=clean_environment(),
            capture_stderr=True,
            check=False,
        )
    assert (run.returncode, run.stderr) == (141, b"")


# -- the key ---------------------------------------------------------------------------------------------------------


async def telltale(wire: Wire) -> None:
    """Repeat the caller's key in every place where an upstream can put it."""
    while (request := await wire.request()) is not None:
        said = f"You sent {request.headers['authorization']}, which is {CANARY}. " + CANARY * 100
        match len(request.body) % 3:
            case 0:
                body = msgspec.json.encode({"error": {"message": said, "type": CANARY, "code": "invalid_api_key"}})
                head = {"content-type": "application/json", "x-request-id": CANARY}
                await wire.send(response(401, head, [body]))
            case 1:
                await wire.send(response(500, {"content-type": "text/html"}, [f"<title>{said}</title>".encode()]))
            case _:
                error = b"data: " + msgspec.json.encode({"error": {"message": said, "code": CANARY}}) + b"\n\n"
                await wire.send(response(200, EVENT_STREAM, [event({"content": "So far. "}), error]))


def commands() -> Sequence[list[str]]:
    """Return every way to run a command that has the key at hand."""
    ask = [
        ["ask", *flags, "x" * length] for length in (1, 2, 3) for flags in ([], ["--json"], ["--stream", "--verbose"])
    ]
    return [*ask, ["ask", "--stream", "--json", "x"], ["check"], ["check", "--json"], ["check", "--probe"],
            ["check", "--probe", "--json", "--verbose"], ["models"], ["models", "--json"], ["ask", ""]]  # fmt: skip


@pytest.mark.parametrize("level", ["INFO", "DEBUG"])
async def test_the_key_is_shown_by_no_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: str) -> None:
    """Whatever the upstream repeats of it, and whatever goes wrong."""
    wizard = Wizard(tmp_path, monkeypatch)
    monkeypatch.setenv("CANARY_KEY", f"  {CANARY}\n")
    monkeypatch.setenv("WIZARD_LOGGING_LEVEL", level)
    async with serving(telltale) as base_url:
        wizard.config(openai(base_url, more=f'headers = {{ x-token = "{CANARY}" }}\n'))
        runs = [await trio.to_thread.run_sync(partial(wizard, *command)) for command in commands()]
    assert [command for command, run in zip(commands(), runs, strict=True) if CANARY in run.out + run.err] == []
    assert {run.status for run in runs} == {0, 1, 2}
    assert sum("***" in run.err for run in runs) >= 9  # the upstream's own words were shown


async def test_the_key_is_not_shown_where_it_cannot_be_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key with a line break inside is refused without being repeated; so is one in the configuration file."""
    wizard = Wizard(tmp_path, monkeypatch)
    monkeypatch.setenv("CANARY_KEY", f"{CANARY}\n{CANARY}")
    wizard.config(openai("http://127.0.0.1:9/v1"))
    runs = [await trio.to_thread.run_sync(partial(wizard, *command)) for command in commands()]
    wizard.config(openai("http://127.0.0.1:9/v1").replace("CANARY_KEY", CANARY) + f'api_key = "{CANARY}"\n')
    runs += [await trio.to_thread.run_sync(partial(wizard, *command)) for command in commands()]
    assert {run.status for run in runs} == {2}
    assert not any(CANARY in run.out + run.err for run in runs)
