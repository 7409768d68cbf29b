"""The key `transport`: where it may stand, where it reaches, and what is said where it cannot be served."""

import sys

import httpx
import pytest
from attrs import evolve

from tests.loopback import Wire, response, serving
from wizard_actors import ConfigError, ModelConfig, WizardConfig
from wizard_actors.builder import Clients
from wizard_actors.providers.http import make_http_client, send
from wizard_actors.seats import asked

MODEL = '[[models]]\nname = "{name}"\nprovider = "openai"\nbase_url = "http://127.0.0.1:9/v1"\n'
PROXY = 'proxy = "http://127.0.0.1:8"\n'
FAST = 'transport = "fast"\n'


def wrong(text: str) -> list[str]:
    """Load `text`, which is wrong, and return the keys and what to do."""
    with pytest.raises(ConfigError) as caught:
        WizardConfig.from_toml(text, env={})
    return [f"{problem.key}: {problem.hint}" for problem in caught.value.problems]


def test_beside_a_proxy_it_is_an_error() -> None:
    """In a file, wherever the two stand, and in code."""
    (said,) = wrong(MODEL.format(name="a") + PROXY + FAST)
    assert said.startswith("models[0].transport: ")
    assert wrong(f"[defaults]\n{PROXY}{MODEL.format(name='a')}{FAST}")
    assert wrong(f"[defaults]\n{PROXY}{FAST}{MODEL.format(name='a')}")
    with pytest.raises(ConfigError, match="proxy"):
        ModelConfig(name="a", provider="openai", proxy="http://127.0.0.1:8", transport="fast")


def test_a_default_goes_past_models_with_a_proxy_of_their_own() -> None:
    """They are served as without it."""
    config = WizardConfig.from_toml(
        f"[defaults]\n{FAST}{MODEL.format(name='a')}{MODEL.format(name='b')}{PROXY}", env={}
    )
    assert [model.transport for model in config.models] == ["fast", "httpx"]


def test_a_file_that_needs_what_is_not_installed_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what installs it; a disabled model needs nothing."""
    monkeypatch.setattr("wizard_actors.config.load.find_spec", lambda _name: None)
    assert wrong(MODEL.format(name="a") + FAST) == ["models[0].transport: pip install 'wizard-actors[fast]'"]
    off = f"{MODEL.format(name='b')}{FAST}enabled = false\n"
    assert WizardConfig.from_toml(MODEL.format(name="a") + off, env={}).model("b").transport == "fast"


def test_opening_says_so_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the key of the model, for code has no file."""
    monkeypatch.setitem(sys.modules, "httptools", None)
    with pytest.raises(ConfigError, match=r"models\.a\.transport.*pip install 'wizard-actors\[fast\]'"):
        make_http_client(transport="fast", key="models.a.transport")


def test_another_transport_is_another_way_to_a_model() -> None:
    """So a reload opens connections anew."""
    plain = ModelConfig(name="a", provider="openai", base_url="http://127.0.0.1:9/v1")
    fast = evolve(plain, transport="fast")

    assert Clients.route(plain) != Clients.route(fast)
    assert asked(plain, given=True) != asked(fast, given=True)


@pytest.mark.parametrize("transport", ["httpx", "fast"])
async def test_errors_know_their_request(transport: str) -> None:
    """For the host in the message that people read; and a client that is closed sends nothing."""

    async def rude(wire: Wire) -> None:
        await wire.request()

    async with serving(rude) as url:
        request = httpx.Request("POST", url)
        http = make_http_client(transport="fast" if transport == "fast" else "httpx")
        with pytest.raises(httpx.RemoteProtocolError) as caught:
            await send(http, request)
        assert caught.value.request is request
        await http.aclose()
        with pytest.raises(RuntimeError, match="closed"):
            await send(http, request)


@pytest.mark.parametrize("transport", ["httpx", "fast"])
async def test_a_request_is_sent_as_it_is(transport: str) -> None:
    """By either transport: no redirect is followed, no cookie kept, nothing added."""
    seen: list[dict[str, str]] = []

    async def upstream(wire: Wire) -> None:
        while (request := await wire.request()) is not None:
            seen.append(dict(request.headers))
            await wire.send(response(302, {"location": "/other", "set-cookie": "a=b"}))

    http = make_http_client(transport="fast" if transport == "fast" else "httpx")
    async with serving(upstream) as url, http:
        for _ in range(2):
            answer = await send(http, httpx.Request("POST", url, headers={"x-a": "b"}, content=b"{}"))
            assert (answer.status_code, answer.request.method) == (302, "POST")
            await answer.aclose()
    host = url.removeprefix("http://").removesuffix("/v1")
    assert seen == [{"host": host, "x-a": "b", "content-length": "2"}] * 2
