"""Counts what each user has used: calls to models, tokens, US dollars.

    python docs/examples/usage_per_user.py

Who asks is a context variable, and the counting hangs on the client's events: whatever the program asks for a user, by
whichever way, is on that user's bill. Its models are simulated; WIZARD_CONFIG=wizard.toml names real ones, which need a
`price`.
"""

import asyncio
import os
import threading
from contextvars import ContextVar
from decimal import Decimal

from attrs import define

from wizard_actors import ProviderError, ResilientClient, WizardConfig
from wizard_actors.events import AttemptEnded, Event, RequestEnded

SIMULATED = WizardConfig.from_toml("""
[cache]
max_entries = 1000

[[models]]
name = "first"
provider = "simulated"
price = { input = 2, output = 8 }           # US dollars a million tokens
retry = { max_attempts = 1 }
simulated = { script = [{ fault = "truncate", after_words = 5 }, { fault = "error" }] }

[[models]]
name = "second"
provider = "simulated"
price = { input = 1, output = 4 }
""")

USER: ContextVar[str] = ContextVar("user", default="nobody")


@define
class Bill:
    """What one user has used. `unknown` counts calls that were broken off, whose tokens no provider has told."""

    requests: int = 0
    cached: int = 0
    calls: int = 0
    unknown: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: Decimal = Decimal(0)


class Bills:
    """The bill of each user. `client.events.listen(bills.hear)`."""

    def __init__(self) -> None:
        self._bills: dict[str, Bill] = {}
        self._lock = threading.Lock()  # under asyncio, events come in the client's thread

    def hear(self, event: Event) -> None:
        """Count an event. It is told in the middle of a request, in that request's context: be quick."""
        if isinstance(event, AttemptEnded | RequestEnded):
            with self._lock:
                bill = self._bills.setdefault(USER.get(), Bill())
                if isinstance(event, AttemptEnded):
                    count_attempt(bill, event)
                else:
                    bill.requests += 1
                    bill.cached += event.served_by == "cache"  # which was no attempt, and costs nothing

    def table(self) -> str:
        """Return the bills as a table."""
        with self._lock:
            rows = [
                f"{user:8} {bill.requests:8} {bill.cached:6} {bill.calls:5} {bill.unknown:7} "
                f"{bill.input_tokens:8} {bill.output_tokens:9} {bill.cost:10.6f}"
                for user, bill in sorted(self._bills.items())
            ]
        return "\n".join(["user     requests cached calls unknown tokens_in tokens_out      cost", *rows])


def count_attempt(bill: Bill, event: AttemptEnded) -> None:
    """Count one call to one model, also where it failed: what it used before is billed all the same."""
    if not event.sent:
        return
    bill.calls += 1
    bill.input_tokens += event.input_tokens
    bill.output_tokens += event.output_tokens
    if event.cost is not None:
        bill.cost += event.cost
    elif not (isinstance(event.error, ProviderError) and (event.error.status or 0) >= 400):
        bill.unknown += 1  # not refused: it has begun, and somebody will bill it


async def serve(client: ResilientClient, user: str, *questions: str) -> None:
    """Answer one user; in a service, the variable is set where the user is found out."""
    USER.set(user)  # in this task alone
    for question in questions:
        await client.generate(question)


async def main() -> None:
    """Let three users ask, and print their bills."""
    bills = Bills()
    async with ResilientClient.open(os.environ.get("WIZARD_CONFIG") or SIMULATED) as client:
        client.events.listen(bills.hear)
        await asyncio.create_task(serve(client, "ann", "Why actors?", "And why not threads?"))
        async with asyncio.TaskGroup() as users:
            users.create_task(serve(client, "bob", "Why Trio?"))
            users.create_task(serve(client, "cleo", "Why actors?"))  # ann has paid for that answer
    print(bills.table())


if __name__ == "__main__":
    asyncio.run(main())
