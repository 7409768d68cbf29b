"""Refusals of reasoning that goes back, told from all others."""

import pytest

from wizard_actors.providers.proofs import refuses_thoughts, without_thoughts
from wizard_actors.providers.refusals import ErrorBody
from wizard_actors.types import Message, Signature, Thought, ToolCall


@pytest.mark.parametrize(
    "message",
    [
        "The encrypted content gAAA...wXBV could not be verified.",
        "Could not decrypt the provided encrypted_content.",
        "Item 'rs_1' of type 'reasoning' was provided without its required following item.",
        "messages.1.content.0: Invalid `signature` in `thinking` block",
        "messages.1.content.0: Invalid signature in thinking block",
        "messages.3.content.1: Invalid `data` in `redacted_thinking` block",
        "`thinking` or `redacted_thinking` blocks in the latest assistant message cannot be modified.",
        "Corrupted thought signature.",
        "Thought signature is not valid",
        "Invalid thought_signature",
    ],
)
def test_a_refusal_of_thoughts_is_known(message: str) -> None:
    """In the words of each provider."""
    assert refuses_thoughts(ErrorBody(message))


def test_a_refusal_of_thoughts_is_known_by_its_code() -> None:
    """Whatever its message says."""
    assert refuses_thoughts(ErrorBody("No.", codes=("invalid_request_error", "invalid_encrypted_content")))


@pytest.mark.parametrize(
    "message",
    [
        "Encrypted content is not supported with this model.",
        "Function call is missing a thought_signature in functionCall parts.",
        "`thinking` is not supported on this model",
        "thinking.budget_tokens: Input should be greater than or equal to 1024",
        "Expected `thinking` or `redacted_thinking`, but found `tool_use`.",
        "The signature of the request could not be verified.",
    ],
)
def test_another_refusal_is_none_of_thoughts(message: str) -> None:
    """Without them it would come again."""
    assert not refuses_thoughts(ErrorBody(message))


@pytest.mark.parametrize(
    "words", ["encrypted content ", "could not decrypt ", "item ", "thinking blocks ", "signature in "]
)
def test_a_long_refusal_is_judged_by_its_beginning(words: str) -> None:
    """What it repeats of the request is no reason; and it takes no time that anybody would notice."""
    assert not refuses_thoughts(ErrorBody(words * 100_000 + "Invalid thought signature"))


def test_what_was_said_and_called_stays() -> None:
    """Reasoning and signatures go."""
    sealed = Signature("gemini", "c2ln")
    call = ToolCall("1", "get", "{}", sealed)
    message = Message("assistant", "Yes", tool_calls=[call], thoughts=[Thought("Hm", sealed)])
    question = Message("user", "?")
    assert without_thoughts([question, message]) == (
        question,
        Message("assistant", "Yes", tool_calls=[ToolCall("1", "get", "{}")]),
    )
