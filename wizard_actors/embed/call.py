"""One function on its way through Trio's thread, for a caller who waits in another one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import copy_context
from typing import Generic, TypeVar

import trio

from wizard_actors.bells import Bell
from wizard_actors.errors import ActorStoppedError

__all__ = ["Call"]

T = TypeVar("T")


class Call(Generic[T]):
    """`work`, to be done in Trio's thread, in a copy of the caller's context; `bell` rings once it is `over`.

    It is over when everything that it held has been given back, and not before: who cancels it waits for that.
    """

    def __init__(self, work: Callable[[], Awaitable[T]], bell: Bell) -> None:
        self.context = copy_context()
        self.begun = self.over = False
        self._told = True
        self._work: Callable[[], Awaitable[T]] | None = work
        self._bell = bell
        self._scope = trio.CancelScope()
        self._value: list[T] = []
        self._error: BaseException | None = None

    def result(self) -> T:
        """Return what `work` returned, or raise what it raised, once it is over."""
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None  # its traceback holds this frame, which holds this call
        return self._value[0]

    # -- in Trio's thread

    def cancel(self) -> None:
        """Cancel the work, also before it has begun."""
        self._scope.cancel()

    async def serve(self, stopped: Callable[[], Exception]) -> None:
        """Do the work; `stopped` makes the error of a call that is cut off because its thread stops."""
        error: BaseException | None = None
        work = self._work
        if work is None:
            return
        try:
            with self._scope:
                self._value.append(await work())
            if not self._value:
                error = ActorStoppedError("the call was cancelled, by another task or thread", actor="wizard")
        except trio.Cancelled:
            error = stopped()
            raise
        except BaseExceptionGroup as group:  # of a nursery's tasks: more than one were cut off
            cut, rest = group.split(trio.Cancelled)
            error = group if cut is None else rest or stopped()
            if cut is not None:
                raise cut from None
        except BaseException as raised:  # noqa: BLE001 - the caller's to see, whatever it is
            error = raised
        finally:
            self.finish(error)

    def finish(self, error: BaseException | None) -> None:
        """Be over, with `error` or the value of the work. Only the first time counts."""
        if not self.over:
            self._error = error
            self._work = None  # a stream's holds the stream, which holds this call
            self.over = True
            if self._told:
                self._bell.ring()

    def mute(self) -> None:
        """Tell nobody of its end: whoever still waits is a daemon thread, which the program's end stops where it is."""
        self._told = False
