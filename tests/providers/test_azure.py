"""Azure: its addresses, its header, its versions, over real sockets; and the settings that would not work."""

import msgspec
import pytest

from tests.loopback import Wire, WireRequest, response, serving
from wizard_actors.config import ModelConfig, Secret, WizardConfig
from wizard_actors.errors import ConfigError, ModelNotFoundError, ProviderError
from wizard_actors.providers.base import Call
from wizard_actors.providers.http import make_http_client
from wizard_actors.providers.openai import OpenAIProvider
from wizard_actors.streaming import Assembly
from wizard_actors.types import FinishReason, Prompt

KEY = "azure-canary-0123456789"
CALL = Call(Prompt("Why?", max_tokens=9), "request-1")
JSON = {"content-type": "application/json", "apim-request-id": "apim-1"}
VERSION = "2024-10-21"
DEPLOYED = f"/openai/deployments/mine/chat/completions?api-version={VERSION}"

STREAM = [
    b'data: {"choices":[],"created":0,"id":"","model":"","object":"","prompt_filter_results":[{"prompt_index":0}]}\n\n',
    b'data: {"choices":[{"delta":{"content":"Yes"},"index":0}],"id":"c-1","model":"gpt-5-mini"}\n\n',
    b'data: {"choices":[{"delta":{},"finish_reason":"stop","index":0}],"id":"c-1","model":"gpt-5-mini"}\n\n',
    b"data: [DONE]\n\n",
]


async def asked(path: str, more: str = "", *answers: bytes) -> tuple[list[WireRequest], Assembly]:
    """Return what a resource at `path` was asked for one call, and the answer; raise what the call fails with."""
    failure: ProviderError | None = None
    seen: list[WireRequest] = []
    left = list(answers) or [response(200, {"content-type": "text/event-stream"}, STREAM)]

    async def upstream(wire: Wire) -> None:
        while left and (request := await wire.request()) is not None:
            seen.append(request)
            await wire.send(left.pop(0))

    async with serving(upstream) as base_url, make_http_client() as http:
        provider = OpenAIProvider.from_config(model(base_url.removesuffix("/v1") + path, more), http)
        assembly = Assembly()
        try:
            async with provider.open(CALL) as answer:
                while (events := await answer.read()) is not None:
                    assembly.extend(events)
        except ProviderError as error:  # raised below, where no nursery wraps it
            failure = error
    if failure is not None:
        raise failure
    return seen, assembly


def model(base_url: str, more: str = "") -> ModelConfig:
    """Return the configuration of a deployment."""
    text = f'[[models]]\nname = "primary"\nprovider = "azure"\nmodel = "mine"\nbase_url = "{base_url}"\n'
    return WizardConfig.from_toml(f'{text}api_key_env = "KEY"\n{more}', env={"KEY": KEY}).models[0]


VERSIONED = f'api_version = "{VERSION}"'


@pytest.mark.parametrize(
    ("path", "more", "asked_at"),
    [
        ("", VERSIONED, DEPLOYED),
        ("/", VERSIONED, DEPLOYED),
        ("/openai", VERSIONED, DEPLOYED),
        ("", "", "/openai/v1/chat/completions"),
        ("", 'api_version = "preview"', "/openai/v1/chat/completions?api-version=preview"),
        ("/openai", "", "/openai/v1/chat/completions"),
        ("/openai/v1", "", "/openai/v1/chat/completions"),
        ("/openai/v1/", "", "/openai/v1/chat/completions"),
        ("/openai/v1", 'api_version = "preview"', "/openai/v1/chat/completions?api-version=preview"),
        ("/openai/deployments/mine", VERSIONED, DEPLOYED),
        ("/openai/deployments/other", VERSIONED, DEPLOYED.replace("mine", "other")),
    ],
)
async def test_every_form_of_address_leads_to_the_deployment(path: str, more: str, asked_at: str) -> None:
    """A resource with a version asks its deployment's URL, without one the versionless API; a full URL is kept."""
    (request,), answer = await asked(path, more)
    assert request.path == asked_at
    assert request.json["model"] == "mine"
    assert answer.text == "Yes"


async def test_the_key_stands_bare_in_a_header_of_its_own() -> None:
    """And in no other, nor in the URL; the bound of the answer goes by today's name."""
    (request,), _ = await asked("", VERSIONED)
    assert request.headers["api-key"] == KEY
    assert "authorization" not in request.headers
    assert KEY not in request.path
    assert request.json["max_completion_tokens"] == 9


async def test_the_first_chunk_without_choices_says_nothing() -> None:
    """It holds what the filter found in the prompt, and an empty name for the model."""
    _, answer = await asked("", VERSIONED)
    assert answer.finished is not None
    assert answer.finished.reason is FinishReason.STOP


async def test_an_old_version_is_asked_as_it_understands() -> None:
    """Each field that it does not know costs one request, and no attempt."""

    def refusing(field: str) -> bytes:
        said = {"message": f"Unrecognized request argument supplied: {field}", "type": "invalid_request_error"}
        return response(400, JSON, [msgspec.json.encode({"error": said})])

    good = response(200, {"content-type": "text/event-stream"}, STREAM)
    seen, answer = await asked(
        "", 'api_version = "2024-02-01"', refusing("stream_options"), refusing("max_completion_tokens"), good
    )
    assert answer.text == "Yes"
    assert [sorted(request.json.keys() - {"model", "messages", "stream"}) for request in seen] == [
        ["max_completion_tokens", "stream_options"],
        ["max_completion_tokens"],
        ["max_tokens"],
    ]


async def test_an_unknown_deployment_is_an_unknown_model() -> None:
    """By Azure's own code, with its id for the support desk."""
    said = {"error": {"code": "DeploymentNotFound", "message": "The API deployment for this resource does not exist."}}
    with pytest.raises(ModelNotFoundError) as caught:
        await asked("", VERSIONED, response(404, JSON, [msgspec.json.encode(said)]))
    assert (caught.value.status, caught.value.request_id) == (404, "apim-1")


def test_a_resource_has_to_be_named() -> None:
    """There is no address of Azure's own."""
    with pytest.raises(ConfigError, match="base_url"):
        WizardConfig.from_toml('[[models]]\nname = "primary"\nprovider = "azure"', env={})


@pytest.mark.parametrize("provider", ["openai", "groq", "anthropic", "simulated"])
def test_a_version_of_the_api_is_azures_alone(provider: str) -> None:
    """Elsewhere it would be sent nowhere."""
    with pytest.raises(ConfigError, match=r"api_version.*azure"):
        WizardConfig.from_toml(
            f'[[models]]\nname = "primary"\nprovider = "{provider}"\napi_version = "{VERSION}"', env={}
        )


def test_a_query_in_the_address_is_refused() -> None:
    """The version has a setting of its own."""
    with pytest.raises(ConfigError, match="base_url"):
        model(f"https://mine.openai.azure.com/openai/deployments/mine?api-version={VERSION}")


def test_the_key_is_shown_nowhere() -> None:
    """Neither by the settings nor by the provider."""
    known = model("https://mine.openai.azure.com", VERSIONED)
    assert known.api_key() == Secret(KEY)
    assert KEY not in repr(known)
