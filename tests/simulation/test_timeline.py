"""The timeline of a run: numbers that agree with the report, labels that can be read, for every size of a run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import combinations
from xml.etree import ElementTree as ET

import pytest
from attrs import evolve

from wizard_actors import WizardConfig
from wizard_actors.testing import FaultWindow, Report, Scenario, Workload, simulate
from wizard_actors.testing.simulation.records import (
    CallRecord,
    CircuitChange,
    ModelSample,
    RequestRecord,
    Sample,
    Violation,
)
from wizard_actors.testing.simulation.scenario import ClockJump, Kill, StorageFault
from wizard_actors.testing.simulation.timeline import LANE, drawing_of, timeline_svg
from wizard_actors.testing.simulation.timeline_figures import (
    axis_of,
    latencies,
    share_text,
    value_ticks,
)
from wizard_actors.testing.simulation.timeline_lanes import OUTCOME_COLOURS, model_colours
from wizard_actors.testing.simulation.timeline_marks import HATCH, Drawing, Path, Text
from wizard_actors.testing.simulation.timeline_strips import CIRCUIT_COLOURS, FAULT, PAUSED, QUEUED, STORAGE

SVG = "{http://www.w3.org/2000/svg}"
WEEK = 7 * 86_400.0
HOSTILE = """<script>alert("1")</script> & 'co' ]]> \x00\x1b """


def a_config(models: Sequence[str] = ("primary", "backup")) -> WizardConfig:
    """Return a configuration of models."""
    tables = "".join(
        f'[[models]]\nname = "{name}"\nprovider = "openai"\nbase_url = "http://h{index}/v1"\n'
        for index, name in enumerate(models)
    )
    return WizardConfig.from_toml(tables, env={})


def a_request(
    number: int, arrived: float = 0.0, seconds: float = 0.5, outcome: str = "answered", served: str = "direct"
) -> RequestRecord:
    """Return a request that ended as it is said."""
    return RequestRecord(
        number=number,
        kind="generate",
        prompt=number,
        prompt_words=5,
        tenant="",
        session=None,
        deadline=None,
        arrived=arrived,
        ended=arrived + seconds,
        outcomes=(outcome,),
        served_by=served if outcome == "answered" else None,
    )


def a_call(number: int, model: str, began: float, end: str = "complete") -> CallRecord:
    """Return a call that ended at once."""
    return CallRecord(
        number=number,
        model=model,
        request_id="",
        prompt=number,
        tenant="",
        began=began,
        heard=began,
        over=began,
        closed=began,
        steps=(1, 2, 3, 4),
        circuit="closed",
        generation=0,
        fault=None,
        status=200,
        end=end,  # type: ignore[arg-type]  # one of its four
        asked_tokens=1,
        billed=1,
    )


def a_report(
    scenario: Scenario | None = None,
    requests: Sequence[RequestRecord] = (),
    calls: Sequence[CallRecord] = (),
    circuits: Sequence[CircuitChange] = (),
    samples: Sequence[Sample] = (),
) -> Report:
    """Return a report made up of its parts."""
    scenario = scenario or Scenario(config=a_config())
    return Report(
        scenario=scenario,
        requests=tuple(requests),
        calls=tuple(calls),
        circuits=tuple(circuits),
        spent=(),
        samples=tuple(samples),
        lanes={},
        restarts={},
        sessions={},
        counts={},
        held=(),
        finished=True,
        ended=max([scenario.duration, *(request.ended for request in requests)]),
    )


def a_sample(at: float, models: Sequence[str], waiting: int = 0, paused: float = 0.0) -> Sample:
    """Return how every model stood at an instant."""
    seen = ModelSample(circuit="closed", slots_in_use=1, waiting=0, limiter_waiting=waiting, paused_for=paused)
    return Sample(at, 1, 10.0, dict.fromkeys(models, seen))


def a_busy_report(models: int = 20, duration: float = WEEK, asked: int = 72_000, faults: int = 1000) -> Report:
    """Return a report in which everything is as many as it may be."""
    names = [f"region-{index}-{'very-' * 20}long-name" for index in range(models)]
    step = duration / asked
    outcomes = ("answered", "deadline_exceeded", "cancelled", "answered", "all_models_failed")
    scenario = Scenario(
        name="n" * 500,
        about="about it " * 500,
        duration=duration,
        config=a_config(names),
        workload=Workload(rate=asked / duration),
        faults=[
            FaultWindow(
                kind="error", models=[names[index % models]], start=duration * index / faults, lasts=duration / 5e3
            )
            for index in range(faults)
        ],
        kills=[Kill(actor="*", at=0.0, every=6.1, times=10**9)],
        clock_jumps=[ClockJump(at=duration / 2, seconds=float(index)) for index in range(50)],
        storage_faults=[
            StorageFault(kind="slow", start=duration * index / 100, lasts=duration / 300) for index in range(99)
        ],
    )
    return a_report(
        scenario,
        [
            a_request(
                index, index * step, 0.001 * (1 + index % 9000), outcomes[index % 5], ("direct", "fallback")[index % 2]
            )
            for index in range(asked)
        ],
        [
            a_call(index, names[index % models], index * step, ("complete", "broken")[index // models % 2])
            for index in range(asked)
        ],
        [
            CircuitChange(duration * index / 600, name, ("open", "half_open", "closed")[index % 3])
            for index in range(600)
            for name in names
        ],
        [
            a_sample(duration * index / 600, names, index % 7, float(index % 2) * duration / 1300)
            for index in range(600)
        ],
    )


def played(name: str) -> Report:
    """Play a short scenario such as those that are shipped."""
    faults: dict[str, list[FaultWindow]] = {
        "outage": [FaultWindow(kind="down", models=["primary"], start=10.0, lasts=20.0)],
        "flapping": [FaultWindow(kind="error", models=["primary"], start=5.0, lasts=1.0, every=2.5)],
        "regional": [
            FaultWindow(kind="overloaded", start=5.0, lasts=10.0, share=0.3),
            FaultWindow(kind="slow_first_token", models=["backup"], start=20.0),
        ],
    }
    scenario = Scenario(
        name=name,
        about="What happens while a provider is away, and after it has come back.",
        duration=40.0,
        config=a_config(),
        faults=faults[name],
        workload=Workload(rate=4.0, cancel_share=0.05),
        kills=[Kill(actor="models/model:primary/breaker", at=12.0, every=5.0, times=3)],
    )
    return simulate(scenario)


def parsed(svg: str) -> ET.Element:
    """Return an SVG as XML."""
    return ET.fromstring(svg)  # noqa: S314 - our own


def heights(drawing: Drawing, fill: str) -> float:
    """Return how high all bars of a colour are together: the bars of a lane are those that have no seams."""
    drawn = "".join(mark.d for mark in drawing.marks if isinstance(mark, Path) and mark.fill == fill and mark.crisp)
    return sum(float(height) for height in re.findall(r"h[\d.]+v([\d.]+)h", drawn))


def texts(drawing: Drawing) -> list[Text]:
    """Return all texts of a picture."""
    return [mark for mark in drawing.marks if isinstance(mark, Text)]


def overlaps(drawing: Drawing) -> list[tuple[str, str]]:
    """Return the pairs of texts that are drawn over each other."""
    placed = [(text.text, text.box) for text in texts(drawing)]
    return [
        (one, other)
        for (one, a), (other, b) in combinations(placed, 2)
        if a[0] < b[2] and b[0] < a[2] and a[1] + 1 < b[3] and b[1] + 1 < a[3]
    ]


def outside(drawing: Drawing) -> list[str]:
    """Return the texts that leave the picture."""
    return [
        text.text
        for text in texts(drawing)
        if text.box[0] < 0 or text.box[1] < 0 or text.box[2] > drawing.width or text.box[3] > drawing.height
    ]


# -- whole pictures --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["outage", "flapping", "regional"])
def test_a_played_run_can_be_read_and_agrees_with_its_report(name: str) -> None:
    """Texts lie beside each other and inside the picture, and every request is in the bars of its outcome."""
    report = played(name)
    drawing = drawing_of(report)
    assert parsed(timeline_svg(report)).tag == f"{SVG}svg"
    assert (overlaps(drawing), outside(drawing)) == ([], [])
    figures = {text.text for text in texts(drawing)}
    assert {f"{len(report.requests):,}", share_text(report.summary.availability)} <= figures
    assert report.scenario.about in figures


def test_the_bars_are_as_high_as_the_report_says() -> None:
    """The bars of each outcome together stand for all of its requests, those of each model for its calls."""
    ends = [("answered", "direct")] * 7 + [("answered", "fallback")] * 5 + [("answered", "cache")] * 4
    ends += [("left", "")] * 3 + [("rate_limited", "")] * 2
    ends += [("answered", "stale"), ("answered", "static")] * 3
    requests = [a_request(index, index * 2.5, 1.0, *end) for index, end in enumerate(ends)]
    calls = [a_call(index, "primary", index * 3.0) for index in range(12)] + [a_call(12, "backup", 40.0, "refused")]
    report = a_report(None, requests, calls)
    drawing = drawing_of(report)
    requests_a_pixel = axis_of(report).step * value_ticks(1 / axis_of(report).step)[-1] / LANE  # one of each a bucket
    drawn = {name: heights(drawing, colour) * requests_a_pixel for name, colour in OUTCOME_COLOURS.items()}
    colours = model_colours(report.models)
    assert drawn == pytest.approx(
        {
            "first model": 7,
            "another model": 5,
            "cache": 4,
            "stale or static": 6,
            "cancelled or left": 3,
            "failed": 2,
        },
        abs=0.1,
    )
    assert heights(drawing, colours["primary"]) * requests_a_pixel == pytest.approx(12, abs=0.1)
    assert heights(drawing, colours["backup"]) * requests_a_pixel == pytest.approx(1, abs=0.1)
    assert heights(drawing, HATCH) * requests_a_pixel == pytest.approx(1, abs=0.1)


def test_hovers_count_every_request_and_every_call() -> None:
    """What is told of the buckets adds up to all requests, and to all calls."""
    report = a_busy_report(models=3, duration=600.0, asked=3000, faults=3)
    told = [title.text or "" for title in parsed(timeline_svg(report)).iter(f"{SVG}title")]
    outcomes = [title for title in told if re.search(r": \d+ first model|: \d+ another model", title)]
    calls = [title for title in told if re.search(r": \d+ region", title)]
    assert sum(int(count) for title in outcomes for count in re.findall(r"[:,] (\d+) ", title)) == 3000
    assert sum(int(count) for title in calls for count in re.findall(r"[:,] (\d+) region", title)) == 3000


def test_a_run_without_requests_says_so() -> None:
    """Nothing to count is no reason to fail: every lane says that it has nothing."""
    drawing = drawing_of(a_report())
    said = {text.text for text in texts(drawing)}
    assert {"nobody asked anything", "no call reached a model", "nobody was answered", "0 s", "-"} <= said
    assert overlaps(drawing) == []
    parsed(timeline_svg(a_report()))


@pytest.mark.parametrize("duration", [0.5, 1.0, 59.0, 61.0, 600.0, 3600.0, 86_400.0, WEEK])
def test_one_request_is_drawn_whatever_the_duration(duration: float) -> None:
    """A lone request has a bar, and its latency a dot; ticks do not overlap for any duration."""
    scenario = Scenario(config=a_config(), duration=duration, workload=Workload(rate=0.1))
    report = a_report(scenario, [a_request(0, duration / 2, duration / 10)])
    drawing = drawing_of(report)
    assert heights(drawing, OUTCOME_COLOURS["first model"]) > 10
    assert sum(isinstance(mark, Path) and mark.d.endswith("h0") for mark in drawing.marks) == 2
    assert overlaps(drawing) == []
    assert axis_of(report).buckets <= 121


@pytest.mark.parametrize("models", [1, 2, 7, 20, 60])
def test_any_number_of_models_has_labels_that_do_not_overlap(models: int) -> None:
    """Of more than 20 models the others are one; long names are shortened, and whole for whoever points at them."""
    report = a_busy_report(models=models, duration=60.0, asked=600, faults=5)
    drawing = drawing_of(report)
    assert (overlaps(drawing), outside(drawing)) == ([], [])
    assert {text.full for text in texts(drawing)} >= set(report.models[:1])
    assert any(text.text == "other models" for text in texts(drawing)) == (models > 20)


@pytest.mark.long
def test_the_greatest_run_stays_small() -> None:
    """72,000 requests, 20 models, a week and 1,000 fault windows are less than 300 KB, and can be read."""
    report = a_busy_report()
    svg, drawing = timeline_svg(report), drawing_of(report)
    assert len(svg.encode()) < 300_000
    assert (overlaps(drawing), outside(drawing)) == ([], [])
    parsed(svg)


def test_the_same_report_makes_the_same_bytes() -> None:
    """Whoever keeps pictures sees a difference only where there is one."""
    assert timeline_svg(played("outage")) == timeline_svg(played("outage"))


def test_hostile_names_are_only_text() -> None:
    """Markup in names stays text, and what XML forbids is replaced."""
    scenario = Scenario(name=HOSTILE, about=HOSTILE, config=a_config(["a<b>&'c"]))
    report = evolve(a_report(scenario, [a_request(0, outcome=HOSTILE)]), violations=(Violation(HOSTILE, HOSTILE),))
    svg = timeline_svg(report)
    root = parsed(svg)
    assert {element.tag.removeprefix(SVG) for element in root.iter()} == {
        "svg",
        "title",
        "desc",
        "defs",
        "pattern",
        "path",
        "text",
    }
    assert "a<b>&'c" in {element.text for element in root.iter(f"{SVG}text")}
    svg.encode()


def test_it_needs_nothing_but_itself() -> None:
    """No script, no style sheet, no reference but to its own parts."""
    svg = timeline_svg(played("flapping"))
    assert re.findall(r"https?://[^\"]*", svg) == ["http://www.w3.org/2000/svg"]
    assert not re.search(r"<script|<style|<image|<use|href|@import|\son\w+=", svg)
    assert all(url.startswith("#") for url in re.findall(r"url\(([^)]*)\)", svg))


def test_it_is_told_to_those_who_do_not_see_it() -> None:
    """The picture has a role, a title, and a description with the key figures and what goes wrong."""
    root = parsed(timeline_svg(played("outage")))
    by_id = {element.get("id"): element.text or "" for element in root.iter() if element.get("id")}
    title, about = (by_id[name] for name in (root.get("aria-labelledby") or "").split())
    assert root.get("role") == "img"
    assert title == "outage, seed 1"
    assert "down: primary: 10 s to 30 s" in about
    assert "availability" in about


def test_circuits_that_opened_are_told_to_those_who_do_not_see_it() -> None:
    """The description says of which models they were, and how often."""
    opened = [CircuitChange(1.0, "backup", "open"), CircuitChange(2.0, "backup", "open")]
    assert drawing_of(a_report(circuits=opened)).description.endswith("Circuits that opened: backup 2 times.")
    assert drawing_of(a_report()).description.endswith("Circuits that opened: none.")


def test_the_legend_has_what_is_drawn_and_nothing_else() -> None:
    """Of a run without faults only the closed breakers; of others each sign that is there."""
    legend = {"breaker closed", "half-open", "open", "limiter paused", "failed calls", "storage fault (shaded)"}
    legend |= {"a model's fault (shaded)", "calls that wait (full height: 3)", "cancelled or left", "cache"}
    calm = {text.text for text in texts(drawing_of(a_report()))}
    report = a_report(
        Scenario(config=a_config(), faults=[FaultWindow(kind="down")], storage_faults=[StorageFault(kind="failing")]),
        [a_request(0, outcome="left"), a_request(1, served="cache")],
        [a_call(0, "primary", 1.0, "refused")],
        [CircuitChange(1.0, "primary", "open"), CircuitChange(2.0, "primary", "half_open")],
        [a_sample(1.0, ["primary", "backup"], waiting=3, paused=1.0)],
    )
    assert legend & calm == {"breaker closed"}
    assert legend <= {text.text for text in texts(drawing_of(report))}


def test_one_colour_stands_for_one_thing() -> None:
    """No outcome, model, breaker, queue or fault shares its colour with another one of them."""
    models = list(model_colours([f"m{index}" for index in range(12)]).values())
    colours = [*OUTCOME_COLOURS.values(), *models, *CIRCUIT_COLOURS.values(), PAUSED, QUEUED, FAULT, STORAGE]
    assert len(set(colours)) == len(colours)


@pytest.mark.parametrize(
    ("scenario", "colours"),
    [
        (Scenario(config=a_config(), faults=[FaultWindow(kind="down", start=5.0)]), [FAULT]),
        (Scenario(config=a_config(), storage_faults=[StorageFault(kind="slow", start=5.0, lasts=9.0)]), [STORAGE]),
    ],
)
def test_faults_of_models_and_of_the_storage_are_shaded(scenario: Scenario, colours: list[str]) -> None:
    """Each in its own colour, over all lanes."""
    shades = [mark for mark in drawing_of(a_report(scenario)).marks if isinstance(mark, Path) and mark.opacity == 0.1]
    assert [shade.fill for shade in shades] == colours


def test_a_story_that_is_cut_ends_with_a_word() -> None:
    """Of what is too long, whole words are kept, and all of it is there for whoever points at it."""
    about = "It happens that somebody tells a long story. " * 20
    said = texts(drawing_of(a_report(Scenario(config=a_config(), about=about))))
    cut = next(text for text in said if text.full == about)
    assert cut.text.removesuffix(" \N{HORIZONTAL ELLIPSIS}").split()[-1] in about.split()
    assert cut.text.endswith(" \N{HORIZONTAL ELLIPSIS}")


def test_a_latency_without_neighbours_is_seen() -> None:
    """Where nobody asked before or after, it is a dot that is wider than a line."""
    dots = [mark for mark in drawing_of(a_report(None, [a_request(0, 30.0)])).marks if isinstance(mark, Path)]
    assert [dot.width > 2 for dot in dots if dot.d.endswith("h0")] == [True, True]


def test_what_takes_no_time_is_at_most_a_millisecond() -> None:
    """A logarithmic scale has no zero, so its lowest tick says that it stands for less, too."""
    answers = [a_request(0, 1.0, 0.0), a_request(1, 2.0, 5.0)]
    assert "\N{LESS-THAN OR EQUAL TO} 1 ms" in {text.text for text in texts(drawing_of(a_report(None, answers)))}


def test_latency_is_that_of_the_table() -> None:
    """The key figures and the lane leave out the slow readers' own time, as the summary does."""
    slow = evolve(a_request(1, 5.0, 900.0), reader="slow")
    report = a_report(None, [a_request(0, 1.0, 0.5), slow])
    said = {text.text for text in texts(drawing_of(report))}
    assert "500 ms" in said
    assert "15 min" not in said
    assert [seconds for bucket in latencies(report.requests, axis_of(report)) for seconds in bucket] == [0.5]


def test_violations_are_named() -> None:
    """Which promise was broken stands above everything else."""
    broken = tuple(Violation("answered-once", f"request {index}") for index in range(3))
    said = [text.text for text in texts(drawing_of(evolve(a_report(), violations=broken, finished=False)))]
    assert "Violated: answered-once (3). Not finished: somebody still waited" in said


def test_a_request_that_hangs_for_a_day_leaves_the_rest_readable() -> None:
    """The time that is drawn is bounded; when the last request ended is said, and late calls are told as left out."""
    report = a_report(None, [a_request(0, 1.0, 86_400.0)], [a_call(0, "primary", 1.0), a_call(1, "primary", 80_000.0)])
    said = [text.text for text in texts(drawing_of(report))]
    assert axis_of(report).end <= 4 * 60 + 2
    assert any("the last of which ended at 1 d" in text for text in said)
    assert any("1 after 4 min are not drawn" in text for text in said)
