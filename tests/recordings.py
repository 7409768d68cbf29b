"""Recorded traffic, and ways to feed it to a parser: in one piece, byte by byte, cut anywhere, with other line ends."""

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

from attrs import frozen

from wizard_actors.providers.answer import AnswerParser
from wizard_actors.providers.refusals import Head
from wizard_actors.providers.wire import Reader
from wizard_actors.streaming import Assembly

__all__ = ["CUTS", "Read", "Recording", "recorded", "replayed"]

Cut = Callable[[bytes], list[bytes]]


@frozen
class Recording:
    """One recorded exchange: what was asked, as JSON, and what came back, byte by byte."""

    name: str
    url: str
    request: dict[str, object]
    stream: bool
    status: int
    headers: dict[str, str]
    body: bytes


@frozen
class Read:
    """What a parser has made of an answer: its parts, and whether the protocol's last word came."""

    assembly: Assembly
    ended: bool
    model: str | None


def recorded(folder: Path, protocol: str) -> Iterator[Recording]:
    """Yield the exchanges of a protocol: "openai-chat", "openai-responses", "anthropic-messages" or "gemini"."""
    with gzip.open(folder / f"{protocol}.jsonl.gz", "rt", encoding="utf-8") as lines:
        for pair in map(json.loads, lines):
            yield Recording(
                name=f"{pair['path']}[{pair['idx']}]",
                url=pair["request"]["url"],
                request=json.loads(pair["request"]["body"]),
                stream=pair["stream"],
                status=pair["response"]["status"],
                headers={name.lower(): value for name, value in pair["response"]["headers"].items()},
                body=pair["response"]["body"].encode(),
            )


def replayed(pieces: list[bytes], make: Callable[[Head], Reader], *, status: int = 200, content_type: str = "") -> Read:
    """Return what the reader that `make` returns makes of a body in these pieces; raise what it fails with."""
    head = Head("primary", status)
    reader = make(head)
    parser, assembly = AnswerParser(head, reader, content_type=content_type), Assembly()
    for piece in pieces:
        assembly.extend(parser.feed(piece))
    ended = parser.ended
    assembly.extend(parser.close())
    if parser.failure is not None:
        raise parser.failure
    return Read(assembly, ended, reader.model)


def _randomly(body: bytes) -> list[bytes]:
    rng, pieces, start = Random(len(body)), list[bytes](), 0
    while start < len(body):
        end = start + rng.choice([1, 2, 7, 100, 4096, 65536])
        pieces.append(body[start:end])
        start = end
    return pieces


def _with_other_line_ends(body: bytes) -> list[bytes]:
    lf = body.replace(b"\r\n", b"\n")
    return _randomly(lf if lf != body else body.replace(b"\n", b"\r\n"))


CUTS: dict[str, Cut] = {
    "in one piece": lambda body: [body],
    "byte by byte": lambda body: [body[index : index + 1] for index in range(len(body))],
    "cut at random": _randomly,
    "with other line ends": _with_other_line_ends,
}
"""The ways in which the same answer may arrive."""
