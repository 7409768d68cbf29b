"""What an HTTP response says beside its body: the status by which clients decide, and the headers."""

from __future__ import annotations

import logging
import re

import h11
import pytest
import trio
from trio.testing import MockClock

from tests.models import NO_JITTER, SILENT, Scripted, Turn, assert_nothing_held, fails, model, says
from tests.server.http_asked import ANSWER, FORMATS, PATHS, How, ask, body_of, heard, heard_so_far, whole
from tests.server.http_wire import HttpWire, served
from tests.server.keyed import key
from wizard_actors.config import BreakerConfig, CacheConfig, RetryConfig, ServerConfig, StreamConfig
from wizard_actors.errors import (
    AuthError,
    ModelNotFoundError,
    OverloadedError,
    ProviderError,
    QuotaExhaustedError,
    RateLimitError,
)
from wizard_actors.types import ToolCallDelta

ONCE = RetryConfig(max_attempts=1)
DOWN = fails(ProviderError("down", model="a", status=500))
BUFFERED = StreamConfig(delivery="buffered")
all_formats = pytest.mark.parametrize("how", FORMATS)
both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


@all_formats
@both
async def test_all_breakers_open_is_503_with_when_to_come_again(
    how: How, stream: bool, autojump_clock: MockClock
) -> None:
    """It was 502 before, for then the models were asked: a client must not have that done again, but may this."""
    breaker = BreakerConfig(failure_threshold=1, open_for=30.0)
    models = [model(name, retry=ONCE, breaker=breaker) for name in "ab"]
    providers = {name: Scripted(DOWN) for name in "ab"}
    async with served(providers, *models) as server:
        wire = server.connect()
        failed = await ask(wire, how, stream=stream)
        assert (failed.status, failed.headers["x-should-retry"]) == (502, "false")
        assert "retry-after" not in failed.headers
        refused = await ask(wire, how, stream=stream)
        assert refused.status == 503
        assert "x-should-retry" not in refused.headers
        seconds, milliseconds = int(refused.headers["retry-after"]), int(refused.headers["retry-after-ms"])
        assert 24 <= seconds <= 30
        assert seconds * 1000 - 1000 < milliseconds <= seconds * 1000
        assert [len(provider.calls) for provider in providers.values()] == [1, 1]


@all_formats
@both
async def test_exhausted_by_429s_is_429(how: How, stream: bool, autojump_clock: MockClock) -> None:
    """With the soonest time at which a model would have us again."""
    providers = {
        name: Scripted(fails(RateLimitError("slow down", model=name, status=429, retry_after=seconds)))
        for name, seconds in (("a", 200.0), ("b", 100.0))
    }
    async with served(providers) as server:
        reply = await ask(server.connect(), how, stream=stream)
        assert reply.status == 429
        assert 90 <= int(reply.headers["retry-after"]) <= 100
        assert "x-should-retry" not in reply.headers


@all_formats
@both
async def test_models_that_say_they_are_overloaded_are_503(how: How, stream: bool, autojump_clock: MockClock) -> None:
    """With when to come again: what the model says, also where another one refuses the server's own key."""
    providers = {
        "a": Scripted(fails(OverloadedError("busy", model="a", status=529, retry_after=90.0))),
        "b": Scripted(fails(AuthError("no", model="b", status=401))),
    }
    async with served(providers, *[model(name, retry=ONCE) for name in "ab"]) as server:
        reply = await ask(server.connect(), how, stream=stream)
        assert (reply.status, reply.headers["retry-after"]) == (503, "90")
        assert "x-should-retry" not in reply.headers


@all_formats
@both
async def test_a_deadline_of_the_client_is_kept(how: How, stream: bool, autojump_clock: MockClock) -> None:
    """The header `x-wizard-deadline`, in seconds; then it is 504."""
    silent = Scripted(SILENT)
    async with served(silent) as server:
        began = trio.current_time()
        reply = await ask(server.connect(), how, stream=stream, x_wizard_deadline="2.5")
        assert (reply.status, reply.headers["x-should-retry"]) == (504, "false")
        assert trio.current_time() - began == pytest.approx(2.5, abs=0.1)
        await assert_nothing_held(server.client, silent)


@pytest.mark.parametrize("given", ["soon", "5s", "-1", "0", "nan", ""])
async def test_a_deadline_that_is_none_is_a_400(given: str, autojump_clock: MockClock) -> None:
    """The message names the header, and what it has to be."""
    async with served(Scripted(whole())) as server:
        reply = await ask(server.connect(), x_wizard_deadline=given)
        assert (reply.status, reply.json["error"]["code"]) == (400, "invalid_request")
        assert "x-wizard-deadline has to be a number of seconds above 0" in reply.json["error"]["message"]


@all_formats
@pytest.mark.parametrize("body", [b"", b" \r\n"])
async def test_an_empty_body_is_told_as_such(how: How, body: bytes, autojump_clock: MockClock) -> None:
    """Not as JSON that breaks off."""
    async with served(Scripted(whole())) as server:
        reply = await server.connect().ask("POST", PATHS[how], body)
        assert reply.status == 400
        assert heard(how, reply).errors[0]["message"].startswith("the body is empty: ")


@both
async def test_a_deadline_that_ends_a_stream_ends_it_with_an_error(stream: bool, autojump_clock: MockClock) -> None:
    """Its status was sent long before."""
    async with served(Scripted(says("A part", 100.0, "and the rest."))) as server:
        reply = await ask(server.connect(), stream=stream, x_wizard_deadline="5")
        assert reply.status == (200 if stream else 504)
        assert heard("openai", reply).broken


@pytest.mark.parametrize("kind", [AuthError, ModelNotFoundError, QuotaExhaustedError])
async def test_what_only_the_operator_can_put_right_is_502(kind: type[AuthError], autojump_clock: MockClock) -> None:
    """The client's own key is good, and asking again is no use."""
    async with served(Scripted(fails(kind("no", model="a", status=401)))) as server:
        wire = server.connect()
        for _ in range(2):
            reply = await ask(wire)
            assert (reply.status, reply.headers["x-should-retry"]) == (502, "false")


@pytest.mark.parametrize("settings", [ServerConfig(max_in_flight=1), ServerConfig(max_per_key=1)])
async def test_overload_is_429_at_once(settings: ServerConfig, autojump_clock: MockClock) -> None:
    """With a moment after which there may be room; the request in progress goes on, and its place is free after it."""
    async with served(Scripted(whole(5.0)), server=settings) as server:
        busy, other = server.connect(), server.connect()
        await busy.send("POST", PATHS["openai"], body_of("openai"))
        await trio.sleep(1)
        refused = await ask(other)
        assert refused.status == 429
        assert int(refused.headers["retry-after"]) >= 1
        assert trio.current_time() < 2
        assert heard("openai", await busy.reply()).text == ANSWER
        assert (await ask(other)).status == 200


async def test_a_body_on_its_way_takes_a_place(autojump_clock: MockClock) -> None:
    """A key has no more of them coming than it may have requests in progress: 429 before any of the next one has come.
    Whose client gives up has its place again.
    """
    async with served(asked := Scripted(whole()), keys=[key("alice", max_in_flight=1)]) as server:
        slow, other = server.connect(), server.connect()
        for wire in (slow, other):
            named = {"host": "127.0.0.1", "x-api-key": "wz_alice", "content-length": "4000"}
            head = wire.http.send(h11.Request(method="POST", target=PATHS["openai"], headers=list(named.items())))
            await wire.stream.send_all((head or b"") + (b" " * 1000 if wire is slow else b""))
            await trio.sleep(1)
        refused = await other.reply()
        assert (refused.status, refused.headers["connection"]) == (429, "close")
        assert trio.current_time() == 2
        await slow.stream.aclose()
        await trio.sleep(1)
        assert asked.calls == []
        assert (await ask(server.connect(), x_api_key="wz_alice")).status == 200


@pytest.mark.parametrize(("encoding", "status"), [("identity", 200), ("Identity", 200), ("gzip", 415), ("", 415)])
async def test_a_compressed_body_is_415(encoding: str, status: int, autojump_clock: MockClock) -> None:
    """One that is said to be none is read, in whatever case."""
    async with served(Scripted(whole())) as server:
        assert (await ask(server.connect(), content_encoding=encoding)).status == status


@all_formats
@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff\xfe", b'{"model": "wizard"}', b'{"model": 7, "messages": []}'])
async def test_what_is_no_prompt_is_a_400(how: How, body: bytes, autojump_clock: MockClock) -> None:
    """In the shape of the format; nothing was asked, and the connection goes on."""
    asked = Scripted(whole())
    async with served(asked) as server:
        wire = server.connect()
        reply = await wire.ask("POST", PATHS[how], body)
        assert reply.status == 400
        assert heard(how, reply).broken
        assert asked.calls == []
        assert (await ask(wire, how)).status == 200


async def test_a_bug_of_ours_is_a_500_in_the_shape_of_the_format(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says nothing but that; the log says more. No client tries it again by itself."""
    async with served(Scripted(whole())) as server:

        def broken(*_: object) -> None:
            raise RuntimeError("unforeseen")

        monkeypatch.setattr(server.service, "client_of", broken)
        for how in FORMATS:
            reply = await ask(server.connect(), how)
            assert (reply.status, reply.headers["content-type"]) == (500, "application/json")
            assert heard(how, reply).broken
            assert b"unforeseen" not in reply.body
            assert reply.headers["x-should-retry"] == "false"
            assert "x-request-id" in reply.headers
    assert any(record.exc_info for record in caplog.records)


async def test_an_answer_that_cannot_be_told_in_the_format_is_in_the_log(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, with the request's id: the client's own log has it as stopped. Its call is, and the error is said once."""
    begun, more = ToolCallDelta(0, "c", "look", "{}"), ToolCallDelta(0, None, None, "{}")
    provider = Scripted(Turn((begun, "Words.", more, 60.0, "More.")))
    async with served(provider) as server:
        reply = await ask(server.connect(), "anthropic", stream=True, x_request_id="mine")
        assert heard("anthropic", reply).broken
        assert trio.current_time() < 60
        await assert_nothing_held(server.client, provider)
    told = [record.getMessage() for record in caplog.records if record.name == "wizard_actors.server"]
    assert [message.startswith("request mine: ") for message in told] == [True]


# -- headers ---------------------------------------------------------------------------------------------------------


@all_formats
@both
async def test_an_answer_tells_how_it_came_about(how: How, stream: bool, autojump_clock: MockClock) -> None:
    """By which step, after how many attempts, and what it cost in time beside the models'."""
    models = [model("a", retry=ONCE), model("b")]
    async with served({"a": Scripted(DOWN), "b": Scripted(whole(2.0))}, *models) as server:
        headers = (await ask(server.connect(), how, stream=stream)).headers
        assert headers["x-wizard-served-by"] == "fallback"
        assert headers["x-wizard-attempts"] == "2"
        assert 0 <= float(headers["x-wizard-overhead-ms"]) < 1000
        assert "x-wizard-cache" not in headers


@both
async def test_the_cache_is_told(stream: bool, autojump_clock: MockClock) -> None:
    """A miss first, then a hit, which asked no model."""
    async with served(asked := Scripted(whole()), cache=CacheConfig(max_entries=10)) as server:
        wire = server.connect()
        first, again = await ask(wire, stream=stream), await ask(wire, stream=stream)
        assert (first.headers["x-wizard-cache"], again.headers["x-wizard-cache"]) == ("miss", "hit")
        assert (again.headers["x-wizard-attempts"], again.headers["x-wizard-served-by"]) == ("0", "cache")
        assert heard("openai", again).text == ANSWER
        assert len(asked.calls) == 1


async def test_a_call_that_was_shared_is_told(autojump_clock: MockClock) -> None:
    """Who asks the same at once has the answer of one call."""
    async with served(asked := Scripted(whole(5.0)), cache=CacheConfig(max_entries=10)) as server:
        wires = [server.connect(), server.connect()]
        for wire in wires:
            await wire.send("POST", PATHS["openai"], body_of("openai"))
        replies = [await wire.reply() for wire in wires]
        assert sorted(reply.headers["x-wizard-cache"] for reply in replies) == ["miss", "shared"]
        assert [heard("openai", reply).text for reply in replies] == [ANSWER, ANSWER]
        assert len(asked.calls) == 1


@all_formats
async def test_a_request_goes_by_the_id_that_its_client_gave(
    how: How, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """In the response, in the log and upstream; an error has it too."""
    asked = Scripted(whole(), fails(AuthError("no", model="a")))
    with caplog.at_level(logging.INFO, "wizard_actors.requests"):
        async with served(asked) as server:
            wire = server.connect()
            replies = [await ask(wire, how, x_request_id=f"mine-{number}") for number in range(2)]
    assert [reply.status for reply in replies] == [200, 502]
    assert [reply.headers["x-request-id"] for reply in replies] == ["mine-0", "mine-1"]
    fields = [getattr(record, "fields", {}) for record in caplog.records]
    assert [each["request_id"] for each in fields if "request_id" in each] == ["mine-0", "mine-1"]
    assert [call.request_id for call in asked.calls] == ["mine-0", "mine-1"]
    assert "mine-1" in replies[1].body.decode()


async def test_a_request_without_an_id_or_with_none_of_use_is_given_one(autojump_clock: MockClock) -> None:
    """Another one each time, also where nothing is answered."""
    async with served(Scripted(whole())) as server:
        wire = server.connect()
        given = [
            (await ask(wire)).headers["x-request-id"],
            (await ask(wire, x_request_id="x" * 129)).headers["x-request-id"],
            (await ask(wire, x_request_id="two words")).headers["x-request-id"],
            (await wire.ask("GET", "/nowhere")).headers["x-request-id"],
        ]
        assert len(set(given)) == 4
        assert all(re.fullmatch("[0-9a-f]{32}", each) for each in given)


async def test_two_requests_at_once_never_have_one_id(autojump_clock: MockClock) -> None:
    """The second one's is its client's and something more; afterwards it is free again."""
    asked = Scripted(whole(5.0))
    async with served(asked) as server:
        first, second = server.connect(), server.connect()
        await first.send("POST", PATHS["openai"], body_of("openai"), x_request_id="same")
        await trio.sleep(1)
        other = await ask(second, x_request_id="same")
        assert (await first.reply()).headers["x-request-id"] == "same"
        assert other.headers["x-request-id"].startswith("same-")
        assert (await ask(second, x_request_id="same")).headers["x-request-id"] == "same"


# -- heads that wait -------------------------------------------------------------------------------------------------


async def head_after(wire: HttpWire, how: How) -> tuple[int, int]:
    """Ask for a stream; return its status, and after how many seconds, about, it came."""
    began = trio.current_time()
    await wire.send("POST", PATHS[how], body_of(how, stream=True))
    status, _ = await wire.head()
    return status, round(trio.current_time() - began)


@all_formats
@pytest.mark.parametrize("delivery", ["live", "buffered"])
async def test_a_stream_waits_for_its_true_status(how: How, delivery: str, autojump_clock: MockClock) -> None:
    """A failure within 10 s is told by the status."""
    late = Turn((9.0, ProviderError("down", model="a", status=500)))
    settings = StreamConfig(delivery=delivery)  # type: ignore[arg-type]  # one of two
    async with served(Scripted(late), model("a", retry=ONCE), stream=settings) as server:
        assert await head_after(server.connect(), how) == (502, 9)


@all_formats
async def test_a_stream_that_takes_long_begins_and_says_every_ten_seconds_that_it_is_there(
    how: How, autojump_clock: MockClock
) -> None:
    """A buffered one says 200 after 10 s, and pings until its answer is whole."""
    async with served(Scripted(whole(45.0)), stream=BUFFERED) as server:
        wire = server.connect()
        assert await head_after(wire, how) == (200, 10)
        times, said = [], b""
        while (piece := await wire.piece()) is not None:
            if piece == b": ping\n\n":
                times.append(trio.current_time())
            said += piece
        assert times == pytest.approx([10.0, 20.0, 30.0, 40.0], abs=0.1)
        told = heard_so_far(how, said)
        assert (told.text, told.model, told.ended) == (ANSWER, "a", True)


@both
async def test_the_overhead_is_told_without_what_models_take(stream: bool, autojump_clock: MockClock) -> None:
    """A stream's head that goes out before a word of an answer leaves it out: a model at work is no overhead."""
    late, slow = Turn((5.0, ProviderError("down", model="a", status=500))), whole(12.0)
    async with served(Scripted(late, slow, whole(9.0)), model("a", retry=ONCE)) as server:
        failed, early, answered = [await ask(server.connect(), stream=stream) for _ in range(3)]
        assert [failed.status, early.status, answered.status] == [502, 200, 200]
        assert ("x-wizard-overhead-ms" in early.headers) is not stream
        assert early.headers["x-wizard-attempts"] == "1"
        for reply in (answered, *([failed] if stream else [early])):
            assert 0 <= float(reply.headers["x-wizard-overhead-ms"]) < 1000


@all_formats
async def test_a_stream_that_fails_after_its_status_ends_with_an_error(how: How, autojump_clock: MockClock) -> None:
    """Nothing else came but pings."""
    late = Turn((25.0, ProviderError("down", model="a", status=500)))
    async with served(Scripted(late), model("a", retry=ONCE), stream=BUFFERED) as server:
        said = heard(how, reply := await ask(server.connect(), how, stream=True))
        assert (reply.status, reply.body.count(b": ping\n\n")) == (200, 2)
        assert said.broken
        assert said.text == ""


async def test_a_live_stream_pings_in_a_silence_between_words(autojump_clock: MockClock) -> None:
    """10 s after the last word."""
    async with served(Scripted(says("One ", 15.0, "two ", 9.0, "three."))) as server:
        reply = await ask(server.connect(), stream=True)
        assert reply.body.count(b": ping\n\n") == 1
        assert heard("openai", reply).text == "One two three."


async def test_retries_are_not_seen_in_a_live_stream(autojump_clock: MockClock) -> None:
    """Its head says how many attempts there had been when it began."""
    async with served(Scripted(DOWN, DOWN, whole()), model("a", retry=NO_JITTER)) as server:
        reply = await ask(server.connect(), stream=True)
        assert (reply.status, reply.headers["x-wizard-attempts"]) == (200, "3")
        assert reply.headers["x-wizard-served-by"] == "retry"
