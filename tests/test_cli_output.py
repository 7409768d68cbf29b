"""Standard output: pipes, terminals and disks that do not do as they should."""

import io
import os
from io import FileIO
from pathlib import Path
from typing import TextIO

import pytest
import trio
import trio.testing

from tests.wizard_cli import SIMULATED, Wizard, two_models
from wizard_actors import cli
from wizard_actors.cli_output import Output


@pytest.fixture
def wizard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wizard:
    """The program, in a folder and an environment without any configuration."""
    return Wizard(tmp_path, monkeypatch)


@pytest.mark.parametrize("flags", [["--stream"], ["--no-stream"], ["--json"], ["--json", "--stream"], ["--help"]])
def test_an_output_that_nobody_reads_ends_in_silence(
    wizard: Wizard, flags: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The status says that the pipe was broken, and nothing else does."""
    wizard.config(SIMULATED)
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as broken:
        monkeypatch.setattr(cli, "Output", lambda _stream: Output(broken))
        ran = wizard("ask", *flags, "Why?")
    assert (ran.status, ran.err) == (141, "")


def test_an_output_that_cannot_be_written_is_an_error(wizard: Wizard, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk is told of, as any error is."""
    wizard.config(SIMULATED)
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(cli, "Output", lambda _stream: Output(full))
        ran = wizard("ask", "Why?")
    assert ran.status == 1
    assert ran.err == "wizard: standard output cannot be read or written: No space left on device\n"


def pipe() -> tuple[FileIO, TextIO]:
    """Return both ends of a pipe, unbuffered and as a standard output."""
    reader, writer = os.pipe()
    return FileIO(reader), os.fdopen(writer, "w")


def terminal() -> tuple[int, TextIO]:
    """Return the far end of a terminal, and the terminal as a standard output."""
    far, near = os.openpty()
    return far, os.fdopen(near, "w")


def line_on(screen: io.RawIOBase) -> bytes:
    """Return what a terminal shows up to the end of its line, which it may pass on in pieces."""
    shown = b""
    while not shown.endswith(b"\n"):
        shown += screen.read(1000) or b""
    return shown


def test_a_terminal_gets_a_stream_without_control_characters(wizard: Wizard, monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal shows the answer as it comes, so the interrupted one too; its text cannot drive the terminal."""
    config = two_models("disconnect", after_words=2).replace("This one", r"\u001b[2JThis one")
    wizard.config(config)
    far, near = terminal()
    with near, os.fdopen(far, "rb", buffering=0) as screen:
        monkeypatch.setattr(cli, "Output", lambda _stream: Output(near))
        ran = wizard("ask", "Why?")
        shown = line_on(screen).decode()
    assert ran.status == 1
    assert shown == "\N{REPLACEMENT CHARACTER}[2JThis one\r\n"


def test_a_terminal_gets_one_object_with_json_alone(wizard: Wizard, monkeypatch: pytest.MonkeyPatch) -> None:
    """--json streams only where --stream asks for it."""
    wizard.config(two_models("disconnect", after_words=2))
    far, near = terminal()
    with near, os.fdopen(far, "rb", buffering=0) as screen:
        monkeypatch.setattr(cli, "Output", lambda _stream: Output(near))
        ran = wizard("ask", "--json", "Why?")
        shown = line_on(screen).decode()
    assert ran.status == 0
    assert shown.startswith('{"text":"A whole answer."')


async def test_a_reader_that_stops_holds_neither_the_loop_nor_a_cancellation() -> None:
    """A write into a full pipe can be cancelled."""
    reader, writer = pipe()
    with reader, writer:
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(Output(writer).text, "x" * 2**20)
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
        left = reader.read(2**16)
    assert set(left) == {ord("x")}


async def test_a_pipe_that_does_not_block_is_waited_for() -> None:
    """Somebody else may have set the mode of a pipe that is shared: nothing is lost."""
    reader, writer = pipe()
    os.set_blocking(writer.fileno(), False)
    got = bytearray()

    async def read() -> None:
        while piece := await trio.to_thread.run_sync(reader.read, 2**16):
            got.extend(piece)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        with writer:
            await Output(writer).text("x" * 2**20)
    reader.close()
    assert len(got) == 2**20
