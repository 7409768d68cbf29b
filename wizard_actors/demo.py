"""The demo: a chain answers two questions while its first model fails and recovers, and every step of it is shown.

The first model is simulated, so that it fails on cue; the second is the embedded one, which really computes its answer.
What is printed comes from the client's event stream and its answers, as it would in any program.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from random import Random
from typing import Final

import trio
from attrs import frozen
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from wizard_actors.breaker_core import Circuit
from wizard_actors.client import ResilientClient
from wizard_actors.config import WizardConfig
from wizard_actors.errors import Attempt, RateLimitError, WizardError
from wizard_actors.event_stream import Subscription
from wizard_actors.events import AttemptBegan, AttemptEnded, BreakerChanged, Event, FellBack, Retrying
from wizard_actors.providers.local import available
from wizard_actors.supervisor import ActorChanged, State, TreeNode
from wizard_actors.types import Prompt, TextDelta, WizardResponse

__all__ = ["demo_config", "run_demo"]

PRIMARY: Final = """
[[models]]
name = "primary"
provider = "simulated"
retry = { max_attempts = 3, base_delay = 1.0 }
circuit_breaker = { failure_threshold = 2, open_for = 6, success_threshold = 1 }

[models.simulated]
connect = 0.4
first_token = 0.4
per_chunk = 0.05
script = [{ fault = "rate_limit", retry_after = 2 }, { fault = "error" }, { fault = "truncate" }]
answer = \"\"\"I am back. I refused a call, I failed one, and I broke one off in the middle. Then nobody called me \\
for some seconds, and another model answered in my place. This question was my trial, and I have passed it.\"\"\"

[[models]]
name = "backup"
"""
EMBEDDED: Final = 'provider = "local"\nlocal = { context = 512 }\n'
SECOND_SIMULATED: Final = """
provider = "simulated"

[models.simulated]
connect = 0.2
first_token = 0.3
per_chunk = 0.05
answer = \"\"\"The sea is wide, and no two waves of it are the same. This answer was written beforehand: the embedded \\
model is not installed here, so a second simulated model tells of the sea in its place.\"\"\"
"""

LEARNING: Final = 0.1
"""Seconds after an answer in which the breaker has learned of it, and said so."""
QUESTIONS: Final = ("Write a short paragraph about the sea.", "Welcome back. What happened to you?")
SEED: Final = 3
"""Of the random delays: every run waits as long as the last one."""

STYLES: Final = ("bold cyan", "bold magenta")
"""Of the models' names, in the chain's order."""
FAULTS: Final = {"rate_limit": "a rate limit (429)", "error": "an error (500)", "truncate": "a cut stream"}
CIRCUITS: Final = {Circuit.CLOSED: "green", Circuit.OPEN: "red", Circuit.HALF_OPEN: "yellow"}


def demo_config(*, embedded: bool) -> WizardConfig:
    """Return the demo's chain: the simulated model that fails, then the embedded one or a second simulated one."""
    return WizardConfig.from_toml(PRIMARY + (EMBEDDED if embedded else SECOND_SIMULATED), env={})


async def run_demo(console: Console, *, config: WizardConfig | None = None) -> int:
    """Run the demo on `console`, and return its exit status: 0, or 1 where a question was left without an answer.

    It takes some 15 seconds. `config` replaces the chain; by default its second model is the embedded one where that
    is installed and runs. Cancelling it stops everything that it started.
    """
    embedded = available()
    if config is None and not embedded:
        _say_so(console, "The embedded model is not installed here")
    try:
        return await _run(console, config or demo_config(embedded=embedded))
    except _EngineError as failed:
        _say_so(console, f"The embedded model does not run here ({failed})")
        return await _run(console, demo_config(embedded=False))


def _say_so(console: Console, trouble: str) -> None:
    console.print(Text(f"{trouble}: a second simulated model takes its place.", "yellow"))


class _EngineError(Exception):
    """Raised when the embedded model did not start; says why."""


async def _run(console: Console, config: WizardConfig) -> int:
    _introduce(console, config)
    async with ResilientClient.open(config, rng=Random(SEED)) as client:
        for node in client.tree().walk():
            if node.name == "engine" and node.state is not State.RUNNING:
                raise _EngineError(node.error or node.state)
        with client.events.subscribe() as events:
            narrator = _Narrator(console, config.fallback.chain, events)
            answers = await _narrated(client, narrator)
        _sum_up(console, narrator, answers, client.tree())
    return 0 if len(answers) == len(QUESTIONS) else 1


async def _narrated(client: ResilientClient, narrator: _Narrator) -> list[WizardResponse]:
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(narrator.follow)
            answers = await _ask_both(client, narrator)
            nursery.cancel_scope.cancel()
    finally:
        narrator.break_off()
    return answers


async def _ask_both(client: ResilientClient, narrator: _Narrator) -> list[WizardResponse]:
    """Ask the first question, wait until the circuit that opened over it may be tried again, ask the second one."""
    answers: list[WizardResponse] = []
    for number, question in enumerate(QUESTIONS, start=1):
        retry_at = max(narrator.retry_at.values(), default=0.0)
        wait = retry_at - trio.current_time()
        if wait > 0:
            narrator.line("", f"Nobody calls a model whose circuit is open. The next question comes in {wait:.1f} s.")
            await trio.sleep_until(retry_at)
        narrator.ask(number, question)
        prompt = Prompt(question, temperature=0.0, seed=1, max_tokens=120)
        try:
            async with client.stream(prompt) as stream:
                async for event in stream:
                    narrator.catch_up()
                    if isinstance(event, TextDelta):
                        narrator.say(event.text)
        except WizardError as error:
            narrator.catch_up()
            narrator.line("", Text(f"No answer: {error}", "red"))
        else:
            narrator.answered(stream.response)
            answers.append(stream.response)
        await trio.sleep(LEARNING)
    return answers


# -- while it runs ----------------------------------------------------------------------------------------------------


@frozen
class _Marks:
    """The signs that not every terminal can show."""

    bar: str
    arrow: str

    @classmethod
    def of(cls, console: Console) -> _Marks:
        return cls("|", "->") if console.options.ascii_only else cls("│", "→")


class _Narrator:
    """Prints what happens as it happens: a line an event, and answers word by word."""

    def __init__(self, console: Console, chain: Sequence[str], events: Subscription) -> None:
        self.retry_at: dict[str, float] = {}
        """When the circuit of a model may be tried again."""
        self.began = trio.current_time()
        self.styles = dict(zip(chain, STYLES, strict=False))
        self._console = console
        self._marks = _Marks.of(console)
        self._events = events
        self._names = max(map(len, chain))
        self._circuits = dict.fromkeys(chain, Circuit.CLOSED)
        self._paused: dict[str, float] = {}  # until when a model's 429 holds its next call
        self._model = ""  # of the attempt under way
        self._words: _Words | None = None

    async def follow(self) -> None:
        """Print events as they come, until cancelled."""
        async for event in self._events:
            self._tell(event)

    def catch_up(self) -> None:
        """Print the events that have come, so that what follows stands below them."""
        for event in self._events.drain():
            self._tell(event)

    def line(self, model: str, what: str | Text, at: float | None = None) -> None:
        """Print one line: the seconds since the start, the model's name, what happened."""
        self.break_off()
        row = Table.grid(padding=(0, 2, 0, 0), pad_edge=False)
        row.add_column(justify="right", no_wrap=True, min_width=7)
        row.add_column(no_wrap=True, min_width=self._names)
        row.add_column(overflow="fold")
        seconds = (trio.current_time() if at is None else at) - self.began
        row.add_row(Text(f"{seconds:.2f} s", "dim"), self._name(model), what if isinstance(what, Text) else Text(what))
        self._console.print(row)

    def ask(self, number: int, question: str) -> None:
        """Print a question."""
        self._console.print()
        self.line("", Text.assemble((f"Question {number}: ", "bold"), (question, "bold italic")))

    def say(self, text: str) -> None:
        """Print a piece of the answer where the last one ended."""
        if self._words is None:
            self._words = _Words(self._console, self.styles.get(self._model, ""), self._marks.bar, self._names + 11)
        self._words.add(text)

    def answered(self, response: WizardResponse) -> None:
        """Print how the answer came about, once it is complete."""
        words, failed = self._words, len(response.attempts) - 1
        self.break_off()
        self.catch_up()
        tries = f" after {failed} failed attempts, which the caller never saw" if failed else ", at the first attempt"
        streamed = f"; the text came in {words.pieces} pieces within {words.seconds:.2f} s" if words else ""
        self.line(response.model, Text(f"answered{tries}{streamed}", "green"))

    def break_off(self) -> None:
        """End the line of an answer that stands unfinished."""
        if self._words is not None:
            self._words.end()
            self._words = None

    def _name(self, model: str) -> Text:
        return Text(model, self.styles.get(model, ""))

    def _tell(self, event: Event) -> None:
        match event:
            case AttemptBegan():
                self._attempt_began(event)
            case AttemptEnded(error=WizardError() as error):
                if isinstance(error, RateLimitError) and error.retry_after:
                    self._paused[event.model] = event.at + error.retry_after
                self.line(event.model, Text(_failure(error), "red" if event.sent else "yellow"), event.at)
            case Retrying() if event.delay:
                self.line(event.model, f"will be asked again in {event.delay:.2f} s, a random delay", event.at)
            case FellBack():
                moved = Text.assemble("FALLBACK: ", self._name(event.failed), f" {self._marks.arrow} ")
                self.line(event.model, moved + self._name(event.model), event.at)
            case BreakerChanged():
                self._breaker_changed(event)
            case ActorChanged():
                self.line("", Text(f"{event.path} {event.state} {event.error or ''}", "red"), event.at)

    def _attempt_began(self, event: AttemptBegan) -> None:
        self._model = event.model
        held = self._paused.pop(event.model, event.at) - event.at
        why = f": the rate limiter holds it back for the {held:.2f} s that the 429 asked for" if held > 0 else ""
        self.line(event.model, f"attempt {event.number}{why}", event.at)

    def _breaker_changed(self, event: BreakerChanged) -> None:
        circuit = Circuit(event.circuit)
        before, self._circuits[event.model] = self._circuits[event.model], circuit
        text = Text.assemble("CIRCUIT BREAKER: ", _circuit(before), f" {self._marks.arrow} ", _circuit(circuit))
        match circuit:
            case Circuit.OPEN:
                self.retry_at[event.model] = event.retry_at
                text.append(f", for {event.retry_at - event.at:.1f} s: it failed too often")
            case Circuit.HALF_OPEN:
                text.append(", one call may try it")
            case Circuit.CLOSED:
                text.append(", it has recovered")
        self.line(event.model, text, event.at)


def _circuit(circuit: Circuit) -> tuple[str, str]:
    return circuit.value.replace("_", "-"), f"bold {CIRCUITS[circuit]}"


def _failure(error: WizardError) -> str:
    """Return what went wrong, in few words."""
    status, retry_after = getattr(error, "status", None), getattr(error, "retry_after", None)
    failed = f"failed with status {status}" if status and status >= 400 else f"failed: {error}"
    return f"{failed} ({error.code})" + (f", Retry-After {retry_after:g} s" if retry_after else "")


class _Words:
    """Prints a text that arrives in pieces, wrapped, each word as soon as it is complete."""

    def __init__(self, console: Console, style: str, bar: str, indent: int) -> None:
        self.pieces = 0
        self.seconds = 0.0
        """From the first piece to the last one."""
        self._began = trio.current_time()
        self._console = console
        self._start = Text.assemble(" " * (indent if console.width >= 3 * indent else 0), (f"{bar} ", style))
        self._room = max(1, console.width - cell_len(self._start.plain) - 1)
        self._used = 0
        self._word = ""

    def add(self, piece: str) -> None:
        """Print what `piece` completes."""
        self.pieces += 1
        self.seconds = trio.current_time() - self._began
        encoding = self._console.encoding
        *words, self._word = re.split(r"\s+", self._word + piece.encode(encoding, "replace").decode(encoding))
        for word in words:
            self._print(word)

    def end(self) -> None:
        """Print the last word."""
        self._print(self._word)
        self._console.print()

    def _print(self, word: str) -> None:
        if not word:
            return
        if self._used and self._used + 1 + cell_len(word) <= self._room:
            shown = Text(f" {word}")
        else:
            shown = Text.assemble("\n" if self._used else "", self._start, word)
            self._used = -1
        self._used += 1 + cell_len(word)
        self._console.print(shown, end="", soft_wrap=True)


# -- before and after -------------------------------------------------------------------------------------------------


def _introduce(console: Console, config: WizardConfig) -> None:
    """Print what is going to happen."""
    models = Table.grid(padding=(0, 2, 0, 0))
    for model, style in zip(config.models, STYLES, strict=False):
        script = model.simulated.script if model.simulated else ()
        kind = "a real model (SmolLM2, 135 M parameters), run on this machine" if model.local else "a simulated model"
        faults = ", ".join(FAULTS.get(step.fault, step.fault) for step in script)
        models.add_row(Text(model.name, style), f"{kind}: {faults}, then it recovers" if faults else kind)
    grid = Table.grid()
    grid.add_row(
        "A program asks two questions. The first model of its chain fails three times in a row. Watch the wait that a"
        " 429 asks for, a retry, the circuit breaker opening, the fallback answering word by word; then, with the"
        " second question, the first model's recovery."
    )
    grid.add_row("")
    grid.add_row(models)
    console.print(Panel(grid, title="wizard demo", title_align="left"))


def _sum_up(console: Console, narrator: _Narrator, answers: Sequence[WizardResponse], tree: TreeNode) -> None:
    """Print every attempt, and the actors that took part."""
    console.print()
    console.print(Text("Every attempt", "italic"))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("")
    table.add_column("model", no_wrap=True)
    table.add_column("result", overflow="fold")
    table.add_column("waited", justify="right", no_wrap=True)
    table.add_column("took", justify="right", no_wrap=True)
    for number, attempt in _attempts(answers):
        result = Text("answered", "green") if attempt.error is None else Text(attempt.error.code, "red")
        model = Text(attempt.model, narrator.styles.get(attempt.model, ""))
        table.add_row(f"Q{number}", model, result, f"{attempt.delay:.2f} s", f"{attempt.duration:.2f} s")
    console.print(table)
    console.print(Text("The supervision tree, still running", "italic"))
    console.print(_branch(tree))
    console.print()
    seconds = trio.current_time() - narrator.began
    console.print(Text(f"{len(answers)} of {len(QUESTIONS)} questions answered in {seconds:.1f} s.", "bold"))


def _attempts(answers: Sequence[WizardResponse]) -> Iterator[tuple[int, Attempt]]:
    for number, answer in enumerate(answers, start=1):
        for attempt in answer.attempts:
            yield number, attempt


def _branch(node: TreeNode) -> Tree:
    label = Text.assemble(node.name, " ", (node.state, "green" if node.state is State.RUNNING else "red"))
    if node.lanes is not None:
        label.append(f"  {node.lanes.handled} messages, {node.restarts} restarts", "dim")
    branch = Tree(label, guide_style="dim")
    branch.children.extend(map(_branch, node.children))
    return branch
