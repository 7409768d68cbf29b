"""A model of a simulation: what it answers to a call, when, and with which of its faults.

Pure: the instant and a random source come in, the reply goes out laid out as seconds and bytes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from random import Random
from typing import Final, Literal, TypeAlias, get_args

from attrs import Factory, evolve, field, frozen

from wizard_actors.testing.simulation.formats import (
    FORMATS,
    JSON_TYPE,
    SSE_TYPE,
    Asking,
    Format,
    Refusal,
    Said,
    WireFormat,
)
from wizard_actors.testing.simulation.metering import LEAST, MOST, Meter, Quota
from wizard_actors.testing.simulation.records import CallEnd
from wizard_actors.testing.simulation.scenario import FaultWindow, Upstream

__all__ = ["CUT", "Ending", "Question", "Reply", "UpstreamCore", "answer_text", "whole_answer"]

Ending: TypeAlias = Literal["eof", "broken", "refused", "silent", "unreachable"]
"""How an exchange ends: by the body's end, by a broken connection, by one that is refused, not at all, or by a caller
who gives up waiting for the connection.
"""

MOST_WORDS: Final = 100_000
SLOWEST: Final = 1e-3
"""Words a second, at least: nothing is infinitely slow."""

REFUSALS: Final[Mapping[str, Refusal]] = {kind: kind for kind in get_args(Refusal)}
CUT_OFF: Final = frozenset({"down", "unreachable"})
"""The faults that win over all others: what nobody is connected to refuses nothing, and says nothing slowly."""

MIDWAY: Final[Mapping[str, Ending]] = {"cut": "broken", "truncated": "eof", "stall": "silent", "malformed": "silent"}
"""The faults that end an answer in its middle, and how: after garbage a model waits for who could make sense of it."""

BEGINNING: Final = re.compile(r"<([0-9]{1,9}):([0-9]{1,6})>")
END: Final = "<end>"
CUT: Final = "<cut>"


def answer_text(number: int, words: int, *, cut: bool = False) -> str:
    """Return the answer to call `number`: its first word and its last tell whether it is whole, as far as it was to be.
    One that is `cut` at its caller's `max_tokens` has another last word, or its first alone.
    """
    if words == 1:
        return f"<{number}:1>"
    return f"<{number}:{words}>{' word' * (words - 2)} {CUT if cut else END}"


def whole_answer(text: str) -> int | None:
    """Return the number of the call whose whole answer `text` is, None where it is no call's."""
    found = BEGINNING.match(text)
    if found is None:
        return None
    number, words = int(found[1]), int(found[2])
    return number if words and text == answer_text(number, words, cut=text.endswith(CUT)) else None


@frozen
class Question:
    """What a call asks: as which of the run, in which protocol, for a stream or not, and how long its prompt is. It
    waits `connect_timeout` seconds for a connection, and wants `max_tokens` at most (None: as many as there are).
    """

    number: int
    model: str
    protocol: WireFormat
    stream: bool
    input_tokens: int
    connect_timeout: float
    max_tokens: int | None = None


@frozen
class Reply:
    """How a model replies, laid out: after `connect` seconds the head, or where `status` is None the exchange's end;
    then each of `pieces` after so many seconds, and `ends_after` more seconds the body's end, as `ending` says.

    `end` is what the call has come to with its last piece, None where that is not its last word. `heard_at` is the
    number of the piece that has the first word. Without a `meter` nothing is billed: for refusals, and for calls that
    reach no model. `fault` is the kind of the fault that ends it, `met` of the one that the call met as it began: they
    differ where its model goes down before its end, which not every caller waits for.
    """

    connect: float
    status: int | None
    headers: Mapping[str, str] = field(factory=dict)
    pieces: tuple[tuple[float, bytes], ...] = ()
    ends_after: float = 0.0
    ending: Ending = "eof"
    end: CallEnd | None = None
    heard_at: int | None = None
    meter: Meter | None = None
    fault: str | None = None
    met: str | None = field(default=Factory(lambda self: self.fault, takes_self=True))

    @property
    def complete(self) -> bool:
        """Whether its pieces are a whole answer."""
        return self.end == "complete"

    @property
    def lasts(self) -> float:
        """The seconds until its end, infinity where it has none."""
        if self.ending == "silent":
            return math.inf
        return self.connect + sum(delay for delay, _ in self.pieces) + self.ends_after


class UpstreamCore:
    """One model, and all that it remembers: its quotas. Of several faults that a call meets one that cuts it off has
    it, and else the first, in the scenario's order; calls that one refuses cost nothing of the model's own quotas.
    """

    def __init__(self, upstream: Upstream, faults: Sequence[FaultWindow], rng: Random, now: float = 0.0) -> None:
        self._upstream = upstream
        self._faults = faults
        self._rng = rng
        self._requests = _quota(upstream.requests_per_minute, upstream.burst, now)
        self._tokens = _quota(upstream.tokens_per_minute, upstream.burst, now)
        self._squeezed: dict[int, tuple[float, Quota]] = {}
        """By the fault's place: when its window began, and the quota that holds in that one."""

    def reply(self, question: Question, now: float, wall_now: float) -> Reply:
        """Return what becomes of a call that begins now."""
        fault = self._meets(now)
        connect = min(self._upstream.connect.draw(self._rng), MOST)
        words = min(MOST_WORDS, max(2, round(self._upstream.answer_tokens.draw(self._rng))))
        return self._as_it_goes_down(self._reply(question, now, wall_now, fault, connect, words), now)

    def _reply(
        self, question: Question, now: float, wall_now: float, fault: FaultWindow | None, connect: float, words: int
    ) -> Reply:
        kind = None if fault is None else fault.kind
        if kind == "down":
            return Reply(connect, None, ending="refused", fault=kind)
        if kind == "unreachable":
            return Reply(question.connect_timeout, None, ending="unreachable", fault=kind)
        if kind == "silent":
            return Reply(math.inf, None, ending="silent", fault=kind)
        most = words if question.max_tokens is None else max(1, question.max_tokens)
        words, cut = min(words, most), words > most
        text = answer_text(question.number, words, cut=cut)
        said = Said(question.model, question.number, text, question.input_tokens, words, cut)
        if fault is not None and fault.kind in REFUSALS:
            asking = Asking(fault.status, fault.retry_after, question.stream)
            return _refused(question, said, connect, REFUSALS[fault.kind], asking, {})
        wait = self._quota_wait(said, now)
        limits = self._limits(question, wall_now)
        if wait:
            asking = Asking(retry_after=float(math.ceil(wait)), stream=question.stream)
            return _refused(question, said, connect, "rate_limit", asking, limits)
        return self._answer(question, said, connect, fault, limits)

    # -- faults ----------------------------------------------------------------------------------------------------

    def _meets(self, now: float) -> FaultWindow | None:
        """Return the fault that a call meets which begins now."""
        for place, fault in sorted(enumerate(self._faults), key=_rank):
            began = fault.began(now)
            if began is None or not self._falls_to(fault):
                continue
            if fault.requests_per_minute is None:
                return fault
            if place not in self._squeezed or self._squeezed[place][0] != began:
                self._squeezed[place] = began, Quota(fault.requests_per_minute, self._upstream.burst, now)
            quota = self._squeezed[place][1]
            if quota.wait(1.0, now):
                return fault
            quota.take(1.0)
        return None

    def _falls_to(self, fault: FaultWindow) -> bool:
        return fault.share >= 1 or self._rng.random() < fault.share

    def _quota_wait(self, said: Said, now: float) -> float:
        """Take a call from what is left, or return for how long it would have to wait."""
        amounts = ((self._requests, 1.0), (self._tokens, float(said.input_tokens + said.output_tokens)))
        quotas = [(quota, amount) for quota, amount in amounts if quota is not None]
        wait = max([quota.wait(amount, now) for quota, amount in quotas], default=0.0)
        if not wait:
            for quota, amount in quotas:
                quota.take(amount)
        return wait

    def _limits(self, question: Question, wall_now: float) -> Mapping[str, str]:
        requests = None if self._requests is None else self._requests.left()
        tokens = None if self._tokens is None else self._tokens.left()
        return FORMATS[question.protocol].limits(requests, tokens, wall_now)

    def _as_it_goes_down(self, reply: Reply, now: float) -> Reply:
        """Return what is left of a reply where its model goes down meanwhile."""
        ends = now + reply.lasts
        for fault in self._faults:
            if fault.kind != "down" or not fault.share or (down := fault.next_start(now)) >= ends:
                continue
            if fault.share < 1:  # how many windows pass it by
                spared = math.floor(min(math.log1p(-self._rng.random()) / math.log1p(-fault.share), MOST))
                down += spared * (math.inf if fault.every is None else fault.every) if spared else 0.0
            if down < ends and (fault.until is None or down < fault.until):
                reply, ends = _broken_after(reply, down - now), down
        return reply

    # -- answers ---------------------------------------------------------------------------------------------------

    def _answer(
        self, question: Question, said: Said, connect: float, fault: FaultWindow | None, limits: Mapping[str, str]
    ) -> Reply:
        """Return the answer, as far as the fault lets it come."""
        first = self._upstream.first_token.draw(self._rng)
        per_word = 1.0 / max(self._upstream.tokens_per_second.draw(self._rng), SLOWEST)
        if fault is not None and fault.kind == "slow_first_token":
            first = first * fault.factor + fault.delay
        if fault is not None and fault.kind == "slow_tokens":
            per_word *= fault.factor
        first, per_word = min(first, MOST), max(LEAST, min(per_word, MOST))
        midway = fault if fault is not None and fault.kind in MIDWAY else None
        kept = said.output_tokens if midway is None else min(midway.after_words, said.output_tokens)
        form, pace = FORMATS[question.protocol], Meter(said.input_tokens, kept, connect, connect + first, per_word)
        headers = {"content-type": SSE_TYPE if question.stream else JSON_TYPE, **form.ids(said), **limits}
        if question.stream:
            reply = _streamed(form, said, pace, headers, midway, self._upstream.pieces)
        else:
            reply = _at_once(form, said, pace, headers, midway)
        return reply if fault is None else evolve(reply, fault=fault.kind, met=fault.kind)


def _quota(per_minute: float | None, burst: float, now: float) -> Quota | None:
    return None if per_minute is None else Quota(per_minute, burst, now)


def _rank(placed: tuple[int, FaultWindow]) -> tuple[bool, int]:
    """Return by what faults are ordered that a call may meet."""
    place, fault = placed
    return fault.kind not in CUT_OFF, place


def _refused(
    question: Question, said: Said, connect: float, kind: Refusal, asking: Asking, limits: Mapping[str, str]
) -> Reply:
    form = FORMATS[question.protocol]
    refused = form.refusal(kind, said, asking)
    headers = {**form.ids(said), **refused.headers, **limits}
    return Reply(connect, refused.status, headers, ((0.0, refused.body),), end="refused", fault=kind)


def _streamed(
    form: Format, said: Said, pace: Meter, headers: Mapping[str, str], fault: FaultWindow | None, pieces: int
) -> Reply:
    """Return the stream of an answer, as far as the fault lets it come: its first word, and then as many at a time as
    make no more than `pieces` in all, each piece when its last word is there.
    """
    words, kept = said.text.split(" "), pace.words
    ends = [0, *[end for end in _ends(len(words), pieces) if end < kept], *([kept] if kept else [])]
    texts = [" ".join(words[start:end]) + (" " if end < len(words) else "") for start, end in pairwise(ends)]
    stream = form.stream(said, texts)
    delays = [(end - start) * pace.per_word for start, end in pairwise(ends)]
    laid_out = list(zip(delays, stream.pieces, strict=True))
    wait = pace.first - pace.taken
    if laid_out:
        laid_out[0] = (wait + (ends[1] - 1) * pace.per_word, stream.opening + stream.pieces[0])
    elif stream.opening:
        laid_out.append((wait, stream.opening))
    heard = 0 if kept else None
    if fault is None:
        delay, data = laid_out[-1]
        laid_out[-1] = (delay, data + stream.closing)
        return Reply(pace.taken, 200, headers, tuple(laid_out), end="complete", heard_at=heard, meter=pace)
    if fault.kind == "malformed":
        laid_out.append((pace.per_word, form.garbage()))
    return Reply(
        pace.taken,
        200,
        headers,
        tuple(laid_out),
        ends_after=pace.per_word if laid_out else wait,
        ending=MIDWAY[fault.kind],
        end="broken" if fault.kind == "malformed" else None,
        heard_at=heard,
        meter=pace,
    )


def _ends(words: int, pieces: int) -> list[int]:
    """Return where the pieces of an answer end."""
    if pieces == 1 or words == 1:
        return [words]
    size = -(-(words - 1) // (pieces - 1))
    return [1, *range(1 + size, words, size), words]


def _at_once(form: Format, said: Said, pace: Meter, headers: Mapping[str, str], fault: FaultWindow | None) -> Reply:
    """Return an answer that is no stream: nothing of it comes before all of it is there. Faults leave half of it, after
    as many words as they let through, or with too much in it.
    """
    body = form.whole(said)
    head = pace.first + max(0, pace.words - 1) * pace.per_word
    if fault is None:
        return Reply(head, 200, headers, ((0.0, body),), end="complete", heard_at=0, meter=pace)
    if fault.kind == "malformed":
        return Reply(head, 200, headers, ((0.0, b"{" + body),), meter=pace)
    return Reply(head, 200, headers, ((0.0, body[: len(body) // 2]),), ending=MIDWAY[fault.kind], meter=pace)


def _broken_after(reply: Reply, seconds: float) -> Reply:
    """Return what comes of a reply whose connection breaks so many seconds after the call began."""
    meter = None if reply.meter is None else evolve(reply.meter, until=seconds)
    if seconds <= reply.connect:
        taken = reply.ending == "silent" if meter is None else meter.taken < seconds
        return Reply(seconds, None, ending="broken" if taken else "refused", meter=meter, fault="down", met=reply.met)
    at, kept = reply.connect, list[tuple[float, bytes]]()
    for delay, data in reply.pieces:
        if at + delay > seconds:
            break
        at += delay
        kept.append((delay, data))
    if reply.end is not None and len(kept) == len(reply.pieces):
        return reply  # its last word is said
    return evolve(
        reply,
        pieces=tuple(kept),
        ends_after=seconds - at,
        ending="broken",
        end=None,
        meter=meter,
        fault="down",
    )
