"""What the tests share: the option `--seeds`, lines for the end of the run, recorded provider traffic."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
RECORDINGS = ROOT.parent / "shared" / "recordings"
REPORT_LINES = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--seeds N`; a chaos test reads it with `pytestconfig.getoption("seeds")`."""
    parser.addoption("--seeds", type=int, default=50, metavar="N", help="seeded schedules that a chaos test runs (50)")


def pytest_configure(config: pytest.Config) -> None:
    """Start with no line to report."""
    config.stash[REPORT_LINES] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the tests measured, at the run's end and under `-q` too."""
    for line in terminalreporter.config.stash[REPORT_LINES]:
        terminalreporter.write_line(line)


@pytest.fixture
def report_line(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Return a function that keeps a line for the end of the run, where it is seen under `-q` too; not under `-n`."""
    return pytestconfig.stash[REPORT_LINES].append


@pytest.fixture(scope="session")
def recordings() -> Path:
    """Return the folder of recorded provider traffic; skip where a checkout has none, but fail in CI."""
    if not RECORDINGS.is_dir():
        reason = "no recorded provider traffic at ../shared/recordings"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{reason}; CI must replay it")
        pytest.skip(reason)
    return RECORDINGS
