"""A run written down, one fact a line, always in the same bytes: what tells where two runs part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from hashlib import sha256
from typing import Final, cast

import attrs
import msgspec

from wizard_actors.testing.simulation.report import Report
from wizard_actors.testing.simulation.scenario_file import scenario_to_toml

__all__ = ["trace", "trace_hash"]

APART: Final = frozenset({"scenario", "requests", "calls", "circuits", "spent", "samples"})
"""What of a report is not told in its last line."""


def trace(report: Report) -> Iterator[str]:
    """Yield all facts of a run, each a JSON object on a line of its own, without the line's end.

    First the scenario with its seed, as the TOML that plays it again; then every request with its attempts, every call
    to a model, circuit change, payment of the retry budget and look at the client, in the order of their beginning; at
    last how it ended, what was held and what was against the invariants. The key `fact` says which. Runs of an equal
    scenario yield the same, with one version of this package, of Python and of Trio; no conversation and no key is in
    it.

    Raises `ConfigError` for a scenario that TOML cannot hold, as `scenario_to_toml` does.
    """
    scenario = report.scenario
    yield _line("scenario", {"name": scenario.name, "seed": scenario.seed, "toml": scenario_to_toml(scenario)})
    facts: list[tuple[float, str, object]] = []
    facts += [(request.arrived, "request", request) for request in report.requests]
    facts += [(call.began, "call", call) for call in report.calls]
    facts += [(change.at, "circuit", change) for change in report.circuits]
    facts += [(spent.at, "budget", spent) for spent in report.spent]
    facts += [(sample.at, "sample", sample) for sample in report.samples]
    for _, fact, record in sorted(facts, key=lambda each: each[0]):
        yield _line(fact, _fields(record))
    yield _line("end", {name: value for name, value in _fields(report).items() if name not in APART})


def trace_hash(report: Report) -> str:
    """Return the SHA-256 of a run's trace, each line with its end, in hexadecimal: equal runs have equal ones."""
    digest = sha256()
    for line in trace(report):
        digest.update(f"{line}\n".encode())
    return digest.hexdigest()


def _line(fact: str, values: Mapping[str, object]) -> str:
    plain = {name: _plain(value) for name, value in values.items()}
    return msgspec.json.encode({"fact": fact, **plain}).decode()


def _fields(record: object) -> dict[str, object]:
    """Return the fields of a record, in their order."""
    kind = cast("type[attrs.AttrsInstance]", type(record))
    return {field.name: getattr(record, field.name) for field in attrs.fields(kind)}


def _plain(value: object) -> object:
    """Return a value in JSON's types; numbers are as exact as they were, and what is infinite becomes null."""
    match value:
        case Decimal():
            return str(value)
        case Mapping():
            return {name: _plain(item) for name, item in sorted(value.items())}
        case tuple() | list():
            return [_plain(item) for item in value]
        case _ if attrs.has(type(value)):
            return {name: _plain(item) for name, item in _fields(value).items()}
        case _:
            return value
