"""Who asks when, and what: a workload laid out as the requests of a run, in the order of their arrival. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Final, Literal, TypeAlias

from attrs import frozen

from wizard_actors.testing.simulation.records import RequestKind
from wizard_actors.testing.simulation.scenario import Workload

__all__ = ["Asked", "Reader", "arrivals", "requests"]

Reader: TypeAlias = Literal["eager", "slow", "stopped"]

MOST_WORDS: Final = 50_000


@frozen
class Asked:
    """One request as it is to be made: when, how, and by whom; see `Workload`."""

    number: int
    at: float
    kind: RequestKind
    prompt: int
    words: int
    tenant: str
    session: str | None
    deadline: float | None
    cancel_after: float | None
    reader: Reader

    @property
    def text(self) -> str:
        """The prompt: its number, and as many words as it is to have."""
        return f"question {self.prompt}:{' word' * max(0, self.words - 2)}"


def arrivals(workload: Workload, duration: float, rng: Random) -> Iterator[float]:
    """Yield the instants at which requests arrive, in order, before `duration`.

    Poisson: the times between them are exponential; steady: all equal; bursts: so many at once, as steadily.
    """
    at, number = 0.0, 0
    while True:
        match workload.arrival:
            case "poisson":
                at += rng.expovariate(workload.rate)
            case "steady":
                at = number / workload.rate
            case "bursts":
                at = (number // workload.burst) * workload.burst / workload.rate
        if at >= duration:
            return
        yield at
        number += 1


def requests(workload: Workload, duration: float, rng: Random) -> Iterator[Asked]:
    """Yield the requests of a run in the order of their arrival. What one of them is does not depend on the rate."""
    own = rng.random()
    for number, at in enumerate(arrivals(workload, duration, Random(own))):
        kind = _kind(workload, rng.random())
        prompt = number if workload.distinct is None else rng.randrange(workload.distinct)
        # A prompt that is asked again has the same words, in this run.
        words = min(MOST_WORDS, max(2, round(workload.prompt_tokens.draw(Random(f"{own} prompt {prompt}")))))
        session = f"s{rng.randrange(workload.sessions)}" if kind == "session" else None
        hurried = workload.deadline is not None and rng.random() < workload.deadline_share
        cancelled = rng.random() < workload.cancel_share
        yield Asked(
            number=number,
            at=at,
            kind=kind,
            prompt=prompt,
            words=words,
            tenant=f"t{rng.randrange(workload.tenants)}" if workload.tenants > 1 else "",
            session=session,
            deadline=max(0.001, workload.deadline.draw(rng)) if workload.deadline is not None and hurried else None,
            cancel_after=workload.cancel_after.draw(rng) if cancelled else None,
            reader=_reader(workload, rng.random()) if kind in {"stream", "buffered"} else "eager",
        )


def _kind(workload: Workload, chance: float) -> RequestKind:
    shares: list[tuple[RequestKind, float]] = [
        ("stream", workload.stream),
        ("buffered", workload.buffered),
        ("session", workload.sessions_share),
    ]
    for kind, share in shares:
        if chance < share:
            return kind
        chance -= share
    return "generate"


def _reader(workload: Workload, chance: float) -> Reader:
    if chance < workload.slow_readers:
        return "slow"
    return "stopped" if chance < workload.slow_readers + workload.stopped_readers else "eager"
