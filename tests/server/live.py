"""A server on loopback, from its files on, and a client that speaks to it as `docs/protocol.md` says."""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import count
from pathlib import Path

import msgspec
import trio
from attrs import define, field
from trio_websocket import ConnectionClosed, ConnectionRejected, WebSocketConnection, wrap_client_stream

from wizard_actors.config import WizardConfig
from wizard_actors.server.key_settings import KeysConfig
from wizard_actors.server.keys_file import hash_of
from wizard_actors.server.serving import Server

__all__ = ["Changes", "Files", "Live", "Refused", "Talker", "knocked", "leaves", "live", "talking"]

MODEL = """
[[models]]
name = "{name}"
provider = "simulated"
simulated = {{ answer = "{answer}", first_token = {first_token}, per_chunk = {per_chunk} }}
"""


class Refused(Exception):  # noqa: N818 - an answer, as the server gave it
    """The server has answered with an error."""

    def __init__(self, error: Mapping[str, object]) -> None:
        super().__init__(error)
        data = error["data"]
        assert isinstance(data, Mapping)
        self.data: Mapping[str, object] = data


@define(eq=False)
class Changes:
    """What tests wait for: whoever changes something rings, and who waits looks again."""

    _next: trio.Event = field(factory=trio.Event)

    def ring(self) -> None:
        """Something has changed."""
        now, self._next = self._next, trio.Event()
        now.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds, for some seconds at most."""
        with trio.fail_after(10):
            while not holds():
                await self._next.wait()


@define
class Files:
    """The configuration and the keys of a server in `folder`, as they are written now."""

    folder: Path
    server: str = ""
    models: Mapping[str, Mapping[str, object]] = field(factory=lambda: {"first": {}})
    keys: Mapping[str, str] | None = None

    @property
    def config(self) -> Path:
        """The configuration's file."""
        return self.folder / "wizard.toml"

    def write(self) -> None:
        """Write both."""
        more = self.server
        if self.keys is not None:
            more += f"\napi_keys_file = '{self.folder / 'keys.toml'}'"
            tables = (f'[[keys]]\nname = "{name}"\nhash = "{hash_of(key)}"\n' for name, key in self.keys.items())
            (self.folder / "keys.toml").write_text("\n".join(tables))
            (self.folder / "keys.toml").chmod(0o600)
        usual: Mapping[str, object] = {"answer": "All is well.", "first_token": 0, "per_chunk": 0}
        models = "".join(MODEL.format(name=name, **{**usual, **given}) for name, given in self.models.items())
        self.config.write_text(
            f'[server]\nwebsocket = "127.0.0.1:0"\n{more}\n[sessions]\nstorage = "memory:"\n{models}'
        )


@define(eq=False)
class Live:
    """A server that runs, and what it has told."""

    files: Files
    server: Server = field(init=False)
    endpoints: Sequence[str] = ()
    told: list[str] = field(factory=list)
    errors: list[Exception] = field(factory=list)
    reloads: int = 0
    is_ready: trio.Event = field(factory=trio.Event)
    changes: Changes = field(factory=Changes)
    ended: trio.Event = field(factory=trio.Event)

    def __attrs_post_init__(self) -> None:
        self.server = Server(self.read, env={}, reporter=self)

    @property
    def url(self) -> str:
        """Where it listens."""
        return self.endpoints[0]

    async def read(self) -> WizardConfig:
        await trio.lowlevel.checkpoint()
        return WizardConfig.load(self.files.config, {})

    async def reload(self) -> str:
        """Write the files, have them read, and return what the server says of it."""
        self.files.write()
        return await self.read_again()

    async def read_again(self) -> str:
        """Have the files read as they are, and return what the server says of it."""
        before = self.reloads
        self.server.reload()
        await self.changes.until(lambda: self.reloads > before)
        return self.told[-1]

    # -- what it is told

    def ready(self, endpoints: Sequence[str], config: WizardConfig, keys: KeysConfig | None) -> None:
        self.endpoints = endpoints
        self.is_ready.set()

    def reloading(self) -> None:
        self.told.append("reloading")

    def reloaded(self, changes: Sequence[str], config: WizardConfig) -> None:
        self.told.append("; ".join(changes))
        self.reloads += 1
        self.changes.ring()

    def refused(self, error: Exception) -> None:
        self.errors.append(error)
        self.told.append(f"refused: {error}")
        self.reloads += 1
        self.changes.ring()

    def stopping(self, in_progress: int) -> None:
        self.told.append(f"stopping: {in_progress}")

    async def run(self) -> None:
        """Serve to the end."""
        await self.server.run()
        self.ended.set()


@asynccontextmanager
async def live(files: Files) -> AsyncIterator[Live]:
    """Serve `files` for the length of a block, and then stop."""
    files.write()
    running = Live(files)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(running.run)
        with trio.fail_after(10):
            await running.is_ready.wait()
        yield running
        running.server.stop()
        with trio.fail_after(20):
            await running.ended.wait()


@define(eq=False)
class Talker:
    """One connection: requests at once, each with its response; `notes` are the notifications, as they came."""

    socket: WebSocketConnection
    notes: list[Mapping[str, object]] = field(factory=list)
    draining: bool = False
    code: int | None = None
    _numbers: Iterator[int] = field(factory=lambda: count(1))
    _waiting: dict[object, trio.MemorySendChannel[Mapping[str, object]]] = field(factory=dict)
    gone: trio.Event = field(factory=trio.Event)
    changes: Changes = field(factory=Changes)

    async def ask(self, method: str, **params: object) -> Mapping[str, object]:
        """Return the result. Raises `Refused`, and `ConnectionClosed` where the connection ends first."""
        number = next(self._numbers)
        sender, answers = trio.open_memory_channel[Mapping[str, object]](1)
        self._waiting[number] = sender
        message = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        await self.socket.send_message(msgspec.json.encode(message).decode())
        try:
            answer = await answers.receive()
        except trio.EndOfChannel:
            raise ConnectionClosed(self.socket.closed) from None
        if isinstance(error := answer.get("error"), Mapping):
            raise Refused(error)
        result = answer["result"]
        assert isinstance(result, Mapping)
        return result

    async def noted(self, method: str) -> None:
        """Wait for a notification."""
        await self.changes.until(lambda: any(note["method"] == method for note in self.notes))

    async def listen(self) -> None:
        """Take what comes until the connection ends."""
        with suppress(ConnectionClosed):
            while True:
                message = msgspec.json.decode(await self.socket.get_message(), type=dict[str, object])
                if "method" in message:
                    self.notes.append(message)
                    self.draining |= message["method"] == "draining"
                    self.changes.ring()
                else:
                    self._waiting.pop(message["id"]).send_nowait(message)
        self.gone.set()
        self.code = None if self.socket.closed is None else self.socket.closed.code
        for sender in self._waiting.values():
            sender.close()


@asynccontextmanager
async def talking(url: str, key: str | None = None) -> AsyncIterator[Talker]:
    """Open a connection for the length of a block. Raises what `wrap_client_stream` does."""
    headers = [] if key is None else [(b"Authorization", f"Bearer {key}".encode())]
    address = url.removeprefix("ws://")
    host, _, port = address.rpartition(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream, trio.open_nursery() as nursery:
        with trio.fail_after(2):  # trio-websocket waits for ever where the stream ends before the answer
            socket = await wrap_client_stream(
                nursery, stream, address, "/", subprotocols=["wizard.v1"], extra_headers=headers
            )
        talker = Talker(socket)
        nursery.start_soon(talker.listen)
        yield talker
        with trio.move_on_after(1):
            await socket.aclose()
        nursery.cancel_scope.cancel()


async def knocked(url: str, key: str | None = None) -> int:
    """Return with which HTTP status a handshake ends."""
    statuses = [101]
    try:
        async with talking(url, key):
            pass
    except* ConnectionRejected as group:
        statuses = [error.status_code for error in leaves(group) if isinstance(error, ConnectionRejected)]
    return statuses[0]


def leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield what a group holds, however deep."""
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from leaves(each)
    else:
        yield error
