"""A call of a TriOTP gen_server, in a node without logging, as its documentation starts one. This module is the
server's module and the application's: TriOTP finds `init`, `handle_call` and `start` in it.
"""

from __future__ import annotations

from _harness import Bench, importing, main

with importing():
    import trio
    from triotp import application, gen_server, node, supervisor
    from triotp.helpers import current_module

HERE = current_module()
NAME = "wall"


async def init(registered: trio.Event) -> None:  # noqa: ASYNC124 - TriOTP awaits it
    """Begin without any state, and tell that the server can be called."""
    registered.set()


async def handle_call(  # noqa: ASYNC124 - TriOTP awaits it
    number: int, _caller: object, state: None
) -> tuple[gen_server.Reply, None]:
    """Answer with the number."""
    return gen_server.Reply(payload=number), state


async def start(argument: tuple[Bench, bool]) -> None:
    """Run the application: the server under a supervisor, and the calls."""
    bench, crowd = argument
    registered = trio.Event()
    children = [supervisor.child_spec(id=NAME, task=gen_server.start, args=[HERE, registered, NAME])]

    async def one() -> None:
        await gen_server.call(NAME, 1)

    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.start, children, supervisor.options())
        await registered.wait()
        bench.same(await gen_server.call(NAME, 7), 7)
        await (bench.trio_crowd(one, shared=True) if crowd else bench.sequential(one))
        nursery.cancel_scope.cancel()


def run(bench: Bench, *, crowd: bool) -> None:
    """Time calls of one server."""
    # An application that fails is not started again: the failure is told.
    options = supervisor.options(max_restarts=0)
    node.run(apps=[application.app_spec(module=HERE, start_arg=(bench, crowd), permanent=False, opts=options)])


def ask(bench: Bench) -> None:
    """One after another."""
    run(bench, crowd=False)


def ask64(bench: Bench) -> None:
    """Many at once."""
    run(bench, crowd=True)


if __name__ == "__main__":
    main({"ask": ask, "ask64": ask64}, "triotp", "trio")
