"""What all endpoints of a server share: the client, who may use it, and how much of it, and when it ends."""

from __future__ import annotations

import trio

from wizard_actors.config.tables import ServerConfig
from wizard_actors.server.access import Access, Caller
from wizard_actors.server.admission import Admission
from wizard_actors.server.callers import CallersClient
from wizard_actors.server.limits import Limits
from wizard_actors.trio_client import TrioClient

__all__ = ["Service"]


class Service:
    """One client, offered to callers. `draining` is set when no new requests are taken, `ending` when those that are
    still in progress are to be answered with an error: the time of the drain is up.
    """

    def __init__(self, client: TrioClient, access: Access, limits: Limits) -> None:
        self.client = client
        self.access = access
        self.limits = limits
        self.admission = Admission()
        self.draining = trio.Event()
        self.ending = trio.Event()

    @property
    def settings(self) -> ServerConfig:
        """The settings in force."""
        return self.client.config.server

    def client_of(self, caller: Caller) -> CallersClient:
        """Return what `caller` may do with the client. Raises `AccessDeniedError` where its key is good no more."""
        return CallersClient(self.client, self.access.current(caller), self.limits, self.access)
