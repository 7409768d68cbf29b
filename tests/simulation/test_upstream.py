"""A simulated model behaves as it is described, meets its faults, and what is written down of each call is true."""

import math
from collections.abc import Sequence
from random import Random
from typing import Final

import pytest

from tests.simulation.exchanges import WORDS
from wizard_actors.errors import ConfigError
from wizard_actors.testing.simulation.scenario import FaultKind, FaultWindow, Spread, Upstream
from wizard_actors.testing.simulation.upstream import Question, Reply, UpstreamCore, answer_text, whole_answer

BOTH: Final = pytest.mark.parametrize("whole", [False, True], ids=["stream", "whole"])
FIRST: Final = 0.7
LAST: Final = FIRST + 0.1 * (WORDS - 1)


def core_of(*faults: FaultWindow, **settings: object) -> UpstreamCore:
    """Return a model whose head takes 0.2 s, its first word 0.5 s more, each other 0.1 s."""
    upstream = Upstream(
        **{
            "model": "primary",
            "connect": Spread(median=0.2),
            "first_token": Spread(median=0.5),
            "tokens_per_second": Spread(median=10.0),
            "answer_tokens": Spread(median=float(WORDS)),
            **settings,
        }  # type: ignore[arg-type]  # each is what its field takes
    )
    return UpstreamCore(upstream, faults, Random(1))


def asked(
    core: UpstreamCore, now: float, *, stream: bool = True, number: int = 0, max_tokens: int | None = None
) -> Reply:
    """Return what becomes of a call at an instant, with a prompt of 30 tokens, that waits 5 s for a connection."""
    return core.reply(Question(number, "gpt-0", "chat", stream, 30, 5.0, max_tokens), now, 1e9 + now)


def statuses(core: UpstreamCore, instants: Sequence[float]) -> list[int | None]:
    """Return the statuses of calls at these instants."""
    return [asked(core, now).status for now in instants]


# -- answers ---------------------------------------------------------------------------------------------------------


def test_a_stream_has_its_first_word_when_it_is_due_and_its_last_with_the_whole_answer() -> None:
    """`first_token` is when the first word comes; a whole answer takes as long as the whole stream."""
    stream, whole = asked(core_of(pieces=4), 0.0), asked(core_of(), 0.0, stream=False)

    assert stream.connect == 0.2
    assert stream.pieces[0][0] == pytest.approx(0.5)
    assert stream.lasts == pytest.approx(LAST)
    assert whole.connect == whole.lasts == pytest.approx(LAST)


@pytest.mark.parametrize(("pieces", "come"), [(1, 1), (2, 2), (3, 3), (5, 5), (12, 12), (40, 12)])
def test_a_stream_comes_in_as_many_pieces_as_are_asked_for(pieces: int, come: int) -> None:
    """Never more, and never more than there are words."""
    assert len(asked(core_of(pieces=pieces), 0.0).pieces) == come


@BOTH
@pytest.mark.parametrize("most", [1, 2, WORDS - 1])
def test_an_answer_has_no_more_words_than_its_caller_wants(most: int, *, whole: bool) -> None:
    """It comes as soon as they are said, costs no more, and is the whole answer all the same."""
    reply = asked(core_of(), 0.0, stream=not whole, max_tokens=most)

    body = b"".join(data for _, data in reply.pieces)
    assert reply.complete
    assert reply.lasts == pytest.approx(FIRST + 0.1 * (most - 1))
    assert reply.meter is not None
    assert reply.meter.tokens() == 30 + most
    assert b'"finish_reason":"length"' in body
    assert (b"<cut>" in body, b"<end>" in body) == (most > 1, False)


@pytest.mark.parametrize("most", [None, WORDS, 500])
def test_an_answer_that_is_short_enough_is_not_cut(most: int | None) -> None:
    """Its last word is its own, and so is its finish."""
    body = b"".join(data for _, data in asked(core_of(), 0.0, max_tokens=most).pieces)

    assert b"<end>" in body
    assert b'"finish_reason":"stop"' in body


def test_a_stream_in_more_pieces_than_an_answer_can_have_words_is_refused() -> None:
    """The bound is told."""
    with pytest.raises(ConfigError, match="`pieces` must be at most 100000, got 100001"):
        Upstream(model="primary", pieces=100_001)


def test_only_whole_answers_are_taken_for_whole() -> None:
    """`whole_answer` knows an answer by its number, its length, its first and its last word."""
    assert whole_answer(answer_text(17, 5)) == whole_answer(answer_text(17, 5, cut=True)) == 17
    assert whole_answer(answer_text(17, 1, cut=True)) == 17
    for text in ("", "<17:5> word word word", "<17:5> word word <end>", "<17:1> <end>", "<017:3> word <end>"):
        assert whole_answer(text) is None
    assert whole_answer(f"<{'9' * 5000}:3> word <end>") is None


# -- quotas ----------------------------------------------------------------------------------------------------------


def test_a_quota_lets_a_burst_through_and_then_what_falls_due() -> None:
    """60 a minute with 2 s of burst: two at once, then one a second, to the instant."""
    core = core_of(requests_per_minute=60, burst=2)

    assert statuses(core, [10.0, 10.0, 10.0, 10.9, 11.0, 11.5, 12.0]) == [200, 200, 429, 429, 200, 429, 200]


def test_a_call_beyond_the_quota_is_told_for_how_long_to_wait() -> None:
    """Its 429 says so in whole seconds, and what is left."""
    core = core_of(requests_per_minute=20, burst=1)
    statuses(core, [0.0])

    reply = asked(core, 0.5)

    assert (reply.status, reply.fault, reply.end) == (429, "rate_limit", "refused")
    assert reply.headers["retry-after"] == "3"
    assert reply.headers["x-ratelimit-remaining-requests"] == "0"


def test_waiting_exactly_as_long_as_one_has_to_is_enough() -> None:
    """Rounding refuses nobody who keeps to the rate."""
    core = core_of(requests_per_minute=7 / 3 * 60, burst=0.1)
    instants, now = list[float](), 0.1
    for _ in range(500):
        instants.append(now)
        now += 3 / 7

    assert set(statuses(core, instants)) == {200}


def test_a_quota_of_tokens_counts_prompts_and_answers() -> None:
    """42 tokens a call, 84 at once, and what is more than all there can be passes where all is there."""
    core = core_of(tokens_per_minute=84 * 60, burst=1)
    tiny = core_of(tokens_per_minute=60, burst=1)

    assert statuses(core, [0.0, 0.0, 0.0, 0.5]) == [200, 200, 429, 200]
    assert statuses(tiny, [0.0, 30.0, 43.0]) == [200, 429, 200]


def test_calls_that_a_fault_refuses_cost_nothing_of_the_quota() -> None:
    """Only what is let through counts."""
    core = core_of(FaultWindow(kind="error", lasts=5), requests_per_minute=60, burst=1)

    assert statuses(core, [4.9, 4.9, 5.0, 5.0]) == [500, 500, 200, 429]


# -- when and whom faults meet ---------------------------------------------------------------------------------------


def test_a_quota_of_a_fault_holds_for_a_whole_window_and_is_new_in_the_next() -> None:
    """`requests_per_minute` refuses beyond it, in each of the windows that come again, at any instants."""
    squeeze = FaultWindow(kind="rate_limit", requests_per_minute=6, start=0.1, lasts=0.7, every=1.1, retry_after=4)
    core = core_of(squeeze, burst=10)

    assert statuses(core, [0.0, 0.0, 0.1, 0.3, 0.5, 0.9, 1.25, 1.3, 1.7]) == [
        200,
        200,
        200,
        429,
        429,
        200,
        200,
        429,
        429,
    ]


def test_a_fault_meets_its_share_of_the_calls() -> None:
    """A third is a third, none is none, and the others are answered."""
    core = core_of(FaultWindow(kind="error", share=1 / 3), FaultWindow(kind="auth", share=0.0))

    failed = [status for status in statuses(core, [0.01 * number for number in range(3000)]) if status != 200]

    assert set(failed) == {500}
    assert 900 < len(failed) < 1100


def test_the_first_of_several_faults_has_a_call() -> None:
    """In the scenario's order."""
    assert statuses(core_of(FaultWindow(kind="auth"), FaultWindow(kind="error")), [0.0]) == [401]


@pytest.mark.parametrize(("kind", "status"), [("down", None), ("unreachable", None), ("silent", 401)])
def test_who_is_not_connected_meets_no_other_fault(kind: FaultKind, status: int | None) -> None:
    """Wherever it stands in the scenario: there is nobody who could refuse a call, or be silent."""
    reply = asked(core_of(FaultWindow(kind="auth"), FaultWindow(kind=kind)), 0.0)

    assert (reply.status, reply.fault) == (status, kind if status is None else "auth")


def test_a_model_that_cannot_be_reached_keeps_a_caller_for_as_long_as_a_connection_may_take() -> None:
    """Unless it goes down meanwhile, which refuses at once; what is under way goes on."""
    never = FaultWindow(kind="unreachable", start=10.0)

    reply = asked(core_of(never), 10.0)
    down = asked(core_of(never, FaultWindow(kind="down", start=12.0)), 10.0)

    assert (reply.ending, reply.connect, reply.lasts, reply.meter) == ("unreachable", 5.0, 5.0, None)
    assert (down.ending, down.lasts, down.fault, down.met) == ("refused", 2.0, "down", "unreachable")
    assert asked(core_of(never), 9.9).complete


@BOTH
@pytest.mark.parametrize("after_words", [0, 1, 4, WORDS, 500])
@pytest.mark.parametrize("kind", ["cut", "truncated", "stall", "malformed"])
def test_an_answer_that_a_fault_ends_has_as_many_words_as_it_says(
    kind: FaultKind, after_words: int, *, whole: bool
) -> None:
    """It is never complete, also where it is shorter than that, and billed for no more than was said."""
    core = core_of(FaultWindow(kind=kind, after_words=after_words))

    reply = asked(core, 0.0, stream=not whole)

    words = min(after_words, WORDS)
    assert (reply.complete, reply.fault, reply.status) == (False, kind, 200)
    assert reply.meter is not None
    assert reply.meter.tokens() == 30 + words
    assert all(delay >= 0 for delay, _ in reply.pieces)
    if not whole:
        assert b"".join(data for _, data in reply.pieces).count(b"word") == max(0, min(words, WORDS - 1) - 1)
        assert (reply.heard_at is None) is (words == 0)


def test_slowness_is_as_much_as_it_says() -> None:
    """First words take `factor` times as long and `delay` more, all others `factor` times as long."""
    first = asked(core_of(FaultWindow(kind="slow_first_token", factor=4, delay=1)), 0.0)
    all_words = asked(core_of(FaultWindow(kind="slow_tokens", factor=3)), 0.0)

    assert first.pieces[0][0] == pytest.approx(3.0)
    assert first.lasts == pytest.approx(0.2 + 3.0 + 1.1)
    assert all_words.lasts == pytest.approx(FIRST + 3.3)
    assert first.complete
    assert all_words.complete


# -- going down ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stream", "down", "status", "ending", "billed"),
    [
        (True, 0.1, None, "refused", 0),
        (True, 0.5, 200, "broken", 30),
        (True, 1.05, 200, "broken", 34),
        (False, 0.1, None, "refused", 0),
        (False, 0.5, None, "broken", 30),
        (False, 1.05, None, "broken", 34),
    ],
)
def test_what_is_under_way_breaks_when_a_model_goes_down(
    down: float, status: int | None, ending: str, billed: int, *, stream: bool
) -> None:
    """Before the connection is made it is refused; then it breaks, and what was said until then is billed."""
    reply = asked(core_of(FaultWindow(kind="down", start=10 + down)), 10.0, stream=stream)

    assert (reply.status, reply.ending, reply.fault, reply.complete) == (status, ending, "down", False)
    assert reply.lasts == pytest.approx(down)
    assert (0 if reply.meter is None else reply.meter.tokens()) == billed


@pytest.mark.parametrize("start", [10 + LAST + 0.001, 500.0])
def test_what_is_over_before_a_model_goes_down_is_whole(start: float) -> None:
    """Its last piece was sent."""
    reply = asked(core_of(FaultWindow(kind="down", start=start)), 10.0)

    assert (reply.complete, reply.fault, reply.ending) == (True, None, "eof")


@pytest.mark.parametrize("kind", ["silent", "stall"])
def test_going_down_ends_an_endless_silence(kind: FaultKind) -> None:
    """Whoever waits for a silent model hears when its connection breaks."""
    reply = asked(core_of(FaultWindow(kind=kind, lasts=1), FaultWindow(kind="down", start=100.0)), 0.0)

    assert (reply.ending, reply.fault) == ("broken", "down")
    assert reply.lasts == pytest.approx(100.0)


def test_of_many_windows_each_breaks_its_share_of_what_is_under_way() -> None:
    """An answer that one spares may fall to the next; after `until` there are no more; no share spares all."""
    slow = FaultWindow(kind="slow_tokens", factor=1e6)
    flapping = FaultWindow(kind="down", start=1.0, lasts=0.5, every=10.0, share=0.5, until=25.0)
    core = core_of(slow, flapping)

    ends = [round(reply.lasts) if reply.fault == "down" else None for reply in (asked(core, 0.0) for _ in range(2000))]

    assert set(ends) == {1, 11, 21, None}
    assert 900 < ends.count(1) < 1100
    assert 420 < ends.count(11) < 580
    assert asked(core_of(slow, FaultWindow(kind="down", start=1.0, share=0.0)), 0.0).fault == "slow_tokens"


def test_a_window_after_the_end_changes_nothing() -> None:
    """What a fault has cut is over then, though a window before might have broken it."""
    core = core_of(
        FaultWindow(kind="cut", after_words=8), FaultWindow(kind="down", start=1.0, lasts=0.5, every=10.0, share=0.5)
    )

    ends = {round(reply.lasts, 6): reply.fault for reply in (asked(core, 0.0) for _ in range(100))}

    assert ends == {1.0: "down", 1.5: "cut"}


# -- beyond all numbers ----------------------------------------------------------------------------------------------

TINY: Final = 5e-324
HUGE: Final = 1e308


@pytest.mark.parametrize(
    ("faults", "settings"),
    [
        ([FaultWindow(kind="down", start=1, lasts=1, share=TINY)], {}),
        ([FaultWindow(kind="down", start=1, lasts=1, every=3, share=1e-320)], {}),
        ([FaultWindow(kind="slow_tokens", factor=HUGE)], {}),
        ([FaultWindow(kind="slow_tokens", factor=TINY)], {}),
        ([FaultWindow(kind="slow_first_token", factor=HUGE, delay=HUGE)], {}),
        ([FaultWindow(kind="slow_tokens", factor=HUGE), FaultWindow(kind="down", start=1)], {}),
        ([], {"first_token": Spread(median=1e-300, p99=1e300), "connect": Spread(median=HUGE)}),
        ([], {"answer_tokens": Spread(median=1e-300, p99=1e300)}),
        ([], {"tokens_per_second": Spread(median=HUGE), "requests_per_minute": TINY, "burst": HUGE}),
        ([], {"requests_per_minute": HUGE, "tokens_per_minute": TINY, "burst": HUGE}),
    ],
)
def test_no_number_is_too_small_or_too_large_to_be_reckoned_with(
    faults: Sequence[FaultWindow], settings: dict[str, object]
) -> None:
    """A reply is laid out, in seconds that can be waited for, and billed for what it has."""
    core = core_of(*faults, **settings)
    for number in range(20):
        reply = asked(core, number / 10, stream=number % 2 == 0)

        assert all(0 <= delay < math.inf for delay, _ in reply.pieces)
        assert 0 <= reply.connect < math.inf
        assert reply.lasts >= 0
        assert reply.meter is None or 0 <= reply.meter.tokens(reply.lasts) <= 30 + reply.meter.words
