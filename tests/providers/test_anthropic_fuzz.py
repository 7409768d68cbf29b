"""Damaged Messages traffic: whatever comes, it is events or one of our errors.

`pytest -q tests/providers/test_anthropic_fuzz.py --seeds 2500` tries 10,000 bodies.
"""

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from tests.mutations import mutated
from tests.recordings import recorded, replayed
from wizard_actors.errors import ProviderError, TokenLimitError, WizardError
from wizard_actors.providers.anthropic_events import EventReader

BODIES = 4
"""How many are tried for each seed."""

SLOWEST = 5.0
"""Seconds that no body may take to read, on the slowest of machines: all have some ten kilobytes."""

STATUSES = (200, 200, 200, 200, 200, 400, 429, 500, 529)


def outcome_of(pieces: list[bytes], status: int, content_type: str) -> str | WizardError:
    """Return "finished" or "cut" for an answer that can be read, else what it fails with."""
    try:
        read = replayed(pieces, EventReader, status=status, content_type=content_type)
    except WizardError as error:
        return error
    return "cut" if read.assembly.finished is None else "finished"


def test_damaged_answers_become_events_or_one_of_our_errors(
    recordings: Path, pytestconfig: pytest.Config, report_line: Callable[[str], None]
) -> None:
    """Never another exception, and never a long wait."""
    bodies = [(each.body, each.headers.get("content-type", "")) for each in recorded(recordings, "anthropic-messages")]
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
        assert isinstance(outcome, str | ProviderError | TokenLimitError)
        assert len(str(outcome)) < 1000
        seen[outcome if isinstance(outcome, str) else type(outcome).__name__] += 1
    assert seen.total() == seeds * BODIES
    assert min(seen["finished"], seen["cut"], seen["ParseError"]) > 0
    assert slowest < SLOWEST
    report_line(f"damaged anthropic answers: {dict(sorted(seen.items()))}, the slowest took {slowest * 1000:.1f} ms")
