r"""A terminal for tests: what is written to it stands on a screen, and above that in what has scrolled away.

async with chatting(tmp_path) as terminal:
    await terminal.shows("> ")
    await terminal.type("Why?\r")
"""

import codecs
import fcntl
import os
import pty
import re
import signal
import struct
import termios
import unicodedata
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import trio
from rich.cells import cell_len

from tests.wizard_cli import PROGRAM, clean_environment

LOOK = 0.02
"""Seconds after which the terminal is looked at again, though nothing was written to it."""

PATIENCE = 30.0
"""Seconds after which a test that waits for a terminal has failed."""

SEQUENCE = re.compile(r"\x1b(?:\[([?>]?)([\d;]*)([A-Za-z])|[=>]|\][^\x07]*\x07)")
JOINERS = frozenset("\u00ad\u200c\u200d") | frozenset(map(chr, range(0xE0020, 0xE0080)))
"""The format characters that a text may need; the others order what stands beside them."""

BEGUN = re.compile(r"\x1b(?:\[[?>]?[\d;]*)?\Z")


class Emulator:
    """A screen of `width` by `height`; it knows what rich, prompt_toolkit and the chat write, and refuses the rest."""

    def __init__(self, width: int = 80, height: int = 24, *, onlcr: bool = False) -> None:
        self.width, self.height = width, height
        self.gone: list[str] = []
        """The rows that have scrolled away."""
        self.rows: list[list[str]] = [[]]
        """What stands in each cell: what is wide leaves the next one empty, what joins another stands in its cell."""
        self.x = self.y = 0
        self.wraps = True
        self.written = ""
        self.answers = ""
        """What the terminal has to say: where its cursor is."""
        self._onlcr = onlcr
        self._rest = ""

    @property
    def lines(self) -> list[str]:
        """All rows there ever were, but for empty ones at the end, without the spaces at their ends."""
        return "\n".join(row.rstrip() for row in (*self.gone, *map("".join, self.rows))).rstrip("\n").split("\n")

    @property
    def text(self) -> str:
        """All rows as one text."""
        return "\n".join(self.lines)

    def feed(self, data: str) -> None:
        """Write to the screen."""
        self.written += data
        data, self._rest = self._rest + data, ""
        place = 0
        while place < len(data):
            if data[place] == "\x1b":
                if BEGUN.match(data, place):
                    self._rest = data[place:]
                    return
                found = SEQUENCE.match(data, place)
                assert found is not None, f"unknown sequence {data[place : place + 20]!r}"
                self._obey(found)
                place = found.end()
            else:
                self._put(data[place])
                place += 1

    def _put(self, character: str) -> None:
        match character:
            case "\r":
                self.x = 0
            case "\n":
                self.y += 1
                if self._onlcr:
                    self.x = 0
            case "\b":
                self.x = max(self.x - 1, 0)
            case "\x07":
                pass
            case _ if unicodedata.category(character) in {"Cf", "Mn", "Me"}:
                assert character in JOINERS or unicodedata.category(character) != "Cf", repr(character)
                self._join(character)
            case _:
                assert character.isprintable() or character.isspace(), repr(character)
                self._print(character)
        while len(self.rows) <= self.y:
            self.rows.append([])
        while len(self.rows) > self.height:
            self.gone.append("".join(self.rows.pop(0)))
            self.y -= 1

    def _print(self, character: str) -> None:
        cells = cell_len(character)
        if self.x + cells > self.width:
            if not self.wraps:
                self.x = self.width - cells
            else:
                self._put("\r")
                self._put("\n")
        self._clear(self.x, cells)
        self.rows[self.y][self.x : self.x + cells] = [character, *[""] * (cells - 1)]
        self.x += cells

    def _clear(self, x: int, cells: int) -> None:
        """Empty some cells; a wide character of which one half goes is gone."""
        row = self.rows[self.y]
        row += [" "] * (x + cells - len(row))
        if row[x] == "" and x:
            row[x - 1] = " "
        if x + cells < len(row) and row[x + cells] == "":
            row[x + cells] = " "
        row[x : x + cells] = [" "] * cells

    def _join(self, character: str) -> None:
        """Put what has no width to the character before it."""
        row = self.rows[self.y]
        place = min(self.x, len(row)) - 1
        while place > 0 and row[place] == "":
            place -= 1
        if place >= 0:
            row[place] += character

    def _obey(self, found: re.Match[str]) -> None:  # noqa: C901 - a case is a sequence
        private, numbers, letter = found.groups()
        number = int(numbers) if numbers and numbers.isdigit() else 1
        match private, letter:
            case (None | ">", _) | ("", "m"):
                pass
            case ("?", "h" | "l"):
                if numbers == "7":
                    self.wraps = letter == "h"
            case ("", "A"):
                self.y = max(self.y - number, 0)
            case ("", "B"):
                self.y = min(self.y + number, self.height - 1)
            case ("", "C"):
                self.x += number
            case ("", "D"):
                self.x = max(self.x - number, 0)
            case ("", "K"):
                self.rows[self.y] = self.rows[self.y][: self.x]
            case ("", "J"):
                self.rows[self.y :] = [self.rows[self.y][: self.x]]
            case ("", "n"):
                self.answers += f"\x1b[{self.y + 1};{self.x + 1}R"
            case _:
                raise AssertionError(f"unknown sequence {found[0]!r}")


class Terminal:
    """The program on a real pseudo-terminal."""

    def __init__(self, process: trio.Process, master: trio.lowlevel.FdStream, slave: int, emulator: Emulator) -> None:
        self.process = process
        self.emulator = emulator
        self._master = master
        self._slave = slave
        self._news = trio.Event()
        self._typing = trio.Lock()

    async def type(self, keys: str) -> None:
        """Press keys; Enter is a carriage return."""
        async with self._typing:
            await self._master.send_all(keys.encode())

    async def shows(self, text: str, *, times: int = 1) -> None:
        """Wait until a text stands on the terminal so many times."""
        await self.until(lambda: self.emulator.text.count(text) >= times, text)

    async def prompts(self) -> None:
        """Wait for an empty prompt at which the program reads keys."""
        await self.until(lambda: self.emulator.lines[-1] == ">" and self.reads_every_key, "the prompt")

    async def until(self, holds: Callable[[], bool], what: str) -> None:
        """Wait until something holds."""
        with trio.move_on_after(PATIENCE):
            while not holds():
                self._news = trio.Event()
                with trio.move_on_after(LOOK):  # a change of the terminal's modes makes no output
                    await self._news.wait()
            return
        raise AssertionError(f"no {what!r} on the terminal:\n{self.emulator.text}")

    async def ends(self) -> int:
        """Wait for the end of the program, and return its status."""
        with trio.fail_after(PATIENCE):
            return await self.process.wait()

    @property
    def modes(self) -> list[object]:
        """The terminal's settings."""
        return termios.tcgetattr(self._slave)

    @property
    def reads_every_key(self) -> bool:
        """Whether Ctrl-C is a key, and no signal, as while a prompt waits."""
        return not termios.tcgetattr(self._slave)[3] & termios.ISIG

    def resize(self, width: int, height: int) -> None:
        """Make the terminal another size, and tell the program."""
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
        self.emulator.width, self.emulator.height = width, height

    async def listen(self) -> None:
        """Show whatever the program writes, until it ends."""
        decoder = codecs.getincrementaldecoder("utf-8")()
        with suppress(trio.BrokenResourceError):  # how Linux says that the program has gone
            async for data in self._master:
                self.emulator.feed(decoder.decode(data))
                answers, self.emulator.answers = self.emulator.answers, ""
                if answers:
                    await self.type(answers)
                self._news.set()


@asynccontextmanager
async def chatting(
    folder: Path,
    *arguments: str,
    width: int = 100,
    height: int = 30,
    env: Mapping[str, str] | None = None,
) -> AsyncIterator[Terminal]:
    """Run `wizard chat` on a terminal in `folder`, which is its home too; what is left of it at the end is killed."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
    master = trio.lowlevel.FdStream(ours)
    process = await trio.lowlevel.open_process(
        [*PROGRAM, "chat", *arguments],
        cwd=folder,
        env={**clean_environment(), "HOME": str(folder), "TERM": "xterm-256color", **(env or {})},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=_own_terminal,
    )
    terminal = Terminal(process, master, theirs, Emulator(width, height))
    async with master, trio.open_nursery() as nursery:
        nursery.start_soon(terminal.listen)
        try:
            yield terminal
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            with trio.CancelScope(shield=True):
                await process.wait()
            os.close(theirs)
            nursery.cancel_scope.cancel()


def _own_terminal() -> None:
    """Make the terminal the one whose Ctrl-C the new process gets."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


__all__ = ["PATIENCE", "Emulator", "Terminal", "chatting"]
