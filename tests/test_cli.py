"""The commands `ask`, `init` and `demo`, run in this process: what they print, what they refuse, how they end."""

import os
from pathlib import Path

import pytest
import trio
from rich.console import Console

from tests.wizard_cli import SIMULATED, Wizard, two_models
from wizard_actors import __version__, cli
from wizard_actors.config import PRESETS, PROVIDERS, TEMPLATE

FIVE_MISTAKES = """
[defaults]
max_concurrency = -1

[[models]]
name = "primary"
provider = "opnai"
enabled = "false"
timeouts = { stal = 3 }

[logging]
level = "LOUD"
"""
MISTAKEN_KEYS = (
    "defaults.max_concurrency",
    "models[0].provider",
    "models[0].enabled",
    "models[0].timeouts.stal",
    "logging.level",
)


@pytest.fixture
def wizard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wizard:
    """The program, in a folder and an environment without any configuration."""
    return Wizard(tmp_path, monkeypatch)


# -- wizard ask: answers -----------------------------------------------------------------------------------------------


def test_ask_prints_the_answer_and_a_newline(wizard: Wizard) -> None:
    """What stands on standard output is the answer, and nothing is said about it."""
    wizard.config(SIMULATED)
    ran = wizard("ask", "Why?")
    assert (ran.status, ran.out, ran.err) == (0, "All is well.\n", "")


def test_ask_json_prints_one_object(wizard: Wizard) -> None:
    """The object's top level holds what programs look for."""
    wizard.config(SIMULATED)
    ran = wizard("ask", "--json", "Why?")
    assert ran.status == 0
    assert ran.out.count("\n") == 1
    wanted = {"text", "model", "upstream_model", "usage", "finish_reason", "attempts", "cost", "served_by"}
    assert wanted <= ran.json.keys()
    assert ran.json["text"] == "All is well."
    assert ran.json["served_by"] == "direct"


def test_ask_json_stream_prints_one_event_a_line(wizard: Wizard) -> None:
    """The events' texts are the answer, and the last event says that it is complete."""
    wizard.config(SIMULATED)
    ran = wizard("ask", "--json", "--stream", "Why?")
    events = ran.json_lines
    assert "".join(event["text"] for event in events if event["type"] == "text") == "All is well."
    assert [event["type"] for event in events].index("end") == len(events) - 1
    assert events[-1]["text"] == "All is well."


def test_a_pipe_gets_whole_answers_only(wizard: Wizard) -> None:
    """Without --stream nothing is printed of an answer that breaks off: the fallback's takes its place."""
    wizard.config(two_models("disconnect", after_words=2))
    ran = wizard("ask", "Why?")
    assert (ran.status, ran.out, ran.err) == (0, "A whole answer.\n", "")


def test_an_interrupted_stream_keeps_its_text_and_fails(wizard: Wizard) -> None:
    """What was printed cannot be taken back: it ends its line, and the error stands on standard error."""
    wizard.config(two_models("disconnect", after_words=2))
    ran = wizard("ask", "--stream", "Why?")
    assert (ran.status, ran.out) == (1, "This one\n")
    assert ran.err.startswith("wizard: first broke off after 8 characters")
    assert ran.err.count("\n") == 1


def test_a_static_answer_is_noted(wizard: Wizard) -> None:
    """It stands on standard output like any answer; that no model gave it is said beside it."""
    wizard.config(
        '[[models]]\nname = "down"\nprovider = "simulated"\nretry = { max_attempts = 1 }\n'
        'simulated = { script = [{ fault = "error", times = 1000 }] }\n'
        '[fallback]\nstatic_answer = "Please come back later."\n'
    )
    ran = wizard("ask", "--no-stream", "Why?")
    assert (ran.status, ran.out) == (0, "Please come back later.\n")
    assert "no model answered (down failed)" in ran.err


def test_a_reset_starts_a_new_line_and_is_noted(wizard: Wizard) -> None:
    """With `on_interruption = "reset"` the whole answer follows on a line of its own, and a note tells the reader."""
    wizard.config(two_models("disconnect", after_words=2, more='[stream]\non_interruption = "reset"\n'))
    ran = wizard("ask", "--stream", "Why?")
    assert (ran.status, ran.out) == (0, "This one\nA whole answer.\n")
    assert ran.err.startswith("wizard: first broke off")
    assert ran.err.count("\n") == 1


def test_a_reset_is_an_event_of_its_own(wizard: Wizard) -> None:
    """With --json --stream a program is told which text to drop."""
    wizard.config(two_models("disconnect", after_words=2, more='[stream]\non_interruption = "reset"\n'))
    events = wizard("ask", "--json", "--stream", "Why?").json_lines
    types = [event["type"] for event in events]
    texts = [event["text"] for event in events[types.index("reset") + 1 :] if event["type"] == "text"]
    assert "".join(texts) == "A whole answer."


def test_model_and_route_choose_who_answers(wizard: Wizard) -> None:
    """--model asks one model only, --route a route's chain."""
    wizard.config(two_models() + '[[routes]]\nname = "backup"\nchain = ["second"]\n')
    assert wizard("ask", "--model", "second", "Why?").out == "A whole answer.\n"
    assert wizard("ask", "--route", "backup", "--json", "Why?").json["served_by"] == "direct"


def test_the_system_message_and_the_prompt_are_sent(wizard: Wizard) -> None:
    """The simulated model counts the words that it was sent."""
    wizard.config(SIMULATED)
    ran = wizard("ask", "--json", "--system", "Be very brief", "Why", "--no-stream")
    assert ran.json["usage"]["input_tokens"] == 4


def test_a_prompt_of_a_megabyte_on_standard_input_is_answered(wizard: Wizard) -> None:
    """All of it is sent, whatever bytes of UTF-8 the pieces end with."""
    wizard.config(SIMULATED)
    words = 2**20 // 8
    ran = wizard("ask", "--json", "-", stdin=("größer " * words).encode())
    assert ran.status == 0
    assert ran.json["usage"]["input_tokens"] == words


def test_a_prompt_after_two_hyphens_may_begin_with_one(wizard: Wizard) -> None:
    """`--` ends the flags."""
    wizard.config(SIMULATED)
    assert wizard("ask", "--", "--help me").out == "All is well.\n"


@pytest.mark.parametrize("prompt", ["none", "null", "-5", "a,b", '{"a": 1}', "@file", "help"])
def test_a_prompt_is_taken_as_it_is(wizard: Wizard, prompt: str) -> None:
    """No text has a meaning for the command line, but flags and the lone hyphen."""
    wizard.config(SIMULATED)
    assert wizard("ask", "--json", "--", prompt).json["usage"]["input_tokens"] == len(prompt.split())


# -- wizard ask: refusals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokens", "stdin", "said"),
    [
        (["ask", ""], b"", "the prompt is empty"),
        (["ask", " \n"], b"", "the prompt is empty"),
        (["ask", "-"], b"", "the prompt is empty"),
        (["ask", "-"], b"\n", "the prompt is empty"),
        (["ask", "-"], b"gr\xfc\xdfe", "standard input is not UTF-8 text: invalid start byte at byte 2"),
        (["ask", "gr\udcfc\udcdfe"], b"", "not valid Unicode"),
        (["ask", "Why?", "--system", "\udcfc"], b"", "not valid Unicode"),
        (["ask"], b"", "PROMPT"),
        (["ask", "--jsn"], b"", "unknown option '--jsn'"),
        (["ask", "Why", "not"], b"", "put a prompt of several words in quotes"),
        (["ask", "--deadline", "soon", "Why?"], b"", "--deadline"),
        (["ask", "--deadline", "0", "Why?"], b"", "`deadline` must be more than 0 seconds"),
        (["ask", "--deadline", "nan", "Why?"], b"", "`deadline` must be more than 0 seconds"),
        (["ask", "--route", "nowhere", "Why?"], b"", "`routes` hold none named 'nowhere'"),
        (["ask", "--model", "pretendr", "Why?"], b"", "did you mean 'pretender'?"),
        (["ask", "--config", "nowhere.toml", "Why?"], b"", "nowhere.toml: there is no such file; `wizard init` writes"),
        (["ask", "--config", "\udcff.toml", "Why?"], b"", r"\udcff.toml: there is no such file"),
        (["ask", "--config", ".", "Why?"], b"", "this is a directory"),
        (["aks", "Why?"], b"", 'Unknown command "aks"'),
    ],
)
def test_wrong_input_ends_with_status_2_and_one_line(
    wizard: Wizard, tokens: list[str], stdin: bytes, said: str
) -> None:
    """The line says what is wrong; with --json it is an object with a code."""
    wizard.config(SIMULATED)
    ran = wizard(*tokens, stdin=stdin)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith("wizard: ")
    assert said in ran.err
    assert ran.err.count("\n") == 1
    as_json = wizard(tokens[0], "--json", *tokens[1:], stdin=stdin)
    assert (as_json.status, as_json.out) == (2, "")
    assert as_json.json_error["code"] in {"usage", "config", "invalid_prompt"}
    assert as_json.json_error["message"]


def test_a_closed_standard_input_is_no_prompt(wizard: Wizard) -> None:
    """`wizard ask - <&-` says what is missing."""
    wizard.config(SIMULATED)
    ran = wizard("ask", "-", stdin=None)
    assert ran.status == 2
    assert "it is closed" in ran.err


def test_a_prompt_without_end_is_refused(wizard: Wizard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard input is read up to a bound."""
    wizard.config(SIMULATED)
    monkeypatch.setattr(cli, "LONGEST_INPUT", 1000)
    ran = wizard("ask", "-", stdin=b"x" * 1001)
    assert ran.status == 2
    assert "longer than 1000 bytes" in ran.err


@pytest.mark.parametrize("command", [["ask", "Why?"], ["check"], ["models"]])
def test_five_mistakes_are_named_in_five_lines(wizard: Wizard, command: list[str]) -> None:
    """One run is enough to learn of all of them."""
    wizard.config(FIVE_MISTAKES)
    ran = wizard(*command)
    assert (ran.status, ran.out) == (2, "")
    lines = ran.err.splitlines()
    assert len(lines) == len(MISTAKEN_KEYS)
    for key in MISTAKEN_KEYS:
        assert any(line.startswith(f"wizard: wizard.toml: `{key}` ") for line in lines), key


def test_five_mistakes_are_one_object(wizard: Wizard) -> None:
    """With --json the problems are a list."""
    wizard.config(FIVE_MISTAKES)
    ran = wizard("check", "--json")
    assert (ran.status, ran.out) == (2, "")
    assert ran.json_error["code"] == "config"
    assert sorted(problem["key"] for problem in ran.json_error["problems"]) == sorted(MISTAKEN_KEYS)


@pytest.mark.parametrize(
    ("fault", "code", "status"),
    [
        ("error", "provider_error", 1),
        ("auth", "auth", 1),
        ("content_filter", "content_filter", 1),
        ("disconnect", "network", 1),
        ("token_limit", "token_limit", 2),
    ],
)
def test_a_failing_model_ends_with_its_status(wizard: Wizard, fault: str, code: str, status: int) -> None:
    """1 where the model failed, 2 where the prompt is too long for it; no answer is made up."""
    wizard.config(two_models(fault))
    ran = wizard("ask", "--json", "--model", "first", "Why?")
    assert (ran.status, ran.out) == (status, "")
    assert ran.json_error["code"] == code
    assert ran.json_error["message"]


def test_a_deadline_that_passes_is_a_failure(wizard: Wizard) -> None:
    """The error names the deadline."""
    wizard.config(SIMULATED.replace("first_token = 0", "first_token = 5"))
    ran = wizard("ask", "--deadline", "0.05", "Why?")
    assert (ran.status, ran.out, ran.err) == (1, "", "wizard: the request's deadline of 0.05 s passed\n")


@pytest.mark.parametrize("provider", [name for name in (*PROVIDERS, *PRESETS) if name != "custom"])
def test_every_provider_of_the_reference_can_be_built(wizard: Wizard, provider: str) -> None:
    """A model of it in the file hinders no other one from answering."""
    wizard.monkeypatch.setenv("SOME_KEY", "k")
    key = "" if provider in {"local", "simulated"} else 'api_key_env = "SOME_KEY"\nbase_url = "http://127.0.0.1:9/v1"\n'
    other = SIMULATED.replace("pretender", "other")
    wizard.config(f'{other}[[models]]\nname = "one"\nprovider = "{provider}"\n{key}')
    ran = wizard("ask", "--model", "other", "Why?")
    assert (ran.status, ran.err) == (0, "")


@pytest.mark.parametrize("flags", [[], ["--json"], ["--verbose"]])
def test_a_bug_is_one_line(wizard: Wizard, flags: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody foresaw ends with status 70; only --verbose shows the traceback."""

    async def broken(*_: object) -> None:
        await trio.lowlevel.checkpoint()
        raise KeyError("nobody foresaw this")

    monkeypatch.setattr(cli, "find_config", broken)
    ran = wizard("ask", *flags, "Why?")
    assert (ran.status, ran.out) == (70, "")
    assert "this is a bug of wizard: KeyError: 'nobody foresaw this'" in ran.err.splitlines()[0]
    assert ("Traceback" in ran.err) == ("--verbose" in flags)
    if flags == ["--json"]:
        assert ran.json_error["code"] == "bug"


# -- the other commands ------------------------------------------------------------------------------------------------


def test_init_writes_a_file_that_explains_itself(wizard: Wizard) -> None:
    """It writes the template, to wizard.toml unless told otherwise."""
    assert wizard("init").status == 0
    assert wizard("init", "other.toml").status == 0
    for name in ("wizard.toml", "other.toml"):
        assert (wizard.path / name).read_text(encoding="utf-8") == TEMPLATE


def test_init_overwrites_nothing_unless_forced(wizard: Wizard) -> None:
    """What somebody wrote stays."""
    file = wizard.config(SIMULATED)
    ran = wizard("init")
    assert (ran.status, ran.out) == (2, "")
    assert ran.err == "wizard: wizard.toml: the file exists already; --force overwrites it\n"
    assert file.read_text(encoding="utf-8") == SIMULATED
    assert wizard("init", "--force").status == 0
    assert file.read_text(encoding="utf-8") == TEMPLATE


def test_init_says_why_a_file_cannot_be_written(wizard: Wizard) -> None:
    """A folder that is missing is named."""
    ran = wizard("init", "missing/wizard.toml")
    assert ran.status == 2
    assert ran.err == "wizard: missing/wizard.toml: the file cannot be written: No such file or directory\n"


def test_version_and_help(wizard: Wizard) -> None:
    """Both go to standard output and end well."""
    assert wizard("--version").out == f"{__version__}\n"
    for command in ("ask", "check", "init", "models", "demo"):
        assert command in wizard("--help").out
    assert "--deadline" in wizard("ask", "--help").out


def test_demo_ends_as_its_run_does(wizard: Wizard, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the demo prints goes to standard output, and its status is the program's."""

    async def short_demo(console: Console) -> int:
        await trio.lowlevel.checkpoint()
        console.print("curtain")
        return 1

    monkeypatch.setattr(cli, "run_demo", short_demo)
    ran = wizard("demo")
    assert (ran.status, ran.out, ran.err) == (1, "curtain\n", "")


def test_a_demo_that_nobody_watches_ends_in_silence(wizard: Wizard, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken pipe stops it, in whichever task it prints."""

    async def printing(console: Console) -> None:
        await trio.lowlevel.checkpoint()
        console.print("nobody reads this")

    async def unseen_demo(console: Console) -> int:
        console.file = broken
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(printing, console)
        return 0

    monkeypatch.setattr(cli, "run_demo", unseen_demo)
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as broken:
        ran = wizard("demo")
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), writer)  # for what is left in the buffer
    assert (ran.status, ran.err) == (141, "")
