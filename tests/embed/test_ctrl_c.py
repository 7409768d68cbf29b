"""Ctrl-C, which Python raises in the main thread: what is under way ends first, in every host; a second is at once."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import pytest

from tests.embed.hosts import Host, Threads, bounded, nothing_held, our_threads
from tests.embed.test_opening_closing import SlowWorker
from tests.models import DONE, Scripted, Turn, model, says
from wizard_actors import BlockingClient, ResilientClient, StreamInterruptedError, WizardConfig, WizardResponse
from wizard_actors.config import ServerConfig

SLOW = Turn(("one ", 5.0, "two", DONE), closing=0.05)


@contextmanager
def ctrl_c(*after: float) -> Iterator[None]:
    """Interrupt the main thread after so many seconds, each time; and make sure that it raises."""
    timers = [threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT)) for seconds in after]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    for timer in timers:
        timer.start()
    try:
        with bounded(), pytest.raises(KeyboardInterrupt):
            yield
    finally:
        for timer in timers:
            timer.join()
        signal.signal(signal.SIGINT, before)


@contextmanager
def opened(a: Scripted) -> Iterator[BlockingClient]:
    """Open a client of one model."""
    with BlockingClient.open(WizardConfig(models=[model()]), providers={"a": a}) as client:
        yield client
    assert our_threads() == []


# -- a program as a whole ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["generate", "stream", "batch"])
def test_a_program_ends_in_order(host: Host, how: str) -> None:
    """The exchange is closed, the client too, and the interrupt comes out."""
    a = Scripted(SLOW)
    left: list[int] = []

    async def program() -> None:
        try:
            async with host.open(a) as client:
                await ask(client, how)
        finally:
            left.append(a.in_flight)

    start = time.monotonic()
    with ctrl_c(0.15):
        host.run(program)
    assert time.monotonic() - start < 2.0
    assert len(a.calls) == 1
    assert left == [0]
    assert our_threads() == []


async def ask(client: ResilientClient, how: str) -> object:
    """Ask in one way or another."""
    if how == "generate":
        return await client.generate("Why?")
    if how == "batch":
        return await client.generate_batch(["Why?"])
    async with client.stream("Why?") as stream:
        return [text async for text in stream.text()]


# -- a thread ----------------------------------------------------------------------------------------------------------


def test_a_call_ends_first_and_the_client_goes_on() -> None:
    """The interrupt is raised where the call stands."""
    a = Scripted(SLOW, says("yes"))
    with opened(a) as client:
        start = time.monotonic()
        with ctrl_c(0.1):
            client.generate("Why?")
        assert 0.15 <= time.monotonic() - start < 2.0
        assert a.in_flight == 0
        assert client.generate("Why?").text == "yes"


def test_a_second_one_is_raised_at_once() -> None:
    """The rest is done without anybody waiting."""
    a = Scripted(Turn(("one ", 5.0, "two", DONE), closing=0.5), says("yes"))
    with opened(a) as client:
        start = time.monotonic()
        with ctrl_c(0.1, 0.2):
            client.generate("Why?")
        assert time.monotonic() - start < 0.4
        assert a.in_flight == 1
        assert client.generate("Why?").text == "yes"
    assert a.in_flight == 0


def test_a_stream_ends_first_and_is_over() -> None:
    """Who reads on learns so."""
    a = Scripted(SLOW)
    with opened(a) as client, client.stream("Why?") as stream:
        assert next(stream).type == "text"
        with ctrl_c(0.1):
            next(stream)
        assert a.in_flight == 0
        with pytest.raises(StreamInterruptedError):
            next(stream)


def test_prompts_that_block_are_interrupted() -> None:
    """Where the caller's own code runs; what was under way ends first."""
    a = Scripted(SLOW)

    def prompts() -> Iterator[str]:
        yield "first"
        time.sleep(5.0)
        yield "second"

    with opened(a) as client:
        start = time.monotonic()
        with ctrl_c(0.1):
            client.generate_batch(prompts())
        assert time.monotonic() - start < 2.0
        assert (len(a.calls), a.in_flight) == (1, 0)


def test_opening_is_interrupted_and_leaves_nothing() -> None:
    """Half-way through a slow start."""
    with patch("wizard_actors.worker.ModelWorker", SlowWorker), ctrl_c(0.05):
        BlockingClient.open(WizardConfig(models=[model()]), providers={"a": Scripted()})
    assert our_threads() == []


def test_closing_is_interrupted_and_goes_on_by_itself() -> None:
    """Nobody waits for it any more; the call in another thread has its time."""
    a = Scripted(says("in ", 0.4, "time"))
    answers: list[WizardResponse] = []
    config = WizardConfig(models=[model()], server=ServerConfig(drain_timeout=2.0))
    client = BlockingClient.open(config, providers={"a": a})
    thread = threading.Thread(target=lambda: answers.append(client.generate("Why?")))
    thread.start()
    start = time.monotonic()
    while not a.in_flight:
        time.sleep(0.001)
    with ctrl_c(0.1):
        client.close()
    assert time.monotonic() - start < 0.35
    thread.join()
    assert [answer.text for answer in answers] == ["in time"]
    client.close()
    assert our_threads() == []


def test_other_threads_are_not_interrupted() -> None:
    """Their calls go on while the main thread's ends."""
    a = Scripted(Turn(("one ", 0.3, "two", DONE)))
    host = Threads()
    answers: list[str] = []

    async def scenario() -> None:
        async with host.open(a) as client:

            async def other() -> None:
                answers.append((await client.generate("Why?")).text)

            async with host.beside(other) as task:
                with ctrl_c(0.1):
                    await client.generate("Why?")
            task.result()
            await nothing_held(client, a)

    host.run(scenario)
    assert answers == ["one two"]
