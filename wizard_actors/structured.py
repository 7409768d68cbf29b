"""Structured output: a question whose answer becomes a value, with one repair.

    asked ──its answer can be read──> the value
      │
      └──it cannot──> asked once more, with the answer and what is wrong with it ──> the value, or `ParseError`

A stored answer is never the last word: what it cannot be read for may be no model's fault any more, so that
question is asked afresh before the call is given up. No call asks models more than twice.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from decimal import Decimal, localcontext
from typing import Final, Generic, TypeAlias, TypeVar

from attrs import evolve, frozen

from wizard_actors.cost import MONEY
from wizard_actors.errors import Attempt, ContentFilterError, InvalidPromptError, ParseError, WizardError
from wizard_actors.json_values import Problem
from wizard_actors.patience import failure_behind
from wizard_actors.request import CacheUse
from wizard_actors.schema import Form, Found
from wizard_actors.types import FinishReason, Message, Prompt, Role, WizardResponse
from wizard_actors.types.given import as_unicode

__all__ = ["Asking", "Structured", "prompt_for"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

Problems: TypeAlias = tuple[Problem, ...]

CUT_OFF: Final = frozenset({FinishReason.LENGTH, FinishReason.CONTENT_FILTER})
"""After these another try would end the same way."""

MOST_TOLD: Final = 3
"""How many problems an error's message tells."""


@frozen
class Structured(Generic[T_co]):
    """A `value` as it was asked for, and the `response` that holds it.

    Where the first answer had to be repaired, `response` is the second one; its `attempts` and its `cost` are those of
    both: as of any response, the sum of what is known, None where that of the answer is not.
    """

    value: T_co
    response: WizardResponse


def prompt_for(prompt: Prompt, form: Form[object]) -> Prompt:
    """Return `prompt` as it asks for an answer in this form. Raises `InvalidPromptError` for one that wants something
    else: tools, or a schema of its own.
    """
    if prompt.tools:
        raise InvalidPromptError(
            "a prompt with tools may be answered by calls of them, and generate_as wants a value: use generate until "
            "they are all answered, then ask for the value without them"
        )
    if prompt.response_schema is not None:
        raise InvalidPromptError("the prompt has a response_schema, and generate_as sends another: leave it out")
    return evolve(prompt, response_schema=form.schema)


class Asking(Generic[T]):
    """One call: `ask` asks for the whole answer to a prompt, and says whether it was stored; `read` reads its text.

    `cache` is what the caller chose. An answer that another request was given a moment ago, by a call that both shared,
    is not a stored one.
    """

    def __init__(
        self,
        ask: Callable[[Prompt, CacheUse], Awaitable[tuple[WizardResponse, bool]]],
        read: Callable[[str], Awaitable[Found[T] | Problems]],
        *,
        cache: CacheUse,
    ) -> None:
        self._ask = ask
        self._read = read
        self._cache = cache
        self._attempts: tuple[Attempt, ...] = ()
        self._cost = Decimal(0)

    async def result(self, prompt: Prompt) -> Structured[T]:
        """Return the value. Raises what `ask` and `read` raise, `ParseError` and `ContentFilterError`; `WizardError`s
        list every attempt.
        """
        response, found = await self._answer(prompt, last=False)
        if not isinstance(found, Found) and response.finish_reason not in CUT_OFF:
            response, found = await self._answer(repairing(prompt, response, found), last=True)
        if not isinstance(found, Found):
            raise unreadable(response, found).with_attempts(self._attempts)
        cost = None if response.cost is None else self._cost
        return Structured(found.value, evolve(response, attempts=self._attempts, cost=cost))

    async def _answer(self, prompt: Prompt, *, last: bool) -> tuple[WizardResponse, Found[T] | Problems]:
        """Return the answer to one prompt; `last`: nothing comes after one that cannot be read."""
        response, found, stored = await self._once(prompt, self._cache)
        hopeless = last or response.finish_reason in CUT_OFF
        if hopeless and stored and not isinstance(found, Found):
            response, found, _ = await self._once(prompt, "refresh")
        return response, found

    async def _once(self, prompt: Prompt, cache: CacheUse) -> tuple[WizardResponse, Found[T] | Problems, bool]:
        """Ask and read; also return whether the answer was stored. Raises why every model failed where what stands in
        for an answer cannot be read either.
        """
        try:
            response, stored = await self._ask(prompt, cache)
        except WizardError as error:
            if not self._attempts:
                raise
            # A copy: those who shared the call may yet raise theirs, with the attempts of that call alone.
            raise error.copy().with_attempts((*self._attempts, *error.attempts)) from error
        self._attempts += response.attempts
        with localcontext(MONEY):
            self._cost += response.cost or 0
        found = await self._read(response.text)
        failure = None if isinstance(found, Found) else failure_behind(response)
        if failure is not None:
            raise failure.with_attempts(self._attempts)
        return response, found, stored


def repairing(prompt: Prompt, response: WizardResponse, problems: Problems) -> Prompt:
    """Return the prompt that asks for the correction of an answer: the conversation, the answer, what is wrong."""
    wrong = "\n".join(f"- {problem}" for problem in problems)
    complaint = Message(
        Role.USER,
        f"Your answer does not follow the JSON Schema that was asked for:\n{as_unicode(wrong)}\n"
        "Answer again with the corrected JSON only, and nothing before or after it.",
    )
    text = as_unicode(response.text)
    if not text.strip():  # providers refuse messages without content
        return evolve(prompt, messages=(*prompt.messages, complaint))
    # Tools that it called, though none were offered, would have to be answered.
    said = Message(Role.ASSISTANT, text) if response.tool_calls else evolve(response, text=text).message
    return evolve(prompt, messages=(*prompt.messages, said, complaint))


def unreadable(response: WizardResponse, problems: Problems) -> WizardError:
    """Return the error for an answer that has no value."""
    model = response.model
    if response.finish_reason is FinishReason.CONTENT_FILTER:
        return ContentFilterError(f"{model}: a content filter of its provider broke its answer off", model=model)
    if response.finish_reason is FinishReason.LENGTH:
        return ParseError(
            f"{model}: its answer was cut off at its limit of tokens, before its JSON was complete: raise the prompt's "
            "max_tokens",
            model=model,
            text=response.text,
        )
    told = "; ".join(map(str, problems[:MOST_TOLD]))
    more = f"; and {len(problems) - MOST_TOLD} more" if len(problems) > MOST_TOLD else ""
    return ParseError(
        f"{model}: its answer does not follow the schema, nor did the one before it: {told}{more}",
        model=model,
        text=response.text,
    )
