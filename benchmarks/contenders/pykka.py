"""An ask of a Pykka actor, which is a thread of its own, from one thread and from many. `ask` of the actor's reference
is what its documentation gives for messages; a proxy's call makes one, and more.
"""

from __future__ import annotations

from _harness import Bench, importing, main

with importing():
    from pykka import ActorRegistry, ThreadingActor


class Wall(ThreadingActor):
    """Answers with what it was asked."""

    def on_receive(self, message: int) -> int:
        """Answer."""
        return message


def run(bench: Bench, *, crowd: bool) -> None:
    """Time asks of one actor."""
    ref = Wall.start()

    def one() -> None:
        ref.ask(1)

    try:
        bench.same(ref.ask(7), 7)
        if crowd:
            bench.threads(one, shared=True)
        else:
            bench.blocking(one)
    finally:
        ActorRegistry.stop_all()


def ask(bench: Bench) -> None:
    """One after another."""
    run(bench, crowd=False)


def ask64(bench: Bench) -> None:
    """Many at once."""
    run(bench, crowd=True)


if __name__ == "__main__":
    main({"ask": ask, "ask64": ask64}, "pykka")
