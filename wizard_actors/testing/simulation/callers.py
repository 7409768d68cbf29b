"""The callers of a simulation: each request in a task of its own, as an app would make it, and what it got."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterable
from typing import Final

import trio

from wizard_actors import ResilientClient, WizardError, WizardResponse
from wizard_actors.ask_options import AskOptions
from wizard_actors.request import Delivery
from wizard_actors.testing.simulation.recorder import Recorder, Request
from wizard_actors.testing.simulation.scenario import Workload
from wizard_actors.testing.simulation.upstream import CUT, whole_answer
from wizard_actors.testing.simulation.workload import Asked
from wizard_actors.types import End, Reset, StreamEvent, TextDelta

__all__ = ["Callers"]

LEAST: Final = 0.001
"""Seconds that a caller has at least."""

ADDRESS: Final = re.compile("0x[0-9a-f]+")
BEYOND_IDLE: Final = 1.5
"""How much longer than `consumer_idle` a reader who has stopped keeps the stream open."""


class Callers:
    """Makes the requests of a workload, as they are due. `sessions` counts the acknowledged turns of each session."""

    def __init__(self, client: ResilientClient, workload: Workload, recorder: Recorder) -> None:
        self._client = client
        self._workload = workload
        self._recorder = recorder
        self.sessions = {f"s{number}": 0 for number in range(workload.sessions)}

    async def run(self, requests: Iterable[Asked], began: float) -> None:
        """Make every request, and return when the last of them has ended; `began` is the instant they count from."""
        async with trio.open_nursery() as nursery:
            for asked in requests:
                await trio.sleep_until(began + asked.at)
                nursery.start_soon(self._request, asked)

    async def _request(self, asked: Asked) -> None:
        """Make one request, perhaps cancelled by another task on its way: a caller who hangs up."""
        request = self._recorder.ask(asked)
        if asked.cancel_after is None:
            await self._ask(request)
        else:
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_hang_up, scope, asked.cancel_after)
                    await self._ask(request)
                    nursery.cancel_scope.cancel()
            if not request.outcomes:
                request.outcomes.append("cancelled")
        request.ended = self._recorder.now()

    async def _ask(self, request: Request) -> None:
        make = self._stream if request.asked.kind in {"stream", "buffered"} else self._whole
        try:
            outcome = await make(request)
        except WizardError as error:
            outcome = error.code
        except Exception as error:  # noqa: BLE001 - a bug of the client's is told, and the run goes on
            outcome, request.bug = f"bug:{type(error).__name__}", _last_line(error)
        request.outcomes.append(outcome)

    async def _whole(self, request: Request) -> str:
        asked = request.asked
        if asked.session is None:
            answer = await self._client.generate(asked.text, **self._options(asked))
        else:
            answer = await self._turn(asked.session, asked)
        _note(request, answer)
        request.delivered = request.answer
        return "answered"

    async def _turn(self, name: str, asked: Asked) -> WizardResponse:
        """Add a turn to a session, opened for it as a web app would; opening takes from the caller's time."""
        began, options = trio.current_time(), self._options(asked)
        async with self._client.session(name) as session:
            if asked.deadline is not None:
                options["deadline"] = max(LEAST, asked.deadline - (trio.current_time() - began))
            answer = await session.send(asked.text, **options)
        self.sessions[name] += 1
        return answer

    async def _stream(self, request: Request) -> str:
        asked = request.asked
        how = Delivery.BUFFERED if asked.kind == "buffered" else Delivery.LIVE
        read = _Read(how)
        async with self._client.stream(asked.text, delivery=how, **self._options(asked)) as stream:
            async for event in stream:
                read.take(event)
                if isinstance(event, End):
                    _note(request, stream.response)
                    request.delivered = read.whole()
                    return "answered"
                if asked.reader == "slow":
                    await trio.sleep(self._workload.reads_every)
                elif asked.reader == "stopped":
                    await trio.sleep(BEYOND_IDLE * self._client.config.stream.consumer_idle)
                    return "left"
        raise AssertionError("a stream ends by its End, or by an error")

    def _options(self, asked: Asked) -> AskOptions:
        options = AskOptions(deadline=asked.deadline, tenant=asked.tenant)
        if self._workload.route is not None:
            options["route"] = self._workload.route
        return options


class _Read:
    """What the caller of a stream has read of an answer, and was not told to drop."""

    def __init__(self, how: Delivery) -> None:
        self._how = how
        self._text: list[str] = []
        self._spoiled = False

    def take(self, event: StreamEvent) -> None:
        """Read on."""
        if isinstance(event, TextDelta):
            self._text.append(event.text)
        elif isinstance(event, Reset):
            self._text.clear()
            self._spoiled = self._how is Delivery.BUFFERED  # which never has anything to take back

    def whole(self) -> int | None:
        """Return the number of the call whose whole answer it is, None where it is no call's."""
        return None if self._spoiled else whole_answer("".join(self._text))


def _last_line(error: Exception) -> str:
    """Return an error's type and message, without addresses: those differ from run to run."""
    return ADDRESS.sub("0x...", traceback.format_exception_only(error)[-1].strip())


async def _hang_up(scope: trio.CancelScope, seconds: float) -> None:
    await trio.sleep(seconds)
    scope.cancel()


def _note(request: Request, answer: WizardResponse) -> None:
    request.model, request.served_by = answer.model, answer.served_by.value
    request.answer, request.cut = whole_answer(answer.text), answer.text.endswith(CUT)
    request.told_cost, request.told_usage = answer.cost, answer.usage
    request.finish_reason = answer.finish_reason.value
