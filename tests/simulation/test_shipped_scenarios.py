"""The scenarios that come with the package: each holds its own promise, in numbers; and the page's table is theirs."""

import re
from collections.abc import Callable, Iterable

import pytest

from benchmarks.figures import BEGIN, END, HEAD, PAGE, played_with, row, with_table
from wizard_actors.testing import SHIPPED, Report, load_scenario, simulate
from wizard_actors.testing.simulation import scenario_file

LEAST_REQUESTS = 1500


def failed(report: Report, *, besides: Iterable[str] = ()) -> dict[str, int]:
    """Return what callers got that was no answer and not of their own doing, `besides` some codes."""
    fine = {"answered", "cancelled", "left", *besides}
    return {code: count for code, count in report.summary.outcomes.items() if code not in fine}


def provider_outage(report: Report) -> None:
    """Five minutes without the primary cost only live streams that had begun, and it is hardly asked meanwhile."""
    assert (report.summary.availability or 0) >= 0.999
    assert failed(report, besides=["stream_interrupted"]) == {}
    assert all(request.kind == "stream" for request in report.requests if request.outcome == "stream_interrupted")
    assert report.summary.share_of("backup") > 0.4
    assert report.summary.late_calls["primary"] <= 12
    assert report.summary.openings["backup"] == 0


def brownout(report: Report) -> None:
    """Nobody is refused, and the retries are few."""
    assert failed(report) == {}
    assert report.summary.openings["primary"] >= 2
    assert (report.summary.calls_per_request or 0) < 1.1


def rate_limit_squeeze(report: Report) -> None:
    """The limiter learns from a handful of 429s."""
    assert failed(report) == {}
    assert report.summary.faults["rate_limit"] <= 40
    assert report.summary.openings["primary"] == 0  # a limit is no failure
    assert report.summary.share_of("primary") > 0.5


def flapping(report: Report) -> None:
    """Each outage is found out and each return, too."""
    assert failed(report) == {}
    assert report.summary.openings["primary"] >= 8
    assert report.summary.share_of("primary") > 0.4
    assert (report.summary.calls_per_request or 0) < 1.1


def slow_tokens(report: Report) -> None:
    """The slow model's places are bounded, and nobody waits without end."""
    assert failed(report) == {}
    assert max(sample.models["primary"].slots_in_use for sample in report.samples) <= 24
    assert max(request.seconds for request in report.requests) < 60
    assert report.summary.share_of("backup") > 0.2


def mid_stream_cuts(report: Report) -> None:
    """Who can be given another answer is, and live readers are told."""
    assert failed(report, besides=["stream_interrupted"]) == {}
    lost = [request for request in report.requests if request.outcome == "stream_interrupted"]
    assert {request.kind for request in lost} == {"stream"}
    assert len(lost) < 0.04 * report.summary.requests
    assert sum(report.summary.faults.values()) > 150


def thundering_herd(report: Report) -> None:
    """The crowd is answered, and does not meet the primary before a probe has."""
    assert failed(report) == {}
    assert report.summary.calls["primary"]["half_open"] <= 12
    assert report.summary.calls["primary"].get("open", 0) == 0
    assert max(sample.models["primary"].slots_in_use for sample in report.samples) <= 40


def cache_stampede(report: Report) -> None:
    """Models are asked for one in five at most, and an outage of all of them is not seen."""
    assert failed(report) == {}
    assert (report.summary.calls_per_request or 1) < 0.25
    assert report.summary.served_by["stale"] > 100


def actor_crashes(report: Report) -> None:
    """Every kind of actor was restarted; callers see what the storage refuses, and who waited for a turn the crash."""
    restarted = {path.rpartition("/")[2] for path in report.restarts}
    assert {"router", "cache", "sessions", "limiter", "breaker", "worker"} <= restarted
    assert failed(report, besides=["storage", "serialization", "actor_crashed"]) == {}
    unlucky = [request for request in report.requests if request.outcome != "answered"]
    assert {request.kind for request in unlucky} == {"session"}
    assert report.summary.outcomes.get("actor_crashed", 0) <= 10
    assert (report.summary.availability or 0) > 0.975


def impatient_callers(report: Report) -> None:
    """Nobody is kept beyond the deadline, and the backup's circuit is not opened by impatience."""
    assert failed(report, besides=["deadline_exceeded"]) == {}
    late = [each for each in report.requests if each.deadline is not None and each.seconds > each.deadline + 0.01]
    assert [each for each in late if each.reader == "eager"] == []
    assert (report.summary.availability or 0) > 0.99
    assert report.summary.openings["backup"] == 0


PROMISES: dict[str, Callable[[Report], None]] = {
    "provider-outage": provider_outage,
    "brownout": brownout,
    "rate-limit-squeeze": rate_limit_squeeze,
    "flapping": flapping,
    "slow-tokens": slow_tokens,
    "mid-stream-cuts": mid_stream_cuts,
    "thundering-herd": thundering_herd,
    "cache-stampede": cache_stampede,
    "actor-crashes": actor_crashes,
    "impatient-callers": impatient_callers,
}


def test_each_has_a_promise() -> None:
    """None is shipped that shows nothing, and none lies there that is not offered."""
    folder = scenario_file.scenario_path("brownout").parent

    assert list(PROMISES) == list(SHIPPED)
    assert {path.name for path in folder.iterdir()} == {f"{name}.toml" for name in SHIPPED}


@pytest.mark.parametrize("name", SHIPPED)
def test_each_is_what_its_file_is_named(name: str) -> None:
    """Its name is its file's, it says in a sentence what it is, and it is commented."""
    scenario = load_scenario(name)

    assert scenario.name == name
    assert scenario.about.endswith(".")
    assert scenario.config.models[0].name == "primary"
    assert scenario_file.scenario_path(name).read_text(encoding="utf-8").startswith("# ")
    assert f"| `{name}` | " in PAGE.read_text(encoding="utf-8").partition("## What comes of them")[0]


@pytest.mark.long
@pytest.mark.parametrize("name", SHIPPED)
def test_each_holds_its_promise(name: str) -> None:
    """Played as it is, it breaks no invariant, shows what it promises, and the page has its figures."""
    report = simulate(load_scenario(name))

    assert [str(violation) for violation in report.violations] == []
    assert report.summary.requests >= LEAST_REQUESTS
    PROMISES[name](report)
    if f"Played with {played_with()}:" in PAGE.read_text(encoding="utf-8"):
        assert row(report) in PAGE.read_text(encoding="utf-8"), "`make figures` renews the table"


def test_the_page_s_table_has_every_scenario() -> None:
    """The head and the rows are those that `make figures` writes, in order."""
    table = PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]

    assert HEAD in table
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    assert [re.match(r"\| `([a-z-]+)` \|", line)[1] for line in rows] == list(SHIPPED)  # type: ignore[index]  # all do
    assert {line.count("|") for line in rows} == {HEAD.splitlines()[0].count("|")}
    assert {line.split("|")[-2].strip() for line in rows} == {"0"}


def test_a_new_table_takes_the_place_of_the_old_one() -> None:
    """What stands round it stays; a page without its marks is refused."""
    page = f"before\n{BEGIN}old\n{END}after\n"

    renewed = with_table(page, ["| `x` |\n"])

    assert renewed.startswith(f"before\n{BEGIN}")
    assert renewed.endswith(f"| `x` |\n\n{END}after\n")
    assert "old" not in renewed
    with pytest.raises(ValueError, match="marks"):
        with_table("no marks", [])
