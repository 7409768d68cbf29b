"""The storage of a client: opened when it is wanted, bounded in time, and nothing unforeseen comes from it."""

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar, cast

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from wizard_actors.errors import SerializationError, SessionConflictError, StorageError
from wizard_actors.session_record import SessionRecord, SessionSummary
from wizard_actors.storage.base import SessionStorage
from wizard_actors.storage.memory import MemoryStorage
from wizard_actors.storing import Storing

T = TypeVar("T")

CALLS: dict[str, Callable[[SessionStorage], Awaitable[object]]] = {
    "load": lambda storage: storage.load("alice"),
    "save": lambda storage: storage.save(SessionRecord("alice", created_at=1.0)),
    "delete": lambda storage: storage.delete("alice"),
    "list": lambda storage: storage.list(),
    "purge": lambda storage: storage.purge(limit=10),
}
every_call = pytest.mark.parametrize("name", CALLS)


class Backend:
    """A storage in memory whose opening, calls and closing can be made to hang, to raise, or to return anything."""

    def __init__(self) -> None:
        self.memory = MemoryStorage()
        self.cancelled: list[str] = []
        self.openings = self.closings = 0
        self.open_for = self.close_for = self.call_for = 0.0
        self.open_error: BaseException | None = None
        self.close_error: BaseException | None = None
        self.call_error: Exception | None = None
        self.returned: object = self  # itself: whatever the call comes to
        self.dies = trio.Event()

    def storing(self, timeout: float = 10.0) -> Storing:
        return Storing(self.opening, name="backend", timeout=timeout)

    @asynccontextmanager
    async def opening(self) -> AsyncIterator[SessionStorage]:
        self.openings += 1
        await self.wait("open", self.open_for)
        if self.open_error is not None:
            raise self.open_error
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.death)
                yield self
                nursery.cancel_scope.cancel()
        finally:
            self.closings += 1
            await self.wait("close", self.close_for)
            if self.close_error is not None:
                raise self.close_error

    async def death(self) -> None:
        await self.dies.wait()
        raise OSError("the connection of user:PASSWORD is gone")

    async def wait(self, what: str, seconds: float) -> None:
        try:
            await trio.sleep(seconds)
        except trio.Cancelled:
            self.cancelled.append(what)
            raise

    async def do(self, call: Callable[[], Awaitable[T]]) -> T:
        await self.wait("call", self.call_for)
        if self.call_error is not None:
            raise self.call_error
        return await call() if self.returned is self else cast("T", self.returned)

    async def load(self, session: str) -> SessionRecord | None:
        return await self.do(lambda: self.memory.load(session))

    async def save(self, record: SessionRecord) -> None:
        await self.do(lambda: self.memory.save(record))

    async def delete(self, session: str) -> bool:
        return await self.do(lambda: self.memory.delete(session))

    async def list(
        self, *, limit: int = 50, after: SessionSummary | None = None, prefix: str = ""
    ) -> Sequence[SessionSummary]:
        return await self.do(lambda: self.memory.list(limit=limit, after=after, prefix=prefix))

    async def purge(
        self,
        *,
        limit: int,
        used_before: float | None = None,
        created_before: float | None = None,
        busy: Collection[str] = (),
    ) -> Sequence[str]:
        times = {"used_before": used_before, "created_before": created_before}
        return await self.do(lambda: self.memory.purge(limit=limit, busy=busy, **times))


async def failure(call: Awaitable[object]) -> StorageError:
    """Return the error that a call ends with."""
    with pytest.raises(StorageError) as caught:
        await call
    assert caught.value.backend == "backend"
    return caught.value


# -- opening


async def test_nothing_is_opened_before_it_is_wanted(autojump_clock: MockClock) -> None:
    """A program without sessions never opens their storage; the first call does, the next ones find it open."""
    unused, used = Backend(), Backend()
    async with unused.storing().running():
        await trio.sleep(100.0)
    storing = used.storing()
    async with storing.running(), trio.open_nursery() as nursery:
        used.open_for = 1.0
        for call in CALLS.values():
            nursery.start_soon(call, storing)

    assert (unused.openings, unused.closings) == (0, 0)
    assert (used.openings, used.closings) == (1, 1)


async def test_the_storage_does_what_its_backend_does(autojump_clock: MockClock) -> None:
    """Records, pages and errors of ours pass as they are."""
    backend = Backend()
    storing = backend.storing()
    async with storing.running():
        record = SessionRecord("alice", created_at=1.0)
        await storing.save(record)
        assert await storing.load("alice") == record
        assert await storing.load("bob") is None
        assert list(await storing.list(prefix="al")) == [record.summary]
        assert list(await storing.list(prefix="b")) == []
        with pytest.raises(SessionConflictError):
            await storing.save(record)
        backend.call_error = SerializationError("damaged")
        with pytest.raises(SerializationError, match="damaged"):
            await storing.load("alice")
        backend.call_error = None
        assert list(await storing.purge(limit=5, used_before=9.0, busy=["alice"])) == []
        assert list(await storing.purge(limit=5, used_before=9.0)) == ["alice"]
        assert await storing.delete("alice") is False


async def test_a_failed_opening_is_told_to_everybody_who_waits_and_tried_again(autojump_clock: MockClock) -> None:
    """Each gets an error of its own, that names its session; the next call opens anew."""
    backend = Backend()
    backend.open_for, backend.open_error = 1.0, StorageError("no such folder", path="/data")
    storing = backend.storing()
    errors: list[StorageError] = []

    async def load(name: str) -> None:
        errors.append(await failure(storing.load(name)))

    async with storing.running():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(load, "alice")
            nursery.start_soon(load, "bob")
        assert sorted(str(error.session) for error in errors) == ["alice", "bob"]
        assert errors[0] is not errors[1]
        for error in errors:
            assert "could not be opened: no such folder" in str(error)
            assert error.path == "/data"
            assert error.__cause__ is backend.open_error

        backend.open_error = None
        assert await storing.load("alice") is None
    assert backend.openings == 2


async def test_what_a_backend_raises_at_opening_is_not_repeated(autojump_clock: MockClock) -> None:
    """Its text may hold a password; the cause is chained."""
    backend = Backend()
    backend.open_error = OSError("cannot reach user:PASSWORD@host")
    storing = backend.storing()
    async with storing.running():
        error = await failure(storing.load("alice"))

    assert (
        str(error) == "backend: session 'alice' was not loaded: its storage could not be opened: an unforeseen OSError"
    )
    assert error.__cause__ is backend.open_error


@pytest.mark.parametrize("opener", [lambda: None, lambda: 1 / 0])
async def test_an_opener_that_opens_nothing_is_an_error_of_each_call(
    opener: Callable[[], AbstractAsyncContextManager[SessionStorage]], autojump_clock: MockClock
) -> None:
    """Whatever it returns or raises."""
    storing = Storing(opener, name="backend", timeout=1.0)
    async with storing.running():
        for call in CALLS.values():
            await failure(call(storing))


async def test_an_opening_that_hangs_is_waited_for_no_longer_than_a_call_may_take(autojump_clock: MockClock) -> None:
    """It goes on in the background, and is used when it is done."""
    backend = Backend()
    backend.open_for = 25.0
    storing = backend.storing()
    async with storing.running():
        error = await failure(storing.load("alice"))
        assert trio.current_time() == 10.0
        assert "did not open within 10 s" in str(error)
        await trio.sleep(10.0)

        assert await storing.load("alice") is None

        assert trio.current_time() == 25.0
    assert backend.openings == 1


async def test_a_backend_that_ends_by_itself_is_opened_again(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The log tells that it failed, without what it said."""
    backend = Backend()
    storing = backend.storing()
    async with storing.running():
        await storing.load("alice")
        backend.dies.set()
        await wait_all_tasks_blocked()
        backend.dies = trio.Event()

        assert await storing.load("alice") is None

    assert backend.openings == 2
    assert [message for message in caplog.messages if "failed while it was open" in message]
    assert "PASSWORD" not in caplog.text


async def test_it_tells_when_it_has_been_opened(autojump_clock: MockClock) -> None:
    """Which opens nothing."""
    backend = Backend()
    storing = backend.storing()
    told: list[float] = []

    async def tell() -> None:
        await storing.opened()
        told.append(trio.current_time())

    async with storing.running(), trio.open_nursery() as nursery:
        nursery.start_soon(tell)
        await trio.sleep(3.0)
        assert backend.openings == 0
        await storing.load("alice")

    assert told == [3.0]


# -- calls


@every_call
async def test_a_call_that_hangs_ends_in_time(name: str, autojump_clock: MockClock) -> None:
    """It is cancelled, and its caller told; the next call is not affected."""
    backend = Backend()
    storing = backend.storing()
    async with storing.running():
        backend.call_for = math.inf
        error = await failure(CALLS[name](storing))

        assert trio.current_time() == 10.0
        assert "the storage did not answer within 10 s" in str(error)
        assert error.session == (None if name in {"list", "purge"} else "alice")
        assert backend.cancelled == ["call"]
        backend.call_for = 0.0
        await CALLS[name](storing)


@every_call
@pytest.mark.parametrize(
    "error", [OSError("PASSWORD"), ValueError("PASSWORD"), ExceptionGroup("PASSWORD", [OSError()])]
)
async def test_whatever_a_backend_raises_is_a_storage_error(
    name: str, error: Exception, autojump_clock: MockClock
) -> None:
    """Chained, named by its kind, and without its text, in which the conversation may be."""
    backend = Backend()
    storing = backend.storing()
    async with storing.running():
        backend.call_error = error
        told = await failure(CALLS[name](storing))

    assert told.__cause__ is error
    assert f"an unforeseen {type(error).__name__} in its storage" in str(told)
    assert "PASSWORD" not in str(told)


@pytest.mark.parametrize(
    ("name", "returned"),
    [
        ("load", "a text"),
        ("load", SessionRecord("bob", created_at=1.0)),
        ("delete", None),
        ("list", None),
        ("list", ["alice"]),
        ("list", [SessionRecord(str(number), created_at=1.0).summary for number in range(51)]),
        ("purge", 7),
        ("purge", [None]),
        ("purge", [str(number) for number in range(11)]),
    ],
)
async def test_garbage_is_a_storage_error(name: str, returned: object, autojump_clock: MockClock) -> None:
    """Another session's record, what is no record, a page that is none, or longer than was asked for."""
    backend = Backend()
    storing = backend.storing()
    async with storing.running():
        backend.returned = returned
        await failure(CALLS[name](storing))


async def test_a_callers_own_mistakes_are_told_as_such(autojump_clock: MockClock) -> None:
    """Before anything is opened."""
    backend = Backend()
    storing = backend.storing()
    async with storing.running():
        with pytest.raises(ValueError, match="limit must be"):
            await storing.list(limit=0)
        with pytest.raises(TypeError, match="prefix must be"):
            await storing.list(prefix=cast("str", None))
        with pytest.raises(ValueError, match="limit must be"):
            await storing.purge(limit=1001)
        with pytest.raises(TypeError, match="busy must be"):
            await storing.purge(limit=1, busy="alice")

    assert backend.openings == 0


@every_call
async def test_a_callers_own_cancellation_passes_through(name: str, autojump_clock: MockClock) -> None:
    """While the backend opens, and while it is called."""
    backend = Backend()
    backend.open_for = backend.call_for = 5.0
    storing = backend.storing()
    async with storing.running():
        with trio.move_on_after(1.0) as opening:
            await CALLS[name](storing)
        with trio.move_on_after(6.0) as calling:
            await CALLS[name](storing)

    assert opening.cancelled_caught
    assert calling.cancelled_caught
    assert backend.cancelled == ["call"]


# -- the end of the block


async def test_calls_in_progress_are_waited_for_and_no_others_begin(autojump_clock: MockClock) -> None:
    """A turn that is being stored when the client closes is stored."""
    backend = Backend()
    storing = backend.storing()
    done: list[str] = []

    async def save() -> None:
        await storing.save(SessionRecord("alice", created_at=1.0))
        done.append("saved")

    async def late() -> None:
        await trio.sleep(1.0)
        error = await failure(storing.load("alice"))
        done.append(str(error))

    async with trio.open_nursery() as nursery:
        async with storing.running():
            backend.call_for = 3.0
            nursery.start_soon(save)
            nursery.start_soon(late)
            await wait_all_tasks_blocked()
        assert done == ["backend: session 'alice' was not loaded: the storage is closed", "saved"]
        assert backend.closings == 1
        assert trio.current_time() == 3.0


async def test_outside_of_its_block_it_is_closed(autojump_clock: MockClock) -> None:
    """Nothing is opened that nobody would close."""
    backend = Backend()
    storing = backend.storing()
    for call in CALLS.values():
        assert "is closed" in str(await failure(call(storing)))
    assert backend.openings == 0
    assert "PASSWORD" not in repr(storing)


async def test_an_opening_that_nobody_waits_for_any_more_is_cancelled(autojump_clock: MockClock) -> None:
    """A program does not wait at its end for what it has no use for."""
    backend = Backend()
    backend.open_for = math.inf
    storing = backend.storing()
    async with storing.running():
        with trio.move_on_after(1.0):
            await storing.load("alice")

    assert trio.current_time() == 1.0
    assert backend.cancelled == ["open"]


async def test_a_backend_that_hangs_at_closing_is_left_after_its_time(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, and the program ends."""
    backend = Backend()
    storing = backend.storing()
    async with storing.running():
        await storing.load("alice")
        backend.close_for = math.inf

    assert trio.current_time() == 10.0
    assert backend.cancelled == ["close"]
    assert "backend did not close within 10 s" in caplog.text


@pytest.mark.parametrize("error", [OSError("PASSWORD"), StorageError("the disk is full")])
async def test_what_a_backend_raises_at_closing_is_logged(
    error: Exception, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """And never raised: what was saved is safe already. Of an error that is not ours only the kind."""
    backend = Backend()
    backend.close_error = error
    storing = backend.storing()
    async with storing.running():
        await storing.load("alice")

    assert "failed at closing" in caplog.text
    assert type(error).__name__ in caplog.text
    assert ("the disk is full" in caplog.text) is isinstance(error, StorageError)
    assert "PASSWORD" not in caplog.text


async def test_what_a_backend_raises_when_its_closing_is_cut_short_is_logged_too(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Beside its cancellation."""

    async def fail_when_cancelled() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise OSError("PASSWORD")

    @asynccontextmanager
    async def opening() -> AsyncIterator[SessionStorage]:
        yield MemoryStorage()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            nursery.start_soon(fail_when_cancelled)

    storing = Storing(opening, name="backend", timeout=10.0)
    async with storing.running():
        await storing.load("alice")

    assert trio.current_time() == 10.0
    assert "failed at closing: ExceptionGroup" in caplog.text
    assert "PASSWORD" not in caplog.text


@pytest.mark.parametrize("close_error", [None, OSError("at closing")])
@pytest.mark.parametrize("error", [RuntimeError("body"), KeyboardInterrupt(), ExceptionGroup("", [ValueError()])])
async def test_an_error_in_the_block_is_raised_as_it_is(
    error: BaseException, close_error: OSError | None, autojump_clock: MockClock
) -> None:
    """Whatever it is, and however the backend closes."""
    backend = Backend()
    backend.close_error, backend.close_for = close_error, 3.0
    storing = backend.storing()

    async def block() -> None:
        async with storing.running():
            await storing.load("alice")
            raise error

    with pytest.raises(type(error)) as caught:
        await block()

    assert caught.value is error
    assert backend.closings == 1
    assert backend.cancelled == []


async def test_a_block_that_is_cancelled_closes_its_backend_in_peace(autojump_clock: MockClock) -> None:
    """Its closing is shielded, and so are the calls that shield themselves; the cancellation ends where it began."""
    backend = Backend()
    storing = backend.storing()
    saved: list[bool] = []

    async def save() -> None:
        with trio.CancelScope(shield=True):
            await storing.save(SessionRecord("alice", created_at=1.0))
            saved.append(True)

    with trio.move_on_after(2.0) as scope:
        async with trio.open_nursery() as nursery, storing.running():
            await storing.load("alice")
            backend.call_for, backend.close_for = 4.0, 3.0
            nursery.start_soon(save)
            await trio.sleep_forever()

    assert scope.cancelled_caught
    assert saved == [True]
    assert backend.cancelled == []
    assert backend.closings == 1
    assert trio.current_time() == 7.0


async def test_a_ctrl_c_that_meets_the_backends_task_ends_the_block(autojump_clock: MockClock) -> None:
    """It is raised as it is, not in a group."""
    backend = Backend()
    backend.open_error = KeyboardInterrupt()
    storing = backend.storing()

    async def block() -> None:
        async with storing.running():
            await storing.load("alice")

    with pytest.raises(KeyboardInterrupt):
        await block()
