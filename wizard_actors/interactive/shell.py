"""The chat itself: a loop that reads a line, does what it says, and survives whatever comes of it."""

from __future__ import annotations

import os
import secrets
import sys
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Final, TypedDict

import trio
from attrs import field, frozen

from wizard_actors.cli_output import Errors, ExitStatus, Output
from wizard_actors.cli_signals import Signals
from wizard_actors.client import ResilientClient
from wizard_actors.config import WizardConfig
from wizard_actors.errors import InvalidPromptError, SerializationError, WizardError
from wizard_actors.interactive.commands import completions, parse
from wizard_actors.interactive.conversation import Conversation, Go
from wizard_actors.interactive.line_input import Cleared, Ended, Lines, PipedLines, TerminalLines, quiet_keys
from wizard_actors.interactive.live_markdown import Painter
from wizard_actors.interactive.question_history import history_file, open_history
from wizard_actors.interactive.screens import Drawn, Piped, Screen, UnwritableError, size_of
from wizard_actors.session_record import SessionState, check_id

__all__ = ["ChatOptions", "Given", "run_chat"]

PREFIX: Final = "chat-"
"""What the names of sessions that began in the chat begin with."""


class Given(TypedDict, total=False):
    """What the command line sets of a session."""

    system: str | None
    route: str | None
    model: str | None


@frozen(kw_only=True)
class ChatOptions:
    """What the command line says: which `session`, None: the newest of the chat's own; `new`: a new one; and what to
    set of it.
    """

    session: str | None = None
    new: bool = False
    given: Given = field(factory=Given)


async def run_chat(config: WizardConfig, options: ChatOptions, output: Output, errors: Errors, signals: Signals) -> int:
    """Chat until there are no more lines, and return the exit status: on a terminal 0, in a pipe 1 where a line failed.

    Raises `ConfigError` for names that the configuration has not, `InvalidPromptError` for what no session can be
    called or told, what opening the first session raises, and `BrokenPipeError` or `StorageError` where nothing can be
    printed any more.
    """
    _check(options)
    if (model := options.given.get("model")) is not None:
        config.model(model)
    if (route := options.given.get("route")) is not None:
        config.route(route)
    on_terminal = output.is_terminal and sys.stdin is not None and sys.stdin.isatty()
    with ExitStack() as stack:
        async with ResilientClient.open(config) as client:
            if on_terminal:
                stack.enter_context(quiet_keys(sys.stdin, signals))
                shell = _on_terminal(client, output, errors, signals)
            else:
                shell = Shell(client, Piped(output, errors), PipedLines(sys.stdin))
            try:
                await shell.run(await _first(client, options, goes_on=on_terminal), options.given)
            except UnwritableError as unwritable:
                raise unwritable.error from unwritable
    return ExitStatus.FAILED if shell.failed and not on_terminal else ExitStatus.OK


def _check(options: ChatOptions) -> None:
    """Raise `InvalidPromptError` for what no session can be called, or told."""
    try:
        if options.session is not None:
            check_id(options.session)
        (options.given.get("system") or "").encode()
    except SerializationError as error:
        raise InvalidPromptError(f"--session: {error.message}") from error
    except UnicodeEncodeError as error:
        raise InvalidPromptError("--system: the text is not valid UTF-8") from error


def _on_terminal(client: ResilientClient, output: Output, errors: Errors, signals: Signals) -> Shell:
    painter, config = Painter(), client.config
    models, routes = [each.name for each in config.models], [each.name for each in config.routes]
    lines = TerminalLines(
        open_history(history_file(os.environ)),
        lambda text: completions(text, models, routes),
        colors=not os.environ.get("NO_COLOR"),
        stop=signals.stop,
    )
    out = sys.stdout.fileno()
    screen = Drawn(output, painter, lambda: size_of(out)) if painter.can_draw else Piped(output, errors)
    return Shell(client, screen, lines, signals)


async def _first(client: ResilientClient, options: ChatOptions, *, goes_on: bool) -> str:
    """Return the name of the session to begin with: the named one, the newest of the chat's that is open, a new one."""
    if options.session is not None:
        return options.session
    if goes_on and not options.new:
        for each in await client.sessions.list(limit=50, prefix=PREFIX):
            if each.state in {SessionState.CREATED, SessionState.ACTIVE}:
                return each.id
    now = datetime.now(UTC).astimezone()
    return f"{PREFIX}{now:%Y-%m-%d-%H%M%S}-{secrets.token_hex(2)}"  # two may begin in one second


class Shell:
    """Reads lines, and has them done. With `signals` Ctrl-C stops what runs; without, it is the whole program's end."""

    def __init__(self, client: ResilientClient, screen: Screen, lines: Lines, signals: Signals | None = None) -> None:
        self.failed = False
        """Whether any line failed."""
        self._client = client
        self._screen = screen
        self._lines = lines
        self._signals = signals

    async def run(self, name: str, given: Given) -> None:
        """Chat in the session `name`, with what is `given` for it, and in those that are changed to."""
        to, back, settings = name, None, given
        while True:
            try:
                async with self._client.session(to, **settings) as session:
                    going = await self._converse(Conversation(self._client, session, self._screen))
            except WizardError as error:  # it cannot be opened: whatever comes later is told where it happens
                if back is None or self._signals is None:  # who wrote a script does not see where it goes on
                    raise
                await self._screen.failure(f"{' '.join(error.message.split())}; going back to {back}")
                going, to = Go(back), back
            if going.to is None:
                return
            to, back, settings = going.to, None if going.to == to else to, Given()

    async def _converse(self, conversation: Conversation) -> Go:
        await conversation.greet()
        while True:
            text = await self._line()
            line = None if text is None else parse(text)
            if text is not None and line is None:
                continue
            with self._interruptible() as scope:
                outcome = await (self._end(conversation) if line is None else conversation.obey(line))
                if isinstance(outcome, Go):
                    return outcome
                self.failed = self.failed or not outcome
            if scope.cancelled_caught:
                with self._interruptible():
                    await conversation.interrupted()

    async def _end(self, conversation: Conversation) -> bool | Go:
        """Leave where there are no more lines; a person who would lose an answer gets another one."""
        return Go() if await conversation.leave(last=self._signals is None) else False

    async def _line(self) -> str | None:
        """Return the next line, None where there is none."""
        empty_before = False
        while True:
            with self._interruptible():
                try:
                    read = await self._lines.read()
                except InvalidPromptError as error:
                    self.failed = True
                    await self._screen.failure(error.message)
                    continue
                if isinstance(read, Ended):
                    return None
                if not isinstance(read, Cleared):
                    return read.text
                if read.empty and empty_before:
                    await self._screen.note("Ctrl-D or /quit leaves the chat")
                empty_before = read.empty

    def _interruptible(self) -> trio.CancelScope:
        return trio.CancelScope() if self._signals is None else self._signals.interruptible()
