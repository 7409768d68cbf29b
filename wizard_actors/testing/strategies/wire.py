"""What providers could send, byte by byte, as Hypothesis makes it up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, get_args

from attrs import evolve, frozen
from hypothesis import strategies as st

from wizard_actors.testing.simulation.formats import FORMATS, Asking, Format, Refusal, Said, WireFormat
from wizard_actors.testing.strategies.arguments import one_of
from wizard_actors.testing.strategies.configurations import FORMAT_NAMES

__all__ = ["ProviderResponse", "byte_streams", "provider_responses"]

WORDS: Final = st.sampled_from(["word", "no", "data:", "{", '"', "été", "🙂", "\n"])
REFUSALS: Final[tuple[Refusal, ...]] = get_args(Refusal)


@frozen
class ProviderResponse:
    """A response on the wire: its body comes in `pieces`, each at once. `said` is the answer that the model gives, or
    would have given where it is a `refusal`. `complete` is False where something is missing from the body, or is in it
    that does not belong there.
    """

    format: WireFormat
    said: Said
    stream: bool
    status: int
    headers: Mapping[str, str]
    pieces: tuple[bytes, ...]
    refusal: Refusal | None = None
    complete: bool = True

    @property
    def body(self) -> bytes:
        """All bytes."""
        return b"".join(self.pieces)


@st.composite
def _said(draw: st.DrawFn) -> tuple[Said, list[str]]:
    """Return an answer, and its text in the pieces in which a stream brings it."""
    texts = [" ".join(words) for words in draw(st.lists(st.lists(WORDS, min_size=1, max_size=3), max_size=4))]
    texts = [texts[0], *(f" {text}" for text in texts[1:])] if texts else ["word"]
    said = Said(
        model="a-model",
        number=draw(st.integers(0, 9)),
        text="".join(texts),
        input_tokens=draw(st.integers(1, 100)),
        output_tokens=draw(st.integers(1, 100)),
        cut=draw(st.booleans()),
    )
    return said, texts


def provider_responses(format: WireFormat) -> st.SearchStrategy[ProviderResponse]:  # noqa: A002 - the word for it
    """Return what a provider of that protocol ("chat", "responses", "anthropic", "gemini") could answer: whole answers
    in one piece, streams an event a piece, and refusals of every kind. All of them are complete.

    They shrink towards a whole answer of one word. Raises `ConfigError` for a protocol that there is not.
    """
    return _responses(one_of("provider_responses", "format", format, FORMAT_NAMES))


@st.composite
def _responses(draw: st.DrawFn, format: WireFormat) -> ProviderResponse:  # noqa: A002 - the word for it
    shape = FORMATS[format]
    said, texts = draw(_said())
    refusal = draw(st.none() | st.sampled_from(REFUSALS))
    stream = draw(st.booleans())
    if refusal is not None:
        asking = Asking(retry_after=draw(st.sampled_from([None, 1.0, 20.0])), stream=stream)
        refused = shape.refusal(refusal, said, asking)
        return ProviderResponse(format, said, stream, refused.status, refused.headers, (refused.body,), refusal)
    if stream:
        return _streamed(format, said, texts)
    headers = {**shape.ids(said), "content-type": "application/json"}
    return ProviderResponse(format, said, stream, 200, headers, (shape.whole(said),))


def byte_streams(format: WireFormat) -> st.SearchStrategy[ProviderResponse]:  # noqa: A002 - the word for it
    """Return streams of that protocol as the network may bring them: as they were sent, joined, torn between any two
    bytes, within a character too, byte by byte, cut off after any byte, or with garbage between two events.

    They shrink towards one piece, and to few cuts. Raises `ConfigError` for a protocol that there is not.
    """
    return _byte_streams(one_of("byte_streams", "format", format, FORMAT_NAMES))


@st.composite
def _byte_streams(draw: st.DrawFn, format: WireFormat) -> ProviderResponse:  # noqa: A002 - the word for it
    said, texts = draw(_said())
    whole = _streamed(format, said, texts)
    how = draw(st.sampled_from(["joined", "as sent", "torn", "bytes", "cut", "garbage"]))
    if how == "as sent":
        return whole
    if how == "bytes":
        return evolve(whole, pieces=tuple(bytes([byte]) for byte in whole.body))
    if how == "garbage":
        return _with_garbage(draw, whole, FORMATS[format])
    body = whole.body
    if how == "cut":
        body = body[: draw(st.integers(0, len(body) - 1))]
    pieces = _torn(draw, body) if how != "joined" else (body,)
    return evolve(whole, pieces=pieces, complete=how != "cut")


def _streamed(format: WireFormat, said: Said, texts: list[str]) -> ProviderResponse:  # noqa: A002 - the word for it
    shape = FORMATS[format]
    stream = shape.stream(said, texts)
    pieces = tuple(filter(None, (stream.opening, *stream.pieces, stream.closing)))
    headers = {**shape.ids(said), "content-type": "text/event-stream"}
    return ProviderResponse(format, said, True, 200, headers, pieces)


def _with_garbage(draw: st.DrawFn, whole: ProviderResponse, shape: Format) -> ProviderResponse:
    place = draw(st.integers(0, len(whole.pieces) - 1))
    pieces = (*whole.pieces[:place], shape.garbage(), *whole.pieces[place:])
    return evolve(whole, pieces=pieces, complete=False)


def _torn(draw: st.DrawFn, body: bytes) -> tuple[bytes, ...]:
    if not body:
        return ()
    ends = sorted(draw(st.sets(st.integers(1, len(body)), max_size=8)) | {len(body)})
    return tuple(body[begin:end] for begin, end in zip([0, *ends], ends, strict=False))
