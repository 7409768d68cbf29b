"""The command `batch`: what its lines may hold, what it writes and goes on with, what it refuses."""

import fcntl
import io
import json
import os
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.wizard_cli import SIMULATED, Ran, Wizard
from wizard_actors.cli_batch.job import deadline_of
from wizard_actors.cli_batch.lines import Line, Lines
from wizard_actors.cli_batch.output import OutputFile, Recorded
from wizard_actors.cli_batch.progress import ProgressReport, Tally
from wizard_actors.cli_batch.questions import question_of
from wizard_actors.cli_output import Errors
from wizard_actors.errors import ConfigError, InvalidPromptError, StorageError
from wizard_actors.types import Image, Message, Prompt, Text, Tool, ToolCall

FAILS_ONCE = """
[[models]]
name = "pretender"
provider = "simulated"
price = { input = 1, output = 2 }
[models.retry]
max_attempts = 1
[models.simulated]
answer = "All is well."
first_token = 0
per_chunk = 0
script = [{ fault = "bad_request" }]
"""


@pytest.fixture
def wizard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wizard:
    """The program, in a folder with a configuration that answers at once."""
    wizard = Wizard(tmp_path, monkeypatch)
    wizard.config(SIMULATED)
    return wizard


def given(wizard: Wizard, *lines: str | bytes) -> None:
    """Write the input."""
    pieces = [line if isinstance(line, bytes) else line.encode() for line in lines]
    (wizard.path / "in.jsonl").write_bytes(b"".join(piece + b"\n" for piece in pieces))


def batch(wizard: Wizard, *more: str, source: str = "in.jsonl", stdin: bytes = b"") -> Ran:
    """Run the command."""
    return wizard("batch", source, "-o", "out.jsonl", *more, stdin=stdin)


def written(wizard: Wizard) -> list[dict[str, Any]]:
    """Return the records of the output, by line."""
    text = (wizard.path / "out.jsonl").read_text(encoding="utf-8")
    assert text == "" or text.endswith("\n")
    return sorted(map(json.loads, text.splitlines()), key=lambda record: record["line"])


def lines_of(wizard: Wizard) -> list[int]:
    """Return the numbers of the lines that have a record."""
    return [record["line"] for record in written(wizard)]


# -- lines in, records out -------------------------------------------------------------------------------------------


def test_every_line_gets_a_record(wizard: Wizard) -> None:
    """With the line's number, its id, and what `ask --json` prints."""
    given(wizard, '"Why?"', '{"id": "b", "prompt": "How?"}', '{"id": 3, "prompt": "Who?"}')
    ran = batch(wizard)
    assert (ran.status, ran.out) == (0, "")
    assert [(each["line"], each["id"]) for each in written(wizard)] == [(1, None), (2, "b"), (3, 3)]
    assert written(wizard)[0]["response"].keys() == wizard("ask", "--json", "Why?").json.keys()
    assert "3 answered, 0 failed, 0 there already, 0 broken" in ran.err


def test_broken_lines_are_reported_by_number_and_skipped(wizard: Wizard) -> None:
    """None of them stops the others, and none has a record; the status says that not all is answered."""
    given(
        wizard,
        '"good"',
        "{",
        '{"prompt": 5}',
        '{"promt": "typo"}',
        '""',
        '{"prompt": "  "}',
        b'"\xff"',
        "[" * 100_000,
        '{"prompt": []}',
        '{"prompt": "x", "max_tokens": 0}',
        '"good too"',
    )
    ran = batch(wizard)
    assert ran.status == 1
    assert lines_of(wizard) == [1, 11]
    assert [line.split(" is ")[0] for line in ran.err.splitlines()[:-1]] == [f"wizard: line {n}" for n in range(2, 11)]
    assert "2 answered, 0 failed, 0 there already, 9 broken" in ran.err


def test_a_line_that_is_too_long_is_skipped(wizard: Wizard) -> None:
    """It is never in memory as a whole, and the line after it is a line of its own."""
    given(wizard, '"before"', b'"' + b"x" * (16 * 2**20) + b'"', '"after"')
    ran = batch(wizard)
    assert lines_of(wizard) == [1, 3]
    assert "line 2 is skipped: it is longer than 16777216 bytes" in ran.err


def test_blank_lines_and_a_missing_last_newline_do_no_harm(wizard: Wizard) -> None:
    """Blank lines count as lines, and as nothing else; so do Windows' line ends and a byte order mark."""
    (wizard.path / "in.jsonl").write_bytes(b'\xef\xbb\xbf"one"\r\n\r\n   \n"four"')
    assert batch(wizard).status == 0
    assert lines_of(wizard) == [1, 4]


def test_an_empty_input_is_done(wizard: Wizard) -> None:
    """There is nothing to do, and nothing wrong."""
    given(wizard)
    assert batch(wizard).status == 0
    assert written(wizard) == []


def test_a_failure_is_a_record_too(wizard: Wizard) -> None:
    """With the error's code and facts; the first one is told at once, and the status is 1."""
    wizard.config(FAILS_ONCE)
    given(wizard, '"one"', '"two"', '"three"')
    ran = batch(wizard, "--max-concurrency", "1")
    assert ran.status == 1
    assert ["error" in record for record in written(wizard)] == [True, False, False]
    assert written(wizard)[0]["error"]["code"] == "request"
    assert ran.err.startswith("wizard: line 1 failed: pretender: ")
    assert "2 answered, 1 failed, 0 there already, 0 broken; cost 0.0000" in ran.err
    assert "--retry-errors" in ran.err


def test_route_and_model_choose_who_answers(wizard: Wizard) -> None:
    """As with `ask`."""
    second = SIMULATED.replace("pretender", "second")
    wizard.config(f'{SIMULATED}{second}[[routes]]\nname = "other"\nchain = ["second"]\n')
    given(wizard, '"one"')
    batch(wizard, "--route", "other")
    wizard("batch", "in.jsonl", "--output", "again.jsonl", "--model", "second")
    assert [written(wizard)[0]["response"]["model"]] == ["second"]
    assert json.loads((wizard.path / "again.jsonl").read_text())["response"]["model"] == "second"


def test_a_deadline_bounds_each_question(wizard: Wizard) -> None:
    """It is that line's error."""
    wizard.config(SIMULATED.replace("first_token = 0", "first_token = 5"))
    given(wizard, '"one"')
    assert batch(wizard, "--deadline", "0.01").status == 1
    assert written(wizard)[0]["error"]["code"] == "deadline_exceeded"


# -- waiting, and where it does not help -----------------------------------------------------------------------------

LIMITED = SIMULATED.replace(
    'provider = "simulated"',
    'provider = "simulated"\nrate_limit = { requests_per_minute = 120, burst = 1, max_wait = 0 }',
)
WRONG_KEY = SIMULATED + 'script = [{ fault = "auth", times = 1000 }]\n'


def test_a_limit_is_waited_for(wizard: Wizard) -> None:
    """Every line is answered, though the limiter lets none of them wait in its own queue."""
    wizard.config(LIMITED)
    given(wizard, *[f'"{number}"' for number in range(4)])
    ran = batch(wizard)
    assert ran.status == 0, ran.err
    assert "4 answered, 0 failed" in ran.err
    assert [len(record["response"]["attempts"]) for record in written(wizard)] == [1] * 4


def test_a_wrong_key_stops_the_run_and_records_nothing(wizard: Wizard) -> None:
    """After a few lines; put right, the same command answers them all."""
    wizard.config(WRONG_KEY)
    given(wizard, *[f'"{number}"' for number in range(50)])
    ran = batch(wizard)
    assert ran.status == 1
    assert written(wizard) == []
    advice, error = ran.err.splitlines()
    assert advice.startswith("wizard: no model of the route can be asked, and waiting does not help: stopped.")
    assert "the same command goes on" in advice
    assert error.startswith("wizard: pretender: ")
    wizard.config(SIMULATED)
    assert "50 answered, 0 failed, 0 there already" in batch(wizard).err


def test_a_wrong_key_stops_a_short_run_too(wizard: Wizard) -> None:
    """A single line is enough, and a static answer hides nothing."""
    wizard.config(WRONG_KEY + '[fallback]\nstatic_answer = "later"\n')
    given(wizard, '"one"')
    ran = batch(wizard)
    assert (ran.status, written(wizard)) == (1, [])
    assert "waiting does not help: stopped" in ran.err


def test_a_refused_key_that_works_again_is_the_lines_own_failure(wizard: Wizard) -> None:
    """It was no reason to stop, and is recorded then."""
    wizard.config(SIMULATED + 'script = [{ fault = "auth" }]\n')
    given(wizard, '"one"', '"two"', '"three"')
    ran = batch(wizard, "--max-concurrency", "2")
    assert ran.status == 1
    assert sorted("error" in record for record in written(wizard)) == [False, False, True]
    assert "2 answered, 1 failed" in ran.err


def test_a_pause_of_hours_stops_the_run(wizard: Wizard) -> None:
    """Nobody waits for that long, and no line is burnt."""
    wizard.config(SIMULATED + 'script = [{ fault = "rate_limit", retry_after = 7200 }]\n')
    given(wizard, *[f'"{number}"' for number in range(20)])
    ran = batch(wizard, "--max-concurrency", "1")
    assert (ran.status, written(wizard)) == (1, [])
    assert "for longer than a batch waits: stopped" in ran.err
    assert "later on the same command goes on" in ran.err


def test_a_static_answer_is_a_failure(wizard: Wizard) -> None:
    """Its record holds the error behind it, and --retry-errors asks the line again."""
    static = '[fallback]\nstatic_answer = "later"\n'
    wizard.config(FAILS_ONCE + static)
    given(wizard, '"one"', '"two"')
    ran = batch(wizard, "--max-concurrency", "1")
    assert ran.status == 1
    assert written(wizard)[0]["error"]["code"] == "request"
    assert len(written(wizard)[0]["error"]["attempts"]) == 1
    assert "1 answered, 1 failed" in ran.err
    wizard.config(SIMULATED + static)
    assert "1 answered, 0 failed, 1 there already" in batch(wizard, "--retry-errors").err


def test_a_strategy_replaces_the_routes(wizard: Wizard) -> None:
    """As with `generate`: in parallel the second model answers before the first has failed."""
    slow, second = (SIMULATED.replace("first_token = 0", "first_token = 60"), SIMULATED.replace("pretender", "second"))
    wizard.config(slow + second)
    given(wizard, '"one"')
    assert batch(wizard, "--strategy", "parallel", "--deadline", "20s").status == 0
    assert written(wizard)[0]["response"]["model"] == "second"
    assert wizard("batch", "in.jsonl", "-o", "x.jsonl", "--strategy", "dearest").status == 2


@pytest.mark.parametrize(
    ("given", "seconds"), [(5.0, 5.0), ("5", 5.0), ("0.25", 0.25), ("5s", 5.0), ("250ms", 0.25), ("2m", 120.0)]
)
def test_a_deadline_is_a_duration_as_elsewhere(given: float | str, seconds: float) -> None:
    """Seconds, or a text as in a configuration."""
    assert deadline_of(given) == seconds


@pytest.mark.parametrize("given", [-1.0, "0", "0s", "nan", "inf", "soon", "5 parsecs", "true"])
def test_a_deadline_that_is_none_is_refused(given: float | str) -> None:
    """The error names it."""
    with pytest.raises(ConfigError, match="deadline"):
        deadline_of(given)


# -- what a line may hold --------------------------------------------------------------------------------------------


def line(text: object) -> Line:
    """Return a line that holds `text` as JSON."""
    data = json.dumps(text).encode()
    return Line(7, data, 0, len(data), whole=True)


def test_a_line_holds_the_fields_of_a_prompt() -> None:
    """Every one of them, under the names of `Prompt`."""
    asked = {
        "id": "a",
        "prompt": [
            {"role": "user", "content": [{"type": "text", "text": "What?"}, {"type": "image", "url": "http://x/y"}]},
            {"role": "assistant", "tool_calls": [{"id": "1", "name": "look", "arguments": "{}"}]},
            {"role": "tool", "content": "a cat", "tool_call_id": "1", "name": "look", "is_error": True},
            {"role": "user", "content": [{"type": "image", "data": "aGk=", "media_type": "image/png"}]},
        ],
        "system": "Be brief",
        "tools": [{"name": "look", "description": "looks", "parameters": {"type": "object"}, "strict": True}],
        "tool_choice": "auto",
        "response_schema": {"type": "object"},
        "temperature": 1,
        "top_p": 0.5,
        "max_tokens": 5,
        "stop": ["x"],
        "seed": 3,
        "extra": {"n": 1},
    }
    question = question_of(line(asked))
    assert (question.line, question.id) == (7, "a")
    assert question.prompt == Prompt(
        [
            Message("user", [Text("What?"), Image("http://x/y")]),
            Message("assistant", tool_calls=[ToolCall("1", "look", "{}")]),
            Message("tool", "a cat", tool_call_id="1", name="look", is_error=True),
            Message("user", [Image(data=b"hi", media_type="image/png")]),
        ],
        system="Be brief",
        tools=[Tool("look", "looks", {"type": "object"}, strict=True)],
        tool_choice="auto",
        response_schema={"type": "object"},
        temperature=1.0,
        top_p=0.5,
        max_tokens=5,
        stop=("x",),
        seed=3,
        extra={"n": 1},
    )


@pytest.mark.parametrize(
    "asked",
    [
        {"prompt": "x", "unknown": 1},
        {"prompt": "x", "temperature": "warm"},
        {"prompt": "x", "max_tokens": True},
        {"prompt": "x", "seed": 2**70},
        {"prompt": "x", "id": [1]},
        {"prompt": [{"role": "wizard", "content": "x"}]},
        {"prompt": [{"role": "user", "content": "x", "cotnent": "y"}]},
        {"prompt": [{"role": "tool", "content": "x"}]},
        {"prompt": [{"role": "user", "content": [{"type": "image"}]}]},
        {"prompt": [{"role": "system", "content": "x"}]},
        ["x"],
        None,
    ],
)
def test_a_line_of_another_shape_is_broken(asked: object) -> None:
    """Nothing is guessed, and a key that would do nothing is an error."""
    with pytest.raises(InvalidPromptError):
        question_of(line(asked))


@pytest.mark.parametrize(
    ("asked", "keys"),
    [
        ({"custom_id": "a", "method": "POST", "url": "/v1", "body": {"messages": []}}, "body, custom_id"),
        ({"messages": [{"role": "user", "content": "x"}]}, "messages"),
    ],
)
def test_a_line_of_openais_batch_format_is_told_what_to_be(asked: object, keys: str) -> None:
    """The keys that give it away, and the shape of a line here."""
    with pytest.raises(InvalidPromptError, match=rf'\({keys}: as in OpenAI.*{{"id": ..., "prompt": ...}}'):
        question_of(line(asked))
    with pytest.raises(InvalidPromptError) as caught:
        question_of(line({"promt": "x"}))
    assert "OpenAI" not in caught.value.message


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (
            {
                "prompt": [
                    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x.test/a"}}]}
                ]
            },
            "a picture here is",
        ),
        ({"prompt": "x", "tools": [{"type": "function", "function": {"name": "f"}}]}, "a tool here is"),
    ],
)
def test_a_part_in_openais_form_is_told_what_to_be(asked: object, said: str) -> None:
    """Pictures, tools and calls as its protocol has them."""
    with pytest.raises(InvalidPromptError, match=f"as in OpenAI's protocol; {said}"):
        question_of(line(asked))


async def test_lines_are_the_same_however_they_arrive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of any size give the same lines, numbers and offsets."""
    data = b"one\n\ntwo and more\n" + b"x" * 50 + b"\nfour\r\nfive"
    file = tmp_path / "file"
    file.write_bytes(data)
    seen = []
    for size in (1, 2, 7, 1000):
        monkeypatch.setattr("wizard_actors.cli_batch.lines.PIECE", size)
        with file.open("rb", buffering=0) as source:
            seen.append([each async for each in Lines(source.fileno(), "file", longest=40)])
    assert all(lines == seen[0] for lines in seen)
    assert [each.text for each in seen[0]] == [b"one", b"", b"two and more", None, b"four\r", b"five"]
    assert [data[each.start : each.end] for each in seen[0]] == data.splitlines(keepends=True)
    assert [each.whole for each in seen[0]] == [True] * 5 + [False]


# -- going on --------------------------------------------------------------------------------------------------------


def test_a_second_run_asks_nothing_again(wizard: Wizard) -> None:
    """What is there stays as it is, byte by byte."""
    given(wizard, '"one"', '"two"')
    batch(wizard)
    before = (wizard.path / "out.jsonl").read_bytes()
    ran = batch(wizard)
    assert (ran.status, (wizard.path / "out.jsonl").read_bytes()) == (0, before)
    assert "0 answered, 0 failed, 2 there already, 0 broken" in ran.err


def test_lines_may_be_added_to_the_input(wizard: Wizard) -> None:
    """Only they are asked."""
    given(wizard, '"one"')
    batch(wizard)
    given(wizard, '"one"', '"two"')
    assert "1 answered, 0 failed, 1 there already" in batch(wizard).err
    assert lines_of(wizard) == [1, 2]


@pytest.mark.parametrize("left", [b'{"li', b'{"line":2,"id":null,"dig', b"{", b"\0\0\0", b'{"line":2,"i\0\0'])
def test_half_a_line_is_cut_off_and_asked_again(wizard: Wizard, left: bytes) -> None:
    """A note says so; the whole lines before it stay."""
    given(wizard, '"one"')
    batch(wizard)
    whole = (wizard.path / "out.jsonl").read_bytes()
    given(wizard, '"one"', '"two"')
    (wizard.path / "out.jsonl").write_bytes(whole + left)
    ran = batch(wizard)
    assert ran.status == 0
    assert "ended in half a line" in ran.err
    assert lines_of(wizard) == [1, 2]
    assert (wizard.path / "out.jsonl").read_bytes().startswith(whole)


def test_an_output_that_is_nothing_but_half_a_line_is_begun_anew(wizard: Wizard) -> None:
    """The very first write was cut short."""
    given(wizard, '"one"')
    (wizard.path / "out.jsonl").write_bytes(b'{"line":1,"id":nul')
    assert batch(wizard).status == 0
    assert lines_of(wizard) == [1]


def test_failed_lines_are_asked_again_only_if_told(wizard: Wizard) -> None:
    """The answer follows the error in the output, and counts; it is not asked a third time."""
    wizard.config(FAILS_ONCE)
    given(wizard, '"one"', '"two"')
    batch(wizard, "--max-concurrency", "1")
    wizard.config(SIMULATED)
    kept = batch(wizard)
    assert kept.status == 1
    assert "2 there already (1 of them failed)" in kept.err
    again = batch(wizard, "--retry-errors")
    assert (again.status, lines_of(wizard)) == (0, [1, 1, 2])
    assert "1 answered, 0 failed, 1 there already, 0 broken" in again.err
    assert batch(wizard, "--retry-errors").status == 0
    assert [record["line"] for record in written(wizard) if "response" in record] == [1, 2]


def test_a_changed_line_is_noticed_before_anything_is_asked(wizard: Wizard) -> None:
    """Answers to different questions are not mixed: the first line that differs is named."""
    given(wizard, '"one"', '"two"', '"three"')
    batch(wizard)
    before = (wizard.path / "out.jsonl").read_bytes()
    given(wizard, '"one"', '"2"', '"3"', '"four"')
    ran = batch(wizard)
    assert ran.status == 2
    assert ran.err.startswith("wizard: in.jsonl: its line 2 has changed since the output was written; ")
    assert (wizard.path / "out.jsonl").read_bytes() == before


def test_a_shortened_input_is_noticed(wizard: Wizard) -> None:
    """It is another one."""
    given(wizard, '"one"', '"two"')
    batch(wizard)
    given(wizard, '"one"')
    ran = batch(wizard)
    assert ran.status == 2
    assert "it has 1 lines, but the output holds one for line 2" in ran.err


def test_standard_input_is_answered_and_gone_on_with(wizard: Wizard) -> None:
    """A pipe is read once: a line that has changed is noticed when its turn comes."""
    assert batch(wizard, source="-", stdin=b'"one"\n"two"').status == 0
    ran = batch(wizard, source="-", stdin=b'"one"\n"two"\n"three"\n')
    assert "1 answered, 0 failed, 2 there already" in ran.err
    ran = batch(wizard, source="-", stdin=b'"one"\n"2"\n')
    assert ran.status == 2
    assert "wizard: standard input: its line 2 has changed" in ran.err
    assert "the same command goes on" not in ran.err


# -- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--route", "fats"], "'fats'"),
        (["--model", "nobody"], "'nobody'"),
        (["--max-concurrency", "0"], "`max-concurrency` must be at least 1, not 0"),
        (["--deadline", "-1"], "`deadline` must be more than 0"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_what_is_wrong_for_every_line_ends_the_run(wizard: Wizard, flags: list[str], said: str) -> None:
    """It is no line's failure: no record is written."""
    given(wizard, '"one"', '"two"')
    ran = batch(wizard, *flags)
    assert ran.status == 2
    assert said in ran.err
    assert "goes on" not in ran.err
    assert not (wizard.path / "out.jsonl").exists() or written(wizard) == []


@pytest.mark.parametrize("name", ["in.jsonl", "./in.jsonl", "link.jsonl", "hard.jsonl"])
def test_the_output_is_not_the_input(wizard: Wizard, name: str) -> None:
    """Under whatever name."""
    given(wizard, '"one"')
    (wizard.path / "link.jsonl").symlink_to("in.jsonl")
    (wizard.path / "hard.jsonl").hardlink_to(wizard.path / "in.jsonl")
    ran = wizard("batch", "in.jsonl", "-o", name)
    assert ran.status == 2
    assert "the output is the input" in ran.err
    assert (wizard.path / "in.jsonl").read_text() == '"one"\n'


@pytest.mark.parametrize(
    "text", ["my notes", "my notes\n", '{"line": 1}\n', '{"line":1,"digest":"xyz","response":{}}\n', "\xff\n", "[]"]
)
def test_a_file_of_somebody_elses_is_left_alone(wizard: Wizard, text: str) -> None:
    """Neither cut nor appended to."""
    given(wizard, '"one"')
    (wizard.path / "out.jsonl").write_text(text, encoding="latin-1")
    ran = batch(wizard)
    assert ran.status == 2
    assert "its line 1 is none of wizard batch's" in ran.err
    assert (wizard.path / "out.jsonl").read_text(encoding="latin-1") == text


def test_an_output_in_use_is_refused(wizard: Wizard) -> None:
    """Two runs would ask the same lines."""
    given(wizard, '"one"')
    with (wizard.path / "out.jsonl").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        ran = batch(wizard)
    assert ran.status == 2
    assert "another process is writing this output" in ran.err


def test_files_that_cannot_be_used_are_refused(wizard: Wizard) -> None:
    """With the file's name and the reason; no output is made for an input that is not there."""
    given(wizard, '"one"')
    missing = batch(wizard, source="nowhere.jsonl")
    assert (missing.status, missing.err.splitlines()) == (
        2,
        ["wizard: nowhere.jsonl: the input cannot be read: No such file or directory"],
    )
    assert not (wizard.path / "out.jsonl").exists()
    assert "the input is a directory" in batch(wizard, source=".").err
    assert "cannot be opened: Is a directory" in wizard("batch", "in.jsonl", "-o", ".").err
    assert "no regular file" in wizard("batch", "in.jsonl", "-o", os.devnull).err
    assert "cannot be opened: No such file" in wizard("batch", "in.jsonl", "-o", "no/where").err


def test_a_flag_is_no_input(wizard: Wizard) -> None:
    """A file whose name begins with a hyphen stands after `--`."""
    (wizard.path / "-odd").write_text('"one"\n')
    assert wizard("batch", "-odd", "-o", "out.jsonl").status == 2
    assert wizard("batch", "-o", "out.jsonl", "--", "-odd").status == 0


# -- writing ---------------------------------------------------------------------------------------------------------


async def test_a_short_write_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full: the half line goes, the whole ones before it stay."""
    real = os.write
    with (tmp_path / "in").open("w") as source:
        async with OutputFile.open(tmp_path / "out", source=source.fileno(), note=print) as output:
            await output.append({"line": 1})
            monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:5]))
            with pytest.raises(StorageError, match="no room"):
                await output.append({"line": 2})
            monkeypatch.undo()
            await output.append({"line": 3})
    assert (tmp_path / "out").read_text() == '{"line":1}\n{"line":3}\n'


async def test_each_record_is_written_with_a_single_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Newline included: a process that dies leaves whole lines."""
    calls: list[bytes] = []
    real = os.write

    def write(fd: int, data: bytes) -> int:
        if data.startswith(b"{"):
            calls.append(data)
        return real(fd, data)

    monkeypatch.setattr(os, "write", write)
    with (tmp_path / "in").open("w") as source:
        async with OutputFile.open(tmp_path / "out", source=source.fileno(), note=print) as output:
            await output.append({"line": 1, "text": "x" * 100_000})
    assert len(calls) == 1
    assert calls[0].endswith(b"}\n")


async def test_an_output_is_locked_while_it_is_open(tmp_path: Path) -> None:
    """And free again afterwards."""
    with (tmp_path / "in").open("w") as source:
        async with OutputFile.open(tmp_path / "out", source=source.fileno(), note=print):
            with pytest.raises(ConfigError, match="another process"):
                async with OutputFile.open(tmp_path / "out", source=source.fileno(), note=print):
                    pass
        async with OutputFile.open(tmp_path / "out", source=source.fileno(), note=print) as output:
            assert output.recorded == Recorded()


# -- the report ------------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    """What a bar is drawn on."""

    def isatty(self) -> bool:
        return True


def drawn(tally: Tally, notes: Iterable[str] = ()) -> str:
    """Return what a terminal is sent."""
    terminal = Terminal()
    with ProgressReport(tally, Errors(None), total=20, terminal=terminal) as report:
        for note in notes:
            report.note(note)
        report.update()
    return terminal.getvalue()


async def test_a_terminal_shows_a_bar_with_failures_and_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """And never hides the cursor, which a second Ctrl-C could not bring back."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    shown = drawn(Tally(answered=4, failed=1, already=2, broken=1, cost=Decimal("0.0125")))
    assert "8/20" in shown
    assert "1 failed" in shown
    assert "0.0125 USD" in shown
    assert "\x1b[?25l" not in shown


async def test_notes_stand_above_the_bar_without_control_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error's text does not drive the terminal, nor rich's markup."""
    monkeypatch.setenv("TERM", "xterm")
    shown = drawn(Tally(), ["line 3 is skipped: \x1b]0;evil\x07 [bold]x[/bold]"])
    assert "wizard: line 3 is skipped: \N{REPLACEMENT CHARACTER}]0;evil" in shown
    assert "[bold]x[/bold]" in shown


async def test_without_a_terminal_a_line_tells_now_and_then(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """Every 30 seconds at most."""
    with (tmp_path / "err").open("w") as stream:
        tally = Tally()
        with ProgressReport(tally, Errors(stream), total=100, terminal=None) as report:
            for _ in range(7):
                await trio.sleep(10)
                tally.answered += 1
                report.update()
    assert (tmp_path / "err").read_text().splitlines() == [
        "wizard: 3 of 100 done, 0 failed, 0.1 a second",
        "wizard: 6 of 100 done, 0 failed, 0.1 a second",
    ]
