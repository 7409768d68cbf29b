"""The upstreams that integration tests talk to."""

from collections.abc import Iterator

import pytest

from tests.integration.llmock import LlmockServer, llmock_running


@pytest.fixture(scope="session")
def llmock_process() -> Iterator[LlmockServer]:
    """One llmock for the whole run; tests take `llmock_server`.

    It pauses between events, as models do: of one that has sent everything at once it cannot say whether its client
    stopped reading, and its verdict assumes not.
    """
    with llmock_running("--stream-chunk-delay-ms", "25") as server:
        yield server


@pytest.fixture
def llmock_server(llmock_process: LlmockServer) -> LlmockServer:
    """A running llmock that has served nothing and has nothing scripted."""
    llmock_process.reset()
    return llmock_process
