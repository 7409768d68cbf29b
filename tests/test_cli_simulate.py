"""`wizard simulate`: what it prints and writes, what it refuses, how it ends."""

import errno
import hashlib
import os
import signal
import stat
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import trio
from attrs import evolve

from tests.wizard_cli import Wizard, start
from wizard_actors.cli_signals import Signals
from wizard_actors.cli_simulate import files, play
from wizard_actors.cli_simulate.shown import Seed, Seeds
from wizard_actors.cli_simulate.status_line import status_line
from wizard_actors.testing import INVARIANTS, SHIPPED, Report, Scenario, Violation, load_scenario, simulate

SCENARIO = """
name = "small"
about = "The first model is down all the time."
duration = 10
config.models = [
    { name = "primary", provider = "openai" },
    { name = "backup", provider = "openai" },
]
[[faults]]
kind = "down"
models = ["primary"]
"""
VIOLATION = Violation("answered-once", "request 7 had 2 outcomes: answered, answered")

PROMISE = next(each.promise for each in INVARIANTS if each.name == VIOLATION.invariant)


@pytest.fixture
def wizard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wizard:
    """The program, in a folder with a scenario and without any configuration."""
    wizard = Wizard(tmp_path, monkeypatch)
    wizard.config(SCENARIO, "small.toml")
    return wizard


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run with an odd seed is against an invariant."""

    def played(scenario: Scenario, *, seed: int | None, logs: bool) -> Report:
        report = simulate(scenario, seed=seed, logs=logs)
        return evolve(report, violations=(VIOLATION,) if report.scenario.seed % 2 else ())

    monkeypatch.setattr(play, "simulate", played)


def figures(out: str) -> dict[str, str]:
    """The rows of a summary's table."""
    rows = (line.strip().split("  ", 1) for line in out.splitlines() if "  " in line.strip())
    return {name: value.strip() for name, value in rows}


def test_a_scenario_is_played_and_its_figures_printed(wizard: Wizard) -> None:
    """What happened to whom, in a table, and nothing else."""
    ran = wizard("simulate", "small.toml")
    assert (ran.status, ran.err) == (0, "")
    assert "The first model is down all the time." in ran.out
    shown = figures(ran.out)
    summary = simulate(load_scenario("small.toml")).summary
    assert shown["small"] == "seed 1"
    assert shown["availability"] == "100.00 %"
    assert shown["answered by"] == "primary 0.00 %, backup 100.00 %"
    assert shown["outcomes"] == f"answered {summary.requests}"
    assert shown["faults met"] == f"down {summary.faults['down']}"
    assert shown["circuits opened"] == "primary 1"


def test_the_same_command_prints_the_same(wizard: Wizard) -> None:
    """To the byte, trace and all; another seed is another run."""
    first, again = wizard("simulate", "small.toml"), wizard("simulate", "small.toml")
    assert first.out == again.out
    assert wizard("simulate", "small.toml", "--seed", "2").out != first.out


def test_json_is_one_object(wizard: Wizard) -> None:
    """With the summary's figures and the trace's hash."""
    ran = wizard("simulate", "small.toml", "--json", "--seed", "4")
    report = simulate(load_scenario("small.toml"), seed=4)
    assert (ran.status, ran.err) == (0, "")
    assert ran.json.keys() == {"scenario", "seed", "summary", "violations", "notes", "trace"}
    assert (ran.json["scenario"], ran.json["seed"], ran.json["violations"]) == ("small", 4, [])
    assert ran.json["notes"] == []
    assert ran.json["summary"] == report.summary.to_dict()


def test_the_trace_is_written_line_by_line(wizard: Wizard) -> None:
    """Its hash is the one that is printed."""
    ran = wizard("simulate", "small.toml", "--trace", "run.jsonl", "--json")
    written = (wizard.path / "run.jsonl").read_bytes()
    assert hashlib.sha256(written).hexdigest() == ran.json["trace"]
    assert [msgspec.json.decode(line)["fact"] for line in written.splitlines()][:1] == ["scenario"]


def test_the_picture_is_written(wizard: Wizard) -> None:
    """In the place of the one before it."""
    (wizard.path / "run.svg").write_text("an older one")
    assert wizard("simulate", "small.toml", "--svg", "run.svg").status == 0
    written = (wizard.path / "run.svg").read_text()
    assert written.startswith("<svg")
    assert written.rstrip().endswith("</svg>")
    assert sorted(file.name for file in wizard.path.iterdir() if "run" in file.name) == ["run.svg"]


def test_a_new_picture_is_for_whoever_the_user_lets_read_new_files(wizard: Wizard) -> None:
    """There is no secret in it."""
    before = os.umask(0o027)
    try:
        wizard("simulate", "small.toml", "--svg", "run.svg")
    finally:
        os.umask(before)
    assert stat.S_IMODE((wizard.path / "run.svg").stat().st_mode) == 0o640


@pytest.mark.parametrize("tokens", [(), ("--list",)])
def test_the_shipped_scenarios_are_listed(wizard: Wizard, tokens: tuple[str, ...]) -> None:
    """Each with what happens in it."""
    ran = wizard("simulate", *tokens)
    rows = figures(ran.out)
    assert (ran.status, ran.err) == (0, "")
    assert {name: rows[name] for name in SHIPPED} == {name: load_scenario(name).about for name in SHIPPED}
    assert [each["name"] for each in wizard("simulate", *tokens, "--json").json["scenarios"]] == list(SHIPPED)


# -- violations ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("broken")
def test_a_violation_is_told_with_its_requests_and_how_to_replay_it(wizard: Wizard) -> None:
    """Which promise, which request, which command; the status is 1."""
    ran = wizard("simulate", "small.toml", "--seed", "3")
    assert ran.status == 1
    assert f"answered-once: {PROMISE}" in ran.out
    assert VIOLATION.what in ran.out
    again = "`wizard simulate small.toml --seed 3` replays that, and `--trace FILE` has it write down every step"
    assert ran.err == f"wizard: 1 invariant did not hold: {again}\n"


@pytest.mark.usefixtures("broken")
def test_violations_are_objects_in_json(wizard: Wizard) -> None:
    """Standard error has nothing then; the status is 1."""
    ran = wizard("simulate", "small.toml", "--json")
    assert (ran.status, ran.err) == (1, "")
    assert ran.json["violations"] == [{"invariant": "answered-once", "promise": PROMISE, "what": VIOLATION.what}]


@pytest.mark.usefixtures("broken")
def test_the_command_that_replays_names_the_configuration(wizard: Wizard) -> None:
    """With what was played, quoted as a shell wants it."""
    wizard.config('[[models]]\nname = "mine"\nprovider = "openai"\n', "my own.toml")
    ran = wizard("simulate", "small.toml", "--config", "my own.toml")
    assert "`wizard simulate small.toml --config 'my own.toml' --seed 1` replays that" in ran.err


# -- many seeds ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("broken")
def test_many_seeds_are_a_line_each(wizard: Wizard) -> None:
    """Then the worst and the median; the seeds in which something did not hold are named."""
    ran = wizard("simulate", "small.toml", "--seeds", "3", "--seed", "4")
    assert ran.status == 1
    lines = ran.out.splitlines()
    begin = [["seed", "4"], ["seed", "5"], ["seed", "6"], ["worst", "100.00"], ["median", "100.00"]]
    assert [line.split()[:2] for line in lines] == begin
    assert [line.split("  ")[-1] for line in lines[:3]] == ["0 violations", "1 violations", "0 violations"]
    assert "did not hold with 1 seeds (5): `wizard simulate small.toml --seed 5` replays that" in ran.err


def test_many_seeds_as_json_are_an_object_each_and_one_of_all(wizard: Wizard) -> None:
    """From seed 1 on, where none is named; each the same as alone."""
    ran = wizard("simulate", "small.toml", "--seeds", "2", "--json")
    *each, of_all = ran.json_lines
    assert (ran.status, ran.err) == (0, "")
    assert each == [wizard("simulate", "small.toml", "--seed", seed, "--json").json for seed in ("1", "2")]
    worst = {"seed": 1, "availability": 1.0}
    assert of_all == {"scenario": "small", "seeds": [1, 2], "worst": worst, "median": 1.0, "violated": []}


def test_the_worst_and_the_median_are_those_of_the_runs_that_count() -> None:
    """A run in which nobody asked is neither."""
    summary = simulate(Scenario(config=load_scenario("flapping").config, duration=1)).summary
    shares = [0.9, None, 0.5, 0.7]
    seeds = Seeds(tuple(Seed(seed, evolve(summary, availability=share), 0) for seed, share in enumerate(shares)))
    assert seeds.worst is not None
    assert (seeds.worst.seed, seeds.median) == (2, 0.7)
    assert seeds.lines.plain == "worst   50.00 % available (seed 2)\nmedian  70.00 % available"
    assert (Seeds(()).worst, Seeds(()).median) == (None, None)


# -- one's own configuration -----------------------------------------------------------------------------------------


def test_a_scenario_happens_to_ones_own_configuration(wizard: Wizard) -> None:
    """Its first model has the part of the scenario's first; no key is looked for, none of its files is read."""
    wizard.config(
        """
        [[models]]
        name = "mine"
        provider = "anthropic"
        api_key_env = "A_KEY_THAT_IS_NOT_SET"
        [[models]]
        name = "yours"
        provider = "gemini"
        api_key_file = "/nowhere/a.key"
        [[models]]
        name = "spare"
        provider = "simulated"
        """
    )
    ran = wizard("simulate", "small.toml", "--config", "wizard.toml")
    assert ran.status == 0
    assert ran.err == "wizard: mine has the part of primary\nwizard: yours has the part of backup\n"
    assert figures(ran.out)["answered by"] == "mine 0.00 %, yours 100.00 %, spare 0.00 %"


def test_the_configuration_in_this_folder_is_not_used_unasked(wizard: Wizard) -> None:
    """A scenario has its own."""
    wizard.config('[[models]]\nname = "mine"\nprovider = "openai"\n')
    wizard.monkeypatch.setenv("WIZARD_CONFIG", "wizard.toml")
    assert "mine" not in wizard("simulate", "small.toml").out


def test_what_is_played_is_never_written_over(wizard: Wizard) -> None:
    """Not the scenario, the configuration that it names, or the one in its place; under another name neither."""
    wizard.config('models = [{ name = "a", provider = "openai" }]\n', "mine.toml")
    wizard.config('duration = 5\nconfig = "mine.toml"\n', "named.toml")
    (wizard.path / "link").symlink_to("small.toml")
    before = {file: file.read_bytes() for file in wizard.path.glob("[!.]*")}

    for arguments in (
        ("small.toml", "--svg", "small.toml"),
        ("small.toml", "--trace", "link"),
        ("small.toml", "--config", "mine.toml", "--trace", "mine.toml"),
        ("named.toml", "--svg", "mine.toml"),
    ):
        ran = wizard("simulate", *arguments)
        assert ran.status == 2
        assert "is what is played, and would be written over" in ran.err

    after = {file: file.read_bytes() for file in wizard.path.glob("[!.]*")}
    assert after == before


# -- what is refused -------------------------------------------------------------------------------------------------

REFUSED = [
    (("provider-outag",), "did you mean `provider-outage`?"),
    (("nowhere.toml",), "nowhere.toml"),
    (("small.toml", "--config", "nowhere.toml"), "nowhere.toml"),
    (("small.toml", "--seed", "-1"), "seed"),
    (("small.toml", "--seed", "x"), "seed"),
    (("small.toml", "--seed", "1.5"), "'1.5' is no whole number"),
    (("small.toml", "--svg", "one", "--trace", "./one"), "name one file"),
    (("small.toml", "--seeds", "0"), "`seeds` must be at least 1, not 0"),
    (("small.toml", "--svg", "nowhere/run.svg"), "`svg` 'nowhere/run.svg' has no folder nowhere"),
    (("small.toml", "--svg", "loop.svg"), "`svg` 'loop.svg' cannot be a file"),
    (("small.toml", "--svg", "x" * 300), "cannot be a file"),
    (("small.toml", "--trace", "."), "`trace` '.' is a folder"),
    (("small.toml", "--seeds", "2", "--svg", "run.svg"), "--svg and --trace are of one run"),
    (("small.toml", "--seed", "9223372036854775807", "--seeds", "2"), "`seeds` go beyond the greatest seed there is"),
    (("--seed", "2"), "name the scenario to play"),
    (("",), "the name of a file is empty: name one"),
    (("small.toml", "--config", ""), "the name of a file is empty: name one, or leave --config out"),
    (("--show",), "name the scenario to play"),
    (("small.toml", "--show", "--seed", "2"), "--show plays nothing"),
    (("--sed",), "unknown option: --sed"),
    (("flapping.toml",), "the shipped scenario is called `flapping`"),
    (("small.toml", "--config", "small.toml"), "small.toml: this is a scenario, not a configuration"),
    (("wizard.toml",), "wizard.toml: this is a configuration, not a scenario"),
    (("small.toml", "--list"), "a list plays nothing"),
    (("small.toml", "another"), "one word too many"),
    (("killed.toml",), "killed.toml: `kills[0].actor` names no actor of this client: 'routr'; did you mean 'router'?"),
    (("unknown.toml",), "unknown.toml: `durations` is unknown"),
]


@pytest.mark.parametrize(("tokens", "said"), REFUSED, ids=lambda value: " ".join(value) if len(value) < 5 else "said")
def test_what_cannot_be_played_is_told_in_a_line(wizard: Wizard, tokens: tuple[str, ...], said: str) -> None:
    """With status 2, and nothing on standard output; as an object with --json."""
    wizard.config(f'{SCENARIO}[[kills]]\nactor = "routr"\nat = 1\n', "killed.toml")
    wizard.config(f"durations = 3\n{SCENARIO}", "unknown.toml")
    wizard.config('models = [{ name = "mine", provider = "openai" }]')
    (wizard.path / "loop.svg").symlink_to("loop.svg")
    ran = wizard("simulate", *tokens)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith("wizard: ")
    assert ran.err.count("\n") == 1
    assert said in ran.err
    as_json = wizard("simulate", *tokens, "--json")
    assert (as_json.status, as_json.out) == (2, "")
    assert as_json.json_error["code"] in {"config", "usage"}


def test_a_file_that_cannot_be_written_is_told(wizard: Wizard) -> None:
    """Status 1, and nothing is printed: a full disk, say."""

    def full(path: Path, text: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    wizard.monkeypatch.setattr(files, "write_over", full)
    ran = wizard("simulate", "small.toml", "--svg", "run.svg")
    assert (ran.status, ran.out) == (1, "")
    assert "run.svg" in ran.err
    assert not (wizard.path / "run.svg").exists()


def test_a_pipe_is_written_to(wizard: Wizard) -> None:
    """What is special is no file to replace."""
    reader, writer = os.pipe()
    try:
        ran = wizard("simulate", "small.toml", "--svg", f"/dev/fd/{writer}")
        assert (ran.status, ran.err) == (0, "")
        assert os.read(reader, 4) == b"<svg"
    finally:
        os.close(reader)
        os.close(writer)


# -- terminals and signals -------------------------------------------------------------------------------------------


def read_line(master: int) -> bytes:
    """Return what a terminal has got, up to where a line is erased: it may come in pieces."""
    got = b""
    while not got.endswith(b"\x1b[K"):
        got += os.read(master, 1000)
    return got


@pytest.fixture
def on_terminal() -> Callable[[Signals], bytes]:
    """Return a function that shows a line on a terminal, and returns what that has got."""

    def shown(signals: Signals) -> bytes:
        master, slave = os.openpty()
        try:
            with (
                open(slave, "w", encoding="utf-8", closefd=False) as stream,
                status_line("playing\x1b", stream, signals),
            ):
                pass
            return read_line(master)
        finally:
            os.close(master)
            os.close(slave)

    return shown


def test_a_line_on_a_terminal_is_gone_afterwards(on_terminal: Callable[[Signals], bytes]) -> None:
    """Erased, whatever is in a scenario's name."""
    assert on_terminal(Signals()) == "playing\N{REPLACEMENT CHARACTER}\r\x1b[K".encode()


def test_a_signal_that_ends_the_process_takes_the_line_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C leaves a terminal as it was: the line is erased before the process ends."""
    master, slave = os.openpty()
    signals, seen = Signals(), list[bytes]()
    monkeypatch.setattr(os, "_exit", lambda status: seen.append(read_line(master)))
    try:
        with open(slave, "w", encoding="utf-8", closefd=False) as stream, status_line("playing", stream, signals):
            signals.handle(signal.SIGINT)
    finally:
        os.close(master)
        os.close(slave)
    assert seen == [b"playing\r\x1b[K"]


def test_nothing_is_said_where_there_is_no_terminal(tmp_path: Path) -> None:
    """A file gets no progress."""
    with (tmp_path / "err").open("w") as stream, status_line("playing", stream, Signals()):
        pass
    with status_line("playing", None, Signals()):
        pass
    assert (tmp_path / "err").read_text() == ""


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGINT to send to another process")
async def test_ctrl_c_ends_a_simulation_at_once(tmp_path: Path) -> None:
    """Within a second, with status 130, nothing on standard error, and whole lines on standard output."""
    (tmp_path / "small.toml").write_text(SCENARIO, encoding="utf-8")
    with trio.fail_after(60):
        process = await start("simulate", "small.toml", "--seeds", "100000", cwd=tmp_path)
        assert process.stdout is not None
        assert process.stderr is not None
        async with process.stdout, process.stderr:
            out = await process.stdout.receive_some()
            process.send_signal(signal.SIGINT)
            began = trio.current_time()
            assert await process.wait() == 130
            assert trio.current_time() - began < 1
            async for piece in process.stdout:
                out += piece
            assert out.endswith(b"violations\n")
            assert [piece async for piece in process.stderr] == []
