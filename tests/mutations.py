"""Recorded answers, damaged: what no provider should send, and some day one will."""

import json
from collections.abc import Callable
from random import Random

__all__ = ["mutated"]

ODD: tuple[object, ...] = (
    *(None, True, 0, -1, 0.5, 1e300, 10**30),
    *("", "x", "\0", "error", "[DONE]"),
    *([], [[]], [None]),
    *({}, {"type": "error"}, {"error": 1}),
)


NOISE = (b"\n\n", b"\r\n\r\n", b"data: ", b"event: error\n", b"data: [DONE]\n\n", b"\xff", b"[" * 3000, b"{")


def mutated(body: bytes, rng: Random) -> bytes:
    """Return the body with some damage: bytes or JSON values replaced, pieces cut out, doubled, moved or added."""
    for _ in range(rng.choice([1, 1, 2, 5])):
        body = rng.choice(WAYS)(body, rng)
    return body


def _flipped(body: bytes, rng: Random) -> bytes:
    damaged = bytearray(body)
    for _ in range(rng.randint(1, 8) if damaged else 0):
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def _cut_off(body: bytes, rng: Random) -> bytes:
    return body[: rng.randint(0, len(body))]


def _cut_out(body: bytes, rng: Random) -> bytes:
    start, end = _piece(body, rng)
    return body[:start] + body[end:]


def _doubled(body: bytes, rng: Random) -> bytes:
    start, end = _piece(body, rng)
    return body[:end] + body[start:]


def _moved(body: bytes, rng: Random) -> bytes:
    start, end = _piece(body, rng)
    rest = body[:start] + body[end:]
    place = rng.randint(0, len(rest))
    return rest[:place] + body[start:end] + rest[place:]


def _with_noise(body: bytes, rng: Random) -> bytes:
    place = rng.randint(0, len(body))
    return body[:place] + rng.choice(NOISE) + body[place:]


def _shuffled(body: bytes, rng: Random) -> bytes:
    events = body.split(b"\n\n")
    rng.shuffle(events)
    return b"\n\n".join(events)


def _with_odd_values(body: bytes, rng: Random) -> bytes:
    """Replace values in the JSON, be it whole or in the lines of a stream."""
    lines = body.split(b"\n")
    for place in rng.sample(range(len(lines)), min(3, len(lines))):
        prefix = b"data: " if lines[place].startswith(b"data: ") else b""
        try:
            value = json.loads(lines[place][len(prefix) :])
        except (ValueError, RecursionError):
            continue
        lines[place] = prefix + json.dumps(_with_odd_value(value, rng)).encode()
    return b"\n".join(lines)


def _with_odd_value(value: object, rng: Random) -> object:
    """Replace one value somewhere inside."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(list(value))
        if rng.random() < 0.1:
            return {name: inner for name, inner in value.items() if name != key}
        return {**value, key: _with_odd_value(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.85:
        place = rng.randrange(len(value))
        return [*value[:place], _with_odd_value(value[place], rng), *value[place + 1 :]]
    return rng.choice(ODD)


def _piece(body: bytes, rng: Random) -> tuple[int, int]:
    start = rng.randint(0, len(body))
    return start, min(len(body), start + rng.choice([1, 10, 100, 1000]))


WAYS: tuple[Callable[[bytes, Random], bytes], ...] = (
    *(_flipped, _cut_off, _cut_out, _doubled, _moved, _with_noise, _shuffled),
    *(_with_odd_values, _with_odd_values, _with_odd_values),
)
