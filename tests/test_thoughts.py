"""A model's reasoning, from its provider to the next request: piece by piece, with what the provider wants back."""

import pytest
from trio.testing import MockClock

from tests.models import DONE, Scripted, client_of, says
from wizard_actors import (
    End,
    InvalidPromptError,
    Message,
    Prompt,
    ReasoningDelta,
    Signature,
    TextDelta,
    Thought,
    ThoughtEnded,
    ToolCall,
    ToolCallDelta,
    WizardResponse,
)
from wizard_actors.answering import replay
from wizard_actors.config import CacheConfig
from wizard_actors.streaming import Assembly
from wizard_actors.types import Reset

PROOF = Signature("anthropic", "c2lnbmF0dXJl")
OTHER = Signature("gemini", "b3RoZXI=")
EVENTS = (
    ReasoningDelta("First"),
    ReasoningDelta(" this."),
    ThoughtEnded(PROOF),
    ThoughtEnded(OTHER, redacted=True),
    ReasoningDelta("Then"),
    TextDelta("So."),
    ToolCallDelta(0, "id", "look", "{}", OTHER),
)
THOUGHTS = (Thought("First this.", PROOF), Thought("", OTHER, redacted=True), Thought("Then"))


def test_thoughts_are_put_together_piece_by_piece() -> None:
    """Each ends where its provider says so; the last one may have no end."""
    assembly = Assembly()
    assembly.extend(EVENTS)
    assert assembly.thoughts == THOUGHTS
    assert assembly.reasoning == "First this.Then"
    assert assembly.tool_calls == (ToolCall("id", "look", "{}", OTHER),)


async def test_a_response_is_the_message_to_go_on_with(autojump_clock: MockClock) -> None:
    """Its text, tool calls and thoughts, each with its signature."""
    async with client_of(Scripted(says(*EVENTS))) as client:
        response = await client.generate("Why?")
    assert response.message == Message(
        "assistant", "So.", tool_calls=[ToolCall("id", "look", "{}", OTHER)], thoughts=THOUGHTS
    )
    assert Prompt([Message("user", "Why?"), response.message]).messages[1].thoughts == THOUGHTS
    assert response.reasoning == "First this.Then"


@pytest.mark.parametrize("cached", [False, True])
async def test_a_stream_tells_where_a_thought_ends(autojump_clock: MockClock, cached: bool) -> None:
    """Live as it comes, from the cache in one piece each; the response is the same."""
    async with client_of(Scripted(says(*EVENTS)), cache=CacheConfig(max_entries=5)) as client:
        if cached:
            await client.generate("Why?")
        async with client.stream("Why?") as stream:
            events = [event async for event in stream]
    assert isinstance(events[-1], End)
    assert events[-1].response.thoughts == THOUGHTS
    ends = [event for event in events if isinstance(event, ThoughtEnded)]
    assert ends[:2] == [ThoughtEnded(PROOF), ThoughtEnded(OTHER, redacted=True)]
    assert ends[0].to_dict() == {"type": "thought", "redacted": False, "id": None}


SAME = Thought("Again")
KEPT = [
    (Thought("a"), Thought("b")),
    (SAME, SAME),
    (Thought("a"), Thought()),
    (Thought(),),
    (Thought("a", redacted=True),),
    (Thought("a", id="1"),),
    (Thought("a", PROOF),),
    (Thought(redacted=True, signature=PROOF), Thought("a")),
]


@pytest.mark.parametrize("thoughts", KEPT, ids=repr)
def test_a_replayed_answer_has_every_thought(thoughts: tuple[Thought, ...]) -> None:
    """Each for itself, with all that belongs to it, also where it is empty or the last."""
    assembly = Assembly()
    for event in replay(WizardResponse("So.", "a", thoughts=thoughts), content=True):
        if not isinstance(event, End | Reset):
            assembly.add(event)
    assert assembly.thoughts == thoughts


def test_no_signature_is_shown() -> None:
    """They are long, and nobody's affair."""
    assert PROOF.value not in repr(Message("assistant", "So.", thoughts=THOUGHTS))


@pytest.mark.parametrize("event", [ThoughtEnded("proof"), ToolCallDelta(0, "id", "look", "{}", "proof")])  # type: ignore[arg-type]  # the mistake
def test_a_signature_is_no_text(event: ThoughtEnded | ToolCallDelta) -> None:
    """A provider of somebody's own learns so, and not whoever sends it back."""
    with pytest.raises(TypeError, match="Signature"):
        Assembly().extend([event, DONE])


@pytest.mark.parametrize("parts", [{"thoughts": ["hm"]}, {"tool_calls": ["look"]}])
def test_a_message_takes_thoughts_and_tool_calls_only(parts: dict[str, object]) -> None:
    """A text in their place is a mistake that would be found much later."""
    with pytest.raises(InvalidPromptError, match="objects"):
        Message("assistant", "So.", **parts)  # type: ignore[arg-type]  # the mistake
