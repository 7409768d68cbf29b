"""What the formats cannot say or do not know, through the whole server."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from tests.models import DONE, Scripted, Turn, assert_nothing_held, model
from tests.server.http_asked import PATHS, ask, body_of, heard, whole
from tests.server.http_wire import served
from tests.server.keyed import key
from wizard_actors.types import ToolCallDelta

GARBLED = Turn(
    (
        ToolCallDelta(0, "a", "f", "{}"),
        ToolCallDelta(1, "b", "f", "{}"),
        ToolCallDelta(0, arguments='{"x": 1}'),
        60.0,
        "and more",
        DONE,
    )
)
"""A model that goes on with a call after another one, though it was complete, and then with more."""


async def test_an_answer_that_cannot_be_written_ends_its_call(autojump_clock: MockClock) -> None:
    """The error is the last word, and nothing is paid for that nobody can be sent."""
    provider = Scripted(GARBLED)
    async with served({"a": provider}, model("a")) as server:
        reply = await ask(server.connect(), "anthropic", stream=True)
        assert heard("anthropic", reply).broken
        assert heard("anthropic", reply).errors[0]["code"] == "parse"
        assert trio.current_time() < 60
        await assert_nothing_held(server.client, provider)
        assert provider.calls[0].end < 60


async def test_a_name_that_nothing_has_is_not_repeated_whole(autojump_clock: MockClock) -> None:
    """It may be as long as a body."""
    async with served({"a": Scripted(whole())}, model("a")) as server:
        reply = await ask(server.connect(), model="x" * 100_000)
        assert reply.status == 404
        assert len(reply.body) < 1000


async def test_what_agents_send_needs_no_right_to_fields_of_their_own(autojump_clock: MockClock) -> None:
    """One call at a time is the prompt's, and what a provider is to clear goes nowhere."""
    body = body_of(
        "anthropic",
        tools=[{"name": "look", "input_schema": {"type": "object"}}],
        tool_choice={"type": "auto", "disable_parallel_tool_use": True},
        context_management={"edits": []},
        thinking={"type": "adaptive"},
    )
    async with served({"a": Scripted(whole())}, model("a"), keys=[key("alice")]) as server:
        reply = await server.connect().ask("POST", PATHS["anthropic"], body, authorization="Bearer wz_alice")
        assert reply.status == 200, reply.body
