"""How everything stands at one instant: what the live actors publish, for the metrics."""

from __future__ import annotations

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


def gauges_of(shared: Shared, tree: Supervisor, events: EventStream, now: float) -> Gauges:
    """Return how the actors of `tree` stand `now`, and what was lost of `events`. Asks nobody, and never waits."""
    cache = None if shared.cache is None else shared.cache.published
    sessions = tree.ref("sessions", SessionStoreState).published or SessionStoreState()
    return Gauges(
        budget=shared.budget.balance(now),
        in_flight=shared.in_flight.count,
        models={name: _model(port, now) for name, port in shared.ports.items()},
        lanes={
            node.path: LaneGauges(node.lanes.asks, node.lanes.asks_bound)
            for node in tree.tree().walk()
            if node.lanes is not None
        },
        cache=None if cache is None else CacheGauges(cache.entries, cache.bytes),
        sessions=SessionGauges(sessions.turns, sessions.waiting),
        events_dropped=events.dropped,
        loop_stalls=next((port.lag.count for port in shared.ports.values()), 0),
    )


def _model(port: Port, now: float) -> ModelGauges:
    worker = port.worker.published or WorkerState(port.config.max_concurrency)
    limiter = (port.limiter.published or LimiterState()).at(now)
    circuit = port.breaker.published or BreakerState()
    return ModelGauges(
        circuit=circuit.circuit.value,
        slots_in_use=worker.in_use,
        slots=worker.slots,
        waiting=worker.waiting,
        limiter_waiting=limiter.waiting,
        remaining_requests=limiter.remaining_requests,
        remaining_tokens=limiter.remaining_tokens,
        paused_for=max(0.0, limiter.paused_until - now),
    )
