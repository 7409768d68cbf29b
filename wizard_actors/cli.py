"""The program `wizard`: its commands, and how they end.

What a command prints on standard output is its answer and nothing else; everything that is said about it goes to
standard error. `docs/cli.md` is the reference.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import partial
from inspect import iscoroutinefunction
from io import StringIO
from pathlib import Path
from typing import Annotated, Final, TypeAlias

import trio
from cyclopts import App, CycloptsError, Parameter
from rich.console import Console

from wizard_actors import __version__
from wizard_actors.cli_batch import BatchJob
from wizard_actors.cli_check import (
    in_force,
    keyless,
    models_table,
    probe_models,
    probes_table,
    routes_table,
    settings_table,
    shown_models,
    shown_setting,
)
from wizard_actors.cli_config import DEFAULT_FILE, Found, find_config, set_up_logs, silence_logs
from wizard_actors.cli_output import Errors, ExitStatus, Output
from wizard_actors.cli_sessions import app as sessions_app
from wizard_actors.cli_signals import Signals
from wizard_actors.cli_simulate import simulate
from wizard_actors.cli_usage import usage
from wizard_actors.client import ResilientClient
from wizard_actors.config import TEMPLATE
from wizard_actors.demo import run_demo
from wizard_actors.errors import ConfigError, ConfigProblem, InvalidPromptError, WizardError
from wizard_actors.response_stream import ResponseStream
from wizard_actors.types import FinishReason, Prompt, Reset, ServedBy, TextDelta, WizardResponse

__all__ = ["app", "run"]

LONGEST_INPUT: Final = 64 * 2**20
"""Bytes of a prompt from standard input, at most."""

HYPHENS: Final = {"prompt": "ask", "source": "batch", "file": "sessions import"}
"""The arguments for which a lone hyphen means standard input, and their commands."""

app = App(
    name="wizard",
    help="Ask language models through limits, circuit breakers, retries and fallbacks.",
    version=__version__,
    default_parameter=Parameter(negative=()),
    help_format="plaintext",
)

ConfigFile: TypeAlias = Annotated[
    str | None,
    Parameter(help="The configuration file. Default: $WIZARD_CONFIG, ./wizard.toml, the API keys in the environment."),
]
AsJson: TypeAlias = Annotated[bool, Parameter(help="Print JSON, errors too.")]
Verbose: TypeAlias = Annotated[bool, Parameter(help="Log to standard error, and show a bug's traceback.")]


# -- wizard ask ------------------------------------------------------------------------------------------------------


@app.command
async def ask(  # noqa: PLR0913 - a parameter is a flag
    prompt: Annotated[str, Parameter(allow_leading_hyphen=True, help="The prompt; - reads standard input.")],
    /,
    *,
    config: ConfigFile = None,
    route: Annotated[str | None, Parameter(help="The route that answers. Default: the one named wizard.")] = None,
    model: Annotated[str | None, Parameter(help="Ask this model alone.")] = None,
    system: Annotated[str | None, Parameter(help="The system message.")] = None,
    stream: Annotated[
        bool | None,
        Parameter(negative="--no-stream", help="Print the answer as it comes. Default: on a terminal, without --json."),
    ] = None,
    json: AsJson = False,
    deadline: Annotated[float | None, Parameter(help="Seconds that the whole request may take.")] = None,
    verbose: Verbose = False,
) -> int:
    """Print a model's answer."""
    output = Output(sys.stdout)
    errors = Errors(sys.stderr, as_json=json)
    found = await _configuration(config, errors, verbose=verbose)
    question = _prompt(await _standard_input() if prompt == "-" else prompt, system)
    streaming = output.is_terminal and not json if stream is None else stream
    async with ResilientClient.open(found.config) as client:
        if streaming:
            async with client.stream(question, route=route, model=model, deadline=deadline) as events:
                await (_print_events(events, output) if json else _print_text(events, output, errors))
            response = events.response
        else:
            response = await client.generate(question, route=route, model=model, deadline=deadline)
            await (output.json(response.to_dict()) if json else output.text(f"{response.text}\n"))
    if not json:
        _note_what_it_is(response, errors)
    return ExitStatus.OK


def _note_what_it_is(response: WizardResponse, errors: Errors) -> None:
    """Say where an answer is less than it seems."""
    if response.served_by is ServedBy.STATIC:
        failed = ", ".join(dict.fromkeys(attempt.model for attempt in response.attempts))
        errors.note(f"no model answered ({failed or 'none was asked'} failed): this is the route's static answer")
    if response.finish_reason is FinishReason.LENGTH:
        errors.note("the answer was cut off where it reached its longest length: it is not complete")


def _prompt(text: str, system: str | None) -> Prompt:
    if not text.strip():
        raise InvalidPromptError("the prompt is empty")
    return Prompt(text, system=system)


async def _standard_input() -> str:
    """Read standard input to its end, in a thread: Ctrl-C leaves it behind with its terminal."""
    data = await trio.to_thread.run_sync(_read_all, abandon_on_cancel=True)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InvalidPromptError(f"standard input is not UTF-8 text: {error.reason} at byte {error.start}") from None


def _read_all() -> bytes:
    if sys.stdin is None:
        raise InvalidPromptError("there is no standard input to read the prompt from: it is closed")
    pieces, size = [], 0
    # Not through Python's buffer: a thread left behind in it would hold up the interpreter's exit.
    try:
        while piece := os.read(sys.stdin.fileno(), 2**20):
            pieces.append(piece)
            size += len(piece)
            if size > LONGEST_INPUT:
                raise InvalidPromptError(f"the prompt on standard input is longer than {LONGEST_INPUT} bytes")
    except OSError as error:
        raise InvalidPromptError(f"standard input cannot be read: {error.strerror}") from error
    return b"".join(pieces)


async def _print_events(events: ResponseStream, output: Output) -> None:
    async for event in events:
        await output.json(event.to_dict())


async def _print_text(events: ResponseStream, output: Output, errors: Errors) -> None:
    """Print the text as it comes. What has been printed stays there: after an interruption its line ends."""
    midway, failed = False, None
    try:
        async for event in events:
            if isinstance(event, TextDelta):
                await output.text(event.text)
                midway = True
            elif isinstance(event, Reset):
                await output.text("\n")
                midway = False
                errors.note(
                    f"{event.model} broke off ({event.reason}): the text so far is void, the answer starts again"
                )
    except WizardError as error:
        failed = error
    if midway or failed is None:
        await output.text("\n")
    if failed is not None:
        raise failed


# -- wizard chat -----------------------------------------------------------------------------------------------------


@app.command
async def chat(
    *,
    signals: Annotated[Signals, Parameter(parse=False)],
    session: Annotated[
        str | None, Parameter(help="The session to go on with, or to begin. Default: the chat's newest.")
    ] = None,
    new: Annotated[bool, Parameter(help="Begin a new session. So does a chat without a terminal.")] = False,
    config: ConfigFile = None,
    route: Annotated[str | None, Parameter(help="The route that answers from now on.")] = None,
    model: Annotated[str | None, Parameter(help="Ask this model alone from now on.")] = None,
    system: Annotated[str | None, Parameter(help="The session's system prompt from now on.")] = None,
    verbose: Verbose = False,
) -> int:
    """Talk with a model, in a session that is kept; /help lists the commands."""
    from wizard_actors.interactive import ChatOptions, Given, run_chat  # its prompt takes long to import

    if new and session is not None:
        raise CycloptsError(
            msg="--new begins a session with a name of its own: leave --session out", command_chain=["chat"]
        )
    errors = Errors(sys.stderr, verbose=verbose)
    found = await _configuration(config, errors, verbose=verbose)
    given = Given()
    if route is not None:
        given = {"route": route, "model": None}
    if model is not None:
        given["model"] = model
    if system is not None:
        given["system"] = system
    options = ChatOptions(session=session, new=new, given=given)
    return await run_chat(found.config, options, Output(sys.stdout), errors, signals)


# -- wizard batch ----------------------------------------------------------------------------------------------------


@app.command
async def batch(  # noqa: PLR0913 - a parameter is a flag
    source: Annotated[
        str, Parameter(allow_leading_hyphen=True, help="The questions, one a line; - reads standard input.")
    ],
    /,
    *,
    output: Annotated[
        Path, Parameter(name=["--output", "-o"], help="Where the answers go; a later run goes on with it.")
    ],
    config: ConfigFile = None,
    route: Annotated[str | None, Parameter(help="The route that answers. Default: the one named wizard.")] = None,
    model: Annotated[str | None, Parameter(help="Ask this model alone.")] = None,
    max_concurrency: Annotated[
        int | None, Parameter(help="Questions under way at once, at most. Default: [batch] max_concurrency.")
    ] = None,
    strategy: Annotated[
        str | None,
        Parameter(
            help="How the route's models take turns: sequential, hedged, parallel, adaptive, cheapest, or a strategy "
            "that a route names. Default: as configured."
        ),
    ] = None,
    deadline: Annotated[
        str | None, Parameter(allow_leading_hyphen=True, help="What each question may take: seconds, or such as 30s.")
    ] = None,
    retry_errors: Annotated[bool, Parameter(help="Ask again what failed in an earlier run.")] = False,
    verbose: Verbose = False,
) -> int:
    """Answer the questions of a file of JSON lines."""
    errors = Errors(sys.stderr)
    found = await _configuration(config, errors, verbose=verbose)
    job = BatchJob(
        source=source,
        target=output,
        route=route,
        model=model,
        strategy=strategy,
        deadline=deadline,
        max_concurrency=max_concurrency,
        retry_errors=retry_errors,
    )
    return await job.run(found.config, errors)


# -- wizard sessions -------------------------------------------------------------------------------------------------

app.command(sessions_app)


# -- wizard serve ----------------------------------------------------------------------------------------------------


@app.command
async def serve(
    *,
    signals: Annotated[Signals, Parameter(parse=False)],
    http: Annotated[
        str | None, Parameter(help="Serve OpenAI's and Anthropic's HTTP at HOST:PORT. Default: [server] http.")
    ] = None,
    websocket: Annotated[
        str | None, Parameter(help="Serve WebSocket connections at HOST:PORT. Default: [server] websocket.")
    ] = None,
    new_key: Annotated[
        str | None, Parameter(help="Make a key of this name for a caller, print it, and serve nothing.")
    ] = None,
    admin: Annotated[bool, Parameter(help="Let the new key look at the whole server, and clear its cache.")] = False,
    config: ConfigFile = None,
    verbose: Verbose = False,
) -> int:
    """Serve the configured models to others."""
    from wizard_actors.cli_serve import make_key, run_server  # what it speaks takes long to import

    errors = Errors(sys.stderr, verbose=verbose)
    if new_key is None and not admin:
        return await run_server(config, {"http": http, "websocket": websocket}, errors, signals, verbose=verbose)
    if new_key is None or (http, websocket) != (None, None):
        alone = "--new-key serves nothing: leave --http and --websocket out"
        said = "--admin goes with --new-key NAME" if new_key is None else alone
        raise CycloptsError(msg=said, command_chain=["serve"])
    return await make_key(config, new_key, Output(sys.stdout), errors, admin=admin)


# -- the configuration -----------------------------------------------------------------------------------------------


@app.command
async def init(
    path: Annotated[Path, Parameter(help="The file to write.")] = Path(DEFAULT_FILE),
    /,
    *,
    force: Annotated[bool, Parameter(help="Overwrite the file.")] = False,
) -> int:
    """Write a configuration file that explains itself."""
    try:
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(TEMPLATE)
    except FileExistsError:
        raise _unwritable(path, "the file exists already", "--force overwrites it") from None
    except OSError as error:
        raise _unwritable(path, f"the file cannot be written: {error.strerror}") from error
    await Output(sys.stdout).text(
        f"{path} is written. Name your models in it, set the variables that hold their keys, and see what\n"
        "`wizard check --probe` says.\n"
    )
    return ExitStatus.OK


def _unwritable(path: Path, reason: str, hint: str = "") -> ConfigError:
    return ConfigError([ConfigProblem("", reason, hint)], file=str(path))


@app.command
async def models(*, config: ConfigFile = None, json: AsJson = False) -> int:
    """List the configured models and routes."""
    output = Output(sys.stdout)
    found = await _configuration(config, Errors(sys.stderr, as_json=json))
    if json:
        await output.json(shown_models(found.config))
    else:
        await output.tables(models_table(found.config), routes_table(found.config))
    return ExitStatus.OK


@app.command
async def check(
    *,
    config: ConfigFile = None,
    probe: Annotated[bool, Parameter(help="Make one tiny call to each enabled model.")] = False,
    json: AsJson = False,
    verbose: Verbose = False,
) -> int:
    """Check the configuration, and show every setting in force and where it comes from."""
    from wizard_actors.cli_serve import check_server

    output = Output(sys.stdout)
    errors = Errors(sys.stderr, as_json=json)
    found = await _configuration(config, errors, verbose=verbose)
    for note in keyless(found.config):
        errors.note(note)
    await check_server(found.config, config)
    settings = in_force(found.config)
    if not json:
        await output.tables(settings_table(settings, found.source))
    probes = await probe_models(found.config) if probe else []
    if json:
        shown: dict[str, object] = {"source": found.source, "settings": [shown_setting(each) for each in settings]}
        await output.json({**shown, "probes": [each.to_dict() for each in probes]} if probe else shown)
    elif probe:
        await output.text("\n")
        await output.tables(probes_table(probes))
    return ExitStatus.FAILED if any(each.error for each in probes) else ExitStatus.OK


async def _configuration(path: str | None, errors: Errors, *, verbose: bool = False) -> Found:
    found = await find_config(path, os.environ)
    for note in found.notes:
        errors.note(note)
    set_up_logs(found.config, verbose=verbose)
    return found


# -- wizard simulate -------------------------------------------------------------------------------------------------

app.command(simulate)


# -- wizard demo -----------------------------------------------------------------------------------------------------


class _Screen(Console):
    """A console that leaves a broken pipe to whoever prints."""

    def on_broken_pipe(self) -> None:
        """Drop what is left to print, and raise the `BrokenPipeError` at hand again."""
        self.quiet = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())  # else the interpreter's own exit finds the pipe broken too
        raise BrokenPipeError


@app.command
async def demo() -> int:
    """Show a chain of models at work while its first model fails and recovers."""
    try:
        return await run_demo(_Screen())
    except* BrokenPipeError:  # of any of its tasks
        pass
    return ExitStatus.BROKEN_PIPE


# -- how it runs -----------------------------------------------------------------------------------------------------


def run(tokens: Sequence[str], signals: Signals) -> int:
    """Run the command that `tokens` spell, and return the exit status; what goes wrong is told on standard error."""
    silence_logs()
    flags = tokens[: tokens.index("--")] if "--" in tokens else tokens
    errors = Errors(sys.stderr, as_json="--json" in flags, verbose="--verbose" in flags)
    output, page = Output(sys.stdout), StringIO()
    try:
        command, given, unparsed = app.parse_args(
            tokens, console=output.console(page), print_error=False, exit_on_error=False
        )
        for name, command_name in HYPHENS.items():
            _check_hyphen(given.arguments.get(name, ""), name, command_name, explicit="--" in tokens)
        own = {"signals": signals} if "signals" in unparsed else {}
        work = partial(command, *given.args, **given.kwargs, **own)
        if iscoroutinefunction(command):
            return signals.run(work)
        status = work()  # --help, --version, and a simulation, which is a Trio run of its own
        if page.getvalue():
            output.write_now(output.rendered(page))
        return status or ExitStatus.OK
    except CycloptsError as error:
        return errors.usage(usage(error))
    except WizardError as error:
        return signals.status or errors.failure(error)
    except BrokenPipeError:
        return ExitStatus.BROKEN_PIPE
    except Exception as error:  # noqa: BLE001 - the last word: a bug is one line too
        return errors.bug(error)


def _check_hyphen(value: str, name: str, command: str, *, explicit: bool) -> None:
    """Refuse an argument that is rather a flag: cyclopts lets it through, for the sake of `-`."""
    if value.startswith("-") and value != "-" and not explicit:
        raise CycloptsError(
            msg=f"unknown option {value!r}; put -- before a {name} that begins with a hyphen", command_chain=[command]
        )
