"""Damaged traffic of the Responses API: whatever comes, it ends in events or one of our errors.

`pytest -q tests/providers/test_responses_fuzz.py --seeds 2500` tries 10,000 bodies.
"""

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from tests.mutations import mutated
from tests.recordings import recorded
from wizard_actors.errors import ProviderError, TokenLimitError, WizardError
from wizard_actors.providers.answer import AnswerParser
from wizard_actors.providers.refusals import Head
from wizard_actors.providers.responses_events import EventReader
from wizard_actors.streaming import Assembly

BODIES = 4
"""How many are tried for each seed."""

SLOWEST = 5.0
"""Seconds that no body may take to read, on the slowest of machines."""

STATUSES = (200, 200, 200, 200, 200, 400, 429, 500, 503)


def outcome_of(pieces: list[bytes], status: int) -> str | WizardError:
    """Return "finished" or "cut" for an answer that can be read, else what it fails with. No more is told than came."""
    head = Head("primary", status)
    parser, assembly = AnswerParser(head, EventReader(head)), Assembly()
    for piece in pieces:
        assembly.extend(parser.feed(piece))
    assembly.extend(parser.close())
    assert parser.ended or parser.failure is not None
    proofs = (thought.signature.value for thought in assembly.thoughts if thought.signature is not None)
    told = [assembly.text, assembly.reasoning, *proofs, *(call.arguments for call in assembly.tool_calls)]
    assert sum(map(len, told)) <= sum(map(len, pieces))
    if parser.failure is not None:
        return parser.failure
    return "cut" if assembly.finished is None else "finished"


def test_damaged_answers_become_events_or_one_of_our_errors(
    recordings: Path, pytestconfig: pytest.Config, report_line: Callable[[str], None]
) -> None:
    """Never another exception, never a long wait, never more than came."""
    bodies = [each.body for each in recorded(recordings, "openai-responses")]
    seen, slowest = Counter[str](), 0.0
    for seed in range(BODIES * int(pytestconfig.getoption("seeds"))):
        rng = Random(seed)
        body, status = mutated(rng.choice(bodies), rng), rng.choice(STATUSES)
        pieces = [body] if rng.random() < 0.5 else [body[at : at + 500] for at in range(0, len(body), 500)]
        begun = time.perf_counter()
        outcome = outcome_of(pieces, status)
        slowest = max(slowest, time.perf_counter() - begun)
        assert isinstance(outcome, str | ProviderError | TokenLimitError), seed
        assert len(str(outcome)) < 1000, seed
        seen[outcome if isinstance(outcome, str) else type(outcome).__name__] += 1
    assert slowest < SLOWEST
    assert {"finished", "cut", "ParseError"} <= seen.keys()
    report_line(f"Responses answers damaged: {seen.total()}, slowest {slowest:.3f} s, {dict(seen.most_common())}")
