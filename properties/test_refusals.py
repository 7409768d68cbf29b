"""What providers refuse with, whatever they write: judged in bounded time."""

import time
from typing import Final

import httpx
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from wizard_actors.config import Secret
from wizard_actors.errors import WizardError
from wizard_actors.providers.anthropic_request import AnthropicWire
from wizard_actors.providers.http_provider import HttpSettings
from wizard_actors.providers.masking import secret_forms
from wizard_actors.providers.openai_wire import ChatWire
from wizard_actors.providers.refusals import ErrorBody, Head, error_body, page, refusal
from wizard_actors.providers.refused_fields import refuses_stream_beside
from wizard_actors.providers.responses_request import ResponsesWire

FRAGMENTS: Final = (
    *(
        "stream",
        "streaming ",
        "support",
        "not ",
        "not supported ",
        "`stream` ",
        "no ",
        "unknown ",
        " parameter",
        "extra ",
    ),
    *(
        "9",
        "9,",
        "1 ",
        "limit 1",
        ", requested ",
        " tokens > ",
        "token count (",
        "contains 1 tokens ",
        "cannot exceed 1 ",
    ),
    *(
        "maximum context length is 1 ",
        "resulted in ",
        "exceed context limit: ",
        "try again in ",
        "1m",
        "1 minute ",
        "and ",
    ),
    *(
        "model ",
        "models",
        "does not ",
        "reached your specified ",
        "credit ",
        "api key ",
        "<title",
        "<title>",
        ">",
        "a_",
    ),
    *(
        "max_tokens ",
        "encrypted content ",
        "signature in ",
        "thinking ",
        "thought ",
        "item ",
        "of type ",
        "include",
        "'",
    ),
    *(" ", ".", ":", ", ", "\n", "x", "_", "é"),
)
SETTINGS: Final = HttpSettings(name="m", model="m", base_url="https://up.test/v1", api_key=Secret("xxxx"))
URL: Final = httpx.URL("https://up.test/v1")
WIRES: Final = tuple(kind.of(SETTINGS, URL) for kind in (ChatWire, ResponsesWire, AnthropicWire))
HEADS: Final = tuple(Head("m", status, secrets=secret_forms(SETTINGS.api_key, {})) for status in (200, 400, 403, 429))

SIZE: Final = 16 * 2**10
"""Characters: a quarter of what is read, so that what takes time by the square still comes to an end."""

LONGEST: Final = 1.0
"""Seconds of processor time: some 20 ms are usual, and what takes time by the square takes several."""


def judged(body: ErrorBody) -> list[WizardError]:
    """Look at a refusal in every way in which it is looked at."""
    for wire in WIRES:
        wire.without(body, keep_stream=False)
    refuses_stream_beside(body)
    return [refusal(head, body) for head in HEADS]


@settings(max_examples=60, phases=(Phase.explicit, Phase.reuse, Phase.generate))  # a slow example is slow to shrink
@given(
    pieces=st.lists(st.sampled_from(FRAGMENTS), min_size=1, max_size=4),
    start=st.sampled_from(FRAGMENTS),
    end=st.sampled_from(FRAGMENTS),
)
def test_no_message_takes_long_to_judge(pieces: list[str], start: str, end: str) -> None:
    """A long one, made of what the patterns look for, is judged at once, in all protocols."""
    piece = "".join(pieces)
    message = start + piece * (SIZE // len(piece)) + end

    begun = time.process_time()
    errors = [*judged(error_body({"error": {"message": message}})), *judged(page(message.encode()))]
    took = time.process_time() - begun

    assert took < LONGEST
    assert all(len(str(error)) < 700 for error in errors)
