"""Messages that no client should send, each with what it is owed: the id and the code of its error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

__all__ = ["CANCELLED", "FAILED", "INVALID", "MESSAGES", "PARAMS", "PARSE", "WRONG", "Owed", "request"]

PARSE, INVALID, UNKNOWN, PARAMS, CANCELLED, FAILED = -32700, -32600, -32601, -32602, -32800, -32000

Owed: TypeAlias = tuple[object, int | None]
"""The id of a response, and the code of its error; None: it is a result."""


def deep(levels: int) -> str:
    """Return a request that nests so deep."""
    return '{"jsonrpc":"2.0","id":7,"method":"models","params":{"a":' + "[" * levels + "]" * levels + "}}"


MESSAGES: Final[Sequence[tuple[str, Owed]]] = (
    ("", (None, PARSE)),
    ("{", (None, PARSE)),
    ("null", (None, INVALID)),
    ("5", (None, INVALID)),
    ('"generate"', (None, INVALID)),
    ("[]", (None, INVALID)),
    ('[{"jsonrpc":"2.0","id":1,"method":"models"}]', (None, INVALID)),
    ("{}", (None, INVALID)),
    ('{"jsonrpc":"2.0","id":null,"method":"models"}', (None, INVALID)),
    ('{"jsonrpc":"2.0","id":1.5,"method":"models"}', (None, INVALID)),
    ('{"jsonrpc":"2.0","id":true,"method":"models"}', (None, INVALID)),
    ('{"jsonrpc":"2.0","id":[],"method":"models"}', (None, INVALID)),
    ('{"jsonrpc":"2.0","id":"","method":"models"}', (None, INVALID)),
    ('{"jsonrpc":"2.0","id":9007199254740993,"method":"models"}', (None, INVALID)),
    ('{"jsonrpc":"2.0","method":"models"}', (None, INVALID)),
    ('{"jsonrpc":"2.0","method":"generate","params":{"prompt":"x"}}', (None, INVALID)),
    ('{"jsonrpc":"2.0","method":"no.such"}', (None, INVALID)),
    ('{"jsonrpc":"1.0","id":1,"method":"models"}', (1, INVALID)),
    ('{"id":1,"method":"models"}', (1, INVALID)),
    ('{"jsonrpc":"2.0","id":1}', (1, INVALID)),
    ('{"jsonrpc":"2.0","id":1,"method":7}', (1, INVALID)),
    ('{"jsonrpc":"2.0","id":1,"result":{}}', (1, INVALID)),
    ('{"jsonrpc":"2.0","id":1,"method":"models","x":1}', (1, INVALID)),
    ('{"jsonrpc":"2.0","id":1,"method":"models","params":[]}', (1, PARAMS)),
    ('{"jsonrpc":"2.0","id":1,"method":"models","params":null}', (1, PARAMS)),
    ('{"jsonrpc":"2.0","id":"m","method":"no.such"}', ("m", UNKNOWN)),
    ('{"jsonrpc":"2.0","id":"m","method":""}', ("m", UNKNOWN)),
    ('{"jsonrpc":"2.0","id":"m","method":"__init__"}', ("m", UNKNOWN)),
    ('{"jsonrpc":"2.0","id":"m","method":"Generate"}', ("m", UNKNOWN)),
    ('{"jsonrpc":"2.0","method":"credit","params":{"id":1,"n":-5}}', (None, PARAMS)),
    ('{"jsonrpc":"2.0","method":"credit","params":{"id":1,"n":"5"}}', (None, PARAMS)),
    ('{"jsonrpc":"2.0","method":"credit","params":{"id":{},"n":5}}', (None, PARAMS)),
    ('{"jsonrpc":"2.0","method":"credit"}', (None, PARAMS)),
    ('{"jsonrpc":"2.0","method":"cancel","params":{"id":[]}}', (None, PARAMS)),
    (deep(70), (7, PARSE)),
    (deep(10_000), (None, PARSE)),
    ("[" * 30_000, (None, PARSE)),
    ('{"a":' * 5_000, (None, PARSE)),
)

ASKING: Final[Sequence[Mapping[str, object]]] = (
    {},
    {"prompt": None},
    {"prompt": 5},
    {"prompt": ""},
    {"prompt": []},
    {"prompt": {"messages": [{"role": "poet"}]}},
    {"prompt": {"messages": "x", "colour": "red"}},
    {"prompt": {"messages": [{"role": "user", "content": [{"type": "gif"}]}]}},
    {"prompt": "x", "colour": "red"},
    {"prompt": "x", "tenant": "somebody else"},
    {"prompt": "x", "route": "none"},
    {"prompt": "x", "route": 5},
    {"prompt": "x", "model": "none"},
    {"prompt": "x", "strategy": "best"},
    {"prompt": "x", "deadline": -1},
    {"prompt": "x", "deadline": 0},
    {"prompt": "x", "deadline": "soon"},
    {"prompt": "x", "deadline": True},
    {"prompt": "x", "cache": "perhaps"},
    {"prompt": "x", "raw": "yes"},
)
STREAMING: Final[Sequence[Mapping[str, object]]] = (
    {"prompt": "x", "credit": -1},
    {"prompt": "x", "credit": "32"},
    {"prompt": "x", "credit": 1.5},
    {"prompt": "x", "credit": True},
    {"prompt": "x", "credit": 65_537},
    {"prompt": "x", "credit": 2**60},
    {"prompt": "x", "delivery": "slow"},
    {"prompt": "x", "delivery": "whole"},
    {"prompt": "x", "delivery": 5},
)
SESSION: Final[Sequence[Mapping[str, object]]] = (
    {},
    {"session": None},
    {"session": 5},
    {"session": ""},
    {"session": "a\0b"},
    {"session": "x" * 300},
    {"session": "fuzz", "colour": "red"},
)
WRONG: Final[Mapping[str, Sequence[Mapping[str, object]]]] = {
    "generate": [*ASKING, {"prompt": "x", "credit": 5}, {"prompt": "x", "delivery": "live"}],
    "stream": [*ASKING, *STREAMING],
    "batch": [
        {},
        {"prompts": 5},
        {"prompts": "x"},
        {"prompts": ["x"], "max_concurrency": 0},
        {"prompts": ["x"], "max_concurrency": "4"},
        {"prompts": ["x"], "credit": -1},
        {"prompts": ["x"], "route": "none"},
        {"prompts": ["x"], "colour": 1},
    ],
    "session.create": [*SESSION, {"session": "fuzz", "system": 5}, {"session": "fuzz", "model": "none"}],
    "session.send": [*SESSION, {"session": "fuzz"}, {"session": "fuzz", "prompt": 5}, {"prompt": "x"}],
    "session.stream": [*SESSION, {"session": "fuzz", "prompt": 5}, {"session": "fuzz", "prompt": "x", "credit": -1}],
    "session.history": SESSION,
    "session.delete": SESSION,
    "session.list": [{"limit": 0}, {"limit": "x"}, {"limit": 10**9}, {"after": 5}, {"prefix": 5}, {"colour": 1}],
    "models": [{"colour": 1}],
    "tree": [{"colour": 1}],
    "stats": [{"colour": 1}],
    "cache.invalidate": [{"model": 5}, {"text": 5}, {"colour": 1}],
    "cache.warm": [{}, {"prompts": 5}, {"prompts": ["x"], "max_concurrency": 0}, {"prompts": ["x"], "colour": 1}],
    "subscribe": [{"types": 5}, {"bound": 0}, {"bound": "x"}, {"credit": -1}, {"colour": 1}],
    "unsubscribe": [{}, {"id": {}}, {"id": 1, "x": 2}],
    "cancel": [{}, {"id": None}, {"id": 1.5}, {"id": 1, "x": 2}],
}


def request(number: object, method: str, **params: object) -> dict[str, object]:
    """Return a request."""
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
