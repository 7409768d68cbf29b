"""A connection's bytes: sent piece by piece, each within its time, and closed without tearing a frame."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, lockstep_stream_pair, wait_all_tasks_blocked

from wizard_actors.server.held_stream import PIECE, HeldStream


async def test_each_piece_has_the_whole_time(autojump_clock: MockClock) -> None:
    """A long message on a slow line gets there, however long that takes in all."""
    ours, theirs = lockstep_stream_pair()
    held, taken = HeldStream(ours, send_timeout=30.0, max_message=1024), 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(held.send_all, b"x" * (10 * PIECE))
        while taken < 10 * PIECE:
            taken += len(await theirs.receive_some(PIECE // 2))
            await trio.sleep(10)

    assert trio.current_time() >= 200


async def test_a_piece_that_is_not_taken_in_time_breaks_the_connection(autojump_clock: MockClock) -> None:
    """After `send_timeout`."""
    ours, _theirs = lockstep_stream_pair()
    held = HeldStream(ours, send_timeout=30.0, max_message=1024)

    with pytest.raises(trio.BrokenResourceError, match="30 s"):
        await held.send_all(b"x")

    assert trio.current_time() == 30


async def test_what_is_taken_of_a_long_message_is_a_sign_of_life(autojump_clock: MockClock) -> None:
    """Each piece is, and a short one that was long in coming; one that is gone at once may lie in a buffer here."""
    ours, theirs = lockstep_stream_pair()
    held = HeldStream(ours, send_timeout=30.0, max_message=1024)

    async def signs(size: int, after: float) -> int:
        before = held.signs
        async with trio.open_nursery() as nursery:
            nursery.start_soon(held.send_all, b"x" * size)
            await trio.sleep(after)
            taken = 0
            while taken < size:
                taken += len(await theirs.receive_some())
        return held.signs - before

    assert [await signs(3 * PIECE, 0.0), await signs(10, 5.0), await signs(10, 0.0)] == [3, 1, 0]
    assert (held.alive_at, trio.current_time()) == (5.0, 5.0)


async def test_a_frame_that_is_half_out_is_not_followed_by_another(autojump_clock: MockClock) -> None:
    """It would be read as a part of it."""
    ours, theirs = lockstep_stream_pair()
    held = HeldStream(ours, send_timeout=30.0, max_message=1024)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(held.send_all, b"x" * 100)
        received = await theirs.receive_some(50)
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(held.say_why, b"why")
        await wait_all_tasks_blocked()
        nursery.start_soon(held.finish)
        while data := await theirs.receive_some():
            received += data
        await theirs.aclose()

    assert b"why" not in received


async def test_what_is_wrong_is_said_once(autojump_clock: MockClock) -> None:
    """Between frames it is sent; after a frame that closes already it is not."""
    ours, theirs = lockstep_stream_pair()
    held, received = HeldStream(ours, send_timeout=30.0, max_message=1024), b""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(held.say_why, b"why")
        received += await theirs.receive_some()
        await wait_all_tasks_blocked()
        await held.say_why(b"why again")

    assert received == b"why"
