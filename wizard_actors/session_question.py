"""What is asked in a turn of a session: messages, and how they are to be answered."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from attrs import evolve, field, frozen

from wizard_actors.errors import InvalidPromptError
from wizard_actors.types import Message, Prompt, Role

__all__ = ["Question", "Said", "again", "as_question"]

Said: TypeAlias = str | Prompt | Message | Iterable[Message]
"""What a turn can begin with."""


@frozen
class Question:
    """What is asked in a turn: `messages`, and how, as `like` has it. No messages: the last question, once more."""

    messages: tuple[Message, ...] = ()
    like: Prompt | None = field(default=None, kw_only=True)

    @property
    def again(self) -> bool:
        """Whether it is the last question once more."""
        return not self.messages

    @property
    def answers_tools(self) -> bool:
        """Whether there are results of tools in it."""
        return any(message.role is Role.TOOL for message in self.messages)

    def prompt(self, history: Iterable[Message], system: str | None) -> Prompt:
        """Return the whole prompt. Raises `InvalidPromptError`, as where results of tools have no calls."""
        whole = (*history, *self.messages)
        return Prompt(whole, system=system) if self.like is None else evolve(self.like, messages=whole, system=system)


def as_question(said: Said, like: Prompt | None) -> Question:
    """Return what is asked. Raises `InvalidPromptError` for what is no question."""
    given: object = said  # a program without a type checker may give anything
    if isinstance(said, Prompt):
        if like is not None:
            raise InvalidPromptError("a Prompt says itself how it is to be answered: leave `like` out")
        return Question(said.messages, like=_checked(said))
    if isinstance(said, str):
        return Question(Prompt(said).messages, like=_checked(like))
    messages = tuple(said) if isinstance(said, Iterable) and not isinstance(said, Message) else (given,)
    found = tuple(message for message in messages if isinstance(message, Message))
    if not found or len(found) < len(messages):
        what = "nothing" if not messages else f"a {type(given).__name__}"
        raise InvalidPromptError(f"a turn begins with a str, a Prompt, a Message or several of them, not with {what}")
    return Question(found, like=_checked(like))


def again(like: Prompt | None) -> Question:
    """Return the last question, to be asked once more."""
    return Question(like=_checked(like))


def _checked(prompt: Prompt | None) -> Prompt | None:
    given: object = prompt
    if not isinstance(given, Prompt | None):
        raise InvalidPromptError(f"`like` is a Prompt, whose tools and parameters hold, not {type(given).__name__}")
    if prompt is not None and prompt.system is not None:
        raise InvalidPromptError("a session has a system prompt of its own: session.update(system=...) sets it")
    return prompt
