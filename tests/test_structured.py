"""Structured output: answers become values, and are repaired once."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from decimal import Context, Decimal, localcontext
from random import Random

import attrs
import pytest
import trio
from trio.testing import MockClock

from tests.models import (
    DONE,
    NO_JITTER,
    USAGE,
    Scripted,
    Turn,
    assert_nothing_held,
    breaker,
    client_of,
    fails,
    model,
    says,
)
from wizard_actors import (
    ContentFilterError,
    DeadlineExceededError,
    InvalidPromptError,
    Message,
    NetworkError,
    ParseError,
    Prompt,
    ResilientClient,
    Structured,
    TokenUsage,
    Tool,
    ToolCall,
    WizardConfig,
    WizardError,
    WizardResponse,
    json_schema_of,
)
from wizard_actors.breaker_core import Circuit
from wizard_actors.config import CacheConfig, PriceConfig, RetryConfig, RouteConfig
from wizard_actors.json_values import Problem
from wizard_actors.providers.base import Answer, Call
from wizard_actors.structured import repairing
from wizard_actors.types import Finished, FinishReason, ToolCallDelta


@attrs.frozen
class Person:
    name: str
    age: int = attrs.field(validator=attrs.validators.ge(0))


ADA = Person("Ada", 36)
GOOD = says('{"name": "Ada", "age": 36}')
WRONG = says('{"name": "Ada", "age": -1}')
BROKEN = NetworkError("the connection broke", model="a")
CACHED = CacheConfig(max_entries=10)


class Listening(Scripted):
    """A model that keeps the prompts."""

    def __init__(self, *turns: Turn) -> None:
        super().__init__(*turns)
        self.prompts: list[Prompt] = []

    def open(self, call: Call) -> AbstractAsyncContextManager[Answer]:
        self.prompts.append(call.prompt)
        return super().open(call)


def ended(text: str, reason: FinishReason) -> Turn:
    """Return a turn that ends for another reason than that it is complete."""
    return Turn((text, Finished(reason, reason.value)))


# -- values ------------------------------------------------------------------------------------------------------------


async def test_an_answer_becomes_a_value(autojump_clock: MockClock) -> None:
    """The schema is sent with the prompt, and the response is there as well."""
    a = Listening(GOOD)
    async with client_of(a) as client:
        answer = await client.generate_as(Prompt("Who wrote the first program?", temperature=0.0), Person)

    assert answer == Structured(ADA, answer.response)
    assert (answer.response.text, len(answer.response.attempts)) == ('{"name": "Ada", "age": 36}', 1)
    [prompt] = a.prompts
    assert prompt.response_schema == json_schema_of(Person)
    assert (prompt.messages[0].text, prompt.temperature) == ("Who wrote the first program?", 0.0)


async def test_a_schema_of_ones_own_gives_json(autojump_clock: MockClock) -> None:
    """It is sent as it is."""
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}}
    a = Listening(GOOD)
    async with client_of(a) as client:
        answer = await client.generate_as("Who?", schema)

    assert answer.value == {"name": "Ada", "age": 36}
    assert a.prompts[0].response_schema == schema


async def test_a_list_of_classes_is_asked_for_in_an_object(autojump_clock: MockClock) -> None:
    """And is a list again when it comes back."""
    a = Listening(says('```json\n{"value": [{"name": "Ada", "age": 36}]}\n```'))
    async with client_of(a) as client:
        answer = await client.generate_as("Who?", list[Person])

    assert answer.value == [ADA]


async def test_what_cannot_be_asked_for_sends_nothing(autojump_clock: MockClock) -> None:
    """A class without a schema, a wrong schema, a prompt that wants something else, and options that are wrong."""
    a = Scripted(GOOD)
    tools, schema = Prompt("Who?", tools=[Tool("find")]), Prompt("Who?", response_schema={"type": "object"})
    async with client_of(a) as client:
        with pytest.raises(InvalidPromptError, match="in the form of <class 'complex'>"):
            await client.generate_as("Who?", complex)
        with pytest.raises(InvalidPromptError, match="is no JSON Schema"):
            await client.generate_as("Who?", {"type": "person"})
        with pytest.raises(InvalidPromptError, match=r"a prompt with tools .* use generate"):
            await client.generate_as(tools, Person)
        with pytest.raises(InvalidPromptError, match="has a response_schema"):
            await client.generate_as(schema, Person)
        with pytest.raises(InvalidPromptError, match="a str or a Prompt, not list"):
            await client.generate_as(["Who?"], Person)  # type: ignore[call-overload]  # the mistake
        with pytest.raises(WizardError, match="deadline"):
            await client.generate_as("Who?", Person, deadline=-1)
    assert a.calls == []


# -- the repair --------------------------------------------------------------------------------------------------------


async def test_an_answer_that_does_not_fit_is_repaired_once(autojump_clock: MockClock) -> None:
    """The model is shown its answer and what is wrong with it; attempts and costs are those of both calls."""
    paid = [Turn((*turn.steps[:-1], USAGE, DONE)) for turn in (WRONG, GOOD)]
    a = Listening(fails(BROKEN), *paid)
    priced = model(price=PriceConfig(input=1_000_000, output=0), retry=NO_JITTER)
    async with client_of(a, priced) as client:
        answer = await client.generate_as(Prompt("Who?", system="Be brief", max_tokens=50), Person)
        await assert_nothing_held(client, a)

    assert answer.value == ADA
    assert [attempt.error is None for attempt in answer.response.attempts] == [False, True, True]
    assert answer.response.usage == TokenUsage(input_tokens=10, output_tokens=5)
    repair = a.prompts[-1]
    assert (repair.system, repair.max_tokens, repair.response_schema) == ("Be brief", 50, json_schema_of(Person))
    assert repair.messages[:2] == (Message("user", "Who?"), Message("assistant", '{"name": "Ada", "age": -1}'))
    assert "- `$`: 'age' must be >= 0: -1" in repair.messages[2].text
    assert repair.messages[2].text.endswith("the corrected JSON only, and nothing before or after it.")


async def test_the_costs_of_both_calls_add_up(autojump_clock: MockClock) -> None:
    """As those of any two attempts: what is not known of the first adds nothing."""
    wrong, good = (Turn((*turn.steps[:-1], USAGE, DONE)) for turn in (WRONG, GOOD))
    priced = model(price=PriceConfig(input=1_000_000, output=0))
    costs = []
    for turns in ([wrong, good], [wrong, GOOD], [WRONG, good]):
        async with client_of(Scripted(*turns), priced) as client:
            costs.append((await client.generate_as("Who?", Person)).response.cost)

    assert costs == [Decimal(20), None, Decimal(10)]


async def test_the_callers_own_arithmetic_rounds_no_sum(autojump_clock: MockClock) -> None:
    """A program that computes with three digits is told what both calls cost, in all of them."""
    a = Scripted(*[Turn((*turn.steps[:-1], USAGE, DONE)) for turn in (WRONG, GOOD)])
    async with client_of(a, model(price=PriceConfig(input=123_456, output=0))) as client:
        with localcontext(Context(prec=3)):
            answer = await client.generate_as("Who?", Person)

    assert answer.response.cost == Decimal("2.46912")


async def test_an_answer_that_cannot_be_repaired_is_an_error(autojump_clock: MockClock) -> None:
    """It names the model that answered last and what is wrong, holds the text, and is no failure of the model's."""
    a, b = Scripted(fails(BROKEN)), Scripted(WRONG)
    once = RetryConfig(max_attempts=1)
    async with client_of({"a": a, "b": b}, model("a", retry=once), model("b", retry=once)) as client:
        with pytest.raises(
            ParseError, match=r"^b: .* nor did the one before it: `\$`: 'age' must be >= 0: -1$"
        ) as caught:
            await client.generate_as("Who?", Person)
        error = caught.value
        assert (error.model, error.text) == ("b", '{"name": "Ada", "age": -1}')
        assert [attempt.model for attempt in error.attempts] == ["a", "b", "a", "b"]
        assert error.to_dict()["text"] == error.text
        assert error.text not in repr(error)
        assert len(b.calls) == 2
        for _ in range(10):
            with pytest.raises(ParseError):
                await client.generate_as("Who?", Person)
        assert (await breaker(client, "b")).circuit is Circuit.CLOSED


async def test_an_error_tells_few_of_many_problems(autojump_clock: MockClock) -> None:
    """Its message stays short, however much is wrong."""
    many = says('{"value": [' + ", ".join(["0"] * 500) + "]}")
    async with client_of(Scripted(many)) as client:
        with pytest.raises(ParseError, match=r"`\$.value\[2\]`: 0 is not of type 'string'; and 17 more$"):
            await client.generate_as("Who?", list[str])


async def test_words_without_json_are_repaired(autojump_clock: MockClock) -> None:
    """A refusal in plain words, and an empty answer too."""
    for first in (says("I would rather not."), says("")):
        a = Listening(first, GOOD)
        async with client_of(a, model(retry=NO_JITTER)) as client:
            assert (await client.generate_as("Who?", Person)).value == ADA


@pytest.mark.parametrize(
    ("reason", "kind", "match"),
    [
        (
            FinishReason.LENGTH,
            ParseError,
            "a: its answer was cut off at its limit of tokens.*raise the prompt's max_tokens",
        ),
        (FinishReason.CONTENT_FILTER, ContentFilterError, "a: a content filter of its provider broke its answer off"),
    ],
)
async def test_an_answer_that_was_cut_off_is_not_repaired(
    reason: FinishReason, kind: type[WizardError], match: str, autojump_clock: MockClock
) -> None:
    """The second would end as the first did. One whose JSON is complete is taken."""
    a = Scripted(ended('{"name": "Ada', reason))
    async with client_of(a) as client:
        with pytest.raises(kind, match=match) as caught:
            await client.generate_as("Who?", Person)
        assert (len(a.calls), len(caught.value.attempts)) == (1, 1)
        a.turns = [ended('{"name": "Ada", "age": 36}\n\n', reason)]
        assert (await client.generate_as("Who?", Person)).value == ADA


async def test_a_repair_that_fails_is_that_failure(autojump_clock: MockClock) -> None:
    """With the attempts of both calls, and its cause."""
    a = Scripted(WRONG, fails(BROKEN))
    async with client_of(a, model(retry=RetryConfig(max_attempts=1))) as client:
        with pytest.raises(NetworkError) as caught:
            await client.generate_as("Who?", Person)
        assert [attempt.error is None for attempt in caught.value.attempts] == [True, False]
        await assert_nothing_held(client, a)


async def test_a_static_answer_is_not_repaired(autojump_clock: MockClock) -> None:
    """What failed is raised, unless the static answer fits."""
    a = Scripted(fails(BROKEN))
    for static, fits in (("We are closed.", False), ('{"name": "Ada", "age": 36}', True)):
        route = RouteConfig(name="wizard", static_answer=static)
        async with client_of(a, model(retry=RetryConfig(max_attempts=1)), route=route) as client:
            calls = len(a.calls)
            if fits:
                assert (await client.generate_as("Who?", Person)).value == ADA
            else:
                with pytest.raises(NetworkError):
                    await client.generate_as("Who?", Person)
            assert len(a.calls) == calls + 1


async def test_a_static_answer_to_the_repair_tells_of_both_calls(autojump_clock: MockClock) -> None:
    """What failed is raised, with the attempts of the first call before its own."""
    a = Scripted(WRONG, fails(BROKEN))
    route = RouteConfig(name="wizard", static_answer="We are closed.")
    async with client_of(a, model(retry=RetryConfig(max_attempts=1)), route=route) as client:
        with pytest.raises(NetworkError) as caught:
            await client.generate_as("Who?", Person)

    assert [attempt.error is None for attempt in caught.value.attempts] == [True, False]


async def test_tools_that_a_model_called_unasked_are_left_out_of_the_repair(autojump_clock: MockClock) -> None:
    """Providers refuse a conversation in which calls are not answered."""
    a = Listening(says("Let me see.", ToolCallDelta(0, "1", "find", "{}")), GOOD)
    async with client_of(a) as client:
        assert (await client.generate_as("Who?", Person)).value == ADA

    assert a.prompts[1].messages[1] == Message("assistant", "Let me see.")


async def test_half_a_surrogate_pair_is_no_fault_of_the_prompts(autojump_clock: MockClock) -> None:
    """Only a provider of somebody's own lets one through; the model is shown its answer with a mark in its place."""
    a = Listening(says('{"name": "Ada \ud83d"}'), GOOD)
    async with client_of(a) as client:
        answer = await client.generate_as("Who?", Person)

    assert (answer.value, len(answer.response.attempts)) == (ADA, 2)
    assert a.prompts[1].messages[1] == Message("assistant", '{"name": "Ada \ufffd"}')


def test_a_problem_that_quotes_half_a_surrogate_pair_can_be_told() -> None:
    """Halves that belong together are joined."""
    repair = repairing(Prompt("Who?"), WizardResponse("?", "a"), (Problem("$", "'\ud83d' and '\ud83d\ude00'"),))

    assert "- `$`: '\ufffd' and '\U0001f600'\n" in repair.messages[-1].text


def test_an_empty_answer_is_left_out_of_the_repair() -> None:
    """Providers refuse messages without content."""
    called = WizardResponse(" ", "a", tool_calls=(ToolCall("1", "find", "{}"),))

    repair = repairing(Prompt("Who?"), called, (Problem("$", "is empty"),))

    assert [message.role.value for message in repair.messages] == ["user", "user"]


# -- deadline, cancellation --------------------------------------------------------------------------------------------


async def test_the_deadline_bounds_both_calls_together(autojump_clock: MockClock) -> None:
    """The repair has what the first call left."""
    a = Scripted(says(6.0, '{"name": "Ada"}'), says(6.0, '{"name": "Ada", "age": 36}'))
    async with client_of(a) as client:
        with pytest.raises(DeadlineExceededError) as caught:
            await client.generate_as("Who?", Person, deadline=10)
        assert trio.current_time() == pytest.approx(10)
        assert (caught.value.deadline, len(caught.value.attempts)) == (10, 2)
        await assert_nothing_held(client, a)


async def test_a_call_cancelled_during_its_repair_leaves_nothing_behind(autojump_clock: MockClock) -> None:
    """It stops upstream, and gives everything back."""
    a = Scripted(says(1.0, '{"name": "Ada"}'), says(60.0, '{"name": "Ada", "age": 36}'))
    async with client_of(a) as client:
        with trio.move_on_after(5) as scope:
            await client.generate_as("Who?", Person)
        assert scope.cancelled_caught
        assert [call.left_with for call in a.calls] == [None, trio.Cancelled]
        await assert_nothing_held(client, a)


# -- the cache ---------------------------------------------------------------------------------------------------------


async def test_the_same_question_is_answered_from_the_cache(autojump_clock: MockClock) -> None:
    """A repaired one too: neither of its calls is made again."""
    a = Scripted(WRONG, GOOD)
    async with client_of(a, cache=CACHED) as client:
        first = await client.generate_as("Who?", Person)
        again = await client.generate_as("Who?", Person)

        assert (first.value, again.value, len(a.calls)) == (ADA, ADA, 2)
        assert (again.response.cached, again.response.cost, again.response.attempts) == (True, Decimal(0), ())


async def test_a_cached_answer_is_never_the_last_word(autojump_clock: MockClock) -> None:
    """What could not be repaired, or was cut off, is asked afresh the next time; once, and then it is kept."""
    a = Scripted(WRONG, WRONG, GOOD)
    async with client_of(a, cache=CACHED) as client:
        with pytest.raises(ParseError):
            await client.generate_as("Who?", Person)
        assert (await client.generate_as("Who?", Person)).value == ADA
        assert (await client.generate_as("Who?", Person)).value == ADA
        assert len(a.calls) == 3

        a.turns = [ended("{", FinishReason.LENGTH), GOOD]
        with pytest.raises(ParseError, match="cut off"):
            await client.generate_as("Who else?", Person)
        assert (await client.generate_as("Who else?", Person)).value == ADA
        assert (await client.generate_as("Who else?", Person)).value == ADA
        assert len(a.calls) == 5


async def test_no_call_asks_more_than_twice(autojump_clock: MockClock) -> None:
    """Whatever the cache holds."""
    for turns in ([WRONG], [ended("{", FinishReason.LENGTH)], [ended("{", FinishReason.LENGTH), WRONG], [WRONG, GOOD]):
        a = Scripted(*turns)
        async with client_of(a, cache=CACHED) as client:
            for _ in range(4):
                before = len(a.calls)
                try:
                    await client.generate_as("Who?", Person)
                except ParseError:
                    assert len(a.calls) > before
                assert len(a.calls) <= before + 2


@pytest.mark.parametrize(
    ("first", "calls"), [(Turn((1.0, "{", Finished(FinishReason.LENGTH, "length"))), 1), (says(1.0, "Ada"), 2)]
)
async def test_who_shares_a_call_that_is_of_no_use_makes_no_other(
    autojump_clock: MockClock, first: Turn, calls: int
) -> None:
    """It was made a moment ago: only what was stored earlier is asked afresh."""
    a, errors = Scripted(first), list[WizardError]()

    async def ask() -> None:
        with pytest.raises(ParseError) as caught:
            await client.generate_as("Who?", Person)
        errors.append(caught.value)

    async with client_of(a, cache=CACHED) as client, trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(ask)

    assert (len(errors), len(a.calls)) == (4, calls)
    assert sorted(len(error.attempts) for error in errors) == [0, 0, 0, calls]


async def test_callers_who_share_a_call_have_their_own_attempts(autojump_clock: MockClock) -> None:
    """Where the repair that they share fails, each tells what it has done itself."""
    a = Scripted(says(1.0, '{"name": "Ada"}'), Turn((1.0, BROKEN)))
    errors: list[WizardError] = []

    async def ask() -> None:
        with pytest.raises(NetworkError) as caught:
            await client.generate_as("Who?", Person)
        errors.append(caught.value)

    async with (
        client_of(a, model(retry=RetryConfig(max_attempts=1)), cache=CACHED) as client,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(ask)
        nursery.start_soon(ask)

    assert sorted(len(error.attempts) for error in errors) == [1, 2]
    assert len(a.calls) == 2


async def test_the_options_go_with_both_calls(autojump_clock: MockClock) -> None:
    """The model, the tenant and the cache; each call has an id of its own."""
    a, b = Scripted(GOOD), Scripted(WRONG, GOOD)
    async with client_of({"a": a, "b": b}, cache=CACHED) as client:
        for _ in range(2):
            b.turns = [WRONG, GOOD]
            answer = await client.generate_as("Who?", Person, model="b", tenant="t", cache="bypass")
            assert (answer.value, answer.response.model) == (ADA, "b")
        assert client.cache is not None
        assert client.cache.entries == 0
    assert (len(a.calls), len(b.calls)) == (0, 4)
    assert len({call.request_id for call in b.calls}) == 4


async def test_a_bug_in_the_callers_class_is_raised(autojump_clock: MockClock) -> None:
    """As it is, and at once."""

    @attrs.frozen
    class Buggy:
        a: int = attrs.field(validator=lambda _self, _field, value: 1 / value)

    a = Scripted(says('{"a": 0}'))
    async with client_of(a) as client:
        with pytest.raises(ZeroDivisionError):
            await client.generate_as("Who?", Buggy)
        await assert_nothing_held(client, a)
    assert len(a.calls) == 1


async def test_models_that_follow_no_schema_are_skipped(autojump_clock: MockClock) -> None:
    """Where the configuration says so."""
    text = """
        [[models]]
        name = "plain"
        provider = "simulated"
        supports = { schema = false }
        [[models]]
        name = "able"
        provider = "simulated"
        simulated = { answer = '{"name": "Ada", "age": 36}' }
        """
    async with ResilientClient.open(WizardConfig.from_toml(text), rng=Random(1)) as client:
        answer = await client.generate_as("Who?", Person)
    assert (answer.value, answer.response.model) == (ADA, "able")
