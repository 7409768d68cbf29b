"""Which storage a configuration names, and how it is opened.

`sessions.storage` is a scheme, a colon and a place. The schemes of ours are never looked for elsewhere; any other one
is the name of an entry point, in the group "wizard_actors.storages" of an installed package: a function that is called
with the place and returns an async context manager, whose block has the storage.

    [project.entry-points."wizard_actors.storages"]
    postgres = "acme_wizard:open_postgres"

Such a place may hold a password: no error here repeats it.
"""

from __future__ import annotations

import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from inspect import getattr_static, iscoroutine
from pathlib import Path
from typing import Final, TypeAlias, cast
from urllib.parse import unquote

from attrs import evolve, field, frozen

from wizard_actors import plugins
from wizard_actors.config import SessionsConfig
from wizard_actors.errors import ConfigError, ConfigProblem
from wizard_actors.storage.base import SessionStorage
from wizard_actors.storage.file import FileStorage
from wizard_actors.storage.memory import MemoryStorage
from wizard_actors.storage.sqlite import SqliteStorage

__all__ = ["Opener", "opener", "scheme_of"]

Opener: TypeAlias = Callable[[], AbstractAsyncContextManager[SessionStorage]]
"""Opens a storage for the length of a block, each time it is called."""

KEY: Final = "sessions.storage"


def scheme_of(url: str) -> str:
    """Return what stands before the colon: the name of the backend."""
    return url.partition(":")[0]


def opener(url: str) -> Opener:
    """Return what opens the storage that `url` names; nothing is opened yet.

    A path is relative to the working directory as it is now, `~` is the home of the user. Raises `ConfigError` about
    `sessions.storage`, and where it opens one that is not ours: for a scheme that nobody offers, for an entry point
    that cannot be loaded, or that returns no async context manager.
    """
    try:
        SessionsConfig(storage=url)
    except ConfigError as error:
        raise ConfigError([evolve(problem, key=KEY) for problem in error.problems]) from None
    scheme, _, place = url.partition(":")
    match scheme:
        case "memory":
            return MemoryStorage.open
        case "sqlite":
            return partial(SqliteStorage.open, _path(place))
        case "file":
            return partial(FileStorage.open, _path(place))
    offered = plugins.load(plugins.STORAGES, scheme, key=KEY)
    if not callable(offered):
        raise _fault(scheme, f"is no function that opens a storage, but an object of type {type(offered).__name__}")
    return _Own(scheme, place, cast("Callable[[str], object]", offered)).open


def _path(place: str) -> Path:
    try:
        return Path(place).expanduser().absolute()
    except RuntimeError:
        raise ConfigError([ConfigProblem(KEY, "names the home of an unknown user")]) from None


def _fault(scheme: str, what: str) -> ConfigError:
    """Return the error for the entry point of `scheme`: it `what`."""
    return ConfigError([ConfigProblem(KEY, f"names {plugins.find(plugins.STORAGES, scheme, key=KEY)}, which {what}")])


@frozen
class _Own:
    """The storage of another package, at a place that is not to be told."""

    scheme: str
    place: str = field(repr=False)
    function: Callable[[str], object] = field(repr=False)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[SessionStorage]:
        async with AsyncExitStack() as stack:
            yield await self._entered(stack)

    async def _entered(self, stack: AsyncExitStack) -> SessionStorage:
        try:
            return await stack.enter_async_context(self._manager())
        except Exception as error:
            if not self._repeated_in(error):
                raise
            kind = type(error).__name__
        # Out of the `except`: an error that is raised in it keeps the other one.
        raise _fault(self.scheme, f"failed to open it: its {kind} is not told, for it repeats the place")

    def _manager(self) -> AbstractAsyncContextManager[SessionStorage]:
        made = self.function(self.place)
        if iscoroutine(made):
            made.close()
            raise _fault(self.scheme, "is an async function: a plain one returns the async context manager")
        if any(getattr_static(made, name, None) is None for name in ("__aenter__", "__aexit__")):
            raise _fault(self.scheme, f"returned no async context manager, but an object of type {type(made).__name__}")
        return cast("AbstractAsyncContextManager[SessionStorage]", made)

    def _repeated_in(self, error: Exception) -> bool:
        """Whether the text of an error, or of one behind it, has the place in it, or the password there."""
        told = "".join(traceback.format_exception(error, limit=0))
        password = self.place.rpartition("@")[0].rpartition(":")[2]
        return any(secret and secret in told for secret in (self.place, password, unquote(password)))
