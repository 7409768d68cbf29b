"""The commands. None of them asks a model, and none needs a key."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Final, Literal, TypeAlias

import trio
from cyclopts import App, Parameter

from wizard_actors.cli_config import find_config, set_up_logs
from wizard_actors.cli_output import Errors, ExitStatus, Output
from wizard_actors.cli_sessions.files import FORMATS, read_input, record_of, write_file
from wizard_actors.cli_sessions.shown import conversation, facts_table, list_table, plain, shown_summary
from wizard_actors.cli_usage import check_names, whole
from wizard_actors.client import ResilientClient
from wizard_actors.config.storage import shown_storage
from wizard_actors.config.values import BadValue, parse_seconds
from wizard_actors.errors import ConfigError, ConfigProblem, SerializationError, SessionConflictError
from wizard_actors.keeping import Removal
from wizard_actors.session_json import encode_session
from wizard_actors.session_record import SessionRecord, SessionSummary
from wizard_actors.storage.base import MAX_PAGE
from wizard_actors.wall_clock import WallClock
from wizard_actors.whole_file import is_special

__all__ = ["app"]

app = App(
    name="sessions",
    help="List, show, export, import and delete stored conversations.",
    default_parameter=Parameter(negative=()),
    help_format="plaintext",
)

ConfigFile: TypeAlias = Annotated[
    str | None,
    Parameter(help="The configuration file. Default: $WIZARD_CONFIG, ./wizard.toml, the API keys in the environment."),
]
AsJson: TypeAlias = Annotated[bool, Parameter(help="Print JSON, errors too.")]
Verbose: TypeAlias = Annotated[bool, Parameter(help="Log to standard error, and show a bug's traceback.")]
Name: TypeAlias = Annotated[str, Parameter(help="The session's name; -- before one that begins with a hyphen.")]

NEVER: Final = "nothing says how old: --idle 30d or --age 90d does, or `expire_idle` or `expire_age` of `[sessions]`"


@app.command(name="list")
async def list_(
    *,
    config: ConfigFile = None,
    limit: Annotated[int, Parameter(converter=whole, help="Sessions to list, at most.")] = 50,
    prefix: Annotated[str, Parameter(help="Only those whose name begins with this.", allow_leading_hyphen=True)] = "",
    json: AsJson = False,
    verbose: Verbose = False,
) -> int:
    """List the stored sessions, those used last first."""
    output, errors = Output(sys.stdout), Errors(sys.stderr, as_json=json)
    if limit < 1:
        raise ConfigError([ConfigProblem("limit", f"must be at least 1, not {limit}")])
    async with _client(config, errors, verbose=verbose) as client:
        found = await _listed(client, limit + 1, prefix)
        storage = client.config.sessions.storage
    shown, more = found[:limit], len(found) > limit
    if json:
        await output.json({"sessions": [shown_summary(each) for each in shown], "more": more})
        return ExitStatus.OK
    if not shown:
        if storage != "memory:" or prefix:  # else that has been said
            begin = f" that begin with {prefix!r}" if prefix else ""
            errors.note(f"there are no sessions in {shown_storage(storage)}{begin}")
        return ExitStatus.OK
    await output.tables(list_table(shown))
    if more:
        errors.note(f"there are more than these {limit}: --limit lists more of them")
    return ExitStatus.OK


async def _listed(client: ResilientClient, limit: int, prefix: str) -> Sequence[SessionSummary]:
    """Return up to `limit` summaries, page by page."""
    found: list[SessionSummary] = []
    while len(found) < limit:
        wanted = min(limit - len(found), MAX_PAGE)
        page = await client.sessions.list(limit=wanted, after=found[-1] if found else None, prefix=prefix)
        found += page
        if len(page) < wanted:
            break
    return found


@app.command
async def show(name: Name, /, *, config: ConfigFile = None, json: AsJson = False, verbose: Verbose = False) -> int:
    """Show what is stored of a session: its facts and its conversation."""
    check_names([name], "sessions", "show")
    output, errors = Output(sys.stdout), Errors(sys.stderr, as_json=json)
    async with _client(config, errors, verbose=verbose) as client:
        record = await client.sessions.load(name)
    if record is None:
        return _none_of(name, errors)
    if json:
        await _print(output, f"{encode_session(record).decode()}\n")
    else:
        await output.tables(facts_table(record))
        await output.text(conversation(record))
    return ExitStatus.OK


@app.command
async def export(
    name: Name,
    /,
    *,
    output: Annotated[
        str | None, Parameter(name=["--output", "-o"], help="The file to write. Default: standard output.")
    ] = None,
    form: Annotated[
        Literal["markdown", "json"] | None,
        Parameter(name="--format", help="Default: json for a FILE that ends in .json, else markdown."),
    ] = None,
    config: ConfigFile = None,
    verbose: Verbose = False,
) -> int:
    """Write a session as Markdown or JSON, for people or for another storage."""
    check_names([name], "sessions", "export")
    errors = Errors(sys.stderr)
    async with _client(config, errors, verbose=verbose) as client:
        record = await client.sessions.load(name)
    if record is None:
        return _none_of(name, errors)
    kind = form or ("json" if output is not None and output.lower().endswith(".json") else "markdown")
    text = FORMATS[kind](record)
    if output is None or output == "-":
        await _print(Output(sys.stdout), text)
    else:
        special = is_special(output)  # then nobody knows when it is read; what is left of a file would stay
        await trio.to_thread.run_sync(write_file, output, text, abandon_on_cancel=special)
    return ExitStatus.OK


@app.command(name="import")
async def import_(
    file: Annotated[
        str, Parameter(allow_leading_hyphen=True, help="An exported session, JSON or Markdown; - is standard input.")
    ],
    /,
    *,
    as_: Annotated[
        str | None, Parameter(name="--as", help="The name to store it under. Default: the one that it had.")
    ] = None,
    replace: Annotated[bool, Parameter(help="Replace the session of that name.")] = False,
    config: ConfigFile = None,
    verbose: Verbose = False,
) -> int:
    """Store an exported session."""
    errors = Errors(sys.stderr)
    if as_ is not None:
        check_names([as_], "sessions", "import", option="--as")
    data = await trio.to_thread.run_sync(read_input, file, abandon_on_cancel=True)
    try:
        # In a thread, for Ctrl-C: a long text takes seconds.
        record = await trio.to_thread.run_sync(record_of, data, file, as_, abandon_on_cancel=True)
    except SerializationError as error:
        return errors.usage(f"{_named(file)}: {error.message}")
    async with _client(config, errors, verbose=verbose) as client:
        try:
            record = await client.sessions.add(record, replace=replace)
        except SessionConflictError as error:
            return errors.usage(f"{error.message}; --as NAME or --replace does that")
    await Output(sys.stdout).text(f"{plain(record.id)} is stored, with {_turns(record)}\n")
    return ExitStatus.OK


@app.command
async def delete(name: Name, /, *names: str, config: ConfigFile = None, verbose: Verbose = False) -> int:
    """Delete sessions."""
    check_names([name, *names], "sessions", "delete")
    output, errors = Output(sys.stdout), Errors(sys.stderr)
    status = ExitStatus.OK
    async with _client(config, errors, verbose=verbose) as client:
        for each in dict.fromkeys((name, *names)):
            if await client.sessions.delete(each):
                await output.text(f"{plain(each)} is deleted\n")
            else:
                status = _none_of(each, errors)
    return status


@app.command
async def purge(
    *,
    idle: Annotated[
        str | None, Parameter(help="Delete what was not used for so long: seconds, or such as 30d.")
    ] = None,
    age: Annotated[str | None, Parameter(help="Delete what was begun so long ago: seconds, or such as 90d.")] = None,
    dry_run: Annotated[bool, Parameter(help="Delete nothing, and print what would be deleted.")] = False,
    config: ConfigFile = None,
    verbose: Verbose = False,
) -> int:
    """Delete old sessions; without --idle and --age those that have expired."""
    output, errors = Output(sys.stdout), Errors(sys.stderr)
    seconds = {name: _seconds(name, given) for name, given in (("idle", idle), ("age", age))}
    async with _client(config, errors, verbose=verbose) as client:
        configured = client.config.sessions
        if idle is None and age is None and configured.expire_idle is None and configured.expire_age is None:
            return errors.usage(NEVER)
        removed = await (_old(client, **seconds) if dry_run else client.sessions.purge(**seconds))
    done = "would be deleted" if dry_run else "is deleted"
    await output.text("".join(f"{plain(name)} {done}\n" for name in removed))
    errors.note(f"{len(removed)} {'would be deleted' if dry_run else 'deleted'}")
    return ExitStatus.OK


async def _old(client: ResilientClient, *, idle: float | None, age: float | None) -> Sequence[str]:
    """Return the names of what a purge would remove now."""
    if idle is None and age is None:
        idle, age = client.config.sessions.expire_idle, client.config.sessions.expire_age
    removal = Removal.of_older(WallClock()(), idle=idle, age=age)
    return [each.id for each in await _listed(client, sys.maxsize, "") if removal.reaches(each)]


# -- what they share ---------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _client(path: str | None, errors: Errors, *, verbose: bool) -> AsyncIterator[ResilientClient]:
    """Open the client of the configuration; which models it has, and with which keys, is of no concern here."""
    config = (await find_config(path, os.environ)).config
    set_up_logs(config, verbose=verbose)
    if config.sessions.storage == "memory:":
        errors.note('sessions are kept in memory (`storage = "memory:"`): no program sees those of another one')
    async with ResilientClient.open(config) as client:
        yield client


async def _print(output: Output, text: str) -> None:
    """Print what other programs read, in UTF-8 whatever the locale; on a terminal without its control characters."""
    if output.is_terminal:
        await output.text(text)
    else:
        await trio.to_thread.run_sync(output.write_now, text.encode(), abandon_on_cancel=True)


def _none_of(name: str, errors: Errors) -> ExitStatus:
    return errors.usage(f"there is no session {name!r}; `wizard sessions list` shows which there are")


def _named(file: str) -> str:
    return "standard input" if file == "-" else file


def _turns(record: SessionRecord) -> str:
    return f"{len(record.turns)} turn{'' if len(record.turns) == 1 else 's'}"


def _seconds(name: str, given: str | None) -> float | None:
    """Return the seconds of a duration as in a configuration; a number alone is seconds. Raises `ConfigError`."""
    if given is None:
        return None
    try:
        try:
            seconds = parse_seconds(float(given))
        except ValueError:  # BadValue is one
            seconds = parse_seconds(given)
    except BadValue as found:
        raise ConfigError([ConfigProblem(name, found.reason, found.hint)]) from None
    if seconds < 0:
        raise ConfigError([ConfigProblem(name, f"must be 0 seconds or more, not {seconds:g}")])
    return seconds
