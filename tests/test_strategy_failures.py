"""Routing strategies that fail: the chain's order is taken, no request fails, and the router lives."""

from collections.abc import Callable, Iterator, Sequence

import pytest
from trio.testing import MockClock

from tests.strategies import CHAIN, IN_ORDER, Raises, Says, Turns, config_of, failures, router_of, tracebacks
from wizard_actors import ResilientClient, ServedBy
from wizard_actors.plan import Plan
from wizard_actors.routing import MakePlan, RouterState
from wizard_actors.strategies import Candidate, Planning, checked_order


async def later() -> list[str]:
    """What an `async def order` would return."""
    return ["a"]


class Changing(list[str]):
    """Names one model when it is gone through the first time, and another later."""

    asked = 0

    def __iter__(self) -> Iterator[str]:
        self.asked += 1
        return iter(["c"] if self.asked == 1 else ["z", "z"])


class Pretending(str):
    """A text that says it is equal to the name of a model, and is not the same."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return other == "c" or super().__eq__(other)

    def __hash__(self) -> int:
        return hash("c")


class Meddling:
    """Changes what it is given, and names what it has put there."""

    def order(self, planning: Planning) -> Sequence[str]:
        object.__setattr__(planning.models[0], "name", "z")
        return ["z"]


WRONG: dict[str, Callable[[], object]] = {
    "an unknown model": lambda: ["a", "z"],
    "a model that was not offered": lambda: ["b"],
    "a model twice": lambda: ["a", "c", "a"],
    "nothing": lambda: None,
    "a text": lambda: "a",
    "bytes": lambda: b"a",
    "a number": lambda: 7,
    "a set, which has no order": lambda: {"a", "c"},
    "a generator": lambda: (name for name in ["a"]),
    "names that are none": lambda: [["a"], None],
    "candidates": lambda: [Candidate("a")],
    "names without end": lambda: range(10**12),
    "a coroutine": later,
}


@pytest.mark.parametrize("answer", WRONG.values(), ids=WRONG)
async def test_an_answer_that_is_no_order_changes_nothing(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, answer: Callable[[], object]
) -> None:
    """The chain's order is taken, it is counted and logged, and the router lives."""
    async with router_of(wrong=Says(answer())) as (tree, ref):
        made = await ref.ask(MakePlan(CHAIN, frozenset({"b"}), strategy="custom:wrong"))

        assert [choice.model for choice in made.choices] == ["a", "c"]
        assert await failures(ref) == {"custom:wrong": 1}
        assert tree.tree().children[0].restarts == 0
    [message] = tracebacks(caplog)
    assert "custom:wrong" in message


async def test_an_answer_is_taken_as_it_was_looked_at(autojump_clock: MockClock) -> None:
    """It is gone through once: no other answer comes in behind the one that was looked at."""
    async with router_of(own=Says(Changing())) as (tree, ref):
        made = await ref.ask(MakePlan(CHAIN, strategy="custom:own"))

        assert [choice.model for choice in made.choices] == ["c"]
        assert tree.tree().children[0].restarts == 0


def test_the_names_of_an_order_are_the_route_s_own() -> None:
    """Whatever a text says it is equal to, it is not passed on."""
    [name] = checked_order([Pretending("z")], CHAIN)

    assert (name, type(name)) == ("c", str)


async def test_a_strategy_that_changes_what_it_is_given_fails_no_request(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Its answer is looked at beside the names of the route, not beside what it has made of them."""
    async with router_of(bad=Meddling()) as (tree, ref):
        assert await ref.ask(MakePlan(CHAIN, strategy="custom:bad")) == Plan(IN_ORDER)

        assert await failures(ref) == {"custom:bad": 1}
        assert tree.tree().children[0].restarts == 0


async def test_a_strategy_that_raises_fails_no_request(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Every time, it is asked again and counted; the log has it once, with the traceback."""
    async with router_of(bad=Raises(), good=Turns()) as (tree, ref):
        for _ in range(5):
            assert await ref.ask(MakePlan(CHAIN, strategy="custom:bad")) == Plan(IN_ORDER)
            await ref.ask(MakePlan(CHAIN, strategy="custom:good"))

        assert await failures(ref) == {"custom:bad": 5}
        assert tree.tree().children[0].restarts == 0
    [logged] = [record for record in caplog.records if record.name == "wizard_actors.routing"]
    assert logged.exc_info is not None
    assert logged.exc_info[0] is ZeroDivisionError


async def test_each_strategy_that_fails_is_logged(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """Once each: one does not hide another."""
    async with router_of(one=Raises(), two=Says(None)) as (_, ref):
        for name in ("one", "two") * 2:
            await ref.ask(MakePlan(CHAIN, strategy=f"custom:{name}"))

        assert await failures(ref) == {"custom:one": 2, "custom:two": 2}
    assert len(tracebacks(caplog)) == 2


async def test_a_restart_of_the_router_forgets_no_failure(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """What was counted goes on, and what was logged is not logged again."""
    async with router_of(bad=Raises()) as (tree, ref):
        await ref.ask(MakePlan(CHAIN, strategy="custom:bad"))
        tree.kill("router", RuntimeError("planted"))
        await ref.ask(MakePlan(CHAIN, strategy="custom:bad"))

        assert await failures(ref) == {"custom:bad": 2}
    assert len(tracebacks(caplog)) == 1


async def test_a_strategy_that_fails_fails_no_request_of_a_client(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """All are answered, by the chain's first, and the router publishes how often it had to."""
    async with ResilientClient.open(config_of(), strategies={"own": Raises()}) as client:
        for _ in range(3):
            response = await client.generate("Why?")
            assert (response.model, response.served_by) == ("a", ServedBy.DIRECT)
        assert await failures(client.supervisor.ref("router", RouterState)) == {"custom:own": 3}
    assert len(tracebacks(caplog)) == 1
