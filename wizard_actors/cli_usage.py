"""What is said of a command line that cannot be understood, in one line."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from cyclopts import CycloptsError, Token, UnknownCommandError, UnknownOptionError, UnusedCliTokensError

from wizard_actors.errors import SerializationError
from wizard_actors.session_record import check_id

__all__ = ["check_names", "usage", "whole"]

MEANT: Final[Mapping[tuple[str, ...], str]] = {
    ("ask",): "put a prompt of several words in quotes, and check how the options are spelled",
    ("chat",): "`--session {}` names a session, and questions are asked once the chat has begun",
    ("serve",): "`--http {}` serves HTTP there, `--websocket {}` the WebSocket protocol",
    ("simulate",): "one scenario is played at a time; check how the options are spelled",
    ("batch",): "one file of questions is answered at a time",
    (
        "sessions",
        "list",
    ): "`--prefix {}` lists the sessions whose name begins so, and `wizard sessions show {}` shows one",
    ("sessions", "show"): "one session is shown at a time, and a name of several words stands in quotes",
    ("sessions", "export"): "one session is exported at a time, and a name of several words stands in quotes",
    ("sessions", "import"): "one file is imported at a time, and `--as {}` gives the session in it a name",
    ("sessions", "purge"): "`wizard sessions delete {}` deletes sessions by name",
}
"""What may have been meant by a word that a command does not take, which goes into the braces."""

PLACES: Final = frozenset({"--port", "-p", "--host", "--bind", "--listen", "--address"})
"""What other servers call where they listen."""

SYNONYMS: Final = {"rm": "delete", "remove": "delete", "del": "delete", "ls": "list", "cat": "show"}
"""What the commands of `wizard sessions` are called elsewhere."""


def check_names(names: Iterable[str], *command: str, option: str = "") -> None:
    """Raise `CycloptsError` for a name that no session can have, given to a command, by an option perhaps."""
    for name in names:
        try:
            check_id(name)
        except SerializationError as error:
            said = f"{option}: {error.message}" if option else error.message
            raise CycloptsError(msg=said, command_chain=command) from error


def whole(_kind: type, tokens: Sequence[Token]) -> int:
    """Return the whole number that an option is given: cyclopts rounds, and plays seed 2 where 1.5 was asked for."""
    said = tokens[0].value
    try:
        return int(said)
    except ValueError:
        raise ValueError(f"{said!r} is no whole number") from None


def usage(error: CycloptsError) -> str:
    """Return what is wrong with the command line, what may have been meant, and where to read on."""
    chain = tuple(error.command_chain or ())
    said, first = str(error).rstrip("."), (error.unused_tokens or [""])[0]
    if isinstance(error, UnusedCliTokensError):
        word = shlex.quote(first)
        meant = MEANT.get(chain)
        said = f"{word} is one word too many" + ("" if meant is None else f": {meant.replace('{}', word)}")
    elif isinstance(error, UnknownCommandError) and chain == ("sessions",) and first in SYNONYMS:
        said = f"unknown command {shlex.quote(first)}: `wizard sessions {SYNONYMS[first]}` does that"
    elif isinstance(error, UnknownOptionError) and chain == ("serve",) and error.token.keyword in PLACES:
        said += ": `--http HOST:PORT` says where to serve HTTP, `--websocket HOST:PORT` where the WebSocket protocol"
    return f"{said} (see `{' '.join(['wizard', *chain])} --help`)"
