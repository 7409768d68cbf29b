"""A server with its page on a socket, and somebody who asks it over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import trio
from attrs import define

from tests.server.http_wire import HttpWire
from tests.server.keyed import key
from tests.server.live import Files, Live, live

__all__ = ["PageFiles", "asking", "page_served"]


@define
class PageFiles(Files):
    """Files of a server that speaks HTTP alone; `keys` are those of admins or not, by name."""

    tables: str = ""
    admins: Mapping[str, bool] | None = None
    port: int = 0

    def write(self) -> None:
        """Write them."""
        more = self.server
        if self.admins is not None:
            more += f"\napi_keys_file = '{self.folder / 'keys.toml'}'"
            tables = (
                f'[[keys]]\nname = "{name}"\nhash = "{key(name).hash}"\nadmin = {str(admin).lower()}\n'
                for name, admin in self.admins.items()
            )
            (self.folder / "keys.toml").write_text("\n".join(tables))
            (self.folder / "keys.toml").chmod(0o600)
        self.config.write_text(
            f'[server]\nhttp = "127.0.0.1:{self.port}"\n{more}\n[sessions]\nstorage = "memory:"\n{self.tables}'
        )


@asynccontextmanager
async def page_served(
    folder: Path, tables: str, *, server: str = "", admins: Mapping[str, bool] | None = None, port: int = 0
) -> AsyncIterator[Live]:
    """Serve models for the length of a block; with `admins`, for the holders of keys "wz_NAME", admins or not, and at
    `port`, 0: any.
    """
    async with live(PageFiles(folder, server=server, tables=tables, admins=admins, port=port)) as running:
        yield running


@asynccontextmanager
async def asking(url: str) -> AsyncIterator[HttpWire]:
    """Open a connection for the length of a block."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        yield HttpWire(stream)
