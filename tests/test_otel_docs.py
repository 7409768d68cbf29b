"""What `docs/tracing.md` lists is what is recorded: every attribute, event and metric, and nothing else."""

import re
from pathlib import Path

from wizard_actors.otel.conventions import DURATION, FIRST_CHUNK, USAGE, Names
from wizard_actors.otel.sdk import CHOICES, DEFAULT_NAME, FLUSH

TEXT = (Path(__file__).resolve().parent.parent / "docs" / "tracing.md").read_text(encoding="utf-8")
ATTRIBUTES = {value for key, value in vars(Names).items() if key.isupper() and not key.endswith("_EVENT")}
EVENTS = {value for key, value in vars(Names).items() if key.endswith("_EVENT")}
IN_EVENTS_ALONE = {Names.FAILED_MODEL, Names.OUTCOME}
IN_METRICS_ALONE = {Names.USED_TYPE}


def first_cells(heading: str) -> set[str]:
    """Return the names in the first column of every table of that kind."""
    tables = re.findall(rf"^\| {heading} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", TEXT, re.MULTILINE)
    rows = [row for table in tables for row in table.splitlines()]
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])}


def test_every_attribute_is_listed() -> None:
    """In one of the tables, or, where it belongs to an event or a metric alone, in that one's row."""
    assert first_cells("attribute") == ATTRIBUTES - IN_EVENTS_ALONE - IN_METRICS_ALONE
    assert all(f"`{name}`" in TEXT for name in IN_EVENTS_ALONE | IN_METRICS_ALONE)


def test_every_event_is_listed() -> None:
    """With what it says."""
    assert first_cells("event") == EVENTS


def test_every_metric_is_listed() -> None:
    """With its unit."""
    assert first_cells("metric") == {DURATION, FIRST_CHUNK, USAGE}


def test_variables_and_bounds_are_those_of_the_server() -> None:
    """The ones that are checked at the start, the name that is given, and how long a stop is held."""
    assert {"OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER"} <= first_cells("variable") & set(CHOICES)
    assert f"`{DEFAULT_NAME}` where no name is given" in TEXT
    assert f"for {FLUSH:g} seconds at most" in " ".join(TEXT.split())
