"""What the promises of a storage are tried with: a folder of its own, records, saves that are cancelled."""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import ClassVar, Final, TypeAlias
from unittest import SkipTest

import trio
from attrs import evolve

from wizard_actors.errors import SessionConflictError
from wizard_actors.session_record import SessionRecord, SessionState, TurnRecord
from wizard_actors.storage.base import SessionStorage
from wizard_actors.types import FinishReason, Image, Message, Role, Signature, Text, Thought, TokenUsage, ToolCall

__all__ = [
    "NOON",
    "Scenario",
    "StorageBench",
    "born",
    "everything",
    "interrupted",
    "keeps",
    "later",
    "raises",
    "spoken",
]

NOON: Final = 1_750_000_000.25
"""A wall-clock time to begin at."""

CHECKPOINTS: Final = (0, 0, 1, 1, 2, 2, 3, 4, 6, 10)
"""After how many checkpoints a call is cancelled: most often within the first few, for most calls have no more."""

Scenario: TypeAlias = Callable[[SessionStorage], Awaitable[None]]


class StorageBench:
    """What a subclass says of its storage. `open` has to be filled in; see `StorageContract` for the rest."""

    durable: ClassVar[bool] = False
    shared: ClassVar[bool] = False
    within: ClassVar[float] = 60.0

    def open(self, folder: Path) -> AbstractAsyncContextManager[SessionStorage]:
        """Return your storage, to be opened. The same `folder` is the same storage, a new one an empty one.

        The folder is there, empty at first, and removed after the test. A storage that keeps nothing in files may use
        its name, or nothing of it.
        """
        raise NotImplementedError("fill in `open`: it returns an async context manager that opens your storage")

    def damage(self, folder: Path, session: str) -> None:
        """Spoil what is stored of `session`, while the storage is closed; without it that promise is not tried."""
        raise SkipTest("fill in `damage` to try what happens to a session whose stored form was damaged")

    def in_storage(self, scenario: Scenario) -> None:
        """Run a scenario with an empty storage."""
        with self.folder() as folder:
            self.reopened(folder, scenario)

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """Make an empty folder for the length of a block, alone in another one."""
        with tempfile.TemporaryDirectory(prefix="storage-", ignore_cleanup_errors=True) as above:
            folder = Path(above) / "storage"
            folder.mkdir()
            yield folder

    def reopened(self, folder: Path, scenario: Scenario) -> None:
        """Run a scenario with the storage of a folder."""

        async def opened() -> None:
            with trio.fail_after(self.within):
                async with self.open(folder) as storage:
                    await scenario(storage)

        try:
            trio.run(opened)
        except trio.TooSlowError as error:
            raise AssertionError(
                f"this was not done within {self.within:g} s: a call waits for something that never happens, or "
                "`within` is too short for this storage"
            ) from error
        except BaseExceptionGroup as group:  # a storage may have a nursery round its block
            raise _only(group) from group


def _only(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def keeps(kept: object, broken: str) -> None:
    """Raise AssertionError with what was broken, unless the promise was kept."""
    if not kept:
        raise AssertionError(broken)


async def raises(
    kinds: type[Exception] | tuple[type[Exception], ...], call: Awaitable[object], broken: str
) -> Exception:
    """Return the error of a call; AssertionError where it has none."""
    try:
        await call
    except kinds as error:
        return error
    raise AssertionError(broken)


# -- records -----------------------------------------------------------------------------------------


def born(session: str, at: float = NOON, *, used_at: float | None = None) -> SessionRecord:
    """Return a new session, of version 1 and without turns."""
    return SessionRecord(session, created_at=at, used_at=at if used_at is None else used_at)


def later(record: SessionRecord, text: str = "Why?", *, at: float | None = None) -> SessionRecord:
    """Return the next version of a session: one more turn, a second later or at a time."""
    now = record.used_at + 1 if at is None else at
    turn = TurnRecord(
        [Message(Role.USER, text), Message(Role.ASSISTANT, f"{text} Because.")],
        at=now,
        model="primary",
        usage=TokenUsage(9, 2),
        cost=Decimal("0.0012"),
    )
    return evolve(
        record,
        version=record.version + 1,
        state=SessionState.ACTIVE,
        turns=(*record.turns, turn),
        updated_at=now,
        used_at=now,
    )


def spoken(record: SessionRecord) -> Sequence[str]:
    """Return the questions of a session's turns."""
    return [turn.messages[0].text for turn in record.turns]


def everything(session: str = "everything") -> SessionRecord:
    """Return a session that holds something of all that a session can hold."""
    pictures: list[Text | Image] = [
        Text("What is \U0001f9d9 this?"),
        Image(url="https://host/a.png"),
        Image(None, bytes(range(256)), "image/png"),
    ]
    looking = TurnRecord(
        [
            Message(Role.USER, pictures, name="ann"),
            Message(
                Role.ASSISTANT,
                "",
                [ToolCall("call-1", "look", '{"at": "\\u0000 \\" \u2028"}', Signature("gemini", "c2ln"))],
                thoughts=[Thought("Hm.", Signature("anthropic", "+/="), id="t1"), Thought(redacted=True)],
            ),
            Message(Role.TOOL, "line\r\n\ttab\x00\x7f", tool_call_id="call-1", is_error=True),
            Message(Role.ASSISTANT, ()),
        ],
        at=NOON + 1 / 3,
        model="primary",
        upstream_model="gpt-5-mini-2025",
        usage=TokenUsage(2**40, 3, 2, 1, 4),
        cost=Decimal("0.000000000000000000001230"),
        finish_reason=FinishReason.LENGTH,
        request_id="0f3c",
    )
    return SessionRecord(
        session,
        created_at=NOON,
        state=SessionState.ACTIVE,
        system="Be brief.\n\u202eEven here.",
        route="fast",
        model="primary",
        context={"": [], "user": {"id": 2**53 + 1, "score": 0.1, "tags": ["a", None, True, {}]}, "e\u0301": -1e-300},
        turns=[
            looking,
            TurnRecord([Message(Role.SYSTEM, "Now in French."), Message(Role.USER, "\U0001f468")], at=NOON),
        ],
        updated_at=NOON + 1e-6,
        used_at=NOON + 2e6,
    )


# -- saves that are broken off -----------------------------------------------------------------------


async def interrupted(call: Callable[[], Awaitable[object]], random: Random) -> bool:
    """Make a call and cancel it at a random moment; say whether it was done first. A conflict counts as not done."""
    scope = trio.CancelScope()
    done = False
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_cancel_soon, scope, random)
        with scope:
            try:
                await call()
                done = True
            except SessionConflictError:
                pass
        nursery.cancel_scope.cancel()
    return done


async def _cancel_soon(scope: trio.CancelScope, random: Random) -> None:
    if random.random() < 0.7:
        for _ in range(random.choice(CHECKPOINTS)):
            await trio.lowlevel.checkpoint()
    else:
        await trio.sleep(random.uniform(0, 0.003))  # threads know no checkpoints
    scope.cancel()
