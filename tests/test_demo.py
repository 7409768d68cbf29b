"""The demo tells its whole story, to whoever watches, and ends by itself."""

import io
import re
import subprocess
import sys
from collections.abc import Callable

import pytest
import trio
from rich.console import Console

from wizard_actors import demo
from wizard_actors.config import WizardConfig
from wizard_actors.demo import demo_config, run_demo
from wizard_actors.providers.engine import Engine

ESCAPE = "\x1b"
SIMULATED = demo_config(embedded=False)
STORY = (
    "Question 1:",
    "primary attempt 1",
    "failed with status 429 (rate_limit), Retry-After 2 s",
    "attempt 2: the rate limiter holds it back for the 2.00 s",
    "failed with status 500",
    "will be asked again in",
    "attempt 3",
    "CIRCUIT BREAKER: closed → open",
    "(stream_interrupted)",
    "FALLBACK: primary → backup",
    "The sea is wide",
    "backup answered after 3 failed attempts",
    "Nobody calls a model whose circuit is open.",
    "Question 2:",
    "CIRCUIT BREAKER: open → half-open",
    "I am back.",
    "CIRCUIT BREAKER: half-open → closed",
    "primary answered, at the first attempt",
    "Every attempt",
    "Q1 primary rate_limit",
    "Q1 primary provider_error",
    "Q1 primary stream_interrupted",
    "Q1 backup answered",
    "Q2 primary answered",
    "The supervision tree",
    "breaker running",
    "2 of 2 questions answered",
)


class Screen(io.StringIO):
    """Remembers when each piece was written; does `then` before."""

    def __init__(self, then: Callable[[str], None] = lambda text: None) -> None:
        super().__init__()
        self.written: list[tuple[float, str]] = []
        self._then = then

    def write(self, text: str) -> int:
        self._then(text)
        self.written.append((trio.current_time(), text))
        return super().write(text)

    @property
    def words(self) -> str:
        """What it shows, without frames and layout."""
        return " ".join(re.sub(r"[─│├└╭╰]", " ", self.getvalue()).split())


def assert_story(shown: str) -> None:
    """Every part of the story is there, in order."""
    at = 0
    for part in STORY:
        found = shown.find(part, at)
        assert found >= 0, f"{part!r} does not come after {shown[:at][-60:]!r}"
        at = found + len(part)


async def test_every_step_is_told_in_order(autojump_clock: trio.testing.MockClock) -> None:
    """Who watches sees the wait, the retry, the cut stream, the breaker, the fallback and the recovery, one by one."""
    screen = Screen()

    status = await run_demo(Console(file=screen, width=150), config=SIMULATED)

    assert status == 0
    assert_story(screen.words)


async def test_it_takes_less_than_a_minute(autojump_clock: trio.testing.MockClock) -> None:
    """The whole demo ends by itself, in about a quarter of a minute."""
    began = trio.current_time()

    await run_demo(Console(file=Screen()), config=SIMULATED)

    assert 8 < trio.current_time() - began < 25


async def test_answers_appear_word_by_word(autojump_clock: trio.testing.MockClock) -> None:
    """A word stands on the screen when it arrives, not when the answer is complete."""
    screen = Screen()

    await run_demo(Console(file=screen, width=150), config=SIMULATED)

    first = next(at for at, text in screen.written if "wide," in text)
    last = next(at for at, text in screen.written if "place." in text)
    between = {at for at, _ in screen.written if first <= at <= last}
    assert last - first > 1.0
    assert len(between) > 20


async def test_a_pipe_gets_plain_lines(autojump_clock: trio.testing.MockClock) -> None:
    """Without a terminal there is no control code in the output."""
    screen = Screen()

    await run_demo(Console(file=screen), config=SIMULATED)

    assert ESCAPE not in screen.getvalue()
    assert screen.getvalue().isprintable() or set(filter(lambda c: not c.isprintable(), screen.getvalue())) == {"\n"}


async def test_a_terminal_gets_colours(autojump_clock: trio.testing.MockClock) -> None:
    """On a terminal each model's name has its own colour, and an open circuit is red."""
    screen = Screen()

    await run_demo(
        Console(file=screen, force_terminal=True, color_system="standard", width=150, _environ={}), config=SIMULATED
    )

    assert f"{ESCAPE}[1;36mprimary" in screen.getvalue()
    assert f"{ESCAPE}[1;35mbackup" in screen.getvalue()
    assert f"{ESCAPE}[1;31mopen" in screen.getvalue()


@pytest.mark.parametrize("width", [40, 60, 80, 200])
async def test_no_line_is_wider_than_the_terminal(autojump_clock: trio.testing.MockClock, width: int) -> None:
    """On a narrow terminal everything is wrapped, answers too, and nothing is lost."""
    screen = Screen()

    status = await run_demo(Console(file=screen, width=width), config=SIMULATED)

    assert status == 0
    assert max(map(len, screen.getvalue().splitlines())) <= width
    assert "I have passed it." in screen.words


async def test_an_ascii_terminal_is_enough(autojump_clock: trio.testing.MockClock) -> None:
    """Where the output's encoding knows no arrows and no frames, others take their place."""
    raw = io.BytesIO()
    text = io.TextIOWrapper(raw, encoding="ascii", write_through=True)

    status = await run_demo(Console(file=text, width=150), config=SIMULATED)

    assert status == 0
    assert b"closed -> open" in raw.getvalue()


async def test_without_the_embedded_model_it_says_so(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the extra is not installed a second simulated model answers, and nobody is led to think otherwise."""
    monkeypatch.setattr(demo, "available", lambda: False)
    screen = Screen()

    status = await run_demo(Console(file=screen, width=150))

    assert status == 0
    assert "The embedded model is not installed here: a second simulated model takes its place." in screen.words
    assert "a real model" not in screen.words
    assert_story(screen.words)


async def test_an_embedded_model_that_does_not_run_is_replaced(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the extra is installed but its engine does not start, it says why and goes on with a simulated model."""

    async def refuse(self: Engine) -> None:
        await trio.lowlevel.checkpoint()
        raise OSError("illegal instruction")

    monkeypatch.setattr(demo, "available", lambda: True)
    monkeypatch.setattr(Engine, "start", refuse)
    screen = Screen()

    status = await run_demo(Console(file=screen, width=150))

    assert status == 0
    assert "The embedded model does not run here (OSError: illegal instruction)" in screen.words
    assert_story(screen.words)


async def test_a_question_without_an_answer_is_reported(autojump_clock: trio.testing.MockClock) -> None:
    """Where no model of the chain answers, the demo says so and its exit status is 1."""
    config = WizardConfig.from_toml(
        '[[models]]\nname = "primary"\nprovider = "simulated"\n'
        'simulated = { script = [{ fault = "auth", times = 9 }] }\n',
        env={},
    )
    screen = Screen()

    status = await run_demo(Console(file=screen, width=150), config=config)

    assert status == 1
    assert screen.words.count("No answer:") == 2
    assert "0 of 2 questions answered" in screen.words


async def test_an_interruption_ends_the_line(autojump_clock: trio.testing.MockClock) -> None:
    """Cancelled in the middle of an answer, as by Ctrl-C, it stops everything and leaves the cursor on a new line."""
    scope = trio.CancelScope()
    screen = Screen(lambda text: scope.cancel() if "waves" in text else None)

    with scope:
        await run_demo(Console(file=screen, width=150), config=SIMULATED)

    assert scope.cancelled_caught
    assert screen.getvalue().endswith("no two waves of\n")


@pytest.mark.long
def test_the_command_runs_it_for_real() -> None:
    """`wizard demo`, in real time and with what is installed here, tells the same story and ends with status 0."""
    done = subprocess.run(
        [sys.executable, "-m", "wizard_actors", "demo"],
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        env={"COLUMNS": "150", "PYTHONIOENCODING": "utf-8"},
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert ESCAPE not in done.stdout
    assert "CIRCUIT BREAKER: half-open → closed" in done.stdout
    assert "2 of 2 questions answered" in done.stdout
