"""What a line that is typed into the chat means. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from types import MappingProxyType
from typing import Final, TypeAlias

from attrs import frozen

__all__ = ["COMMANDS", "Command", "Line", "Message", "Unknown", "closest", "completions", "help_text", "parse"]

COMMANDS: Final = MappingProxyType(
    {
        "model": ("[NAME]", "ask this model alone; without a name: show what there is"),
        "route": ("[NAME]", "ask the models of this route; without a name: show what there is"),
        "system": ("[TEXT]", "set the system prompt, - takes it away; without a text: show it"),
        "retry": ("", "ask the last question again; its new answer takes the old one's place"),
        "undo": ("", "take back the last question and its answer"),
        "save": ("FILE", "write the session to a file, .md or .json"),
        "sessions": ("[NAME]", "change to another session; without a name: list them"),
        "cost": ("", "show tokens and cost, of the session and of the last turn"),
        "help": ("", "show this"),
        "quit": ("", "leave; so do Ctrl-D, and exit alone in a line"),
    }
)
"""The commands, each with its argument and its meaning."""

ALIASES: Final = MappingProxyType({"exit": "quit", "q": "quit"})
"""Other names of commands."""

LEAVING: Final = frozenset({"exit", "quit"})
"""Lines that leave without a slash, as in shells."""

CLOSE: Final = 0.5
"""How alike a name and what was typed must be for a hint."""


@frozen
class Message:
    """A text for the model."""

    text: str


@frozen
class Command:
    """A command of the chat's own."""

    name: str
    argument: str = ""


@frozen
class Unknown:
    """What begins with a slash and is no command; `said` tells what to do."""

    said: str


Line: TypeAlias = Message | Command | Unknown


def parse(line: str) -> Line | None:
    """Return what a line means; None: nothing, it is empty.

    A command is a slash and a name; two slashes are the one with which a message begins. A message keeps the spaces
    before it.
    """
    text = line.strip()
    if not text:
        return None
    if text.startswith("//"):
        return Message(line.rstrip().replace("//", "/", 1))
    if text.startswith("/"):
        return _command(text)
    return Command("quit") if text.lower() in LEAVING else Message(line.rstrip())


def _command(text: str) -> Line:
    typed, *rest = text.split(maxsplit=1)
    name = ALIASES.get(typed[1:].lower(), typed[1:].lower())
    if name not in COMMANDS:
        return Unknown(_unknown(typed[1:]))
    argument = rest[0] if rest else ""
    wanted, _ = COMMANDS[name]
    if argument and not wanted:
        return Unknown(f"/{name} takes nothing after it")
    if wanted and not wanted.startswith("[") and not argument:
        return Unknown(f"/{name} needs {wanted}: /help says more")
    return Command(name, argument)


def _unknown(typed: str) -> str:
    hint = closest(typed.lower(), COMMANDS)
    meant = f"did you mean /{hint}?" if hint else "/help lists what there is."
    return f"there is no command /{typed}; {meant} A text that begins with a slash is sent with two: //{typed}"


def closest(name: str, names: Iterable[str]) -> str | None:
    """Return the one of `names` that `name` is most like, None where none is."""
    return next(iter(get_close_matches(name, list(names), 1, CLOSE)), None)


def help_text() -> str:
    """Return the commands, a line each."""
    shown = {f"/{name} {argument}".rstrip(): meaning for name, (argument, meaning) in COMMANDS.items()}
    width = max(map(len, shown))
    lines = [f"{command:<{width}}  {meaning}" for command, meaning in shown.items()]
    keys = [
        f"{'//TEXT':<{width}}  send a text that begins with a slash",
        f"{'Alt-Enter':<{width}}  begin another line of the message",
        f"{'Ctrl-C':<{width}}  stop the answer, or clear the line",
    ]
    return "".join(f"{line}\n" for line in lines + keys)


def completions(text: str, names: Sequence[str], routes: Sequence[str]) -> tuple[str, list[str]]:
    """Return the word that is being typed at the end of `text`, and what it may become; `names` are the models'."""
    command, space, argument = text.partition(" ")
    if not text.startswith("/") or text.startswith("//") or "\n" in text:
        return "", []
    if not space:
        return text, [f"/{name}" for name in COMMANDS if f"/{name}".startswith(text.lower())]
    there_are = {"/model": names, "/route": routes}.get(command.lower(), ())
    return argument, [name for name in there_are if name.startswith(argument)]
