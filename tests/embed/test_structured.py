"""Structured output is the same in every host, and runs the code of the caller's class where the caller is."""

from __future__ import annotations

import threading
from functools import partial

import attrs
import pytest

from tests.embed.hosts import HOSTS, Host, everywhere, nothing_held
from tests.embed.test_same_everywhere import CALLER, facts
from tests.models import Scripted, says
from wizard_actors import InvalidPromptError, ParseError


@attrs.frozen
class Person:
    name: str
    age: int = attrs.field(validator=attrs.validators.ge(0))


def test_a_repaired_value_is_equal_in_every_field() -> None:
    """The value, the response, its attempts; and the error where it cannot be repaired."""

    async def program(host: Host) -> object:
        a = Scripted(says('{"name": "Ada", "age": -1}'), says('{"name": "Ada", "age": 36}'), says("Ada"))
        async with host.open(a) as client:
            answer = await client.generate_as("Who?", Person)
            with pytest.raises(ParseError) as caught:
                await client.generate_as("Who?", Person)
            with pytest.raises(InvalidPromptError):
                await client.generate_as("Who?", complex)
            await nothing_held(client, a)
        return answer.value, facts(answer.response), str(caught.value), facts(list(caught.value.attempts))

    answers = [host.run(partial(program, host)) for host in HOSTS]

    assert isinstance(answers[0], tuple)
    assert answers[0][0] == Person("Ada", 36)
    assert answers[1:] == answers[:1] * 3


@everywhere
async def test_the_callers_class_runs_in_its_own_thread_and_context(host: Host) -> None:
    """Its validators may use what belongs to the caller; what they raise that is a bug comes through."""
    places: list[tuple[int, str]] = []

    def look(_self: object, _field: object, value: int) -> None:
        places.append((threading.get_ident(), CALLER.get()))
        _ = 1 / value

    @attrs.frozen
    class Looking:
        number: int = attrs.field(validator=look)

    CALLER.set("me")
    async with host.open(Scripted(says('{"number": 1}'), says('{"number": 0}'))) as client:
        assert (await client.generate_as("Which?", Looking)).value.number == 1
        with pytest.raises(ZeroDivisionError):
            await client.generate_as("Which?", Looking)
    assert places == [(threading.get_ident(), "me")] * 2
