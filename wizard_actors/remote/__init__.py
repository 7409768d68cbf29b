"""A client of a server elsewhere: `RemoteClient` has the methods of `ResilientClient`, over one WebSocket connection.

Address       where the server is, and with which key it is asked
live          one connection's life: it is dialled, used and closed
Connection    the requests of a connection, and what the server sends for each
Link          the connection in use: another one is dialled where it is lost, or its server drains
Call          one request, with its answers
TrioRemote    the client as it is under Trio
"""

from wizard_actors.remote.client import RemoteClient
from wizard_actors.remote.events import RemoteEvents
from wizard_actors.remote.sessions import RemoteSession, RemoteSessions

__all__ = ["RemoteClient", "RemoteEvents", "RemoteSession", "RemoteSessions"]
