"""The mock upstream says what clients of OpenAI understand, and fails as it is told to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.client import HTTPConnection
from urllib.parse import urlsplit

import pytest
from openai import InternalServerError, OpenAI

from benchmarks.upstream import Answers, Upstream, running

CHUNKS = 5
PATH = b"/v1/chat/completions"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Return the address of one that runs in a process of its own."""
    with running(chunks=CHUNKS, size=40) as address:
        yield address


@pytest.fixture
def client(url: str) -> Iterator[OpenAI]:
    """Return the SDK, which checks nothing by itself and retries nothing."""
    with OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as sdk:
        yield sdk


def asked(model: str = "m", *, stream: bool = False) -> bytes:
    """Return the body of a request."""
    return json.dumps({"model": model, "stream": stream, "messages": []}).encode()


def test_the_sdk_reads_a_whole_answer(client: OpenAI) -> None:
    """It has the text of the length that was asked for, a finish and its usage."""
    answer = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Why?"}])

    assert len(answer.choices[0].message.content or "") == 40
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    type(answer).model_validate(answer.model_dump(), strict=True)


def test_the_sdk_reads_a_stream_of_so_many_chunks(client: OpenAI) -> None:
    """Role, chunks, finish and usage, in this order, and the same text as in a whole answer."""
    stream = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Why?"}], stream=True)
    chunks = list(stream)
    for chunk in chunks:
        type(chunk).model_validate(chunk.model_dump(), strict=True)

    texts = [choice.delta.content for chunk in chunks for choice in chunk.choices if choice.delta.content]
    whole = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Why?"}])
    assert len(texts) == CHUNKS
    assert "".join(texts) == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage == whole.usage


def test_a_model_that_is_down_is_always_refused(client: OpenAI) -> None:
    """Each of its answers is a 503 without a Retry-After."""
    for _ in range(2):
        with pytest.raises(InternalServerError) as caught:
            client.chat.completions.create(model="down-1", messages=[{"role": "user", "content": "Why?"}])
        assert caught.value.status_code == 503
        assert "retry-after" not in caught.value.response.headers


def test_a_flaky_model_refuses_every_other_call_whichever_connection_it_comes_over(url: str) -> None:
    """A client that retries over another connection is answered all the same."""
    statuses = []
    for _ in range(4):
        connection = HTTPConnection(urlsplit(url).netloc, timeout=10)
        connection.request("POST", "/v1/chat/completions", asked("flaky-1"))
        statuses.append(connection.getresponse().status)
        connection.close()

    assert statuses == [503, 200, 503, 200]


def test_it_ends_with_the_block() -> None:
    """Nothing listens any more, and no process is left."""
    with running() as address:
        pass

    with pytest.raises(ConnectionRefusedError):
        HTTPConnection(urlsplit(address).netloc, timeout=10).connect()


def test_what_is_answered_follows_from_path_model_and_stream() -> None:
    """Any path that ends so is served; others are unknown; with a gap a stream is sent piece by piece."""
    answers = Answers.made(chunks=CHUNKS)
    upstream, paced = Upstream(answers), Upstream(answers, gap=0.1)

    assert upstream.chosen(b"/openai/v1/chat/completions?x=1", asked()) == answers.whole
    assert upstream.chosen(b"/v1/models", asked()) == answers.unknown
    assert upstream.chosen(PATH, asked("down")) == answers.refused
    assert upstream.chosen(PATH, asked(stream=True)) == upstream.streamed
    assert paced.chosen(PATH, asked(stream=True)) is None
    assert len(answers.pieces) == CHUNKS + 4  # the role, the finish, the usage, the end
