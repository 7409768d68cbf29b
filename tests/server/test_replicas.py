"""Several servers behind one address, restarted one after the other while they are used."""

import re
import signal
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self

import pytest
import trio
from attrs import define, field
from trio_websocket import ConnectionClosed, ConnectionRejected

from tests.server.balancer import Balancer, balancing
from tests.server.live import Refused, Talker, talking
from tests.wizard_cli import start

GOING_AWAY = 1001

CONFIG = """
[server]
websocket = "127.0.0.1:0"
[sessions]
storage = "memory:"
[logging]
level = "WARNING"
[[models]]
name = "pretender"
provider = "simulated"
simulated = { answer = "All is well.", first_token = 0.02, per_chunk = 0.01 }
"""


@define(eq=False)
class Replica:
    """A server in a process of its own."""

    process: trio.Process
    port: int = 0

    @classmethod
    async def started(cls, folder: Path, stack: AsyncExitStack) -> Self:
        """Start one, and return when it serves; `stack` sees to it that it ends."""
        replica = cls(await start("serve", cwd=folder))
        stack.push_async_callback(replica.gone)
        said, errors = b"", replica.process.stderr
        assert errors is not None
        with trio.fail_after(20):
            while not (found := re.search(rb"serving ws://127\.0\.0\.1:(\d+) ", said)):
                more = await errors.receive_some()
                assert more, said
                said += more
        replica.port = int(found[1])
        return replica

    async def stopped(self) -> int:
        """Stop it as an operator does, and return its exit status."""
        self.process.send_signal(signal.SIGTERM)
        with trio.fail_after(20):
            return await self.process.wait()

    async def gone(self) -> None:
        """Leave nothing of it behind."""
        with trio.CancelScope(shield=True):
            if self.process.returncode is None:
                self.process.kill()
            await self.process.wait()
            for pipe in (self.process.stdout, self.process.stderr):
                if pipe is not None:
                    await pipe.aclose()


@define(eq=False)
class Caller:
    """A client that keeps to the protocol. Where its server drains it connects anew for its next request, and what was
    not begun it sends again: what is refused, and what has no response when a server that drains closes the connection.
    Anything else is a failure.
    """

    balancer: Balancer
    over: trio.Event
    answers: list[object] = field(factory=list)
    failures: list[object] = field(factory=list)

    async def run(self) -> None:
        while not self.over.is_set():
            try:
                async with talking(f"127.0.0.1:{self.balancer.port}") as talker:
                    await self.ask(talker)
            except* (ConnectionClosed, ConnectionRejected, trio.TooSlowError):
                await trio.sleep(0.01)  # it went while the connection was being opened: nothing has been asked yet

    async def ask(self, talker: Talker) -> None:
        """Ask one question after the other, until there is a reason to connect anew."""
        while not self.over.is_set() and not talker.draining and not talker.gone.is_set():
            try:
                self.answers.append((await talker.ask("generate", prompt="Is all well?"))["text"])
            except Refused as refused:
                if (refused.data["code"], refused.data.get("actor")) != ("actor_stopped", "server"):
                    self.failures.append(refused)
                return
            except ConnectionClosed as closed:
                if closed.reason is None or closed.reason.code != GOING_AWAY:
                    self.failures.append(closed)
                return


@pytest.mark.long
async def test_replicas_that_are_restarted_in_turn_fail_no_request(tmp_path: Path) -> None:
    """Each is stopped with SIGTERM and started again under load, without a word to the balancer: callers use the other
    one meanwhile.
    """
    (tmp_path / "wizard.toml").write_text(CONFIG)
    over = trio.Event()
    with trio.fail_after(60):
        async with AsyncExitStack() as stack:
            replicas = [await Replica.started(tmp_path, stack) for _ in range(2)]
            async with balancing([replica.port for replica in replicas]) as balancer:
                callers = [Caller(balancer, over) for _ in range(6)]
                async with trio.open_nursery() as nursery:
                    for caller in callers:
                        nursery.start_soon(caller.run)
                    await balancer.changes.until(lambda: len(balancer.taken) == 2)
                    for replica in replicas:
                        assert await replica.stopped() == 0
                        anew = await Replica.started(tmp_path, stack)
                        balancer.ports[balancer.ports.index(replica.port)] = anew.port
                    await balancer.changes.until(lambda: len(balancer.taken) >= 3)
                    over.set()
    assert [caller.failures for caller in callers] == [[]] * len(callers)
    assert {answer for caller in callers for answer in caller.answers} == {"All is well."}
    assert min(len(caller.answers) for caller in callers) > 10
