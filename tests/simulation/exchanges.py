"""Exchanges with a simulated model, made by the provider that the client has for it."""

from collections.abc import Sequence
from random import Random
from typing import Final

import trio
from attrs import define, field

from wizard_actors.config import ModelConfig
from wizard_actors.errors import WizardError
from wizard_actors.providers.base import Call, Provider
from wizard_actors.streaming import Assembly
from wizard_actors.testing.simulation.formats import WireFormat
from wizard_actors.testing.simulation.recorder import Call as Recorded
from wizard_actors.testing.simulation.recorder import Recorder
from wizard_actors.testing.simulation.scenario import FaultWindow, Spread, Upstream
from wizard_actors.testing.simulation.transport import SimulatedHttp, provider_of
from wizard_actors.testing.simulation.upstream import UpstreamCore
from wizard_actors.types import LimitHeaders, Prompt

__all__ = ["EPOCH", "FORMATS", "WORDS", "Exchange", "Model", "model_of"]

EPOCH: Final = 1_767_225_600.0
FORMATS: Final[tuple[WireFormat, ...]] = ("chat", "responses", "anthropic", "gemini")
WORDS: Final = 12


def model_of(form: WireFormat, *, whole: bool = False) -> ModelConfig:
    """Return a model that speaks `form`, in streams unless `whole` is true."""
    return ModelConfig(
        name="primary",
        model="gpt-0",
        provider=form if form in {"anthropic", "gemini"} else "openai",
        api="responses" if form == "responses" else "chat",
        upstream="unary" if whole else "stream",
        environ={},
    )


@define
class Exchange:
    """What a provider got: the answer's parts so far, and the error that ended it."""

    call: Recorded
    parts: Assembly = field(factory=Assembly)
    limits: LimitHeaders | None = None
    upstream_id: str | None = None
    upstream_model: str | None = None
    error: WizardError | None = None
    read_at: list[float] = field(factory=list)


class Model:
    """A simulated model, its provider, and what is written down: its head takes 0.2 s, its first word 0.5 s more, each
    other 0.1 s.
    """

    def __init__(self, config: ModelConfig, *faults: FaultWindow, upstream: Upstream | None = None) -> None:
        began = trio.current_time()
        behaves = upstream or Upstream(
            model="primary",
            connect=Spread(median=0.2),
            first_token=Spread(median=0.5),
            tokens_per_second=Spread(median=10.0),
            answer_tokens=Spread(median=float(WORDS)),
        )
        self.recorder = Recorder(lambda: trio.current_time() - began)
        core = UpstreamCore(behaves, faults, Random(1))
        self.http = SimulatedHttp(config, core, self.recorder, wall=self.wall, breaker=lambda: None)
        self.provider: Provider = provider_of(config, self.http, self.wall)

    def wall(self) -> float:
        """Return seconds since 1970."""
        return EPOCH + self.recorder.now()

    @property
    def calls(self) -> Sequence[Recorded]:
        """The calls that reached it."""
        return self.recorder.calls

    async def ask(self, pause: float = 0.0) -> Exchange:
        """Make a call and read its answer to the end, `pause` seconds before each read."""
        asked = len(self.calls)
        error: WizardError | None = None
        parts, read_at = Assembly(), list[float]()
        limits = upstream_id = upstream_model = None
        try:
            async with self.provider.open(Call(Prompt("why"), "request-1")) as answer:
                limits = answer.limits
                try:
                    while (events := await answer.read()) is not None:
                        parts.extend(events)
                        read_at.append(self.recorder.now())
                        await trio.sleep(pause)
                finally:
                    upstream_id, upstream_model = answer.upstream_id, answer.upstream_model
        except WizardError as failed:
            error = failed
        return Exchange(self.calls[asked], parts, limits, upstream_id, upstream_model, error, read_at)
