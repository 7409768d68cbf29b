"""Recorded answers of Gemini, spoiled: whatever comes, only errors of ours go out. `--seeds 500` spoils 10,000."""

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.recordings import recorded
from wizard_actors.errors import WizardError
from wizard_actors.providers.answer import AnswerParser
from wizard_actors.providers.gemini_chunks import GeminiReader
from wizard_actors.providers.refusals import Head
from wizard_actors.streaming import Assembly
from wizard_actors.types import Finished, TextDelta

KEY = "canary-0123456789"
ANSWERS_A_SEED = 20
ERROR = {
    "error": {"code": 503, "message": f"not with {KEY}", "status": "UNAVAILABLE", "details": [{"retryDelay": "1s"}]}
}
ODD: list[object] = [
    None,
    True,
    0,
    -1,
    2**63,
    1e300,
    "",
    "x",
    KEY,
    [],
    [None],
    {},
    {"text": 1},
    {"functionCall": []},
    ERROR,
    [ERROR],
]
STATUSES = [200] * 6 + [204, 302, 400, 404, 429, 500, 503]
TYPES = ["text/event-stream", "application/json; charset=UTF-8", "text/html", ""]


def spoiled(body: bytes, rng: Random) -> bytes:
    """Return the body with one thing wrong."""
    place, length = rng.randrange(len(body) + 1), rng.choice([1, 2, 10, 100, 1000])
    match rng.randrange(6):
        case 0:
            flipped = bytearray(body)
            for _ in range(rng.choice([1, 3, 30])):
                flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
            return bytes(flipped)
        case 1:
            return body[:place]
        case 2:
            return body[:place] + body[place + length :]
        case 3:
            return body[:place] + body[place : place + length] * rng.choice([2, 5]) + body[place:]
        case 4:
            return body[:place] + rng.choice([b"\r\n\r\n", b"\n", b"data:", b"\xff", b"[" * 5000, b"}"]) + body[place:]
        case _:
            return other_values(body, rng)


def other_values(body: bytes, rng: Random) -> bytes:
    """Return the body with some JSON value of one event, or of the whole, replaced."""
    lines = body.split(b"\r\n")
    events = [index for index, line in enumerate(lines) if line.startswith(b"data:")]
    try:
        if not events:
            return json.dumps(other_value(json.loads(body), rng)).encode()
        index = rng.choice(events)
        lines[index] = b"data: " + json.dumps(other_value(json.loads(lines[index][5:]), rng)).encode()
    except (ValueError, RecursionError):  # spoiled already
        return body
    return b"\r\n".join(lines)


def other_value(value: Any, rng: Random) -> Any:  # noqa: ANN401 - JSON
    """Return the value, or something in it, replaced."""
    if not isinstance(value, (dict, list)) or not value or rng.random() < 0.1:
        return rng.choice(ODD)
    keys: list[Any] = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = rng.choice(keys)
    value[key] = other_value(value[key], rng)
    return value


def pieces_of(body: bytes, rng: Random) -> list[bytes]:
    """Return the body cut at random."""
    cuts = sorted(rng.choices(range(len(body) + 1), k=rng.choice([0, 1, 10])))
    return [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]


def test_spoiled_answers_raise_nothing_but_our_errors(recordings: Path, pytestconfig: pytest.Config) -> None:
    """Bytes flipped, cut out, repeated and put in, JSON values replaced, in any pieces and under any head; what comes
    out is no more than what went in.
    """
    bodies = [recording.body for recording in recorded(recordings, "gemini")]
    failures = 0
    for seed in range(pytestconfig.getoption("seeds") * ANSWERS_A_SEED):
        rng = Random(seed)
        body = rng.choice(bodies)
        for _ in range(rng.choice([1, 1, 3])):
            body = spoiled(body, rng) or b" "
        head = Head("primary", rng.choice(STATUSES), secrets=(KEY,))
        parser = AnswerParser(
            head, GeminiReader(head, made_up="made_0"), content_type=rng.choice(TYPES), raw=rng.random() < 0.1
        )
        assembly = Assembly()
        events = [event for piece in pieces_of(body, rng) for event in parser.feed(piece)] + parser.close()
        assembly.extend(events)
        finishes = sum(isinstance(event, Finished) for event in events)
        assert finishes == parser.finished, f"seed {seed}"
        assert len(assembly.text) + len(assembly.reasoning) <= len(body), f"seed {seed}"
        assert all(event.text for event in events if isinstance(event, TextDelta)), f"seed {seed}"
        if parser.failure is not None:
            assert isinstance(parser.failure, WizardError)
            assert KEY not in f"{parser.failure} {parser.failure.to_dict()}", f"seed {seed}"
            assert len(str(parser.failure)) < 1000, f"seed {seed}"
            failures += 1
    assert failures
