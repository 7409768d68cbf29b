"""An upstream that counts: its quota of requests and tokens a minute, met over real sockets by a client that learns it.

The buckets of llmock decide, and time passes `FASTER` times as fast for both sides: the server's quota and journal read
a scaled clock, the client runs on Trio's `MockClock` at that rate. So three minutes of quota take some seconds, and
each millisecond of real latency counts as forty.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from random import Random
from types import SimpleNamespace
from typing import Final

import pytest
import trio
from llmock.ratelimit import LimitSettings
from llmock.testing import LLMockServer
from trio.testing import MockClock

from tests.integration.llmock import LlmockServer
from wizard_actors import Prompt, ResilientClient, WizardConfig, WizardResponse

FASTER: Final = 40.0
REQUESTS: Final = 200
RPM, TPM = 60, 20_000


@pytest.fixture
def counting_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LlmockServer]:
    """Start llmock with `--rpm 60 --tpm 20000`, its clock faster, a full quota, and nothing served yet."""
    fast = SimpleNamespace(monotonic=lambda: time.monotonic() * FASTER)
    monkeypatch.setattr("llmock.ratelimit.time", fast)
    monkeypatch.setattr("llmock.middleware.time", fast)
    with LLMockServer() as server:
        server.state.limiter.configure(LimitSettings(rpm=RPM, tpm=TPM))
        yield LlmockServer(server.url)


def config(server: LlmockServer, limits: str = "") -> WizardConfig:
    """One model, everything that concerns limits as it comes, but for `limits`, which is TOML of the model's own.

    Timeouts are as long as they would be at real time: a busy machine is not what is tested.
    """
    return WizardConfig.from_toml(
        f"""
        [[models]]
        name = "counted"
        provider = "openai"
        base_url = "{server.base_url}"
        {limits}
        [models.timeouts]
        connect = {5 * FASTER}
        first_token = {60 * FASTER}
        stall = {30 * FASTER}
        total = {300 * FASTER}
        """,
        env={},
    )


def question(number: int, max_tokens: int | None) -> Prompt:
    """One of many that differ: the upstream tells calls apart by their bodies."""
    return Prompt(f"Question number {number}: why do actors own their state?", max_tokens=max_tokens)


CONFIGURED = f"rate_limit = {{ requests_per_minute = {RPM}, tokens_per_minute = {TPM} }}"


@pytest.mark.long
@pytest.mark.parametrize(
    ("limits", "max_tokens"),
    [
        pytest.param("", None, id="learned, requests run out"),
        pytest.param("", 500, id="learned, tokens run out"),
        pytest.param(CONFIGURED, None, id="configured, requests run out"),
        pytest.param(
            CONFIGURED,
            500,
            id="configured, tokens run out",
        ),
    ],
)
async def test_two_hundred_requests_see_at_most_two_429s(
    counting_server: LlmockServer,
    mock_clock: MockClock,
    report_line: Callable[[str], None],
    limits: str,
    max_tokens: int | None,
) -> None:
    """Headers slow the client down before the quota is spent; all are answered, and the upstream's verdict is clean.

    The upstream charges the prompt and `max_tokens`, whatever an answer used.
    """
    mock_clock.rate = FASTER
    async with ResilientClient.open(config(counting_server, limits), rng=Random(1)) as client:
        began = trio.current_time()
        outcomes = await client.generate_batch(question(number, max_tokens) for number in range(REQUESTS))
        took = trio.current_time() - began
    mock_clock.rate = 1.0
    statuses = Counter(request["status"] for request in await counting_server.requests())
    answers = [outcome for outcome in outcomes if isinstance(outcome, WizardResponse)]
    refused = sum(len(answer.attempts) - 1 for answer in answers)

    report_line(
        f"60 requests and 20,000 tokens a minute, {'learned' if not limits else 'configured'}, "
        f"max_tokens {max_tokens}: {statuses[429]} of {statuses.total()} requests met a 429 in {took:.0f} s"
    )
    assert len(answers) == REQUESTS, [outcome for outcome in outcomes if not isinstance(outcome, WizardResponse)][:1]
    assert statuses == Counter({200: REQUESTS, 429: refused}) - Counter()
    assert refused <= 2
    assert await counting_server.findings() == []
