"""The clients that the suites measure: every concern on, and nothing in the way."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import cache
from itertools import count
from typing import Final

from wizard_actors import WizardConfig
from wizard_actors.errors import ConfigError

__all__ = ["CONCERNS", "http", "prompts", "simulated", "transports"]

CONCERNS: Final = """
[cache]
max_entries = 100_000
max_bytes = 1_000_000_000

[sessions]
storage = "memory:"

[server]
max_in_flight = 20_000
queue_timeout = 600

[retry_budget]
initial = 1_000_000
max = 1_000_000

[supervision]
mailbox = 20_000
tells = 20_000

[defaults]
max_concurrency = 20_000
rate_limit = { requests_per_minute = 1_000_000_000, tokens_per_minute = 100_000_000_000, burst = 1_000_000 }
retry = { base_delay = 0, max_delay = 0 }
circuit_breaker = { failure_threshold = 1_000_000 }
"""
"""Limits that count every call and refuse none, and no delays."""

HTTP: Final = """
transport = "{transport}"

[[models]]
name = "whole"
provider = "openai"
base_url = "{url}/v1"
upstream = "unary"

[[models]]
name = "streamed"
provider = "openai"
base_url = "{url}/v1"

[[models]]
name = "flaky-one"
provider = "openai"
base_url = "{url}/v1"
upstream = "unary"

[[routes]]
name = "stream"
chain = ["streamed", "whole"]

[[routes]]
name = "flaky"
chain = ["flaky-one", "whole"]

[fallback]
chain = ["whole", "streamed"]
"""
"""The end of the table of defaults, and models that answer whole, in a stream, and only when they are asked again; each
with another behind it.
"""

SIMULATED: Final = """
[[models]]
name = "{name}"
provider = "simulated"

[models.simulated]
answer = "{answer}"
first_token = {delay}
per_chunk = 0
words_per_chunk = 1_000
"""


def http(url: str, transport: str = "httpx") -> WizardConfig:
    """Return the configuration of a client of the upstream at `url`. Raises `ConfigError` for another transport than
    there is.
    """
    models = HTTP.format(url=url, transport=transport)
    if transport == "httpx":
        models = models.replace('transport = "httpx"\n', "")  # what there is without the setting
    return WizardConfig.from_toml(CONCERNS + models, env={})


def simulated(models: int = 1, *, answer: str = "Because.", delay: float = 0.0) -> WizardConfig:
    """Return the configuration of a client of so many models without a network, whose words begin after `delay`
    seconds.
    """
    named = (SIMULATED.format(name=f"model-{number}", answer=answer, delay=delay) for number in range(models))
    return WizardConfig.from_toml(CONCERNS + "".join(named), env={})


@cache
def transports() -> tuple[str, ...]:
    """Return the transports that there are."""
    try:
        http("http://127.0.0.1:9", "fast")
    except ConfigError as error:
        if not any("transport" in problem.key for problem in error.problems):
            raise
        sys.stderr.write('skipped: this version knows no transport = "fast"\n')
        return ("httpx",)
    return ("httpx", "fast")


_numbers: Final = count()


def prompts() -> Iterator[str]:
    """Yield prompts that nobody has asked yet."""
    for number in _numbers:
        yield f"Why is the sky blue at noon, and red in the evening? {number}"
