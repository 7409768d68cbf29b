"""What a model is sent, and with which key: the usual variables, addresses, fields of the body."""

from pathlib import Path

import pytest

from tests.test_config_problems import CANARY, ONE, only
from wizard_actors.config import WizardConfig
from wizard_actors.errors import EnvVarError

# -- the usual variable -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("env", [{"OPENAI_API_KEY": ""}, {"OPENAI_API_KEY": " \n"}])
def test_an_empty_usual_variable_is_found_when_loading(env: dict[str, str]) -> None:
    """It stands for the key as one that is named does: the key, the file and the variable are told."""
    with pytest.raises(EnvVarError) as caught:
        WizardConfig.from_toml(ONE, "wizard.toml", env)
    assert caught.value.variable == "OPENAI_API_KEY"
    assert str(caught.value).startswith("wizard.toml: `models[0].api_key_env` is left out, and the usual variable")
    assert "OPENAI_API_KEY is empty" in str(caught.value)


@pytest.mark.parametrize(
    "more",
    ['base_url = "http://127.0.0.1:1/v1"', "enabled = false", 'api_key_env = "MINE"'],
)
def test_an_empty_usual_variable_is_nothing_to_a_model_that_does_not_read_it(more: str) -> None:
    """One elsewhere, one that is switched off, one that names its own."""
    other = '[[models]]\nname = "b"\nprovider = "simulated"\n'
    WizardConfig.from_toml(other + ONE + more, env={"OPENAI_API_KEY": "", "MINE": "sk-mine"})


GEMINI = '[[models]]\nname = "a"\nprovider = "gemini"\n'


@pytest.mark.parametrize(
    ("env", "variable"),
    [
        ({"GEMINI_API_KEY": "g", "GOOGLE_API_KEY": "o"}, "GEMINI_API_KEY"),
        ({"GOOGLE_API_KEY": "o"}, "GOOGLE_API_KEY"),
        ({"GEMINI_API_KEY": " ", "GOOGLE_API_KEY": "o"}, "GOOGLE_API_KEY"),
        ({}, None),
    ],
)
def test_google_has_two_usual_variables(env: dict[str, str], variable: str | None) -> None:
    """In a file as without one; the first that holds something counts, and is the one that is shown."""
    config = WizardConfig.from_toml(GEMINI, env=env)
    key = config.models[0].api_key()
    assert (None if key is None else key.reveal()) == (None if variable is None else env[variable])
    (shown,) = [each for each in config.effective() if each.key == "models[0].api_key_env"]
    assert (shown.value, shown.origin) == (variable, "default" if variable is None else "environment")


def test_a_variable_that_is_named_keeps_its_origin() -> None:
    """The usual one does not stand in its place."""
    config = WizardConfig.from_toml(ONE + 'api_key_env = "MINE"', env={"MINE": "m", "OPENAI_API_KEY": "o"})
    (shown,) = [each for each in config.effective() if each.key == "models[0].api_key_env"]
    assert (shown.value, shown.origin) == ("MINE", "model")


def test_the_addresses_of_the_providers_own_libraries_are_obeyed() -> None:
    """OpenAI's and Anthropic's, where no file says where to go; an empty one is none."""
    env = {"OPENAI_API_KEY": "o", "ANTHROPIC_API_KEY": "a", "ANTHROPIC_BASE_URL": "https://gateway.example.com/a"}
    config = WizardConfig.from_env({**env, "OPENAI_BASE_URL": " "})
    assert config.model("openai").base_url is None
    assert config.model("anthropic").base_url == "https://gateway.example.com/a"


def test_a_key_that_makes_no_model_is_named() -> None:
    """Nobody knows which of that provider's models is meant."""
    with pytest.raises(EnvVarError, match=r"none of OPENAI_API_KEY.*GROQ_API_KEY is set: to ask a model of groq"):
        WizardConfig.from_env({"GROQ_API_KEY": "gsk"})


# -- files, addresses, fields that are made -----------------------------------------------------------------------


def test_a_file_is_named_where_it_cannot_be_a_key(tmp_path: Path) -> None:
    """Its folder is there. A bare word may be the key, put into the wrong place; see the canaries above."""
    for setting in ("api_key_file", "ca_file"):
        for name, content in {"absent": None, "empty": b"", "odd": b"\x00\xff"}.items():
            if content is not None:
                (tmp_path / name).write_bytes(content)
            assert f"({tmp_path}/{name})" in only(f"{ONE}{setting} = '{tmp_path}/{name}'")[1]
            assert CANARY not in "".join(only(f"{ONE}{setting} = '{CANARY}/{name}'"))


def test_a_file_without_a_certificate_is_found_when_loading(tmp_path: Path) -> None:
    """Not only when the first model is built."""
    (tmp_path / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\nnone\n-----END CERTIFICATE-----\n")
    key, reason, hint = only(f"{ONE}ca_file = '{tmp_path}/ca.pem'")
    assert (key, "without a certificate" in reason, "PEM" in hint) == ("models[0].ca_file", True, True)


@pytest.mark.parametrize(
    ("provider", "path", "ending"),
    [
        ("openai", "/v1/chat/completions", "/chat/completions"),
        ("openai", "/v1/chat/completions/", "/chat/completions"),
        ("groq", "/openai/v1/completions", "/completions"),
        ("openai", "/v1/responses", "/responses"),
        ("anthropic", "/v1/messages", "/messages"),
        ("gemini", "/v1beta/models/gemini-2.5-flash:generateContent", ":generateContent"),
        ("gemini", "/v1beta/models/gemini-2.5-flash:streamGenerateContent", ":streamGenerateContent"),
        ("azure", "/openai/deployments/mine/chat/completions", "/chat/completions"),
    ],
)
def test_the_whole_url_of_a_call_is_no_base_url(provider: str, path: str, ending: str) -> None:
    """Copied from a provider's page, it would be asked with its end twice."""
    model = f'[[models]]\nname = "a"\nprovider = "{provider}"\nbase_url = "https://api.example.com{path}"\n'
    key, reason, hint = only(model)
    assert (key, hint) == ("models[0].base_url", "leave that out")
    assert f"must end before `{ending}`" in reason


@pytest.mark.parametrize(
    ("query", "hint"),
    [
        ("?api-version=2024-10-21", "the version goes into `api_version`"),
        ("?key=" + CANARY, "`api_key_env` names"),
        ("?a=b", "`extra` or `headers`"),
        ("#top", "`extra` or `headers`"),
    ],
)
def test_what_stands_in_a_query_is_told_its_place(query: str, hint: str) -> None:
    """Azure's version and Google's key have settings of their own."""
    found = only(f'{ONE}base_url = "https://api.example.com/v1{query}"')
    assert found[0] == "models[0].base_url"
    assert hint in found[2]
    assert CANARY not in "".join(found)


def test_a_deployment_at_azures_own_address_needs_a_version() -> None:
    """Without one it is a certain 404; whoever passes calls on to Azure may add it."""
    azure = '[[models]]\nname = "a"\nprovider = "azure"\n'
    key, reason, _ = only(f'{azure}base_url = "https://mine.openai.azure.com/openai/deployments/d"')
    assert key == "models[0].api_version"
    assert "is required" in reason
    for more in (
        'base_url = "https://mine.openai.azure.com/openai/deployments/d"\napi_version = "2024-10-21"',
        'base_url = "https://gateway.example.com/openai/deployments/d"',
        'base_url = "https://mine.openai.azure.com/openai/v1"',
    ):
        WizardConfig.from_toml(azure + more, env={})


@pytest.mark.parametrize("field", ["messages", "contents", "input", "model", "stream"])
def test_extra_does_not_replace_what_is_made_of_a_call(field: str) -> None:
    """An answer to something else than was asked, or one that is read in the wrong way, would come of it."""
    key, reason, hint = only(f'{ONE}extra = {{ {field} = "x" }}')
    assert key == f"models[0].extra.{field}"
    assert "made from what is asked" in reason
    assert hint
    assert only(f'defaults = {{ extra = {{ {field} = "x" }} }}\n{ONE}')[0] == f"defaults.extra.{field}"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("claude", '"anthropic"'),
        ("google", '"gemini"'),
        ("VertexAI", '"gemini" with a `base_url`'),
        ("grok", '"xai"'),
        ("azure-openai", '"azure"'),
        ("azure_openai", '"azure"'),
        ("chatgpt", '"openai"'),
        ("gpt", '"openai"'),
        ("llama.cpp", '"local", or "openai" with its `base_url`'),
        ("opnai", '"openai"'),
    ],
)
def test_what_others_call_a_provider_is_understood(written: str, meant: str) -> None:
    """Before what is merely spelled alike: Grok is not Groq."""
    assert only(f'[[models]]\nname = "a"\nprovider = "{written}"\n')[2].startswith(f"did you mean {meant}?")
