"""The curves: pictures that are readable, and points that can be read back."""

import math
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from benchmarks.curves import Curves, read, write
from benchmarks.svg import Chart, Line, svg

LINES = (Line("a <miss>", ((1.0, 90.0), (10.0, 95.5), (1_000.0, 1_200.0))), Line("a hit", ((1.0, 30.0),)))
CHART = Chart("cache", "By answers & age", "answers", "microseconds", LINES, bound=40.0, promise="promised: 40 us")


def drawn(chart: Chart) -> ET.Element:
    """Return the picture, parsed."""
    return ET.fromstring(svg(chart))  # noqa: S314 - our own


def texts(root: ET.Element) -> list[str]:
    """Return all that is written in it."""
    return [each.text or "" for each in root.iter("{http://www.w3.org/2000/svg}text")]


def test_a_chart_says_what_its_axes_lines_and_promise_are() -> None:
    """A chart is well-formed, and names itself, both axes with their units, each line, and what is promised."""
    said = texts(drawn(CHART))

    assert {CHART.title, CHART.x, CHART.y, CHART.promise, *(line.name for line in LINES)} <= set(said)
    assert {"1", "10", "1,000"} <= set(said)


def test_every_point_is_drawn_inside_the_chart() -> None:
    """Each point has a dot within the picture, which says its value to whoever points at it."""
    root = drawn(CHART)

    dots = list(root.iter("{http://www.w3.org/2000/svg}circle"))

    assert len(dots) == 4
    assert all(0 < float(dot.attrib["cx"]) < 700 and 0 < float(dot.attrib["cy"]) < 430 for dot in dots)
    assert [title.text for dot in dots for title in dot][:2] == ["a <miss>, at 1: 90", "a <miss>, at 10: 95.5"]


def test_more_is_drawn_higher_and_further_right() -> None:
    """Both axes grow away from the corner, by the same width for each power of ten."""
    places = [
        (float(dot.attrib["cx"]), float(dot.attrib["cy"]))
        for dot in drawn(CHART).iter("{http://www.w3.org/2000/svg}circle")
    ]

    first, second, third, _ = places

    assert third[1] < second[1] < first[1]
    assert math.isclose(third[0] - second[0], 2 * (second[0] - first[0]), abs_tol=0.2)


@pytest.mark.parametrize("points", [((1.0, 100.0),), ((5.0, 1.0), (7.0, 1.0))], ids=["one point", "a level line"])
def test_a_chart_of_little_is_drawn_too(points: tuple[tuple[float, float], ...]) -> None:
    """A single point, and points that are all alike, make axes of some length."""
    root = drawn(Chart("few", "Few", "calls", "microseconds", (Line("one", points),)))

    assert len(list(root.iter("{http://www.w3.org/2000/svg}circle"))) == len(points)


def test_points_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    """What is written beside the pictures holds every curve, whole."""
    curves = Curves("Python 3.11.7, Trio 0.35.0", (CHART,))

    write(curves, tmp_path)

    assert read(tmp_path) == curves
    assert (tmp_path / "images" / "curve-cache.svg").read_text(encoding="utf-8") == svg(CHART)
