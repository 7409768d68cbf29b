"""One conversation over every protocol: each turn is answered by another provider, tools and all."""

import pytest

from tests.integration.llmock import LlmockServer, fail, reply
from wizard_actors import Message, Prompt, ResilientClient, ServedBy, Tool, WizardConfig

CONFIG = """
defaults = {{ retry = {{ max_attempts = 1 }} }}
models = [
    {{ name = "chat", provider = "openai", model = "m-chat", base_url = "{url}/v1" }},
    {{ name = "responses", provider = "openai", model = "m-responses", base_url = "{url}/v1", api = "responses" }},
    {{ name = "anthropic", provider = "anthropic", model = "m-anthropic", base_url = "{url}/anthropic" }},
    {{ name = "gemini", provider = "gemini", model = "m-gemini", base_url = "{url}/gemini" }},
]
"""
ORDERS = [
    ("chat", "responses", "anthropic"),
    ("anthropic", "gemini", "chat"),
    ("chat", "anthropic", "responses"),
    ("responses", "gemini", "anthropic"),
    ("gemini", "responses", "chat"),
    ("anthropic", "chat", "gemini"),
]
"""Each of the four follows each other once."""
LOOK = Tool("look", "Look something up", {"type": "object", "properties": {"word": {"type": "string"}}})


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
async def test_a_conversation_goes_on_with_whoever_answers(
    llmock_server: LlmockServer, order: tuple[str, str, str]
) -> None:
    """Two calls at once of the first, their results and a call of the second, its result and the text of the third."""
    first, second, third = order
    config = WizardConfig.from_toml(CONFIG.format(url=llmock_server.url), env={})
    messages = [Message("user", "What do these words mean?")]
    async with ResilientClient.open(config) as client:
        for model, words in ((first, ("actor", "mailbox")), (second, ("nursery",))):
            await llmock_server.script(
                reply(tool_calls=[{"name": "look", "arguments": {"word": word}} for word in words])
            )
            answer = await client.generate(Prompt(messages, tools=[LOOK]), model=model)
            assert [call.name for call in answer.tool_calls] == ["look"] * len(words)
            results = [Message("tool", "nothing", tool_call_id=call.id) for call in answer.tool_calls]
            messages += [answer.message, *results]
        await llmock_server.script(reply("I do not know."))
        last = await client.generate(Prompt(messages, tools=[LOOK]), model=third)
    assert (last.text, last.model) == ("I do not know.", third)
    ids = [call.id for message in messages for call in message.tool_calls]
    assert len(set(ids)) == 3
    assert all(seen["status"] == 200 for seen in await llmock_server.requests())
    assert await llmock_server.findings() == []


async def test_a_chain_of_all_protocols_falls_back_to_the_last(llmock_server: LlmockServer) -> None:
    """Each of the others is overloaded, in the words of its own protocol."""
    config = WizardConfig.from_toml(CONFIG.format(url=llmock_server.url), env={})
    failing = [fail(503, model=f"*m-{name}*") for name in ("chat", "responses", "anthropic")]
    await llmock_server.script(*failing, reply("At last.", model="*m-gemini*"))
    async with ResilientClient.open(config) as client:
        answer = await client.generate("Is anybody there?")
    assert (answer.text, answer.model, answer.served_by) == ("At last.", "gemini", ServedBy.FALLBACK)
    assert [attempt.error and attempt.error.code for attempt in answer.attempts] == ["overloaded"] * 3 + [None]
