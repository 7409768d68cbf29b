"""`docs/metrics.md` and `docs/grafana.json` name the metrics that there are, with the labels that they have."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
import yaml  # type: ignore[import-untyped]  # comes without types
from attrs import frozen
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from trio.testing import MockClock

from tests.busy_client import busy_client
from tests.models import SILENT, Scripted, client_of, fails, model
from wizard_actors import WizardError, errors
from wizard_actors.config import RetryConfig
from wizard_actors.errors import (
    AuthError,
    ContentFilterError,
    ModelNotFoundError,
    OverloadedError,
    ProviderError,
    RequestError,
    TokenLimitError,
    UnsupportedError,
)
from wizard_actors.metrics import REFUSED
from wizard_actors.prometheus import exposition

DOCS = Path(__file__).resolve().parent.parent / "docs"
TEXT = (DOCS / "metrics.md").read_text(encoding="utf-8")
DASHBOARD: Mapping[str, Any] = json.loads((DOCS / "grafana.json").read_text(encoding="utf-8"))
[SCRAPING, ALERTS] = [
    yaml.safe_load(block)
    for block in re.findall(r"^```text\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    if block.startswith(("scrape_configs:", "groups:"))
]
RULES: Sequence[Mapping[str, Any]] = [rule for group in ALERTS["groups"] for rule in group["rules"]]
ROW = re.compile(
    r"^\| `(?P<name>wizard_\w+)` \| (?P<type>\w+) \| (?P<labels>[^|]*?) ?\| (?P<text>[^|]+) \|$", re.MULTILINE
)

SELECTOR = re.compile(r"\b(?P<name>(?:wizard_\w+|up)\b)(?:\{(?P<matchers>[^}]*)\})?")
MATCHER = re.compile(r'(?P<label>\w+)\s*(?P<how>=~|!~|!=|=)\s*"(?P<value>[^"]*)"')
GROUPING = re.compile(r"\b(?:by|on|group_left|without|ignoring)\s*\((?P<labels>[^)]*)\)")
OF_PROMETHEUS = {"job", "instance"}
"""The labels that a scrape adds to every series."""
CODES = frozenset(
    each.code for each in vars(errors).values() if isinstance(each, type) and issubclass(each, WizardError)
) | {REFUSED}


READ: Callable[[str], Iterable[Metric]] = text_string_to_metric_families


@frozen
class Known:
    """What a scrape shows: of each metric its type and labels, of each series' name the values of its labels."""

    metrics: Mapping[str, tuple[str, frozenset[str]]]
    series: Mapping[str, Mapping[str, frozenset[str]]]


def known_of(body: str) -> Known:
    """Return what a scrape in OpenMetrics shows."""
    metrics: dict[str, tuple[str, frozenset[str]]] = {}
    series: dict[str, dict[str, frozenset[str]]] = {}
    for family in READ(body):
        name = family.name + {"counter": "_total", "info": "_info"}.get(family.type, "")
        labels = frozenset(label for sample in family.samples for label in sample.labels if label != "le")
        metrics[name] = (family.type, labels)
        for sample in family.samples:
            values = series.setdefault(sample.name, {})
            for label, value in sample.labels.items():
                values[label] = values.get(label, frozenset()) | {value}
    return Known(metrics, series)


@pytest.fixture(scope="module")
def known() -> Known:
    """What a client shows that has done everything."""

    async def main() -> str:
        async with busy_client() as client:
            responses = {(how, 200): 1 for how in ("openai", "anthropic", "other")}
            return exposition(client.metrics(), "application/openmetrics-text", responses)[0].decode()

    return known_of(trio.run(main, clock=MockClock(autojump_threshold=0)))


def wrong_in(expression: str, known: Known) -> Iterator[str]:
    """Yield what a PromQL expression asks for in vain: metrics, labels and values that there are not."""
    for open_, close in ("()", "{}", "[]"):
        if expression.count(open_) != expression.count(close):
            yield f"{open_}{close} are not in pairs"
    labels = set(OF_PROMETHEUS)
    for selector in SELECTOR.finditer(expression):
        name = selector["name"]
        if name == "up":
            continue
        if name not in known.series:
            yield f"{name} is no series"
            continue
        labels |= set(known.series[name])
        for label, how, value in MATCHER.findall(selector["matchers"] or ""):
            if label not in OF_PROMETHEUS | set(known.series[name]):
                yield f"{name} has no label {label}"
            elif label not in OF_PROMETHEUS:
                there = known.series[name][label] | (CODES if label == "code" else set())
                yield from (
                    f"{label} of {name} is never {each!r}"
                    for each in (value.split("|") if "~" in how else [value])
                    if each not in there
                )
    for grouping in GROUPING.finditer(expression):
        yield from (
            f"nothing here has the label {label}"
            for label in re.findall(r"\w+", grouping["labels"])
            if label not in labels
        )


def survive(labels: set[str], expression: str) -> bool:
    """Say whether what comes of an expression still has these labels: a sum has only those that it is by."""
    kept = {label for each in GROUPING.finditer(expression) for label in re.findall(r"\w+", each["labels"])}
    return labels <= kept or not re.search(r"\b(sum|min|max)\b", expression)


def panels() -> Iterator[Mapping[str, Any]]:
    """Yield the panels of the dashboard that show something."""
    yield from (panel for panel in DASHBOARD["panels"] if panel["type"] != "row")


def targets() -> list[tuple[str, Mapping[str, Any]]]:
    """Return every query of the dashboard, with the title of its panel."""
    return [(panel["title"], target) for panel in panels() for target in panel["targets"]]


# -- the table ---------------------------------------------------------------------------------------------------------


def test_the_table_has_every_metric_with_its_type_and_labels(known: Known) -> None:
    """What a scrape shows has a row, and each row is of something that a scrape shows."""
    rows = list(ROW.finditer(TEXT))
    table = {row["name"]: (row["type"], frozenset(re.findall(r"`(\w+)`", row["labels"]))) for row in rows}

    assert table == known.metrics
    assert len(rows) == len(table)
    assert TEXT.count("\n| `wizard_") == len(rows)


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("wizard_requests_total", "outcome"),
        ("wizard_attempts_total", "outcome"),
        ("wizard_hedges_total", "outcome"),
        ("wizard_breaker_state", "state"),
        ("wizard_retry_budget_spent_total", "purpose"),
        ("wizard_cache_looks_total", "outcome"),
        ("wizard_degraded_total", "to"),
        ("wizard_session_turns_total", "outcome"),
        ("wizard_tokens_total", "direction"),
        ("wizard_http_responses_total", "format"),
    ],
)
def test_the_table_names_the_values_of_a_label(known: Known, name: str, label: str) -> None:
    """Where they are the same ones for everybody."""
    [row] = [row for row in ROW.finditer(TEXT) if row["name"] == name]

    assert known.series[name][label] <= set(re.findall(r"`(\w+)`", row["text"]))


# -- scraping and alerts -----------------------------------------------------------------------------------------------


def test_the_scrape_is_one_of_a_server_with_keys() -> None:
    """It sends a key from a file, as a bearer token, which is Prometheus's default, to the default path."""
    [job] = SCRAPING["scrape_configs"]

    assert job["job_name"] == "wizard"
    assert set(job["authorization"]) == {"credentials_file"}
    assert "metrics_path" not in job
    assert job["static_configs"][0]["targets"]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_an_alert_asks_for_what_there_is(known: Known, rule: Mapping[str, Any]) -> None:
    """Its metrics, labels and values exist, and it tells people something."""
    assert list(wrong_in(rule["expr"], known)) == []
    assert survive(set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"])), rule["expr"])
    assert set(rule) <= {"alert", "expr", "for", "annotations"}
    assert re.fullmatch(r"\d+[smh]", rule.get("for", "0s"))


def test_the_alerts_watch_what_wakes_people() -> None:
    """An open circuit, a route without models, an empty budget, the cost, a loop that stands still."""
    expressions = " ".join(rule["expr"] for rule in RULES)

    for name in (
        "breaker_state",
        "requests_total",
        "retry_budget_remaining",
        "cost_dollars_total",
        "loop_stalls_total",
        "loop_stall_seconds_total",
        "actor_restarts_total",
    ):
        assert f"wizard_{name}" in expressions


def selected(selector: re.Match[str], body: str) -> float:
    """Return the sum of the series of a scrape that a selector selects."""
    return sum(
        sample.value
        for family in READ(body)
        for sample in family.samples
        if sample.name == selector["name"]
        and all(
            bool(re.fullmatch(value if "~" in how else re.escape(value), sample.labels.get(label, "")))
            is not how.startswith("!")
            for label, how, value in MATCHER.findall(selector["matchers"] or "")
        )
    )


REQUEST = RequestError("no", model="m", status=400)
FILTERED = ContentFilterError("no", model="m", status=400)
TOO_LONG = TokenLimitError("no", model="m")
UNABLE = UnsupportedError("no", feature="pictures", model="m")
AUTH = AuthError("no", model="m", status=401)
UNKNOWN = ModelNotFoundError("no", model="m", status=404)
BUSY = OverloadedError("no", model="m", status=503)
BROKEN = ProviderError("no", model="m", status=500)


@pytest.mark.parametrize(
    ("errors_", "wakes"),
    [
        ((REQUEST, REQUEST), False),
        ((REQUEST,), False),
        ((TOO_LONG, REQUEST), False),
        ((UNABLE, UNABLE), False),
        ((FILTERED, FILTERED), False),
        ((BUSY, BUSY), True),
        ((BROKEN,), True),
        ((REQUEST, BUSY), True),
        ((AUTH, UNKNOWN), True),
    ],
    ids=lambda value: "-".join(type(each).__name__ for each in value) if isinstance(value, tuple) else None,
)
async def test_nobody_is_woken_by_a_request_that_is_wrong_in_itself(
    errors_: tuple[WizardError, ...], wakes: bool, autojump_clock: MockClock
) -> None:
    """The rule of a failing route selects the failures of models, and none that a caller has to put right."""
    [rule] = [rule for rule in RULES if rule["alert"] == "WizardRouteFailing"]
    failing, stood_in, answered = SELECTOR.finditer(rule["expr"])
    names = "ab"[: len(errors_)]
    providers = {name: Scripted(fails(error)) for name, error in zip(names, errors_, strict=True)}
    async with client_of(providers, *[model(name, retry=RetryConfig(max_attempts=1)) for name in names]) as client:
        with pytest.raises(WizardError):
            await client.generate("Why?")
        body = exposition(client.metrics(), "application/openmetrics-text")[0].decode()

    assert selected(failing, body) == wakes
    assert selected(stood_in, body) == selected(answered, body) == 0


async def test_nobody_is_woken_by_a_callers_own_deadline(autojump_clock: MockClock) -> None:
    """It may be as short as the caller likes."""
    [rule] = [rule for rule in RULES if rule["alert"] == "WizardRouteFailing"]
    async with client_of(Scripted(SILENT)) as client:
        with pytest.raises(errors.DeadlineExceededError):
            await client.generate("Why?", deadline=0.5)
        body = exposition(client.metrics(), "application/openmetrics-text")[0].decode()

    assert 'code="deadline_exceeded"' in body
    assert selected(next(SELECTOR.finditer(rule["expr"])), body) == 0


# -- the dashboard -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("title", "target"), targets())
def test_a_panel_asks_for_what_there_is(known: Known, title: str, target: Mapping[str, Any]) -> None:
    """Metrics, labels and values exist; so do the labels that its legend shows, and they survive the expression."""
    expression = target["expr"]
    shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))

    assert list(wrong_in(expression, known)) == [], title
    assert survive(shown, expression), title
    selectors = [each["matchers"] or "" for each in SELECTOR.finditer(expression)]
    assert all('job=~"$job",instance=~"$instance"' in matchers for matchers in selectors), title


def test_every_metric_is_on_the_dashboard(known: Known) -> None:
    """Nothing is counted that nobody sees."""
    expressions = " ".join(target["expr"] for _, target in targets())
    asked = set(re.findall(r"wizard_\w+", expressions))

    assert {name for name in known.metrics if not {name, f"{name}_bucket"} & asked} == set()


async def test_a_single_number_is_there_before_anything_has_happened(autojump_clock: MockClock) -> None:
    """Where nothing was asked, or nothing was answered, the series are not there, and the sum of none is "No data"."""
    async with client_of(Scripted(fails(BROKEN)), model("a", retry=RetryConfig(max_attempts=1))) as client:
        fresh = exposition(client.metrics(), "application/openmetrics-text")[0].decode()
        with pytest.raises(WizardError):
            await client.generate("Why?")
        failed = exposition(client.metrics(), "application/openmetrics-text")[0].decode()
    numbers = {panel["title"]: panel["targets"][0]["expr"] for panel in panels() if panel["type"] == "stat"}

    for title, expression in numbers.items():
        first = next(SELECTOR.finditer(expression))
        if not all(f"\n{first['name']}{{" in body or f"\n{first['name']} " in body for body in (fresh, failed)):
            assert "or vector(0)" in expression, title
    assert re.match(r"\(sum\(.*outcome=\"answered\".*\) or vector\(0\)\) / sum", numbers["Answered"])


def test_the_dashboard_is_of_no_particular_grafana() -> None:
    """Its data source is a variable, its own identity is left to whoever imports it."""
    variables = {each["name"]: each for each in DASHBOARD["templating"]["list"]}

    assert (DASHBOARD["uid"], DASHBOARD["id"]) == (None, None)
    assert (variables["datasource"]["type"], variables["datasource"]["query"]) == ("datasource", "prometheus")
    used = re.findall(r'"uid": ("[^"]*"|null)', json.dumps({**DASHBOARD, "uid": "${datasource}"}))
    assert set(used) == {'"${datasource}"'}
    assert set(re.findall(r"\$(\w+)", json.dumps(DASHBOARD["panels"]))) <= {*variables, "__rate_interval"}
    for panel in panels():
        assert panel["datasource"]["uid"] == "${datasource}"


def test_the_panels_stand_in_rows_side_by_side() -> None:
    """Each has a number of its own and room of its own on the grid of 24 columns, below the row it belongs to."""
    every = DASHBOARD["panels"]
    cells = [
        (x, y)
        for grid in (panel["gridPos"] for panel in every)
        for x in range(grid["x"], grid["x"] + grid["w"])
        for y in range(grid["y"], grid["y"] + grid["h"])
    ]

    assert [panel["title"] for panel in every if panel["type"] == "row"] == [
        "Requests",
        "Models",
        "Limits and breakers",
        "Cache and sessions",
        "Cost",
        "Server",
    ]
    assert len({panel["id"] for panel in every}) == len(every)
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) == 23
    assert [panel["gridPos"]["y"] for panel in every] == sorted(panel["gridPos"]["y"] for panel in every)


# -- the reader of expressions itself ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "wrong"),
    [
        ("wizard_request_total", "wizard_request_total is no series"),
        ("rate(wizard_slots[5m]", "() are not in pairs"),
        ('wizard_slots{route="a"}', "wizard_slots has no label route"),
        ('wizard_requests_total{outcome="lost"}', "outcome of wizard_requests_total is never 'lost'"),
        ('wizard_requests_total{code=~"overloaded|busy"}', "code of wizard_requests_total is never 'busy'"),
        ("sum by (route) (wizard_slots)", "nothing here has the label route"),
    ],
)
def test_a_wrong_expression_is_found(known: Known, expression: str, wrong: str) -> None:
    """A metric, a label or a value that is not there, and a bracket that is not closed."""
    assert list(wrong_in(expression, known)) == [wrong]
