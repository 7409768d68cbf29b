"""`pytest test_naive_retry.py` fails for `naive`: each time an answer breaks off, its beginning is shown once more."""

from io import StringIO

import pytest
import trio
from hypothesis import Phase, given, settings
from naive_retry import Ask, mended, naive
from trio.testing import MockClock

from wizard_actors.testing import FaultWindow
from wizard_actors.testing.fault_plan import FaultPlan, SimulatedClients
from wizard_actors.testing.strategies import fault_plans

CONFIG = 'models = [{ name = "primary", provider = "openai" }]\n'


@pytest.mark.parametrize("ask", [naive, mended])
@settings(deadline=None, max_examples=60, phases=set(Phase) - {Phase.explain})
@given(faults=fault_plans(["primary"], 5, kinds=["error", "cut", "stall"]))
def test_the_screen_shows_one_answer(ask: Ask, faults: tuple[FaultWindow, ...]) -> None:
    """Whatever breaks off, it shows the answer that the app got, and nothing else."""
    screen = StringIO()

    async def app() -> str:
        async with SimulatedClients(FaultPlan(faults=faults))(CONFIG) as client:
            return await ask(client, screen)

    assert trio.run(app, clock=MockClock(autojump_threshold=0)) == screen.getvalue()  # noqa: S101 - a test
