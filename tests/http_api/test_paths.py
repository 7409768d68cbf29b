"""What is told of paths that are not there."""

from __future__ import annotations

import pytest

from wizard_actors.http_api.paths import instead_of

THERE = ("/v1/chat/completions", "/v1/messages", "/v1/models", "/metrics", "/health/live", "/openapi.json", "/")


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/chat/completions", "/v1/chat/completions"),
        ("/v1/chat/completions/", "/v1/chat/completions"),
        ("//v1//chat/completions", "/v1/chat/completions"),
        ("/v1/chat/completions/chat/completions", "/v1/chat/completions"),
        ("/v1/v1/chat/completions", "/v1/chat/completions"),
        ("/v1/chat/completion", "/v1/chat/completions"),
        ("/messages", "/v1/messages"),
        ("/v1/v1/messages", "/v1/messages"),
        ("/v1/messages/v1/messages", "/v1/messages"),
        ("/models", "/v1/models"),
        ("/v1/models/", "/v1/models"),
        ("/metric", "/metrics"),
        ("/health/liveliness", "/health/live"),
    ],
)
def test_a_common_mistake_is_told_the_right_path(path: str, meant: str) -> None:
    """Of another base URL, slashes too many, or a slip of the finger."""
    assert f"did you mean {meant}?" in instead_of(path, THERE)


@pytest.mark.parametrize(
    ("path", "instead"),
    [
        ("/v1/responses", "POST /v1/chat/completions"),
        ("/v1/completions", "POST /v1/chat/completions"),
        ("/completions", "POST /v1/chat/completions"),
        ("/v1/embeddings", "ask their provider"),
        ("/v1/messages/count_tokens", "`usage` of an answer"),
        ("/v1/messages/batches", "one by one"),
        ("/nowhere", "GET /openapi.json lists"),
        ("/v1", "GET /openapi.json lists"),
    ],
)
def test_what_is_not_offered_is_told_with_what_there_is_instead(path: str, instead: str) -> None:
    """No path is guessed for it."""
    told = instead_of(path, THERE)
    assert instead in told
    assert "did you mean" not in told
