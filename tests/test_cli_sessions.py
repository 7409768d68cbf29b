"""`wizard sessions`: what it shows of what is stored, what it takes out, brings in and removes, and what it refuses."""

from __future__ import annotations

import errno
import os
import re
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from io import StringIO
from pathlib import Path

import pytest
import trio
from rich.console import Console

from tests.wizard_cli import SIMULATED, Ran, Wizard, clean_environment
from wizard_actors import ResilientClient
from wizard_actors.cli import app
from wizard_actors.cli_output import CONTROLS
from wizard_actors.cli_sessions.files import read_input, record_of, write_file
from wizard_actors.cli_sessions.shown import conversation, facts_table, list_table, plain
from wizard_actors.errors import InvalidPromptError, StorageError
from wizard_actors.session_json import decode_session
from wizard_actors.session_record import SessionRecord, SessionState, TurnRecord
from wizard_actors.session_text import MAX_TEXT
from wizard_actors.testing.storage_bench import everything
from wizard_actors.types import FinishReason, Image, Message, Role, Text, ToolCall

KEYLESS = """
[[models]]
name = "hosted"
provider = "openai"
model = "gpt-5-mini"
"""
HOSTILE = "a\u202eb"
"""A name that turns the text after it round."""


@pytest.fixture
def wizard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wizard:
    """The program, in a folder whose sessions are stored in `wizard.db`."""
    wizard = Wizard(tmp_path, monkeypatch)
    wizard.config(SIMULATED)
    return wizard


def talk(*names: str, config: str = "wizard.toml", turns: int = 1) -> None:
    """Begin a session of each name, the first one first, or go on with it."""

    async def main() -> None:
        async with ResilientClient.open(config) as client:
            for name in names:
                async with client.session(name, system="Be brief.") as session:
                    for number in range(turns):
                        await session.send(f"{name}, question {number}")

    trio.run(main)


def load(name: str, config: str = "wizard.toml") -> SessionRecord | None:
    """Return what is stored of a session."""

    async def main() -> SessionRecord | None:
        async with ResilientClient.open(config) as client:
            return await client.sessions.load(name)

    return trio.run(main)


def store(record: SessionRecord, config: str = "wizard.toml") -> SessionRecord:
    """Store a session of any content."""

    async def main() -> SessionRecord:
        async with ResilientClient.open(config) as client:
            return await client.sessions.add(record)

    return trio.run(main)


def first_column(ran: Ran) -> list[str]:
    """Return the names in a table of sessions."""
    return [line.split("  ")[0] for line in ran.out.splitlines()[2:]]


def one_line(ran: Ran, *told: str) -> bool:
    """Whether standard error holds just one line of ours, and each of `told` in it."""
    return ran.err.startswith("wizard: ") and ran.err.count("\n") == 1 and all(each in ran.err for each in told)


# -- list --------------------------------------------------------------------------------------------------------------


def test_a_list_has_the_last_used_first(wizard: Wizard) -> None:
    """A row each: name, state, turns and times."""
    talk("alice", "bob", "carol")
    talk("alice")

    ran = wizard("sessions", "list")

    assert (ran.status, ran.err) == (0, "")
    assert first_column(ran) == ["alice", "carol", "bob"]
    assert re.search(r"^alice +active +2 +\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", ran.out, re.MULTILINE)


def test_a_list_of_nothing_is_no_error(wizard: Wizard) -> None:
    """Standard error says where nothing is, and nothing is printed; JSON is an object as ever."""
    ran = wizard("sessions", "list")
    prefixed = wizard("sessions", "list", "--prefix", "user:")
    as_json = wizard("sessions", "list", "--json")

    assert (ran.status, ran.out, ran.err) == (0, "", "wizard: there are no sessions in sqlite:wizard.db\n")
    assert one_line(prefixed, "no sessions in sqlite:wizard.db that begin with 'user:'")
    assert (as_json.json, as_json.err) == ({"sessions": [], "more": False}, "")


def test_a_list_says_that_there_are_more(wizard: Wizard) -> None:
    """Beyond `--limit` nothing is listed, and standard error says so; without `--limit` fifty are."""
    talk(*(f"s{number}" for number in range(52)))

    short, fifty, whole = (wizard("sessions", "list", *more) for more in (("--limit", "3"), (), ("--limit", "2000")))

    assert (first_column(short), one_line(short, "more than these 3")) == (["s51", "s50", "s49"], True)
    assert (len(first_column(fifty)), one_line(fifty, "more than these 50")) == (50, True)
    assert (len(first_column(whole)), whole.err) == (52, "")


def test_pages_are_joined(wizard: Wizard, monkeypatch: pytest.MonkeyPatch) -> None:
    """More sessions than a storage lists in one call come from several."""
    monkeypatch.setattr("wizard_actors.cli_sessions.commands.MAX_PAGE", 2)
    talk(*(f"s{number}" for number in range(5)))

    assert first_column(wizard("sessions", "list", "--limit", "4")) == ["s4", "s3", "s2", "s1"]
    assert len(first_column(wizard("sessions", "list"))) == 5


def test_a_prefix_chooses_sessions(wizard: Wizard) -> None:
    """`--prefix` lists what begins with it, a hyphen and a percent sign among it."""
    talk("user:1", "user:2", "bot:1", "-x", "%a")

    assert first_column(wizard("sessions", "list", "--prefix", "user:")) == ["user:2", "user:1"]
    assert first_column(wizard("sessions", "list", "--prefix", "%")) == ["%a"]
    assert first_column(wizard("sessions", "list", "--prefix", "-")) == ["-x"]


def test_a_list_in_json_has_names_as_they_are(wizard: Wizard) -> None:
    """One object, with each summary, and whether there are more."""
    talk("alice", HOSTILE)

    ran = wizard("sessions", "list", "--json", "--limit", "1")

    assert (ran.status, ran.err, ran.out.count("\n")) == (0, "", 1)
    assert ran.json["more"] is True
    (summary,) = ran.json["sessions"]
    assert summary["id"] == HOSTILE
    assert (summary["state"], summary["turns"]) == ("active", 1)
    assert {"version", "created_at", "updated_at", "used_at"} <= summary.keys()


def test_what_has_expired_is_listed_as_such(wizard: Wizard) -> None:
    """The state is that of now, by the clock, and not what was stored."""
    talk("alice")
    wizard.config(SIMULATED + '[sessions]\nexpire_idle = "1ms"\n')

    ran = wizard("sessions", "list", "--json")

    assert [each["state"] for each in ran.json["sessions"]] == ["expired"]


# -- show --------------------------------------------------------------------------------------------------------------


def test_show_prints_facts_and_conversation(wizard: Wizard) -> None:
    """Names, times and counts first, then who said what, each text indented below its speaker."""
    talk("alice", turns=2)

    ran = wizard("sessions", "show", "alice")

    assert (ran.status, ran.err) == (0, "")
    facts, *said = re.split(r"\n(?=\S.*\n {4})", ran.out)
    assert re.search(r"^session +alice$", facts, re.MULTILINE)
    assert re.search(r"^state +active$", facts, re.MULTILINE)
    assert re.search(r"^turns +2$", facts, re.MULTILINE)
    assert re.search(r"^answered by +pretender$", facts, re.MULTILINE)
    assert [each.split("\n")[1].strip() for each in said] == [
        "Be brief.",
        "alice, question 0",
        "All is well.",
        "alice, question 1",
        "All is well.",
    ]


def test_show_in_json_prints_the_record(wizard: Wizard) -> None:
    """What it prints is what `decode_session` reads, on one line."""
    talk("alice")

    ran = wizard("sessions", "show", "alice", "--json")

    assert (ran.status, ran.out.count("\n")) == (0, 1)
    assert decode_session(ran.out.encode(), "alice") == load("alice")


@pytest.mark.parametrize("command", [["show"], ["show", "--json"], ["export"], ["delete"]])
def test_a_session_that_is_not_there_is_an_error(wizard: Wizard, command: list[str]) -> None:
    """It is named, with status 2, and nothing is printed."""
    ran = wizard("sessions", *command, "nobody")

    assert (ran.status, ran.out) == (2, "")
    assert "there is no session 'nobody'" in (ran.json_error["message"] if "--json" in command else ran.err)


@pytest.mark.parametrize("command", [["show"], ["export"], ["delete"], ["import", "alice.json", "--as"]])
@pytest.mark.parametrize("name", ["a\nb", "", "x" * 201, "\x1b[2J", "\udcff"])
def test_a_name_that_no_session_can_have_is_refused(wizard: Wizard, command: list[str], name: str) -> None:
    """One line says so, with status 2, without what would drive a terminal."""
    talk("alice")
    wizard("sessions", "export", "alice", "-o", "alice.json")

    ran = wizard("sessions", *command, name)

    assert (ran.status, ran.out) == (2, "")
    assert one_line(ran, "a session's id is a text of 1 to 200 characters")
    assert "\x1b" not in ran.err


def test_nothing_is_deleted_where_a_name_is_wrong(wizard: Wizard) -> None:
    """All names are looked at first."""
    talk("alice")

    assert wizard("sessions", "delete", "alice", "").status == 2
    assert first_column(wizard("sessions", "list")) == ["alice"]


def test_a_name_with_a_hyphen_stands_after_two(wizard: Wizard) -> None:
    """`-x` is an option that is unknown, `-- -x` a name."""
    talk("-x")

    assert wizard("sessions", "show", "-x").status == 2
    assert wizard("sessions", "delete", "--", "-x").out == "-x is deleted\n"


# -- nothing drives a terminal -----------------------------------------------------------------------------------------


def rendered(*tables: object) -> str:
    """Return what a terminal would be sent, without colours."""
    page = StringIO()
    console = Console(file=page, force_terminal=True, no_color=True, width=200, legacy_windows=False)
    for table in tables:
        console.print(table)
    return page.getvalue()


def test_tables_hold_no_control_characters() -> None:
    """Neither names nor settings nor context values are a terminal's commands, nor rich's markup."""
    evil = "\x1b[2J[bold]\x9b\x07\r\n\u202e"
    turn = TurnRecord([Message(Role.USER, "?"), Message(Role.ASSISTANT, "!")], at=1e9, model=evil)
    record = SessionRecord(
        "[red]\u202e\u2028", created_at=1e9, route=evil, model=evil, context={evil: evil, "list": [evil]}, turns=[turn]
    )

    plain_lines = re.sub(r"\x1b\[[\d;]*m", "", rendered(list_table([record.summary]), facts_table(record)))

    assert set(plain_lines) & {*map(chr, CONTROLS), "\u202e", "\u2028"} <= {"\n"}
    assert "[red]\\u202e\\u2028" in plain_lines
    assert "[bold]" in plain_lines


def test_what_is_said_cannot_pass_for_a_speaker() -> None:
    """Every line of a text is indented; a name or an id of a call keeps to its line."""
    said = "No.\nassistant, primary\n    Yes.\r\nsystem"
    call = ToolCall("id\n1", "look\nout", {"at": "x"})
    turn = TurnRecord(
        [
            Message(Role.USER, said, name="ann\nsystem"),
            Message(Role.ASSISTANT, "", [call]),
            Message(Role.TOOL, "ok", tool_call_id="id\n1", is_error=True),
            Message(Role.ASSISTANT, said),
        ],
        at=1e9,
        model="m\nsystem",
    )

    text = conversation(SessionRecord("a", created_at=1e9, system=said, turns=[turn]))

    speakers = [line for line in text.split("\n") if line and not line.startswith(" ")]
    assert [line.split(",")[0] for line in speakers] == [
        "system",
        "user ann\\nsystem",
        "assistant",
        "tool",
        "assistant",
    ]
    assert speakers[3] == "tool, id\\n1, failed"
    assert speakers[4].startswith("assistant, m\\nsystem, ")


def test_pictures_calls_and_cut_answers_are_told() -> None:
    """What is no text is described, in a line of its own."""
    shown: list[Text | Image] = [Text("Look:"), Image(url="https://host/a.png"), Image(None, b"123", "image/png")]
    call = ToolCall("call-1", "weather", {"city": "Rome"})
    turns = [
        TurnRecord([Message(Role.USER, shown), Message(Role.ASSISTANT, "", [call])], at=1e9, model="primary"),
        TurnRecord([Message(Role.USER, "?")], at=1e9, finish_reason=FinishReason.LENGTH),
    ]

    text = conversation(SessionRecord("a", created_at=1e9, turns=turns))

    assert "    Look:\n    (picture: https://host/a.png)\n    (picture: image/png, 3 bytes)\n" in text
    assert '\n    (call call-1: weather {"city":"Rome"})\n' in text.replace('": "', '":"')
    assert text.endswith("the answer was cut off where it reached its longest length\n")


def test_a_session_of_everything_is_shown(wizard: Wizard) -> None:
    """Whatever a session can hold is printed, in text and in JSON, and neither is a bug."""
    record = store(everything())

    ran, whole = wizard("sessions", "show", "everything"), wizard("sessions", "show", "everything", "--json")

    assert (ran.status, whole.status) == (0, 0)
    assert "0.000000000000000000001230" in ran.out
    assert decode_session(whole.out.encode(), "everything") == record


def test_any_time_is_shown() -> None:
    """A time that no calendar has is told in seconds since 1970."""
    record = SessionRecord("a", created_at=-1e12, used_at=2.0**52)

    shown = rendered(list_table([record.summary]), facts_table(record))

    assert "-1000000000000 s" in shown
    assert f"{2**52} s" in shown


def test_a_plain_text_keeps_what_can_be_read() -> None:
    """Letters of all scripts stay; what moves a cursor, breaks a line or turns it round is escaped."""
    assert plain("z\u00fcrich \u6771\u4eac \U0001f9d9") == "z\u00fcrich \u6771\u4eac \U0001f9d9"
    assert plain("a\tb\u202ec\u2028\U000e0001") == "a\\tb\\u202ec\\u2028\\U000e0001"


# -- export and import -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["json", "markdown"])
def test_what_is_exported_can_be_imported(wizard: Wizard, form: str) -> None:
    """By way of standard output and standard input, under another name, with every message."""
    talk("alice", turns=2)
    before = load("alice")
    assert before is not None

    out = wizard("sessions", "export", "alice", "--format", form)
    ran = wizard("sessions", "import", "-", "--as", "bob", stdin=out.out.encode())

    assert (out.status, out.err, ran.status, ran.err) == (0, "", 0, "")
    assert ran.out == "bob is stored, with 2 turns\n"
    after = load("bob")
    assert after is not None
    assert (after.messages, after.system, after.version) == (before.messages, before.system, 1)
    assert first_column(wizard("sessions", "list")) == ["bob", "alice"]


@pytest.mark.parametrize(
    ("arguments", "begins"),
    [
        (["-o", "a.json"], "{"),
        (["-o", "a.JSON"], "{"),
        (["-o", "a.md"], "#"),
        (["-o", "a"], "#"),
        (["--output", "a.json", "--format", "markdown"], "#"),
        (["-o", "a.txt", "--format", "json"], "{"),
    ],
)
def test_an_export_goes_into_a_file(wizard: Wizard, arguments: list[str], begins: str) -> None:
    """Its form is what `--format` says, or what its name says; what was there is overwritten."""
    talk("alice")
    Path(arguments[1]).write_text("x" * 100_000, encoding="utf-8")

    ran = wizard("sessions", "export", "alice", *arguments)

    assert (ran.status, ran.out, ran.err) == (0, "", "")
    written = Path(arguments[1]).read_text(encoding="utf-8")
    assert written.startswith(begins)
    assert "xxx" not in written


def test_an_export_has_every_byte(wizard: Wizard, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a pipe nothing is replaced: neither control characters, nor what the locale cannot print."""
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    turn = TurnRecord([Message(Role.USER, "\x1b[1m\u00e9\u6771\x85?"), Message(Role.ASSISTANT, "!")], at=1e9)
    record = store(SessionRecord("odd", created_at=1e9, turns=[turn]))

    for form in ("json", "markdown"):
        out = wizard("sessions", "export", "odd", "--format", form)
        wizard("sessions", "import", "-", "--as", form, stdin=out.out.encode())
        stored = load(form)
        assert stored is not None
        assert stored.messages == record.messages


def test_an_import_replaces_only_when_told(wizard: Wizard) -> None:
    """A session of that name is an error with what to do, and stays; with `--replace` it goes."""
    talk("alice")
    out = wizard("sessions", "export", "alice", "-o", "alice.json")
    talk("alice")
    assert out.status == 0

    refused = wizard("sessions", "import", "alice.json")
    kept = load("alice")
    replaced = wizard("sessions", "import", "alice.json", "--replace")

    assert refused.status == 2
    assert one_line(refused, "'alice'", "--replace", "--as")
    assert kept is not None
    assert len(kept.turns) == 2
    assert (replaced.status, replaced.out) == (0, "alice is stored, with 1 turn\n")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.json", b"{"),
        ("a.json", b"# Session"),
        ("a.json", b"[]"),
        ("a", b'{"id": 1}'),
        ("a.md", b"\xff\xfe\x00"),
        ("a.json", b""),
        ("a.json", b"{" * 100_000),
    ],
)
def test_what_is_no_session_is_refused(wizard: Wizard, name: str, data: bytes) -> None:
    """One line names the file, with status 2, and nothing is stored."""
    Path(name).write_bytes(data)

    ran = wizard("sessions", "import", name)

    assert (ran.status, ran.out) == (2, "")
    assert one_line(ran, f"{name}: ")
    assert first_column(wizard("sessions", "list")) == []


def test_the_beginning_tells_what_is_in_a_file_of_any_name(wizard: Wizard) -> None:
    """JSON and Markdown are told apart by what is in them, also where the name says something else."""
    talk("alice")
    for form in ("json", "markdown"):
        for file in ("alice.txt", "alice.md", "alice.json"):
            wizard("sessions", "export", "alice", "-o", file, "--format", form)
            assert wizard("sessions", "import", file, "--as", f"{form} {file}").status == 0


@pytest.mark.parametrize("name", ["nothing.json", ".", "a\x00b"])
def test_a_file_that_cannot_be_read_is_told(wizard: Wizard, name: str) -> None:
    """With its name and the reason, and status 2."""
    ran = wizard("sessions", "import", name)

    assert ran.status == 2
    assert one_line(ran, "cannot be read")


def test_a_closed_standard_input_is_told(wizard: Wizard) -> None:
    """There is nothing to import."""
    ran = wizard("sessions", "import", "-", stdin=None)

    assert ran.status == 2
    assert one_line(ran, "closed")


def test_a_misspelled_option_is_no_file(wizard: Wizard) -> None:
    """An option that is unknown is said to be one."""
    ran = wizard("sessions", "import", "--replaec")

    assert ran.status == 2
    assert one_line(ran, "unknown option '--replaec'")


def test_a_file_is_read_up_to_a_bound(tmp_path: Path) -> None:
    """A file, or a pipe, that never ends is refused, and not kept in memory whole."""
    file = tmp_path / "big"
    with file.open("wb") as sparse:
        sparse.truncate(MAX_TEXT + 1)

    with pytest.raises(InvalidPromptError, match="longer than"):
        read_input(str(file))


def test_an_export_that_cannot_be_written_is_told(wizard: Wizard) -> None:
    """The file and the reason, with status 1."""
    talk("alice")

    ran = wizard("sessions", "export", "alice", "-o", "nowhere/alice.md")

    assert ran.status == 1
    assert one_line(ran, "nowhere/alice.md")


def test_an_export_is_for_its_owner_alone(wizard: Wizard) -> None:
    """A new file can be read by nobody else; one that was there keeps its rights, and a link stays one."""
    talk("alice")
    shared = Path("shared.md")
    shared.touch(0o640)
    shared.chmod(0o640)
    Path("link.md").symlink_to("shared.md")

    wizard("sessions", "export", "alice", "-o", "new.md")
    wizard("sessions", "export", "alice", "-o", "link.md")

    assert Path("new.md").stat().st_mode & 0o777 == 0o600
    assert (shared.stat().st_mode & 0o777, Path("link.md").is_symlink()) == (0o640, True)
    assert shared.read_text(encoding="utf-8") == Path("new.md").read_text(encoding="utf-8")


def test_an_export_that_fails_costs_nothing(wizard: Wizard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the disk is full, the file that was there stays, and nothing is left beside it."""
    talk("alice")
    Path("alice.md").write_text("before", encoding="utf-8")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("wizard_actors.whole_file.os.fsync", full)
        with pytest.raises(StorageError, match=r"alice\.md"):
            write_file("alice.md", "after")

    assert Path("alice.md").read_text(encoding="utf-8") == "before"
    assert [each for each in Path().iterdir() if "alice" in each.name] == [Path("alice.md")]


async def test_an_export_goes_into_a_pipe(tmp_path: Path) -> None:
    """What is no file is written to, and not replaced."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, write_file, str(pipe), "text")
            text = await trio.to_thread.run_sync(pipe.read_text, "utf-8", abandon_on_cancel=True)

    assert (text, pipe.is_fifo()) == ("text", True)


def test_an_export_may_name_standard_output(wizard: Wizard) -> None:
    """`-o /dev/stdout` adds to where standard output goes, also where that is a file."""
    talk("alice")
    done = subprocess.run(  # noqa: S602 - a redirection is what is tested
        f"(echo before; {sys.executable} -m wizard_actors sessions export alice -o /dev/stdout) > both.md",
        shell=True,
        check=False,
        capture_output=True,
        env=clean_environment(),
    )

    assert (done.returncode, done.stderr) == (0, b"")
    assert Path("both.md").read_text(encoding="utf-8").startswith("before\n# alice\n")


def test_reading_an_import_does_not_hold_the_loop_up(wizard: Wizard, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is done beside the event loop, which a first Ctrl-C has to reach."""
    talk("alice")
    wizard("sessions", "export", "alice", "-o", "alice.json")
    readers = list[str]()

    def reading(data: bytes, file: str, name: str | None) -> SessionRecord:
        readers.append(threading.current_thread().name)
        return record_of(data, file, name)

    monkeypatch.setattr("wizard_actors.cli_sessions.commands.record_of", reading)

    assert wizard("sessions", "import", "alice.json", "--as", "bob").status == 0
    assert readers != [threading.main_thread().name]


# -- delete and purge --------------------------------------------------------------------------------------------------


def test_each_named_session_is_deleted(wizard: Wizard) -> None:
    """Each is told; one that is not there is an error, and keeps no other from being deleted."""
    talk("alice", "bob", "carol")

    ran = wizard("sessions", "delete", "alice", "nobody", "bob", "alice")

    assert (ran.status, ran.out) == (2, "alice is deleted\nbob is deleted\n")
    assert one_line(ran, "'nobody'")
    assert first_column(wizard("sessions", "list")) == ["carol"]


def test_old_sessions_are_purged(wizard: Wizard) -> None:
    """Those unused for so long, or begun so long ago, and no others."""
    talk("alice", "bob")

    kept = wizard("sessions", "purge", "--idle", "1h", "--age", "90d")
    gone = wizard("sessions", "purge", "--idle", "0")

    assert (kept.status, kept.out, kept.err) == (0, "", "wizard: 0 deleted\n")
    assert (gone.status, sorted(gone.out.splitlines())) == (0, ["alice is deleted", "bob is deleted"])
    assert gone.err == "wizard: 2 deleted\n"
    assert first_column(wizard("sessions", "list")) == []


def test_a_dry_run_deletes_nothing(wizard: Wizard) -> None:
    """It prints what a purge would, by its options or by the configuration."""
    talk("alice", "bob")

    none = wizard("sessions", "purge", "--dry-run", "--idle", "1h", "--age", "90d")
    idle = wizard("sessions", "purge", "--dry-run", "--idle", "0")
    wizard.config(SIMULATED + '[sessions]\nexpire_age = "1ms"\n')
    configured = wizard("sessions", "purge", "--dry-run")

    assert (none.out, none.err) == ("", "wizard: 0 would be deleted\n")
    for ran in (idle, configured):
        assert sorted(ran.out.splitlines()) == ["alice would be deleted", "bob would be deleted"]
        assert (ran.status, ran.err) == (0, "wizard: 2 would be deleted\n")
    assert len(first_column(wizard("sessions", "list"))) == 2


def test_a_purge_goes_by_the_configuration(wizard: Wizard) -> None:
    """Without an option what has expired goes; where nothing ever does, the error says what to give."""
    talk("alice")

    unsure = wizard("sessions", "purge")
    wizard.config(SIMULATED + '[sessions]\nexpire_age = "1ms"\n')
    sure = wizard("sessions", "purge")

    assert unsure.status == 2
    assert one_line(unsure, "--idle", "--age", "expire_idle")
    assert (sure.status, sure.out) == (0, "alice is deleted\n")


@pytest.mark.parametrize("given", ["--idle=soon", "--age=-1", "--idle=nan", "--age=1y"])
def test_a_purge_takes_durations(wizard: Wizard, given: str) -> None:
    """Anything else is an error that names the option, and nothing is removed."""
    talk("alice")

    ran = wizard("sessions", "purge", given)

    assert ran.status == 2
    assert one_line(ran, given[2:].partition("=")[0])
    assert first_column(wizard("sessions", "list")) == ["alice"]


# -- what they run with ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command", [["list"], ["show", "alice"], ["export", "alice"], ["delete", "alice"], ["purge", "--idle", "0"]]
)
def test_no_key_is_needed(wizard: Wizard, command: list[str]) -> None:
    """A model whose key is not set keeps nobody from the conversations, and no model is asked."""
    talk("alice")
    wizard.config(KEYLESS)

    ran = wizard("sessions", *command)

    assert ran.status == 0
    assert "alice" in ran.out


def test_no_configuration_is_needed(wizard: Wizard) -> None:
    """Without a file the default storage is meant, and nothing is said of models that would answer."""
    talk("alice")
    Path("wizard.toml").unlink()

    ran = wizard("sessions", "list")

    assert (ran.status, ran.err) == (0, "")
    assert first_column(ran) == ["alice"]


def test_sessions_in_memory_are_nobody_elses(wizard: Wizard) -> None:
    """An empty list is explained where each process has sessions of its own."""
    wizard.config(SIMULATED + '[sessions]\nstorage = "memory:"\n')

    ran = wizard("sessions", "list")

    assert ran.status == 0
    assert one_line(ran, "memory:")


@pytest.mark.parametrize("command", [["list"], ["show", "alice"], ["delete", "alice"], ["purge", "--idle", "1"]])
def test_a_storage_that_fails_is_told(wizard: Wizard, command: list[str]) -> None:
    """One line, with status 1, for each command."""
    Path("wizard.db").write_bytes(b"this is no database\n" * 100)

    ran = wizard("sessions", *command)

    assert ran.status == 1
    assert ran.out == ""
    assert one_line(ran, "wizard.db")


def test_a_damaged_session_is_told(wizard: Wizard) -> None:
    """Whoever wants it is told, with status 1, in one line without its content; the others are shown."""
    talk("alice", "bob")
    with closing(sqlite3.connect("wizard.db")) as db, db:
        db.execute("UPDATE sessions SET data = ? WHERE id = 'alice'", [b'{"secret'])

    ran = wizard("sessions", "show", "alice")

    assert ran.status == 1
    assert one_line(ran, "'alice'")
    assert "secret" not in ran.err
    assert wizard("sessions", "show", "bob").status == 0


def test_help_lists_the_commands(wizard: Wizard) -> None:
    """`wizard sessions` alone, and with `--help`, says what there is."""
    for tokens in (["sessions"], ["sessions", "--help"]):
        ran = wizard(*tokens)
        assert ran.status == 0
        commands = re.findall(r"^\W+(\w+)  ", ran.out, re.MULTILINE)
        assert {"list", "show", "export", "import", "delete", "purge"} <= {*commands}

    assert "--prefix" in wizard("sessions", "list", "--help").out


@pytest.mark.parametrize(
    ("tokens", "told"),
    [
        (["sessions", "list", "extra"], "`--prefix extra`"),
        (["sessions", "show", "a", "b c"], "'b c' is one word too many"),
        (["sessions", "purge", "alice"], "`wizard sessions delete alice`"),
        (["sessions", "import", "a.json", "bob"], "`--as bob`"),
        (["chat", "{alice}"], "`--session '{alice}'`"),
        (["models", "x"], "x is one word too many"),
        (["sessions", "rm", "alice"], "`wizard sessions delete`"),
        (["sessions", "dellete", "alice"], 'Did you mean "delete"'),
        (["chat", "--session", ""], "--session: a session's id is a text of 1 to 200 characters"),
    ],
)
def test_a_mistake_says_what_may_have_been_meant(wizard: Wizard, tokens: list[str], told: str) -> None:
    """In one line, with status 2."""
    ran = wizard(*tokens)

    assert (ran.status, ran.out) == (2, "")
    assert one_line(ran, told)


def test_a_transcript_without_times_is_shown_without(wizard: Wizard) -> None:
    """Nobody said anything in 1970."""
    Path("talk.md").write_text("# talk\n## User\nWhy?\n## Assistant\nSo.\n", encoding="utf-8")
    wizard("sessions", "import", "talk.md")

    assert "\nassistant, no model\n    So.\n" in wizard("sessions", "show", "talk").out


@pytest.mark.parametrize(
    "tokens", [["lits"], ["list", "--limit", "0"], ["list", "--limit", "x"], ["show"], ["export", "a", "--format", "x"]]
)
def test_what_cannot_be_understood_is_told(wizard: Wizard, tokens: list[str]) -> None:
    """A line, with status 2."""
    ran = wizard("sessions", *tokens)

    assert ran.status == 2
    assert one_line(ran)


def test_a_closed_session_is_shown_as_such(wizard: Wizard) -> None:
    """It can be read, exported and brought in again, and is closed then too."""
    store(SessionRecord("alice", created_at=1e9, state=SessionState.CLOSED))

    shown = wizard("sessions", "show", "alice", "--json")
    wizard("sessions", "export", "alice", "-o", "alice.json")
    wizard("sessions", "import", "alice.json", "--as", "bob")

    assert shown.json["state"] == "closed"
    again = load("bob")
    assert again is not None
    assert again.state is SessionState.CLOSED


def test_the_reference_names_every_option() -> None:
    """Each command stands in the synopsis of `docs/cli.md`, with all of its options."""
    reference = (Path(__file__).resolve().parent.parent / "docs" / "cli.md").read_text(encoding="utf-8")
    synopsis = reference.partition("\n\nStandard output")[0]
    for name in ("list", "show", "export", "import", "delete", "purge"):
        (line,) = re.findall(rf"^    wizard sessions {name} .*$", synopsis, re.MULTILINE)
        names = [argument.name for argument in app["sessions"][name].assemble_argument_collection()]
        assert [each for each in names if each.startswith("--") and each not in line] == []
