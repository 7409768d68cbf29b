"""An actor of one's own beside the client's: it says, before a call, whether a user may still spend, and is told after.

    python docs/examples/own_actor.py [--trio]

Under asyncio the actor lives in the client's thread, and `client.run` reaches it; under Trio that is a plain call, so
that one program works under both. Its model is simulated; WIZARD_CONFIG=wizard.toml names real ones, which need a
`price`.
"""

import asyncio
import os
import sys
from collections.abc import Mapping
from decimal import Decimal
from types import MappingProxyType
from uuid import uuid4

import anyio
import trio
from attrs import evolve, frozen

from wizard_actors import ResilientClient, WizardConfig, WizardError
from wizard_actors.actor import Actor, ActorRef, Ask, Reply, handles, hears
from wizard_actors.supervisor import ChildSpec

SIMULATED = WizardConfig.from_toml("""
[[models]]
name = "large"
provider = "simulated"
price = { input = 1000, output = 4000 }     # US dollars a million tokens
""")

LIMIT = Decimal("0.10")  # US dollars a user
ESTIMATE = Decimal("0.05")  # of one call, held back until its true cost is known


class OverBudgetError(WizardError):
    """Raised when a user has nothing left to spend."""

    code = "over_budget"


@frozen
class Account:
    """What one user has spent, and what is held back for each of their calls."""

    spent: Decimal = Decimal(0)
    held: Mapping[str, Decimal] = MappingProxyType({})

    @property
    def left(self) -> Decimal:
        """What may still be spent."""
        return LIMIT - self.spent - sum(self.held.values())


@frozen
class Reserve(Ask[Decimal]):
    """May `user` make the call `call`? Answered with what is left then, or failed with `OverBudgetError`."""

    user: str
    call: str


@frozen
class Settle:
    """The call has ended, whatever became of it. Where it was never reserved, this means nothing."""

    user: str
    call: str
    cost: Decimal


class Spending(Actor):
    """All accounts. `carry` is what the last incarnation had published: no crash forgets what was spent."""

    def __init__(self, carry: object) -> None:
        self._accounts: dict[str, Account] = dict(carry) if isinstance(carry, Mapping) else {}

    @handles(Reserve)
    def reserve(self, message: Reserve, reply: Reply[Decimal], now: float) -> None:
        """Hold the estimate back."""
        account = self._accounts.get(message.user, Account())
        if account.left < ESTIMATE:
            reply.fail(OverBudgetError(f"{message.user} has {account.left} of {LIMIT} dollars left"))
            return
        account = evolve(account, held=MappingProxyType({**account.held, message.call: ESTIMATE}))
        if reply.send(account.left):  # else the caller has left in this instant, and will not call
            self._accounts[message.user] = account

    @hears(Settle)
    def settle(self, message: Settle, now: float) -> None:
        """Replace what was held back by what it cost."""
        account = self._accounts.get(message.user, Account())
        if message.call in account.held:
            held = MappingProxyType({call: held for call, held in account.held.items() if call != message.call})
            self._accounts[message.user] = Account(account.spent + message.cost, held)

    def snapshot(self) -> Mapping[str, Account]:
        """What is published after each message, and outlives a crash. For very many users keep less of each."""
        return MappingProxyType(dict(self._accounts))


Guard = ActorRef[Mapping[str, Account]]


async def add_guard(client: ResilientClient) -> Guard:
    """Put the actor into the client's tree: supervised with it, shown in `client.tree()`, stopped with it."""
    await client.run(client.supervisor.add, ChildSpec("spending", lambda _ledger, carry: Spending(carry)))
    return client.supervisor.ref("spending", MappingProxyType)


async def guarded(client: ResilientClient, guard: Guard, user: str, prompt: str) -> str:
    """Ask a model for `user`. Raises `OverBudgetError`, and `ActorError` where the guard is down: none spends then."""
    call, cost = uuid4().hex, ESTIMATE  # a call that is cancelled is billed all the same: the estimate stands
    try:
        await client.run(guard.ask, Reserve(user, call))
        response = await client.generate(prompt)
        cost = response.cost or Decimal(0)
        return response.text
    except WizardError as error:
        cost = sum((attempt.cost or Decimal(0) for attempt in error.attempts), Decimal(0))
        raise
    finally:
        await client.run(tell, guard, Settle(user, call, cost))


async def tell(guard: Guard, message: Settle) -> None:
    """Tell the actor, in the thread in which it lives."""
    guard.tell(message)


async def crash(client: ResilientClient) -> None:
    """Crash the actor, as a bug in one of its handlers would."""
    client.supervisor.kill("spending", RuntimeError("a drill"))


async def call(client: ResilientClient, guard: Guard, user: str, number: int) -> None:
    """Make one call, and say what came of it."""
    try:
        print(f"{user}, call {number}: {await guarded(client, guard, user, 'Why actors?')}")
    except OverBudgetError as error:
        print(f"{user}, call {number}: {error.code}: {error}")


async def main() -> None:
    """Spend until the guard says no. It crashes in the middle of the first call."""
    async with ResilientClient.open(os.environ.get("WIZARD_CONFIG") or SIMULATED) as client:
        guard = await add_guard(client)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call, client, guard, "ann", 1)
            await anyio.sleep(0.1)  # the call is under way, and what it may cost held back
            await client.run(crash, client)
        for number in range(2, 5):
            await call(client, guard, "ann", number)
        await call(client, guard, "bob", 1)
        [node] = [node for node in client.tree().walk() if node.path == "wizard/spending"]
        print(f"{node.path} {node.state}, restarts: {node.restarts}, last error: {node.error}")


if __name__ == "__main__":
    if "--trio" in sys.argv:
        trio.run(main)
    else:
        asyncio.run(main())
