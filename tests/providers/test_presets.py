"""The compatible presets: each speaks to its own address, with its own key, in its own dialect."""

from collections.abc import Mapping
from pathlib import Path

import httpx
import msgspec
import pytest

from tests.loopback import Wire, response, serving
from wizard_actors.config import NATIVE, PRESETS, ModelConfig, Secret, WizardConfig, preset_of
from wizard_actors.errors import AuthError, ProviderError
from wizard_actors.providers.anthropic import AnthropicProvider
from wizard_actors.providers.base import Call
from wizard_actors.providers.gemini import GeminiProvider
from wizard_actors.providers.http import make_http_client
from wizard_actors.providers.http_provider import HttpProvider, HttpSettings
from wizard_actors.providers.openai import OpenAIProvider
from wizard_actors.providers.openai_request import Dialect
from wizard_actors.providers.openai_wire import without_refused_field
from wizard_actors.providers.refusals import ErrorBody, error_body
from wizard_actors.providers.wire import Outgoing
from wizard_actors.types import Message, Prompt, ToolCall

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "providers.md"
KEY = "sk-usual-0123456789"
ADDRESSED = {name: preset for name, preset in PRESETS.items() if preset.base_url is not None}
WITH_KEYS = {name: preset for name, preset in {**NATIVE, **PRESETS}.items() if preset.key_env is not None}
OWN_URL = "https://gateway.test/v1"


def sent(provider: str, prompt: Prompt, *, base_url: str = OWN_URL) -> dict[str, object]:
    """Return the body that a model of `provider` is sent."""
    return msgspec.json.decode(outgoing(provider, prompt, base_url=base_url).body, type=dict[str, object])


def outgoing(provider: str, prompt: Prompt, *, base_url: str) -> Outgoing:
    """Return the request that a model of `provider` is sent."""
    settings = HttpSettings(name="primary", model="up-1", base_url=base_url, provider=provider)
    return OpenAIProvider(settings, httpx.AsyncClient()).wire.request(Call(prompt, "request-1"))


async def ask(model: HttpProvider) -> None:
    """Ask something, and read the answer to its end."""
    async with model.open(Call(Prompt("x"), "1")) as answer:
        while await answer.read() is not None:
            pass


def config(provider: str, env: Mapping[str, str], more: str = "") -> WizardConfig:
    """Return a configuration of one model, read in that environment."""
    return WizardConfig.from_toml(f'[[models]]\nname = "primary"\nprovider = "{provider}"\n{more}', env=env)


def key_of(model: ModelConfig) -> str | None:
    """Return the key that a model reads."""
    key = model.api_key()
    return None if key is None else key.reveal()


# -- addresses and dialects ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ADDRESSED)
def test_a_preset_asks_its_own_address(name: str) -> None:
    """The chat endpoint below it, over TLS unless it is this machine's."""
    url = outgoing(name, Prompt("x"), base_url=str(ADDRESSED[name].base_url)).url
    assert str(url) == f"{ADDRESSED[name].base_url}/chat/completions"
    assert url.scheme == ("http" if url.host == "127.0.0.1" else "https")


@pytest.mark.parametrize("name", [*NATIVE, *PRESETS])
def test_the_documentation_says_where_each_provider_is(name: str) -> None:
    """Its address, and the variable that is usual for its key."""
    preset = preset_of(name)
    assert preset is not None
    (row,) = [line for line in DOCUMENT.read_text().splitlines() if line.startswith(f"| `{name}` ")]
    for known in (preset.base_url, preset.key_env):
        assert known is None or f"`{known}`" in row


def test_presets_do_not_get_into_each_others_way() -> None:
    """No two share an address or a variable, and none hides a built-in provider."""
    variables = [preset.key_env for preset in WITH_KEYS.values()]
    addresses = [preset.base_url for preset in ADDRESSED.values()]
    assert len(set(variables)) == len(variables)
    assert len(set(addresses)) == len(addresses)
    assert not PRESETS.keys() & NATIVE.keys()
    assert preset_of("simulated") is None


@pytest.mark.parametrize(
    ("provider", "base_url", "field"),
    [
        ("openai", "https://api.openai.com/v1", "max_completion_tokens"),
        ("openai", "https://eu.api.openai.com/v1", "max_completion_tokens"),
        ("openai", "https://mine.openai.azure.com/openai/v1", "max_completion_tokens"),
        ("openai", OWN_URL, "max_tokens"),
        ("openai", "https://openai.com.evil.test/v1", "max_tokens"),
        ("groq", OWN_URL, "max_completion_tokens"),
        ("ollama", OWN_URL, "max_tokens"),
    ],
)
def test_the_bound_of_an_answer_goes_by_the_name_that_is_known(provider: str, base_url: str, field: str) -> None:
    """OpenAI's own models refuse the old name, and many compatible servers know no other."""
    body = sent(provider, Prompt("x", max_tokens=9), base_url=base_url)
    assert [name for name in body if name.startswith("max_")] == [field]
    assert body[field] == 9


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_a_bound_in_extra_overrules_ours_under_either_name(field: str) -> None:
    """OpenAI refuses a request that has both."""
    body = sent("openai", Prompt("x", max_tokens=9, extra={field: 5}), base_url="https://api.openai.com/v1")
    assert {name: value for name, value in body.items() if name.startswith("max_")} == {field: 5}


def test_mistral_has_a_name_of_its_own_for_the_seed() -> None:
    """It refuses the usual one."""
    assert sent("mistral", Prompt("x", seed=7))["random_seed"] == 7
    assert "seed" not in sent("mistral", Prompt("x", seed=7))
    assert sent("groq", Prompt("x", seed=7))["seed"] == 7


def test_deepseek_is_told_of_a_schema_in_the_prompt() -> None:
    """It refuses to be held to one, and can be held to JSON; all others are held to the schema."""
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    prompt = Prompt([Message("system", "Be kind."), Message("user", "x")], system="Be brief.", response_schema=schema)
    body = sent("deepseek", prompt)
    assert body["response_format"] == {"type": "json_object"}
    messages = body["messages"]
    assert isinstance(messages, list)
    assert [each["role"] for each in messages] == ["system", "system", "system", "user"]
    told = messages[2]["content"]
    assert "JSON Schema" in told
    assert msgspec.json.decode(told.partition("\n")[2]) == schema
    assert [each["content"] for each in sent("deepseek", Prompt("x"))["messages"]] == ["x"]  # type: ignore[attr-defined]  # a list of messages
    others = [sent(name, prompt) for name in PRESETS if name != "deepseek"]
    assert all("json_schema" in str(body["response_format"]) for body in others)
    assert not any("JSON Schema" in str(body["messages"]) for body in others)


@pytest.mark.parametrize(
    ("provider", "call_id", "kept"),
    [
        ("mistral", "abc123XYZ", True),
        ("mistral", "call_abcdefghij", False),
        ("openai", "chatcmpl-tool-0123456789abcdef0123456789abcdef", False),
        ("openai", "c" * 40, True),
        ("groq", "c" * 80, True),
    ],
)
def test_ids_of_tool_calls_fit_whoever_is_asked(provider: str, call_id: str, kept: bool) -> None:
    """A conversation that another provider began goes on here: call and result still belong together."""
    prompt = Prompt(
        [
            Message("user", "x"),
            Message("assistant", tool_calls=[ToolCall(call_id, "get", "{}"), ToolCall(call_id + "2", "get", "{}")]),
            Message("tool", "1", tool_call_id=call_id),
            Message("tool", "2", tool_call_id=call_id + "2"),
        ]
    )
    messages = sent(provider, prompt)["messages"]
    assert isinstance(messages, list)
    first, second = [call["id"] for call in messages[1]["tool_calls"]]
    assert [messages[2]["tool_call_id"], messages[3]["tool_call_id"]] == [first, second]
    assert first != second
    assert (first == call_id) is kept
    assert kept or (len(first) == 9 and first.isalnum())


# -- what refusals teach -------------------------------------------------------------------------------

UNSUPPORTED = ErrorBody(
    "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
    codes=("unsupported_parameter", "invalid_request_error"),
    param="max_tokens",
)
UNRECOGNIZED = ErrorBody("Unrecognized request argument supplied: max_completion_tokens")
OLD, NEW = Dialect(), Dialect(max_tokens_field="max_completion_tokens")
EXTRA = error_body(
    {"detail": [{"type": "extra_forbidden", "loc": ["body", "max_completion_tokens"], "msg": "Extra inputs"}]}
)


@pytest.mark.parametrize(
    ("known", "refused", "learned"),
    [
        (OLD, UNSUPPORTED, "max_completion_tokens"),
        (NEW, UNRECOGNIZED, "max_tokens"),
        (NEW, EXTRA, "max_tokens"),
        (NEW, UNSUPPORTED, None),
        (OLD, UNRECOGNIZED, None),
        (OLD, ErrorBody("max_tokens is too large: 9. This model supports at most 5 tokens", param="max_tokens"), None),
        (OLD, ErrorBody("max_tokens must be at least 16", param="max_tokens"), None),
        (OLD, ErrorBody("Unsupported parameter: 'temperature' is not supported with this model"), None),
    ],
)
def test_the_other_name_of_the_bound_is_learned_from_a_refusal(
    known: Dialect, refused: ErrorBody, learned: str | None
) -> None:
    """Where the field is refused, and not what it says."""
    dialect = without_refused_field(known, refused)
    assert (None if dialect is None else dialect.max_tokens_field) == learned


def test_the_bound_is_not_renamed_back_and_forth() -> None:
    """A server that takes neither name is asked twice, not for ever."""
    learned = without_refused_field(NEW, UNRECOGNIZED)
    assert learned is not None
    assert without_refused_field(learned, UNSUPPORTED) is None
    assert without_refused_field(learned, ErrorBody("streaming is not supported")) is not None


async def test_a_learned_name_costs_one_request_and_is_remembered() -> None:
    """The second call begins with it."""
    seen: list[list[str]] = []
    refusal = msgspec.json.encode({"error": {"message": UNSUPPORTED.message, "param": "max_tokens"}})
    whole = msgspec.json.encode({"choices": [{"message": {"content": "Yes"}, "finish_reason": "stop"}]})

    async def upstream(wire: Wire) -> None:
        while (request := await wire.request()) is not None:
            fields = [name for name in request.json if name.startswith("max_")]
            seen.append(fields)
            refused = fields == ["max_tokens"]
            kind = {"content-type": "application/json"}
            await wire.send(response(400 if refused else 200, kind, [refusal if refused else whole]))

    async with serving(upstream) as base_url, make_http_client() as http:
        settings = HttpSettings(name="primary", model="up-1", base_url=base_url, max_tokens=20)
        model = OpenAIProvider(settings, http)
        for _ in range(2):
            await ask(model)
    assert seen == [["max_tokens"], ["max_completion_tokens"], ["max_completion_tokens"]]


# -- the usual key -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name, preset in WITH_KEYS.items() if preset.base_url is not None])
def test_the_usual_variable_is_read_for_the_usual_address(name: str) -> None:
    """A model that names no key and no address has its provider's customary one."""
    variable = str(WITH_KEYS[name].key_env)
    assert key_of(config(name, {variable: KEY}).models[0]) == KEY
    assert key_of(config(name, {}).models[0]) is None


@pytest.mark.parametrize("name", WITH_KEYS)
def test_the_usual_key_goes_to_no_other_address(name: str) -> None:
    """Whoever names an address names the key for it."""
    env = {str(WITH_KEYS[name].key_env): KEY, "MINE": "sk-mine"}
    assert key_of(config(name, env, f'base_url = "{OWN_URL}"').models[0]) is None
    assert key_of(config(name, env, f'base_url = "{OWN_URL}"\napi_key_env = "MINE"').models[0]) == "sk-mine"


@pytest.mark.parametrize("name", [name for name, preset in WITH_KEYS.items() if preset.base_url is not None])
def test_a_key_of_its_own_comes_before_the_usual_one(name: str) -> None:
    """The configuration says more than the environment."""
    env = {str(WITH_KEYS[name].key_env): KEY, "MINE": "sk-mine"}
    assert key_of(config(name, env, 'api_key_env = "MINE"').models[0]) == "sk-mine"


def test_no_setting_shows_the_usual_key() -> None:
    """Neither what is in force, nor a repr."""
    known = config("groq", {"GROQ_API_KEY": KEY})
    assert KEY not in f"{list(known.effective())} {known} {known.models[0]!r}"
    settings = HttpSettings.from_config(known.models[0])
    assert settings.api_key == Secret(KEY)
    provider = OpenAIProvider(settings, httpx.AsyncClient())
    assert KEY not in f"{settings!r} {provider!r}"


async def test_an_error_masks_the_usual_key() -> None:
    """A provider that repeats it is quoted without it."""

    async def upstream(wire: Wire) -> None:
        while await wire.request() is not None:
            said = msgspec.json.encode({"error": {"message": f"Incorrect API key provided: {KEY}"}})
            await wire.send(response(401, {"content-type": "application/json"}, [said]))

    known = HttpSettings.from_config(config("groq", {"GROQ_API_KEY": KEY}).models[0])
    async with serving(upstream) as base_url, make_http_client() as http:
        moved = HttpSettings(name=known.name, model=known.model, base_url=base_url, api_key=known.api_key)
        with pytest.raises(AuthError) as caught:
            await ask(OpenAIProvider(moved, http))
    assert "***" in str(caught.value)
    assert KEY not in f"{caught.value} {caught.value!r} {caught.value.to_dict()}"


MAKERS: Mapping[str, type[OpenAIProvider | AnthropicProvider | GeminiProvider]] = {
    "anthropic": AnthropicProvider,
    "gemini": GeminiProvider,
}

# -- what to do about a refusal ------------------------------------------------------------------------


async def refusal_of(name: str, status: int, more: str = "", *, path: str = "/v1") -> str:
    """Return what is said where a server of one's own refuses a call in that provider's dialect."""

    async def upstream(wire: Wire) -> None:
        while await wire.request() is not None:
            await wire.send(response(status, {"content-type": "application/json"}, [b"{}"]))

    said = ""
    make = MAKERS.get(name, OpenAIProvider)
    async with serving(upstream) as base_url, make_http_client() as http:
        url = base_url.removesuffix("/v1") + path
        try:
            await ask(make.from_config(config(name, {"MINE": KEY}, f'base_url = "{url}"\n{more}').models[0], http))
        except ProviderError as error:
            said = str(error)
    return said


async def test_a_refusal_without_a_key_says_that_none_was_sent() -> None:
    """And that the usual variable does not count where there is a base URL."""
    said = await refusal_of("openai", 401)
    assert "the provider wants a key" in said
    assert "no key was sent: name a variable or a file that holds it, api_key_env or api_key_file" in said
    assert "OPENAI_API_KEY counts by itself only where there is no base_url" in said
    assert "refused the key" in await refusal_of("openai", 401, 'api_key_env = "MINE"')
    assert "refused the key" in await refusal_of("openai", 401, 'headers = { authorization = "Bearer x" }')


@pytest.mark.parametrize(
    ("name", "path", "asked", "hint"),
    [
        ("openai", "/v2/gw", "/chat/completions", "that of OpenAI and its compatibles ends in /v1"),
        ("groq", "/v2", "/chat/completions", "that of OpenAI and its compatibles ends in /v1"),
        ("anthropic", "/v2", "/v1/messages", "that of Anthropic's protocol ends before /v1/messages"),
        ("gemini", "/gw", "/v1beta/models/primary:streamGenerateContent", "that of Gemini's protocol ends before"),
        ("azure", "", "/openai/v1/chat/completions", "`model`, which is the deployment's name"),
    ],
)
async def test_what_is_not_found_is_named_with_what_its_protocol_wants(
    name: str, path: str, asked: str, hint: str
) -> None:
    """Below the base URL, which is not repeated: a key may stand in its path."""
    said = await refusal_of(name, 404, path=path)
    assert f"asked for {asked} below its base_url: " in said
    assert hint in said
    assert path == "" or path not in said
