"""Who may ask over HTTP, and for what: keys, web pages, names of models, and paths."""

from __future__ import annotations

import logging

import pytest
import trio
from trio.testing import MockClock

from tests.models import NO_JITTER, Scripted, fails, model
from tests.server.http_asked import ANSWER, FORMATS, PATHS, PROMPT_TOKENS, How, ask, body_of, heard, whole
from tests.server.http_wire import served
from tests.server.keyed import budget, key, per_minute
from wizard_actors.config import RouteConfig, ServerConfig
from wizard_actors.errors import OverloadedError
from wizard_actors.server.key_settings import KeysConfig

DOWN = fails(OverloadedError("down", model="a", status=503))
BEARER = "Bearer wz_alice"
all_formats = pytest.mark.parametrize("how", FORMATS)
both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


# -- keys ------------------------------------------------------------------------------------------------------------


@all_formats
@both
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer wz_bob"},
        {"authorization": "Bearer"},
        {"authorization": "Basic wz_alice"},
        {"x_api_key": "wz_bob"},
        {"authorization": "Bearer wz_gone"},
    ],
    ids=["none", "wrong", "empty", "basic", "wrong x-api-key", "not enabled"],
)
async def test_without_a_good_key_it_is_401(
    how: How, stream: bool, headers: dict[str, str], autojump_clock: MockClock
) -> None:
    """In the shape of the format; nothing is asked, and no key is repeated."""
    asked = Scripted(whole())
    async with served(asked, keys=[key("alice"), key("gone", enabled=False)]) as server:
        reply = await ask(server.connect(), how, stream=stream, **headers)
        assert (reply.status, reply.headers["www-authenticate"]) == (401, "Bearer")
        error = heard(how, reply).errors[0]
        if how == "openai":
            assert error["code"] == "invalid_api_key"
        else:
            assert error["type"] == "authentication_error"
        assert b"wz_" not in reply.body
        assert asked.calls == []


@all_formats
@pytest.mark.parametrize(
    "header", [{"authorization": BEARER}, {"authorization": "bearer wz_alice"}, {"x_api_key": "wz_alice"}]
)
async def test_a_key_may_come_in_either_header(how: How, header: dict[str, str], autojump_clock: MockClock) -> None:
    """Whichever the format's own is."""
    async with served(Scripted(whole()), keys=[key("alice")]) as server:
        assert heard(how, await ask(server.connect(), how, stream=False, **header)).text == ANSWER


async def test_two_keys_in_one_request_are_a_400(autojump_clock: MockClock) -> None:
    """Nobody guesses which is meant."""
    async with served(Scripted(whole()), keys=[key("alice")]) as server:
        wire = server.connect()
        body = b"{}"
        await wire.stream.send_all(
            b"POST /v1/messages HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer a\r\n"
            b"authorization: Bearer b\r\ncontent-length: 2\r\n\r\n" + body
        )
        assert bytes(await wire.stream.receive_some()).startswith(b"HTTP/1.1 400")


async def test_what_a_key_is_refused_has_a_line_in_the_log(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """With its request's id, for nothing else tells of it; what was asked has its line elsewhere."""
    with caplog.at_level(logging.INFO, "wizard_actors.server"):
        async with served(Scripted(whole()), keys=[key("alice")]) as server:
            await server.connect().ask("GET", "/v1/models", x_api_key="wz_alice", x_request_id="r1")
            assert caplog.messages == []
            await server.connect().ask("GET", "/v1/models/no%1bpe", x_api_key="wz_alice", x_request_id="r2")
            body = {"model": "nope", "messages": [{"role": "user", "content": "Why?"}]}
            await server.connect().ask("POST", "/v1/chat/completions", body, x_api_key="wz_alice", x_request_id="r3")
            assert caplog.messages == [
                r"request r2 of the key 'alice' was refused with 404 (invalid_request): GET '/v1/models/no\x1bpe'",
                "request r3 of the key 'alice' was refused with 404 (invalid_request): POST '/v1/chat/completions'",
            ]


async def test_who_has_no_key_is_seen_in_the_log(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """One line in ten seconds, whoever asks how often, and without what was presented."""
    with caplog.at_level(logging.INFO, "wizard_actors.server"):
        async with served(Scripted(whole()), keys=[key("alice")]) as server:
            for _ in range(3):
                await ask(server.connect(), x_api_key="wz_bob")
            assert (await server.connect().ask("GET", "/v1/models")).status == 401
            assert (await server.connect().ask("GET", "/api/state")).status == 401
            assert len(caplog.messages) == 1
            assert caplog.messages[0].startswith("a request was refused with 401: this key is not one of this server's")
            await trio.sleep(10)
            await ask(server.connect(), x_api_key="wz_bob")
            assert len(caplog.messages) == 2
            assert caplog.messages[1].endswith("and 4 others before, not logged")
            assert "wz_" not in caplog.text


@all_formats
@both
@pytest.mark.parametrize("name", ["b", "slow"])
async def test_a_model_or_route_that_is_not_the_keys_is_403(
    how: How, stream: bool, name: str, autojump_clock: MockClock
) -> None:
    """The message says what it may use."""
    routes = [RouteConfig(name="fast", chain=("a",)), RouteConfig(name="slow", chain=("b",))]
    alice = key("alice", routes=["fast"], models=["a"])
    providers = {"a": Scripted(whole()), "b": Scripted(whole())}
    async with served(providers, routes=routes, keys=[alice]) as server:
        wire = server.connect()
        reply = await ask(wire, how, model=name, stream=stream, x_api_key="wz_alice")
        assert reply.status == 403
        assert repr(name) in heard(how, reply).errors[0]["message"]
        assert heard(how, await ask(wire, how, model="a", x_api_key="wz_alice")).text == ANSWER
        assert providers["b"].calls == []


@all_formats
async def test_a_field_of_the_providers_own_takes_a_key_that_may(how: How, autojump_clock: MockClock) -> None:
    """It could name another model; a server without keys lets it through."""
    body = body_of(how, a_field_of_its_own=7)
    async with served(Scripted(whole()), keys=[key("alice"), key("bob", extra=True)]) as server:
        wire = server.connect()
        refused = await wire.ask("POST", PATHS[how], body, x_api_key="wz_alice")
        assert refused.status == 403
        assert "a_field_of_its_own" in heard(how, refused).errors[0]["message"]
        assert (await wire.ask("POST", PATHS[how], body, x_api_key="wz_bob")).status == 200


@pytest.mark.parametrize(
    ("how", "wrong", "meant"),
    [
        ("openai", "temprature", "temperature"),
        ("openai", "stop_sequences", "stop"),
        ("openai", "guided_choice", None),
        ("anthropic", "temprature", "temperature"),
        ("anthropic", "stop", "stop_sequences"),
        ("anthropic", "max_completion_tokens", "max_tokens"),
        ("anthropic", "n", None),
        ("anthropic", "service_tier", None),
        ("anthropic", "x\u2028y" * 50, None),
    ],
)
async def test_a_field_that_was_mistaken_is_told_with_the_right_one(
    how: How, wrong: str, meant: str | None, autojump_clock: MockClock
) -> None:
    """By its place; that a key may send what is not understood is said, too."""
    sent = {"model": "wizard", "messages": [{"role": "user", "content": "Why?"}], "max_tokens": 9, wrong: 1}
    async with served(asked := Scripted(whole()), keys=[key("alice")]) as server:
        reply = await server.connect().ask("POST", PATHS[how], sent, x_api_key="wz_alice")
        error = heard(how, reply).errors[0]
        assert reply.status == 403
        assert f"`{error['param']}` is none that is understood here" in error["message"]
        assert "'alice' may not do: it lacks `extra = true`" in error["message"]
        assert error["param"] == wrong or len(error["param"]) < 70
        assert error["message"].endswith(f"did you mean `{meant}`?") if meant else "mean" not in error["message"]
        assert {error["code"], error.get("wizard", error)["code"]} == {"access_denied"}
        assert asked.calls == []


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models"])
async def test_without_a_key_both_ways_to_send_one_are_told(path: str, autojump_clock: MockClock) -> None:
    """OpenAI's clients send it one way, Anthropic's the other."""
    async with served(Scripted(whole()), keys=[key("alice")]) as server:
        reply = await server.connect().ask("GET" if path.endswith("models") else "POST", path)
        assert reply.status == 401
        assert "`Authorization: Bearer KEY`" in reply.json["error"]["message"]
        assert "`x-api-key: KEY`" in reply.json["error"]["message"]


@all_formats
@both
async def test_a_key_over_its_rate_is_429(how: How, stream: bool, autojump_clock: MockClock) -> None:
    """With the time at which it has leave again; then it has."""
    alice = key("alice", rate_limit=per_minute(6))
    async with served(asked := Scripted(whole()), keys=[alice, key("bob")]) as server:
        wire = server.connect()
        assert (await ask(wire, how, stream=stream, x_api_key="wz_alice")).status == 200
        refused = await ask(wire, how, stream=stream, x_api_key="wz_alice")
        assert (refused.status, refused.headers["retry-after"]) == (429, "10")
        assert len(asked.calls) == 1
        assert (await ask(wire, how, x_api_key="wz_bob")).status == 200
        await trio.sleep(10)
        assert (await ask(wire, how, stream=stream, x_api_key="wz_alice")).status == 200


@all_formats
@both
async def test_a_key_whose_budget_is_gone_is_429(how: How, stream: bool, autojump_clock: MockClock) -> None:
    """Charged is what was used, not what was taken before."""
    alice = key("alice", token_budget=budget(sum(PROMPT_TOKENS) * 2))
    async with served(Scripted(whole()), keys=[alice]) as server:
        wire = server.connect()
        statuses = [
            (
                await wire.ask("POST", PATHS[how], body_of(how, stream=stream, max_tokens=10), x_api_key="wz_alice")
            ).status
            for _ in range(4)
        ]
        assert statuses[0] == 200
        assert statuses[-1] == 429


# -- web pages -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:8080", "127.0.0.1:80", "localhost", "LOCALHOST", "LOCALHOST:1", "[::1]:80", "[::1]", "127.0.0.2"],
)
async def test_without_keys_this_machine_is_let_in_by_its_own_names(host: str, autojump_clock: MockClock) -> None:
    """And nobody else, for a web page could have its name point here."""
    async with served(Scripted(whole())) as server:
        assert (await ask(server.connect(), host=host)).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example:80",
        "localhost.",
        "10.0.0.1",
        "0.0.0.0",  # noqa: S104 - nothing listens there
        "127.1",
        "2130706433",
        "127.0.0.1.evil.example",
        "127.0.0.1:80:80",
        "a@127.0.0.1",
        "]127.0.0.1[",
        "[127.0.0.1]",
        "[[::1]]",
        "[::1",
        "::1",
        "[::1%25eth0]",
        "[::1%eth0]",
        "[::2]",
        "[localhost]",
        "",
    ],
)
async def test_without_keys_any_other_host_is_403(host: str, autojump_clock: MockClock) -> None:
    """With keys it may have any name."""
    async with served(asked := Scripted(whole())) as server:
        assert (await ask(server.connect(), host=host)).status == 403
        assert asked.calls == []
    async with served(Scripted(whole()), keys=[key("alice")]) as server:
        assert (await ask(server.connect(), host=host, x_api_key="wz_alice")).status == 200


async def test_web_pages_that_are_refused_are_seen_in_the_log(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """One line of them, too, in which nobody can begin another one."""
    with caplog.at_level(logging.INFO, "wizard_actors.server"):
        async with served(Scripted(whole())) as server:
            for _ in range(3):
                assert (await ask(server.connect(), host="evil.example" * 20)).status == 403
            assert len(caplog.messages) == 1
            assert caplog.messages[0].startswith("a request was refused with 403: without keys this server answers")
            assert len(caplog.messages[0]) < 300
            await trio.sleep(10)
            assert (await ask(server.connect(), origin="https://evil.example")).status == 403
            assert caplog.messages[1].startswith("a request was refused with 403: web pages of this origin may not")


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:9999", "nonsense", ""])
@pytest.mark.parametrize("host", ["127.0.0.1:8000", "my_host:99999999"])
async def test_a_page_of_another_origin_is_403(origin: str, host: str, autojump_clock: MockClock) -> None:
    """Whatever the host is called, and whatever key it has."""
    async with served(asked := Scripted(whole()), keys=[key("alice")]) as server:
        reply = await ask(server.connect(), host=host, origin=origin, authorization=BEARER)
        assert reply.status == 403
        assert "access-control-allow-origin" not in reply.headers
        assert asked.calls == []


async def test_a_page_of_the_servers_own_is_let_in(autojump_clock: MockClock) -> None:
    """The same scheme, host and port."""
    async with served(Scripted(whole())) as server:
        assert (await ask(server.connect(), host="127.0.0.1:8000", origin="http://127.0.0.1:8000")).status == 200


@both
async def test_a_page_that_is_named_may_ask_and_read(stream: bool, autojump_clock: MockClock) -> None:
    """`server.origins`: the browser asks first, and its script sees our headers."""
    settings = ServerConfig(origins=("https://app.example",))
    async with served(Scripted(whole()), server=settings, keys=[key("alice")]) as server:
        wire = server.connect()
        preflight = await wire.ask(
            "OPTIONS",
            PATHS["openai"],
            origin="https://app.example",
            access_control_request_method="POST",
            access_control_request_headers="authorization,content-type,x-stainless-os",
        )
        assert preflight.status == 200
        assert preflight.headers["access-control-allow-origin"] == "https://app.example"
        assert "POST" in preflight.headers["access-control-allow-methods"]
        assert "x-stainless-os" in preflight.headers["access-control-allow-headers"]
        reply = await ask(wire, stream=stream, origin="https://app.example", authorization=BEARER)
        assert heard("openai", reply).text == ANSWER
        assert reply.headers["access-control-allow-origin"] == "https://app.example"
        exposed = reply.headers["access-control-expose-headers"]
        shown = {"x-request-id", "request-id", "retry-after", "retry-after-ms", "x-should-retry", "x-wizard-served-by"}
        assert shown <= set(exposed.split(", "))
        refused = await ask(wire, origin="https://app.example")
        assert (refused.status, refused.headers["access-control-allow-origin"]) == (401, "https://app.example")


# -- names -----------------------------------------------------------------------------------------------------------


@all_formats
@both
@pytest.mark.parametrize("strategy", ["sequential", "hedged", "adaptive"])
async def test_a_model_is_asked_first_and_the_rest_of_its_route_follows(
    how: How, stream: bool, strategy: str, autojump_clock: MockClock
) -> None:
    """In the route's order, whatever its strategy; the answer is of the one that gave it."""
    providers = {"a": Scripted(whole()), "b": Scripted(DOWN), "c": Scripted(whole())}
    models = [model(name, retry=NO_JITTER) for name in providers]
    route = RouteConfig(name="wizard", strategy=strategy)
    async with served(providers, *models, route=route) as server:
        said = heard(how, await ask(server.connect(), how, model="b", stream=stream))
        assert (said.text, said.ended) == (ANSWER, True)
        assert said.model in {"a", "c"}
        assert len(providers["b"].calls) >= 1
        begun = [
            min((call.start, name) for call in provider.calls)[0]
            for name, provider in providers.items()
            if provider.calls
        ]
        assert providers["b"].calls[0].start == min(begun)


@all_formats
@both
@pytest.mark.parametrize(("asked", "answers"), [("a", "a"), ("b", "b"), ("wizard", "a"), ("fast", "b")])
async def test_a_name_is_a_model_or_a_route(
    how: How, stream: bool, asked: str, answers: str, autojump_clock: MockClock
) -> None:
    """The default route is "wizard"; the answer names the model that gave it."""
    providers = {"a": Scripted(whole()), "b": Scripted(whole())}
    async with served(providers, routes=[RouteConfig(name="fast", chain=("b",))]) as server:
        said = heard(how, await ask(server.connect(), how, model=asked, stream=stream))
        assert (said.text, said.model) == (ANSWER, answers)


@all_formats
@both
@pytest.mark.parametrize("name", ["gpt-unknown", "off", "x\u2028y" * 50])
async def test_a_name_that_is_not_there_is_404(how: How, stream: bool, name: str, autojump_clock: MockClock) -> None:
    """A model that is not enabled neither; the message says which there are."""
    providers = {"a": Scripted(whole()), "off": Scripted(whole())}
    models = [model("a"), model("off", enabled=False)]
    async with served(providers, *models) as server:
        reply = await ask(server.connect(), how, model=name, stream=stream)
        assert reply.status == 404
        error = heard(how, reply).errors[0]
        assert "wizard" in error["message"]
        if how == "openai":
            assert (error["code"], error["param"]) == ("model_not_found", "model")
        else:
            assert error["type"] == "not_found_error"


async def test_of_very_many_names_an_error_shows_some(autojump_clock: MockClock) -> None:
    """And where all of them are."""
    routes = [RouteConfig(name=f"route-{number}", chain=("a",)) for number in range(30)]
    async with served(Scripted(whole()), routes=routes) as server:
        message = (await ask(server.connect(), model="gpt")).json["error"]["message"]
        assert "there are a, wizard, route-0, " in message
        assert message.count("route-") == 18
        assert message.endswith("route-17 and 12 more: GET /v1/models lists them")
        looked_for = await server.connect().ask("GET", "/v1/models/gpt")
        assert (looked_for.status, looked_for.json["error"]["message"]) == (404, message)


async def test_what_may_be_asked_is_listed(autojump_clock: MockClock) -> None:
    """For a key, what it may use; in the format of who asks."""
    routes = [RouteConfig(name="fast", chain=("b",)), RouteConfig(name="slow", chain=("a",))]
    alice = key("alice", routes=["fast"])
    async with served({"a": Scripted(), "b": Scripted()}, routes=routes, keys=[alice, key("root")]) as server:
        wire = server.connect()
        all_names = [each["id"] for each in (await wire.ask("GET", "/v1/models", x_api_key="wz_root")).json["data"]]
        assert all_names == ["a", "b", "wizard", "fast", "slow"]
        reply = await wire.ask("GET", "/v1/models", x_api_key="wz_alice", anthropic_version="2023-06-01")
        assert [each["id"] for each in reply.json["data"]] == ["b", "fast"]
        assert reply.json["data"][0]["type"] == "model"
        assert (await wire.ask("GET", "/v1/models/fast", x_api_key="wz_alice")).json["object"] == "model"
        assert (await wire.ask("GET", "/v1/models/slow", x_api_key="wz_alice")).status == 404
        assert (await wire.ask("GET", "/v1/models")).status == 401


# -- paths -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "how"),
    [
        ("POST", "/v1/embeddings", "openai"),
        ("POST", "/v1/responses", "openai"),
        ("POST", "/v1/chat/completions/", "openai"),
        ("GET", "/v1", "openai"),
        ("POST", "/v1/messages/count_tokens", "anthropic"),
        ("POST", "/v1/messages/batches", "anthropic"),
    ],
)
async def test_what_is_not_offered_is_404_in_the_shape_of_its_protocol(
    method: str, path: str, how: How, autojump_clock: MockClock
) -> None:
    """A client reads it as it reads other errors."""
    async with served(Scripted()) as server:
        reply = await server.connect().ask(method, path, {"input": "x"} if method == "POST" else None)
        assert (reply.status, reply.headers["content-type"]) == (404, "application/json")
        assert heard(how, reply).broken
        assert path in heard(how, reply).errors[0]["message"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/chat/completions", {"POST"}),
        ("DELETE", "/v1/messages", {"POST"}),
        ("POST", "/v1/models", {"GET", "HEAD"}),
        ("PUT", "/health/live", {"GET", "HEAD"}),
    ],
)
async def test_another_method_is_405_with_those_that_there_are(
    method: str, path: str, allowed: set[str], autojump_clock: MockClock
) -> None:
    """In the header `Allow`."""
    async with served(Scripted()) as server:
        reply = await server.connect().ask(method, path)
        assert reply.status == 405
        assert set(reply.headers["allow"].split(", ")) == allowed
        assert reply.json["error"]["message"].endswith(f" takes {' or '.join(sorted(allowed))}")


async def test_a_path_that_is_nearly_right_is_told_the_right_one(autojump_clock: MockClock) -> None:
    """Of those that the server has."""
    async with served(Scripted()) as server:
        for method, path, right in (
            ("POST", "/chat/completions", "/v1/chat/completions"),
            ("GET", "/v1/models/", "/v1/models"),
            ("GET", "/health/redy", "/health/ready"),
        ):
            reply = await server.connect().ask(method, path)
            assert reply.status == 404
            assert f"did you mean {right}?" in reply.json["error"]["message"]
            assert reply.json["error"]["code"] == "not_found"


async def test_metrics_are_an_admins(autojump_clock: MockClock) -> None:
    """Without keys that is everybody on this machine."""
    async with served(Scripted(whole()), keys=[key("alice"), key("root", admin=True)]) as server:
        wire = server.connect()
        await ask(wire, x_api_key="wz_alice")
        assert (await server.connect().ask("GET", "/metrics")).status == 401
        assert (await wire.ask("GET", "/metrics", x_api_key="wz_alice")).status == 403
        shown = await wire.ask("GET", "/metrics", authorization="Bearer wz_root")
        assert shown.status == 200
        assert shown.headers["content-type"].startswith("text/plain")
        assert b"wizard_requests" in shown.body
    async with served(Scripted()) as server:
        assert (await server.connect().ask("GET", "/metrics")).status == 200


async def test_health_asks_for_no_key(autojump_clock: MockClock) -> None:
    """It is live while it drains, and ready no more."""
    async with served(Scripted(), keys=[key("alice")]) as server:
        live, ready = server.connect(), server.connect()
        assert (await live.ask("GET", "/health/live")).status == 200
        assert (await ready.ask("GET", "/health/ready")).json == {"status": "ready"}
        server.service.draining.set()
        assert (await live.ask("GET", "/health/live")).status == 200
        assert ((again := await ready.ask("GET", "/health/ready")).status, again.json) == (503, {"status": "draining"})


async def test_a_key_made_meanwhile_is_good_at_once(autojump_clock: MockClock) -> None:
    """On a connection that is open, too."""
    async with served(Scripted(whole()), keys=[key("alice")]) as server:
        wire = server.connect()
        assert (await ask(wire, x_api_key="wz_bob")).status == 401
        server.service.access.replace(KeysConfig(keys=[key("alice"), key("bob")]), bound=[])
        assert (await ask(wire, x_api_key="wz_bob")).status == 200
