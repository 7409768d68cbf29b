"""A host for each behaviour."""

import pytest

from tests.embed.hosts import HOSTS, Host

CANCELLERS = [host for host in HOSTS if host.cancels]


@pytest.fixture(params=HOSTS, ids=[host.name for host in HOSTS])
def host(request: pytest.FixtureRequest) -> Host:
    """Return one host after the other."""
    found: Host = request.param
    return found


@pytest.fixture(params=CANCELLERS, ids=[host.name for host in CANCELLERS])
def canceller(request: pytest.FixtureRequest) -> Host:
    """Return one host after the other, of those whose tasks can be cancelled, and may wait for prompts."""
    found: Host = request.param
    return found
