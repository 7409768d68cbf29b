"""A fault plan: its clock over several runs and in any thread, the names that it knows, what it opens and leaves."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from wizard_actors import ConfigError, WizardError
from wizard_actors.testing import Upstream
from wizard_actors.testing.fault_plan import AppConfig, FaultPlan, SimulatedClients, app_config
from wizard_actors.testing.simulation.recorder import Call, Recorder

CONFIG = """
defaults = { retry = { max_attempts = 2, base_delay = 0.01 } }
models = [
    { name = "primary", provider = "openai" },
    { name = "backup", provider = "anthropic" },
]
"""
OTHER = """
models = [{ name = "other", provider = "gemini" }]
"""


# -- the clock ---------------------------------------------------------------------------------------------------------


def under_trio(plan: FaultPlan, *waits: float) -> list[str]:
    """Run Trio on a virtual clock; return who answers, after each of so many seconds."""

    async def app() -> list[str]:
        answers = []
        async with SimulatedClients(plan)(CONFIG) as client:
            for wait in waits:
                await trio.sleep(wait)
                answers.append((await client.generate("Why?")).model)
        return answers

    return trio.run(app, clock=MockClock(autojump_threshold=0))


def test_after_a_run_of_trio_its_last_instant_is_the_present_one() -> None:
    """A plan may be looked at, added to and mended after the run that it was used in."""
    plan = FaultPlan()

    under_trio(plan, 20)
    ended = plan.now()
    window = plan.add("down", models=["primary"])
    plan.mend()

    assert 20 < ended < 30
    assert window.start == ended
    assert plan.faults[0].until == plan.now() == ended


def test_a_second_run_goes_on_where_the_first_has_ended() -> None:
    """The clock of each run begins anywhere; the plan's goes on, and with it a fault."""
    plan = FaultPlan()
    plan.add("down", models=["primary"], start=10, lasts=30)

    answers = [under_trio(plan, 1, 20), under_trio(plan, 1, 30)]

    assert answers == [["primary", "backup"], ["backup", "primary"]]
    assert 52 < plan.now() < 65


def test_a_thread_of_a_run_may_add_faults_and_open_clients() -> None:
    """Another thread has no clock of Trio's; the plan goes by that of the run, which began first."""
    plan = FaultPlan()
    clients = SimulatedClients(plan)

    def in_a_thread() -> str:
        plan.add("error", models=["primary"])
        with clients.blocking(CONFIG) as client:
            return client.generate("Why?").model

    async def app() -> tuple[str, float, float]:
        async with clients(CONFIG) as client:
            await client.generate("Why?")
            answered = await trio.to_thread.run_sync(in_a_thread)
            before = plan.now()
            await trio.sleep(1000)
            return answered, before, plan.now()

    answered, before, after = trio.run(app, clock=MockClock(autojump_threshold=0))

    assert answered == "backup"
    assert plan.faults[0].start > 0
    assert after - before == pytest.approx(1000)


def test_under_asyncio_after_a_run_of_trio_the_clock_is_real() -> None:
    """The run that is over no longer counts."""
    plan = FaultPlan()
    under_trio(plan, 20)
    ended = plan.now()

    async def app() -> str:
        async with SimulatedClients(plan)(CONFIG) as client:
            return (await client.generate("Why?")).model

    assert asyncio.run(app()) == "primary"
    assert ended < plan.now() < ended + 20


def test_a_plain_program_goes_on_after_a_run_of_trio_within_it() -> None:
    """Its clock is real before and after; that of the run counts while it lasts."""
    plan = FaultPlan()

    with SimulatedClients(plan).blocking(CONFIG) as client:
        before = plan.now()
        under_trio(plan, 1000)
        ended = plan.now()
        client.generate("Why?")

    assert ended - before > 1000
    assert ended < plan.now() < ended + 20


def test_under_trio_on_a_real_clock_models_answer_at_once() -> None:
    """Nobody's tests wait for models that there are not: these would take about a second each."""
    plan = FaultPlan()

    async def app() -> float:
        async with SimulatedClients(plan)(CONFIG) as client:
            for _ in range(10):
                await client.generate("Why?")
        return plan.now()

    assert trio.run(app) < 4


# -- threads -----------------------------------------------------------------------------------------------------------


@contextmanager
def switching_often() -> Iterator[None]:
    """Let threads take turns as often as they can."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(usual)


def in_threads(work: Callable[[], None], threads: int = 4) -> None:
    """Do the same in several threads at once."""
    started = [threading.Thread(target=work) for _ in range(threads)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()


class Hesitant(list[Call]):
    """A list that lets another thread go on before it takes something."""

    def append(self, call: Call) -> None:
        time.sleep(0)
        super().append(call)


def test_calls_and_steps_have_numbers_of_their_own_in_any_number_of_threads() -> None:
    """In the order in which they are written down."""

    def clock() -> float:
        time.sleep(0)  # lets another thread go on
        return 0.0

    recorder = Recorder(clock)
    recorder.calls = Hesitant()

    def work() -> None:
        for _ in range(200):
            recorder.call("primary", "", None, 1).closed = recorder.moment()

    with switching_often():
        in_threads(work)

    began = [call.began_step for call in recorder.calls]
    closed = [call.closed[1] for call in recorder.calls if call.closed is not None]
    assert [call.number for call in recorder.calls] == list(range(800))
    assert began == sorted(began)
    assert len({*began, *closed}) == 1600


# -- names -------------------------------------------------------------------------------------------------------------


def test_a_fault_that_is_added_later_has_to_name_models_that_there_are() -> None:
    """Once they are known, and nothing of it is planned otherwise."""
    plan = FaultPlan()
    plan.providers(CONFIG)

    with pytest.raises(ConfigError, match=r"'primry'; did you mean \"primary\"\? there are: backup, primary"):
        plan.add("down", models=["primry"])
    with pytest.raises(ConfigError, match="a region that no upstream is in: 'eu'; there are: none"):
        plan.add("down", regions=["eu"])

    assert plan.faults == ()


def test_the_faults_there_are_have_to_name_models_of_the_configuration() -> None:
    """Those that were added before it was known; the configuration is none of the plan's then."""
    plan = FaultPlan(upstreams=[Upstream(model="bakup")])
    plan.add("down", models=["primry"])

    with pytest.raises(ConfigError) as raised:
        plan.providers(CONFIG)

    assert [problem.hint.partition("?")[0] for problem in raised.value.problems] == [
        'did you mean "backup"',
        'did you mean "primary"',
    ]
    plan.add("down", models=["other"])


def test_a_plan_may_be_for_the_models_of_several_configurations() -> None:
    """Those of every client that was opened are known."""
    plan = FaultPlan()
    plan.providers(CONFIG)
    plan.add("down", models=["primary"])

    plan.providers(OTHER)
    plan.add("down", models=["backup", "other"])

    assert len(plan.faults) == 2


def test_a_setting_that_there_is_not_is_told_with_the_one_that_was_meant() -> None:
    """And a name in the place of a list of names with the list; nothing of either is planned."""
    plan = FaultPlan()

    with pytest.raises(TypeError, match=r'no setting \'model\'; did you mean "models"\? there are: after_words, delay'):
        plan.add("down", model="primary")  # type: ignore[call-arg]  # the mistake
    with pytest.raises(ConfigError, match=r"`models` must be a list of names, got a text; write \['primary'\]"):
        plan.add("down", models="primary")
    with pytest.raises(ConfigError, match=r"`lasts` must be above 0"):
        plan.add("down", lasts=0)

    assert plan.faults == ()


def test_a_model_that_goes_down_is_down_whatever_was_wrong_with_it_before() -> None:
    """What was added first goes on where that is over."""
    plan = FaultPlan()
    plan.add("rate_limit", models=["primary"], retry_after=0)
    plan.add("down", models=["primary"], lasts=30)

    under_trio(plan, 1, 60)

    met = [call.fault for call in plan.calls if call.model == "primary"]
    assert met == ["down", "down", "rate_limit", "rate_limit"]


# -- configurations ----------------------------------------------------------------------------------------------------


def test_toml_of_one_line_is_told_from_a_path(tmp_path: Path) -> None:
    """It is taken for one, and the error says so, without what may be a secret in it."""
    line = 'models = [{ name = "a", provider = "openai" }]'

    with pytest.raises(ConfigError, match="a text of one line is taken for a path") as raised:
        app_config(line)
    with pytest.raises(ConfigError, match="wizard init"):
        app_config(str(tmp_path / "missing.toml"))

    assert "openai" not in str(raised.value)
    assert app_config(line + "\n").models[0].name == "a"


@pytest.mark.parametrize("wrong", [b"models = []\n", None, {"models": []}])
def test_what_says_no_configuration_is_a_type_error(wrong: AppConfig) -> None:
    """It names what was given, and what makes a configuration of tables."""
    with pytest.raises(TypeError, match=f"a file's path, not {type(wrong).__name__}") as raised:
        app_config(wrong)
    assert ("from_tables" in str(raised.value)) is isinstance(wrong, dict)


# -- clients that are left open ----------------------------------------------------------------------------------------


def test_clients_that_are_left_open_are_closed_with_the_line_that_opened_them() -> None:
    """A thread that nobody needs is no matter of the next test."""
    clients = SimulatedClients(FaultPlan())
    left = clients.blocking(CONFIG)

    with pytest.warns(RuntimeWarning, match="opened here was never closed") as caught:
        clients.close()

    assert [Path(warning.filename) for warning in caught] == [Path(__file__)]
    with pytest.raises(WizardError, match="closed"):
        left.generate("Why?")


def test_clients_that_were_closed_are_left_alone() -> None:
    """By their block, or by hand."""
    clients = SimulatedClients(FaultPlan())
    with clients.blocking(CONFIG) as first:
        first.generate("Why?")
    second = clients.blocking(CONFIG)
    second.close()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clients.close()
