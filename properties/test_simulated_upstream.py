"""A simulated model: never more than its quota, windows that agree with each other, answers that are whole or not."""

import math
from itertools import combinations
from random import Random
from typing import get_args

from hypothesis import example, given
from hypothesis import strategies as st

from wizard_actors.config import ModelConfig
from wizard_actors.providers.answer import AnswerParser
from wizard_actors.providers.http_provider import HttpProvider
from wizard_actors.providers.refusals import Head
from wizard_actors.streaming import Assembly
from wizard_actors.testing.simulation.formats import WireFormat
from wizard_actors.testing.simulation.metering import Quota
from wizard_actors.testing.simulation.scenario import FaultKind, FaultWindow, Spread, Upstream
from wizard_actors.testing.simulation.transport import SimulatedHttp, provider_of
from wizard_actors.testing.simulation.upstream import Question, Reply, UpstreamCore, answer_text, whole_answer

FUZZ = 1e-5

INSTANTS = st.one_of(st.integers(0, 400).map(lambda tenths: tenths / 10), st.floats(0.0, 1e6))
SPANS = st.one_of(st.sampled_from([0.1, 0.3, 1 / 3, 1.1, 7.0, 60.0]), st.floats(1e-3, 1e4))
SPREADS = st.builds(
    lambda median, factor: Spread(median=median, p99=median * factor if factor > 1 else None),
    st.floats(0.01, 100.0),
    st.floats(1.0, 20.0),
)
UPSTREAMS = st.builds(
    Upstream,
    model=st.just("primary"),
    connect=SPREADS,
    first_token=SPREADS,
    tokens_per_second=SPREADS,
    answer_tokens=SPREADS,
    pieces=st.integers(1, 12),
    requests_per_minute=st.none() | st.floats(1.0, 1e4),
    tokens_per_minute=st.none() | st.floats(1.0, 1e6),
    burst=SPANS,
)


@st.composite
def windows(draw: st.DrawFn) -> FaultWindow:
    """Return any fault, at any times."""
    lasts = draw(st.none() | SPANS)
    again = None if lasts is None else draw(st.none() | SPANS.map(lambda more: lasts + more))
    kind: FaultKind = draw(st.sampled_from(get_args(FaultKind)))
    return FaultWindow(
        kind=kind,
        start=draw(INSTANTS),
        lasts=lasts,
        every=again if again is not None and lasts is not None and again > lasts else None,
        until=draw(st.none() | SPANS),
        share=draw(st.sampled_from([0.0, 0.3, 1.0, 1.0])),
        status=draw(st.none() | st.integers(400, 599)),
        retry_after=draw(st.none() | st.floats(0.0, 1e5)),
        delay=draw(st.floats(0.0, 100.0)),
        factor=draw(st.floats(0.01, 100.0)),
        after_words=draw(st.integers(0, 60)),
        requests_per_minute=draw(st.none() | SPANS) if kind == "rate_limit" else None,
    )


@given(
    st.floats(1.0, 6000.0),
    SPANS,
    st.lists(st.tuples(st.floats(0.0, 20.0), st.sampled_from([1.0, 1.0, 7.0, 300.0])), max_size=25),
)
def test_a_quota_never_lets_more_through_than_falls_due_and_a_burst(
    per_minute: float, burst: float, asked: list[tuple[float, float]]
) -> None:
    """In every window, wherever it begins: what falls due in it, the burst, and the one call that may be in debt."""
    quota, now, taken = Quota(per_minute, burst, 0.0), 0.0, list[tuple[float, float]]()
    for after, amount in asked:
        now += after
        if not quota.wait(amount, now):
            quota.take(amount)
            taken.append((now, amount))

    for first, last in combinations(range(len(taken) + 1), 2):
        through = taken[first:last]
        due = (through[-1][0] - through[0][0]) * per_minute / 60
        allowance = max(1.0, per_minute * burst / 60)
        assert sum(amount for _, amount in through[:-1]) <= due + allowance + FUZZ
        assert sum(min(amount, allowance) for _, amount in through[-1:]) <= allowance


@given(st.floats(1.0, 6000.0), SPANS, st.lists(st.sampled_from([1.0, 7.0, 300.0]), min_size=1, max_size=10))
def test_whoever_waits_as_long_as_a_quota_says_is_let_through(
    per_minute: float, burst: float, amounts: list[float]
) -> None:
    """Not asked to wait once more, and not told to wait where there is enough."""
    quota, now = Quota(per_minute, burst, 0.0), 0.0
    for amount in amounts:
        now += quota.wait(amount, now)
        assert quota.wait(amount, now) == 0.0
        quota.take(amount)


@given(windows(), st.lists(INSTANTS, min_size=1, max_size=20))
@example(FaultWindow(kind="down", start=0.1, lasts=0.2, every=0.3), [0.1 + 0.3 * number for number in range(40)])
def test_windows_begin_where_the_one_before_said_that_they_would(window: FaultWindow, instants: list[float]) -> None:
    """What `next_start` names is later, is a beginning, and nothing is open between a window's end and it."""
    for at in instants:
        began, coming = window.began(at), window.next_start(at)
        if began is not None:
            assert window.start <= began <= at
            assert window.began(began) == began
            assert window.lasts is None or at < began + window.lasts
        assert coming > at
        if coming != math.inf:
            assert window.began(coming) == coming
            assert window.next_start(math.nextafter(coming, 0.0)) == coming
            between = (at + coming) / 2
            assert window.began(between) in {began, None}


@given(
    st.text("<>0123456789: wordendcut", max_size=40)
    | st.builds(answer_text, st.integers(0, 10**8), st.integers(1, 40), cut=st.booleans())
)
@example("<1:2> <end>")
@example("<1:2> <cut>")
@example("<1:1>")
@example("<1:1> <end>")
@example("<1:0> <end>")
@example("<01:2> <end>")
@example("<1:2> <end> ")
@example("<1:2> <end>\n")
@example("<\N{ARABIC-INDIC DIGIT ONE}:2> <end>")
def test_a_whole_answer_is_exactly_the_text_of_its_call(text: str) -> None:
    """Whatever is taken for the answer to a call is that answer, cut or not, and every such answer is taken for it."""
    number, words = whole_answer(text), text.count(" ") + 1
    answers = {answer_text(each, words, cut=cut): each for each in _numbers(text) for cut in (False, True)}

    assert number == answers.get(text)


def _numbers(text: str) -> list[int]:
    digits = text[1 : text.find(":")]
    return [int(digits)] if digits.isascii() and digits.isdecimal() else []


PROVIDERS = {
    (form, stream): ModelConfig(
        name="primary",
        provider=form if form in {"anthropic", "gemini"} else "openai",
        api="responses" if form == "responses" else "chat",
        upstream="stream" if stream else "unary",
        environ={},
    )
    for form in get_args(WireFormat)
    for stream in (True, False)
}


def parsed(form: WireFormat, reply: Reply, *, stream: bool) -> tuple[Assembly, bool]:
    """Return what the client's own reader makes of a reply's pieces, and whether it found anything wrong."""
    assert reply.status is not None
    http = SimulatedHttp.__new__(SimulatedHttp)
    provider = provider_of(PROVIDERS[form, stream], http, lambda: 0.0)
    assert isinstance(provider, HttpProvider)
    head = Head("primary", reply.status)
    parser = AnswerParser(head, provider.wire.reader(head), content_type=reply.headers["content-type"])
    parts = Assembly()
    for _, data in reply.pieces:
        parts.extend(parser.feed(data))
    parts.extend(parser.close())
    return parts, parser.failure is not None


@given(
    UPSTREAMS,
    st.lists(windows(), max_size=3),
    st.sampled_from(get_args(WireFormat)),
    st.booleans(),
    st.none() | st.integers(1, 50),
    st.lists(st.floats(0.0, 40.0), min_size=1, max_size=6),
    st.integers(0, 2**32),
)
def test_what_is_said_to_be_complete_is_read_as_the_whole_answer_and_nothing_else_is(
    upstream: Upstream,
    faults: list[FaultWindow],
    form: WireFormat,
    stream: bool,
    most: int | None,
    pauses: list[float],
    seed: int,
) -> None:
    """Of any model, under any faults, cut or not: and no delay is negative, and nothing is billed but for words."""
    core, now = UpstreamCore(upstream, faults, Random(seed)), 0.0
    for number, pause in enumerate(pauses):
        now += pause
        reply = core.reply(Question(number, "gpt-0", form, stream, 30, 5.0, most), now, 1e9 + now)

        assert reply.connect >= 0
        assert reply.ends_after >= 0
        assert all(delay >= 0 for delay, _ in reply.pieces)
        if reply.status is None:
            assert not reply.pieces
            assert reply.ending != "eof"
            continue
        parts, wrong = parsed(form, reply, stream=stream)
        whole = whole_answer(parts.text) == number and parts.finished is not None and not wrong
        assert whole is reply.complete
        if reply.complete:
            assert reply.meter is not None
            assert parts.usage is not None
            assert reply.meter.tokens() == parts.usage.input_tokens + parts.usage.output_tokens
            assert most is None or parts.usage.output_tokens <= most
        assert wrong or reply.end != "refused"
        assert reply.end != "refused" or reply.meter is None


@given(UPSTREAMS, windows(), st.booleans(), st.lists(st.floats(0.0, 1e4), min_size=2, max_size=8), st.integers(0, 99))
def test_who_stays_longer_is_billed_no_less_and_nobody_for_more_than_all(
    upstream: Upstream, fault: FaultWindow, stream: bool, leaves: list[float], seed: int
) -> None:
    """Nothing before the model has the request, and everything once its reply is over."""
    reply = UpstreamCore(upstream, [fault], Random(seed)).reply(Question(0, "gpt-0", "chat", stream, 30, 5.0), 0.0, 0.0)

    if reply.meter is not None:
        bills = [reply.meter.tokens(seconds) for seconds in sorted(leaves)]
        assert bills == sorted(bills)
        assert max(bills) <= reply.meter.tokens()
        assert reply.meter.tokens(reply.lasts) == reply.meter.tokens()
