"""Reloads while something else goes on: who asks, what is told and shown, who closes the client or changes its tree."""

from __future__ import annotations

import gc

import pytest
import trio
from attrs import evolve
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.models import NO_JITTER, Scripted, Turn, client_of, fails, model, says
from tests.test_reload import ONCE, config_of, groups, settled, simulated
from wizard_actors import ActorStoppedError, AuthError, NetworkError, ResilientClient, WizardError
from wizard_actors.breaker_core import Circuit
from wizard_actors.config import BreakerConfig, CacheConfig, ModelConfig, PriceConfig, ScriptStep, SimulatedConfig
from wizard_actors.event_stream import EventStream
from wizard_actors.events import BreakerChanged
from wizard_actors.response_stream import ResponseStream
from wizard_actors.slots import WorkerState
from wizard_actors.specs import ChildSpec, GroupSpec

# -- who asks ----------------------------------------------------------------------------------------------------------


async def test_nobody_follows_a_call_of_a_former_configuration(autojump_clock: MockClock) -> None:
    """Whoever asks the same after the reload has a call of its own, and not the former one's error."""
    a = Scripted(Turn((5.0, AuthError("bad key", model="a"))), says("good"))
    cache = CacheConfig(max_entries=10)
    before = model("a", retry=NO_JITTER)
    async with client_of(a, before, cache=cache) as client, trio.open_nursery() as nursery:

        async def refused() -> None:
            with pytest.raises(WizardError):
                await client.generate("Hi")

        nursery.start_soon(refused)
        await trio.sleep(1)
        await client.reload(config_of(evolve(before, proxy="http://127.0.0.1:9"), cache=cache))

        assert (await client.generate("Hi")).text == "good"
        assert trio.current_time() == 1.0


async def test_a_waiting_turn_is_fitted_to_the_window_that_it_is_asked_with(autojump_clock: MockClock) -> None:
    """That of the configuration in which it was made, though the model has a larger one by now."""
    a = Scripted(says(5.0, "ok"))
    small = evolve(model("a"), context_window=20_000)
    async with client_of(a, small) as client, client.session("s") as session:
        for _ in range(10):
            await session.send("word " * 2400)
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(session.send, "word " * 2400)
                await trio.sleep(1)
            await client.reload(config_of(evolve(small, context_window=200_000)))

        assert len(a.calls) == 12


async def test_an_answer_in_a_form_is_repaired_in_its_own_configuration(autojump_clock: MockClock) -> None:
    """Its first call ends after the reload; the second asks the model that has been removed."""
    a, b = Scripted(says(5.0, "no number"), says("7")), Scripted(says("b"))
    async with client_of({"a": a, "b": b}) as client, trio.open_nursery() as nursery:
        values: list[object] = []

        async def ask() -> None:
            values.append((await client.generate_as("How many?", {"type": "integer"})).value)

        nursery.start_soon(ask)
        await trio.sleep(1)
        await client.reload(config_of(model("b")))
        await trio.sleep(10)

        assert (values, len(a.calls), len(b.calls)) == ([7], 2, 0)
        await settled(client)
        assert groups(client) == ["models/model:b"]


def test_a_stream_that_outlives_its_client_can_go() -> None:
    """What it kept in use is gone already."""
    left: list[ResponseStream] = []

    async def main() -> None:
        async with ResilientClient.open(config_of(simulated("a"))) as client:
            left.append(client.stream("Hi"))
            await client.reload(config_of(simulated("b")))

    trio.run(main)
    left.clear()
    gc.collect()


# -- what is told and shown --------------------------------------------------------------------------------------------

POLICY = BreakerConfig(failure_threshold=1, open_for=1000)


def heard(events: EventStream) -> list[str]:
    """Return the circuits that are told from now on."""
    circuits: list[str] = []
    events.listen(lambda event: circuits.append(event.circuit) if isinstance(event, BreakerChanged) else None)
    return circuits


@pytest.mark.parametrize("replaced", [True, False])
async def test_the_circuit_of_a_model_that_is_replaced_or_removed_is_told_to_be_closed(
    autojump_clock: MockClock, *, replaced: bool
) -> None:
    """Whoever counts open circuits counts right."""
    broken = SimulatedConfig(script=[ScriptStep(fault="error")])
    a = evolve(simulated("a", retry=ONCE), circuit_breaker=POLICY, simulated=broken)
    async with ResilientClient.open(config_of(a, simulated("b"))) as client:
        circuits = heard(client.events)
        with pytest.raises(WizardError):
            await client.generate("Hi", model="a")
        await wait_all_tasks_blocked()
        assert circuits == [Circuit.OPEN]

        well = [evolve(a, simulated=SimulatedConfig(answer="well"))] if replaced else []
        await client.reload(config_of(*well, simulated("b")))
        await client.reload(config_of(*well, simulated("b"), simulated("c")))

        assert circuits == [Circuit.OPEN, Circuit.CLOSED]
        assert client.metrics().breakers["a"].circuit == Circuit.CLOSED


async def test_a_former_circuit_says_nothing_until_it_is_asked_again(autojump_clock: MockClock) -> None:
    """A late failure opens it, which is nobody's business; it is where a reload brings it back before it is removed."""
    a = Scripted(Turn((5.0, NetworkError("gone", model="a"))), says(30.0, "x"))
    former = evolve(model("a", retry=ONCE, breaker=POLICY))
    async with client_of(a, former) as client, trio.open_nursery() as nursery:
        circuits = heard(client.events)

        async def fails() -> None:
            with pytest.raises(WizardError):
                await client.generate("Hi")

        nursery.start_soon(fails)
        await trio.sleep(0.1)
        nursery.start_soon(client.generate, "Hi")
        await trio.sleep(1)
        await client.reload(config_of(evolve(former, headers={"x": "y"})))
        await trio.sleep(10)
        assert circuits == []

        await client.reload(config_of(former))
        assert circuits == [Circuit.OPEN]


async def test_an_open_circuit_that_comes_back_is_told(autojump_clock: MockClock) -> None:
    """The model was disabled meanwhile, and a request of before has kept its actors."""
    a, b = Scripted(says(100.0, "x"), fails(NetworkError("gone", model="a"))), Scripted(says("b"))
    broken, other = model("a", retry=ONCE, breaker=POLICY), model("b")
    async with client_of({"a": a, "b": b}, broken, other) as client, trio.open_nursery() as nursery:
        circuits = heard(client.events)
        nursery.start_soon(client.generate, "Hi")
        await trio.sleep(1)
        with pytest.raises(WizardError):
            await client.generate("Hi", model="a")
        await wait_all_tasks_blocked()

        await client.reload(config_of(evolve(broken, enabled=False), other))
        assert circuits == [Circuit.OPEN, Circuit.CLOSED]
        await client.reload(config_of(broken, other))

        assert circuits == [Circuit.OPEN, Circuit.CLOSED, Circuit.OPEN]
        assert client.metrics().breakers["a"].circuit == Circuit.OPEN


async def test_the_gauges_count_the_calls_of_former_configurations(autojump_clock: MockClock) -> None:
    """Under the model's name, also where nobody can ask it any more."""
    a, b = Scripted(says(50.0, "a")), Scripted(says("b"))
    async with client_of({"a": a, "b": b}) as client, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(client.generate, "Hi")
        await trio.sleep(1)
        await client.reload(config_of(evolve(model("a"), headers={"x": "y"}), model("b")))
        nursery.start_soon(client.generate, "Hi")
        await trio.sleep(1)
        gauges = client.metrics().gauges
        assert gauges is not None
        assert gauges.models["a"].slots_in_use == a.in_flight == 4

        await client.reload(config_of(model("b")))
        gauges = client.metrics().gauges
        assert gauges is not None
        assert {name: each.slots_in_use for name, each in gauges.models.items()} == {"b": 0, "a": 4}


async def test_a_price_of_ones_own_is_in_force_though_it_is_the_known_one(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The known one has tiers, which one's own does not have."""
    monkeypatch.setenv("GEMINI_TEST_KEY", "k")
    known = ModelConfig(name="g", provider="gemini", model="gemini-2.5-pro", api_key_env="GEMINI_TEST_KEY")
    async with ResilientClient.open(config_of(known)) as client:
        port = client._inside.shared.ports["g"]
        price = port.config.price
        assert isinstance(price, PriceConfig)

        await client.reload(config_of(evolve(known, price=price)))

        assert client._inside.shared.ports["g"].price != port.price


# -- the tree ----------------------------------------------------------------------------------------------------------


async def test_a_reload_is_nothing_once_the_client_closes_meanwhile(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says so, and all is as it was."""
    outcomes: list[BaseException] = []
    async with ResilientClient.open(config_of(simulated("a"))) as client, trio.open_nursery() as nursery:
        inside = client._inside
        start = inside._reloading._start_model

        async def slowly(seat: object) -> None:
            await trio.sleep(5)
            await start(seat)  # type: ignore[arg-type]  # a seat

        monkeypatch.setattr(inside._reloading, "_start_model", slowly)

        async def change() -> None:
            try:
                await client.reload(config_of(simulated("a"), simulated("b")))
            except WizardError as error:
                outcomes.append(error)

        async def closes() -> None:
            await trio.sleep(4)
            inside.shared.stopping.set()

        nursery.start_soon(change)
        nursery.start_soon(closes)
        await trio.sleep(10)
        assert [type(error) for error in outcomes] == [ActorStoppedError]
        assert [each.name for each in client.config.models] == ["a"]
        assert groups(client) == ["models/model:a"]


@pytest.mark.parametrize("path", ["models/model:b", "models/model:b/worker", "models/model:b/limiter", "limits"])
async def test_a_model_whose_actors_somebody_took_out_gets_new_ones(autojump_clock: MockClock, path: str) -> None:
    """With the next reload; what is left of the others goes, too."""
    group = "account" if path == "limits" else None
    b = simulated("b", rate_limit_group=group)
    async with ResilientClient.open(config_of(simulated("a"), b)) as client:
        await client.supervisor.remove(path)

        await client.reload(config_of(simulated("a"), evolve(b, max_concurrency=3)))
        await settled(client)

        assert (await client.generate("Hi", model="b")).model == "b"
        await client.reload(config_of(simulated("a")))
        await settled(client)
        assert groups(client) == ["models/model:a"]


@pytest.mark.parametrize(
    ("taken_out", "changed"),
    [
        ("models/model:a/worker", False),  # of a model that stays
        ("models/model:b", False),  # which has just been started
        ("models/model:a", True),  # under which the next actor is to start
    ],
)
async def test_a_reload_whose_actors_somebody_takes_out_meanwhile_says_so(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, taken_out: str, *, changed: bool
) -> None:
    """It has changed nothing, and the next one makes what is missing."""
    first = config_of(simulated("a"))
    second = config_of(simulated("b"), simulated("a", headers={"x": "y"} if changed else {}))
    async with ResilientClient.open(first) as client:
        add = client.supervisor.add

        async def add_and_take_out(spec: ChildSpec | GroupSpec, *, under: str = "") -> None:
            await add(spec, under=under)
            if spec.name == ("breaker#2" if changed else "model:b"):
                await client.supervisor.remove(taken_out)

        with monkeypatch.context() as patch:
            patch.setattr(client.supervisor, "add", add_and_take_out)
            with pytest.raises(ActorStoppedError, match=taken_out) as raised:
                await client.reload(second)
        assert isinstance(raised.value.__cause__, KeyError) is changed
        assert client.config == first

        await client.reload(second)
        await settled(client)
        assert [(await client.generate("Hi", model=name)).model for name in ("a", "b")] == ["a", "b"]


async def test_a_cancelled_reload_starts_nothing_more(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is starting is waited for, and taken out again."""
    first = config_of(simulated("a"))
    async with ResilientClient.open(first) as client:
        add, started = client.supervisor.add, list[str]()
        with trio.CancelScope() as scope:

            async def add_and_cancel(spec: ChildSpec | GroupSpec, *, under: str = "") -> None:
                started.append(spec.name)
                scope.cancel()
                await add(spec, under=under)

            monkeypatch.setattr(client.supervisor, "add", add_and_cancel)
            await client.reload(config_of(simulated("a"), simulated("b"), simulated("c")))

        assert started == ["model:b"]
        assert (client.config, groups(client)) == (first, ["models/model:a"])


async def test_cancelled_beside_an_old_seat_all_is_as_it_was_or_new(autojump_clock: MockClock) -> None:
    """The limiter that both share stays, and so do the actors of the one that is in force: no others."""
    first = config_of(simulated("a"))
    second = config_of(simulated("a", headers={"x": "y"}))
    seen: set[bool] = set()
    for steps in range(25):
        async with ResilientClient.open(first) as client:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.reload, second)
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
            await settled(client)

            old = client.config == first
            seen.add(old)
            number = "" if old else "#2"
            paths = {node.path.removeprefix("wizard/models/model:a") for node in client.tree().walk()}
            assert {path for path in paths if path.startswith("/")} == {
                "/limiter",
                f"/breaker{number}",
                f"/worker{number}",
            }
            assert (await client.generate("Hi")).model == "a"
            await wait_all_tasks_blocked()
            worker = client.supervisor.ref(f"models/model:a/worker{number}", WorkerState).published
            assert worker is not None
            assert worker.health.succeeded == 1
    assert seen == {True, False}
