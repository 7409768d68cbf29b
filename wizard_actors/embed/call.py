"""One function on its way through Trio's thread, for a caller who waits in another one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import copy_context
from typing import Generic, TypeVar

import trio

from wizard_actors.bells import Bell

__all__ = ["Call"]

T = TypeVar("T")


class Call(Generic[T]):
    """`work`, to be done in Trio's thread, in a copy of the caller's context; `bell` rings once it is `over`.

    It is over when everything that it held has been given back, and not before: who cancels it waits for that.
    """

    def __init__(self, work: Callable[[], Awaitable[T]], bell: Bell) -> None:
        self.context = copy_context()
        self.begun = self.over = False
        self._work = work
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
        try:
            with self._scope:
                self._value.append(await self._work())
        except trio.Cancelled:
            error = stopped()
            raise
        except BaseExceptionGroup as group:  # of a nursery's tasks: more than one were cut off
            if (cut := group.subgroup(trio.Cancelled)) is not None:
                error = stopped()
                raise cut from None
            error = group
        except BaseException as raised:  # noqa: BLE001 - the caller's to see, whatever it is
            error = raised
        finally:
            self.finish(error if error is not None or self._value else stopped())

    def finish(self, error: BaseException | None) -> None:
        """Be over, with `error` or the value of the work. Only the first time counts."""
        if not self.over:
            self._error = error
            self.over = True
            self._bell.ring()
