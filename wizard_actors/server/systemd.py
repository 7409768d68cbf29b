"""What systemd is told of a service of `Type=notify` or `Type=notify-reload`: see sd_notify(3)."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Mapping
from typing import Final

__all__ = ["notify", "ready", "reloading", "stopping"]

log = logging.getLogger("wizard_actors.server")

VARIABLE: Final = "NOTIFY_SOCKET"


def ready(env: Mapping[str, str]) -> None:
    """Say that the service has started, or has reloaded."""
    notify("READY=1", env)


def reloading(env: Mapping[str, str]) -> None:
    """Say that the service reloads; `ready` says that it is through."""
    # CLOCK_MONOTONIC is what systemd compares with, and it is Python's clock wherever there is systemd.
    notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}", env)


def stopping(env: Mapping[str, str]) -> None:
    """Say that the service stops."""
    notify("STOPPING=1", env)


def notify(message: str, env: Mapping[str, str]) -> None:
    """Send `message` to the socket that `env`'s NOTIFY_SOCKET names; without one, do nothing. Never waits or raises:
    where nobody can be told, a warning is logged.
    """
    name = env.get(VARIABLE, "")
    if not name.startswith(("/", "@")):  # what else systemd may name, no service of ours is given
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto(message.encode(), f"\0{name[1:]}" if name[0] == "@" else name)
    except OSError as error:
        log.warning("systemd cannot be told %r: %s", message.partition("\n")[0], error.strerror)
