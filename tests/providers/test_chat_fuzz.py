"""Damaged Chat Completions traffic, and traffic without end: events or one of our errors, in bounded memory.

`pytest -q tests/providers/test_chat_fuzz.py --seeds 2500` tries 10,000 bodies.
"""

import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

from tests.mutations import mutated
from tests.recordings import recorded
from wizard_actors.errors import ParseError, ProviderError, TokenLimitError, WizardError
from wizard_actors.providers.answer import MAX_BODY, MAX_ERROR_BODY, AnswerParser
from wizard_actors.providers.openai_chunks import ChunkReader
from wizard_actors.providers.refusals import Head
from wizard_actors.streaming import MAX_EVENT, Assembly

BODIES = 4
"""How many are tried for each seed."""

SLOWEST = 5.0
"""Seconds that no body may take to read, on the slowest of machines."""

STATUSES = (200, 200, 200, 200, 200, 400, 429, 500, 503)
PIECE = 2**20
ENDLESS = 100 * PIECE


def outcome_of(pieces: list[bytes], status: int, content_type: str) -> str | WizardError:
    """Return "finished" or "cut" for an answer that can be read, else what it fails with.

    What is told is bounded by what came.
    """
    head = Head("primary", status)
    parser, assembly = AnswerParser(head, ChunkReader(head), content_type=content_type), Assembly()
    for piece in pieces:
        assembly.extend(parser.feed(piece))
    assembly.extend(parser.close())
    assert parser.ended or parser.failure is not None
    signatures = (thought.signature.value for thought in assembly.thoughts if thought.signature is not None)
    told = [assembly.text, assembly.reasoning, *signatures, *(call.arguments for call in assembly.tool_calls)]
    assert sum(map(len, told)) <= 2 * sum(map(len, pieces))  # an object for arguments is written anew
    if parser.failure is not None:
        return parser.failure
    return "cut" if assembly.finished is None else "finished"


def test_damaged_answers_become_events_or_one_of_our_errors(
    recordings: Path, pytestconfig: pytest.Config, report_line: Callable[[str], None]
) -> None:
    """Never another exception, never a long wait, never more than came."""
    bodies = [(each.body, each.headers.get("content-type", "")) for each in recorded(recordings, "openai-chat")]
    seen, slowest = Counter[str](), 0.0
    seeds = int(pytestconfig.getoption("seeds"))
    for seed in range(seeds * BODIES):
        rng = Random(seed)
        body, content_type = rng.choice(bodies)
        body, status = mutated(body, rng), rng.choice(STATUSES)
        pieces = [body] if rng.random() < 0.5 else [body[at : at + 500] for at in range(0, len(body), 500)]
        begun = time.perf_counter()
        outcome = outcome_of(pieces, status, content_type)
        slowest = max(slowest, time.perf_counter() - begun)
        assert isinstance(outcome, str | ProviderError | TokenLimitError), seed
        assert len(str(outcome)) < 1000
        seen[outcome if isinstance(outcome, str) else type(outcome).__name__] += 1
    assert seen.total() == seeds * BODIES
    assert min(seen["finished"], seen["cut"], seen["ParseError"]) > 0
    assert slowest < SLOWEST
    report_line(f"damaged chat answers: {dict(sorted(seen.items()))}, the slowest took {slowest * 1000:.1f} ms")


# -- bodies without end --------------------------------------------------------------------------------


@contextmanager
def memory() -> Iterator[Callable[[], int]]:
    """Measure memory in the block: yield what returns the most that was held at once, in bytes."""
    tracemalloc.start()
    try:
        yield lambda: tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def feed_without_end(parser: AnswerParser, begin: bytes) -> int:
    """Feed a body of 100 MB that holds no line's end until it is refused; return how many bytes it took."""
    parser.feed(begin)
    taken = len(begin)
    while parser.failure is None and taken < ENDLESS:
        parser.feed(bytes(bytearray(b"x" * PIECE)))  # each piece of its own, as from a socket
        taken += PIECE
    return taken


@pytest.mark.parametrize(
    ("begin", "status", "bound"),
    [
        (b'data: {"choices":[{"delta":{"content":"', 200, MAX_EVENT),
        (b": ", 200, MAX_EVENT),
        (b'{"choices":[{"message":{"content":"', 200, MAX_BODY),
        (b'{"error":{"message":"', 500, MAX_ERROR_BODY),
        (b"<html>", 502, MAX_ERROR_BODY),
    ],
)
def test_a_line_without_end_is_refused_early(begin: bytes, status: int, bound: int) -> None:
    """At its bound, and nothing is held twice; what comes after costs nothing."""
    head = Head("primary", status)
    parser = AnswerParser(head, ChunkReader(head))
    with memory() as most:
        taken = feed_without_end(parser, begin)
        assert taken <= bound + 2 * PIECE
        assert most() <= 2 * bound + 4 * PIECE
    assert isinstance(parser.failure, ParseError if status == 200 else ProviderError)
    assert parser.feed(b"x" * PIECE) == []


def test_many_events_without_an_end_are_not_collected() -> None:
    """A stream may be as long as it likes: what is read is let go."""
    head = Head("primary")
    parser = AnswerParser(head, ChunkReader(head))
    event = b'data: {"choices":[{"delta":{"content":"' + b"x" * 1000 + b'"}}]}\n\n'
    with memory() as most:
        for _ in range(20_000):
            assert len(parser.feed(event)) == 1
        assert most() < PIECE
    assert parser.failure is None
