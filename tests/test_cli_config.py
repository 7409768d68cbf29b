"""Which configuration a command uses, what it says about that, and what it logs."""

from pathlib import Path

import pytest

from tests.wizard_cli import SIMULATED, Wizard, two_models
from wizard_actors.providers.local import available


@pytest.fixture
def wizard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wizard:
    """The program, in a folder and an environment without any configuration."""
    return Wizard(tmp_path, monkeypatch)


# -- which configuration -----------------------------------------------------------------------------------------------


def named(name: str) -> str:
    """Return a configuration of one simulated model of that name."""
    return SIMULATED.replace("pretender", name)


def test_the_flag_comes_before_the_variable_before_the_folder(wizard: Wizard) -> None:
    """--config, then $WIZARD_CONFIG, then ./wizard.toml."""
    wizard.config(named("folder"))
    wizard.config(named("variable"), "variable.toml")
    wizard.config(named("flag"), "flag.toml")
    answered = [wizard("ask", "--json", "Why?").json["model"]]
    wizard.monkeypatch.setenv("WIZARD_CONFIG", "variable.toml")
    answered.append(wizard("ask", "--json", "Why?").json["model"])
    answered.append(wizard("ask", "--json", "--config", "flag.toml", "Why?").json["model"])
    assert answered == ["folder", "variable", "flag"]


def test_a_missing_file_is_not_passed_over(wizard: Wizard) -> None:
    """A file that was named and is not there is an error, even where others are."""
    wizard.config(SIMULATED)
    wizard.monkeypatch.setenv("WIZARD_CONFIG", "nowhere.toml")
    ran = wizard("ask", "Why?")
    assert ran.status == 2
    assert "nowhere.toml: there is no such file" in ran.err


def test_without_a_file_the_keys_make_the_chain(wizard: Wizard) -> None:
    """One model for each provider whose key is there, in a fixed order, and no other one: whoever has a key wants that
    model.
    """
    for variable in ("GOOGLE_API_KEY", "GEMINI_API_KEY", "ANTHROPIC_API_KEY", "OPENAI_API_KEY"):
        wizard.monkeypatch.setenv(variable, "sk-canary")
    ran = wizard("models", "--json")
    assert [model["name"] for model in ran.json["models"]] == ["openai", "anthropic", "gemini"]
    assert "sk-canary" not in ran.out + ran.err


def test_a_key_of_which_no_model_can_be_made_is_no_reason_to_make_an_answer_up(wizard: Wizard) -> None:
    """Its owner is told to name a model; beside a key that makes one it is a note."""
    wizard.monkeypatch.setenv("GROQ_API_KEY", "gsk-canary")
    ran = wizard("ask", "Why?")
    assert (ran.status, ran.out) == (2, "")
    assert "GROQ_API_KEY is set: to ask a model of groq, name it in a file; `wizard init` writes one" in ran.err
    wizard.monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")
    ran = wizard("models")
    assert ran.status == 0
    assert "GROQ_API_KEY is set" in ran.err
    assert "canary" not in ran.err


def test_without_any_key_a_simulated_model_answers_and_says_so(wizard: Wizard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the embedded model is not installed, one line on standard error tells what the answer is worth."""
    monkeypatch.setattr("wizard_actors.cli_config.available", lambda: False)
    ran = wizard("ask", "Why?")
    assert ran.status == 0
    assert ran.out == "This answer is simulated: the model simulated made it up.\n"
    assert "a simulated model makes an answer up" in ran.err
    assert ran.err.count("\n") == 1


def test_without_any_key_the_embedded_model_comes_first(wizard: Wizard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is installed it is the chain, and one line on standard error says so."""
    monkeypatch.setattr("wizard_actors.cli_config.available", lambda: True)
    ran = wizard("models", "--json")
    assert [model["provider"] for model in ran.json["models"]] == ["local"]
    assert "embedded model answers" in ran.json_error["note"]


@pytest.mark.skipif(not available(), reason="the embedded model is not installed")
def test_the_embedded_model_answers(wizard: Wizard) -> None:
    """A real answer without a file, a key or a network."""
    ran = wizard("ask", "Say hello.")
    assert ran.status == 0, ran.err
    assert ran.out.strip()


def test_variables_hold_without_a_file_too(wizard: Wizard, monkeypatch: pytest.MonkeyPatch) -> None:
    """A WIZARD_* variable that is wrong is reported, whatever the chain is made of."""
    monkeypatch.setattr("wizard_actors.cli_config.available", lambda: False)
    monkeypatch.setenv("WIZARD_LOGGING_LEVEL", "LOUD")
    ran = wizard("ask", "Why?")
    assert ran.status == 2
    assert "WIZARD_LOGGING_LEVEL" in ran.err


# -- logs --------------------------------------------------------------------------------------------------------------


def test_nothing_is_logged_unless_asked(wizard: Wizard) -> None:
    """A failed attempt that the fallback made up for is nobody's business."""
    wizard.config(two_models())
    assert wizard("ask", "Why?").err == ""


@pytest.mark.parametrize(
    ("more", "flags"),
    [("", ["--verbose"]), ('[logging]\nlevel = "INFO"\n', []), ('[logging]\nformat = "json"\n', [])],
)
def test_a_log_is_one_line_a_request(wizard: Wizard, more: str, flags: list[str]) -> None:
    """--verbose prints it, and so does a configuration that sets up [logging]; never the prompt."""
    wizard.config(two_models(more=more))
    ran = wizard("ask", *flags, "Why sunshine?")
    assert (ran.status, ran.out) == (0, "A whole answer.\n")
    assert ran.err.count("\n") == 1
    assert "request_id" in ran.err
    assert "sunshine" not in ran.err
