"""How everything stands at one instant: what the live actors publish, for the metrics."""

from __future__ import annotations

from collections.abc import Sequence

from wizard_actors.breaker_core import BreakerState
from wizard_actors.event_stream import EventStream
from wizard_actors.gcra import LimiterState
from wizard_actors.metrics import CacheGauges, Gauges, LaneGauges, ModelGauges, SessionGauges
from wizard_actors.port import Port
from wizard_actors.shared import Shared
from wizard_actors.slots import WorkerState
from wizard_actors.supervisor import Supervisor
from wizard_actors.turn_queue import SessionStoreState

__all__ = ["gauges_of"]


def gauges_of(
    shared: Shared, tree: Supervisor, events: EventStream, now: float, *, former: Sequence[Shared] = ()
) -> Gauges:
    """Return how the actors of `tree` stand `now`, and what was lost of `events`. Asks nobody, and never waits.

    `former` is shared by the requests that a reload has left in former configurations: what they use of a model counts
    under its name, also where it is no longer configured.
    """
    actors = [node for node in tree.tree().walk() if node.lanes is not None]
    lag = next((port.lag for port in shared.ports.values()), None)
    cache = None if shared.cache is None else shared.cache.published
    sessions = tree.ref("sessions", SessionStoreState).published or SessionStoreState()
    ports: dict[str, list[Port]] = {}
    for each in (shared, *former):
        for name, port in each.ports.items():
            ports.setdefault(name, []).append(port)
    return Gauges(
        budget=shared.budget.balance(now),
        in_flight=shared.in_flight.count,
        models={name: _model(model, now) for name, model in ports.items()},
        lanes={node.path: LaneGauges(node.lanes.asks, node.lanes.asks_bound) for node in actors if node.lanes},
        restarts={node.path: node.restarts for node in actors},
        cache=None if cache is None else CacheGauges(cache.entries, cache.bytes),
        sessions=SessionGauges(sessions.turns, sessions.waiting),
        events_dropped=events.dropped,
        loop_stalls=0 if lag is None else lag.count,
        loop_stalled=0.0 if lag is None else lag.stalled,
    )


def _model(ports: Sequence[Port], now: float) -> ModelGauges:
    """Return how a model stands: as its first port shows it, with whom the others serve."""
    port = ports[0]
    workers = {each.worker.path: each.worker.published for each in ports}
    limiters = {each.limiter.path: each.limiter.published for each in ports}
    worker = port.worker.published or WorkerState(port.config.max_concurrency)
    limiter = (port.limiter.published or LimiterState()).at(now)
    circuit = port.breaker.published or BreakerState()
    return ModelGauges(
        circuit=circuit.circuit.value,
        slots_in_use=sum(state.in_use for state in workers.values() if state is not None),
        slots=worker.slots,
        waiting=sum(state.waiting for state in workers.values() if state is not None),
        limiter_waiting=sum(state.waiting for state in limiters.values() if state is not None),
        remaining_requests=limiter.remaining_requests,
        remaining_tokens=limiter.remaining_tokens,
        paused_for=max(0.0, limiter.paused_until - now),
    )
