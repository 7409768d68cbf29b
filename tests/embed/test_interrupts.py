"""Ctrl-C between any two lines of what waits for another thread: nothing hangs, and nothing stays behind."""

from __future__ import annotations

import gc
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import pytest

from tests.embed.hosts import our_threads
from tests.models import Scripted, model, says
from wizard_actors import BlockingClient, WizardConfig
from wizard_actors.embed import blocking_host, call, errands, pipe, thread

WATCHED = {module.__file__ for module in (blocking_host, call, errands, pipe, thread)}
CONFIG = WizardConfig(models=[model("a")])
HANGS = 3.0


class Interrupt:
    """Raises KeyboardInterrupt before line number `at` that the main thread runs in the watched files."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self, frame: FrameType, event: str, _arg: object) -> Callable[..., object] | None:
        """Trace one call."""
        return self._line if frame.f_code.co_filename in WATCHED else None

    def _line(self, _frame: FrameType, event: str, _arg: object) -> Callable[..., object]:
        if event == "line":
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt
        return self._line


@contextmanager
def interrupted(at: int) -> Iterator[Interrupt]:
    """Interrupt the block at such a line, and fail where it hangs."""

    def stuck(_number: int, _frame: FrameType | None) -> None:
        raise AssertionError(f"hangs after a Ctrl-C at line {at}")

    interrupt, tracer, before = Interrupt(at), sys.gettrace(), signal.signal(signal.SIGALRM, stuck)
    signal.setitimer(signal.ITIMER_REAL, HANGS)
    sys.settrace(interrupt)  # type: ignore[arg-type]  # a type for itself cannot be written without Any
    try:
        yield interrupt
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(tracer)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def opened(provider: Scripted) -> BlockingClient:
    """Return a client of one model."""
    return BlockingClient.open(CONFIG, providers={"a": provider})


def read(client: BlockingClient) -> None:
    """Read a stream to its end."""
    with client.stream("Why?") as stream:
        list(stream)


def test_a_ctrl_c_anywhere_in_opening_leaves_nothing() -> None:
    """No thread, and none that the program's end would wait for."""
    at, reached = 0, True
    while reached:
        at += 1
        client: BlockingClient | None = None
        with interrupted(at) as interrupt:
            client = opened(Scripted())
        reached = interrupt.left <= 0
        if client is not None:
            client.close()
        assert our_threads() == [], f"line {at}"
        assert not thread.running, f"line {at}"
    assert at > 10


@pytest.mark.parametrize(
    "use",
    [lambda client: client.generate("Why?"), lambda client: client.generate_batch(["Why?"]), read],
    ids=["generate", "generate_batch", "stream"],
)
def test_a_ctrl_c_anywhere_in_a_call_leaves_nothing(use: Callable[[BlockingClient], object]) -> None:
    """The client answers the next one, and nothing is under way upstream. Every third line will do."""
    at, reached, provider = 0, True, Scripted(says("one ", 0.002, "two"))
    with opened(provider) as client:
        while reached:
            at += 3
            with interrupted(at) as interrupt:
                use(client)
            reached = interrupt.left <= 0
            assert client.generate("Why?").text == "one two"
            gauges = client.metrics().gauges
            assert gauges is not None
            assert gauges.in_flight == 0, f"line {at}"
            assert provider.in_flight == 0, f"line {at}"
    assert at > 10


def test_a_ctrl_c_anywhere_in_closing_still_closes() -> None:
    """The wait ends; the thread does, too."""
    at, reached = 0, True
    while reached:
        at += 1
        client = opened(Scripted())
        with interrupted(at) as interrupt:
            client.close()
        reached = interrupt.left <= 0
        client.close()
        assert our_threads() == [], f"line {at}"
    gc.collect()
    assert at > 5
