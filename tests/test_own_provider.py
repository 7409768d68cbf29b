"""Providers that are not built in: of an installed package, or given in code; their settings, and their document."""

import re
import subprocess
import sys
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import entry_points
from pathlib import Path
from typing import TypeAlias

import httpx
import pytest
from attrs import evolve
from trio.testing import MockClock

from tests.models import Scripted, says
from wizard_actors import ConfigError, ModelConfig, ProviderBugError, ResilientClient, WizardConfig, plugins
from wizard_actors.cache_key import cache_key
from wizard_actors.providers.base import Answer, Call
from wizard_actors.providers.own import make_own
from wizard_actors.types import Prompt

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "own_provider.md"
KEY = "sk-a-key-that-nobody-sees"
SCRIPTED = """
import httpx
from tests.models import Scripted, says

def make(config, http):
    provider = Scripted(says(f"{config.name}: {config.options.get('voice')} {isinstance(http, httpx.AsyncClient)}"))
    provider.config = config
    return provider

def fails(config, http):
    raise KeyError(f"no such thing as {config.api_key().reveal()}")

def breaks(config, http):
    return config.options["voice"]

async def late(config, http):
    return make(config, http)

class Forgotten:
    streams = True
    def __init__(self, config, http):
        pass
    async def open(self, call):
        pass

nothing = None
def wrong(config, http):
    return {}
"""
Install: TypeAlias = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Return a function that installs a package which offers providers: names, and the functions that make them."""

    def install(package: str = "acme-wizard", source: str = SCRIPTED, **entries: str) -> None:
        module = package.replace("-", "_")
        (tmp_path / f"{module}.py").write_text(source)
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = [f"{name} = {module}:{attribute}\n" for name, attribute in entries.items()]
        (info / "entry_points.txt").write_text(f"[{plugins.PROVIDERS}]\n{''.join(lines)}")
        monkeypatch.delitem(sys.modules, module, raising=False)

    monkeypatch.syspath_prepend(tmp_path)
    return install


def only(model: ModelConfig) -> WizardConfig:
    """Return the configuration of that one model."""
    return WizardConfig(models=[model])


# -- of an installed package -------------------------------------------------------------------------


async def test_an_installed_provider_answers(install: Install, autojump_clock: MockClock) -> None:
    """Made once, of the model's configuration and an HTTP client."""
    install(acme="make")
    config = WizardConfig.from_toml(
        '[[models]]\nname = "a"\nprovider = "acme"\n[models.options]\nvoice = "calm"\n', env={}
    )

    async with ResilientClient.open(config) as client:
        response = await client.generate("Why?")

    assert response.text == "a: calm True"


async def test_built_in_names_cannot_be_taken_over(
    install: Install, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is installed; and no package is so much as looked for."""
    install(simulated="fails", custom="fails", openai="fails")

    def looked(**_options: object) -> object:
        raise AssertionError("looked for packages")

    monkeypatch.setattr(plugins, "entry_points", looked)
    async with ResilientClient.open(only(ModelConfig(name="a", provider="simulated"))) as client:
        assert "simulated" in (await client.generate("Why?")).text


def test_a_typing_error_keeps_its_hint_and_lists_what_is_installed(install: Install) -> None:
    """So that a package's name can be misspelled, too."""
    with pytest.raises(ConfigError) as before:
        ModelConfig(name="a", provider="opnai")
    assert str(before.value).endswith('did you mean "openai"?')
    install(acme="make", other="make")

    for wrong, hint in (
        ("opnai", 'did you mean "openai"?'),
        ("amce", 'did you mean "acme"?'),
        ("zz", "known: openai, anthropic"),
    ):
        with pytest.raises(ConfigError, match=re.escape(hint) + ".*; installed packages offer: acme, other$"):
            ModelConfig(name="a", provider=wrong)


def test_a_provider_of_two_packages_is_no_valid_setting(install: Install) -> None:
    """Found when the configuration is loaded; the error names both."""
    install("acme-wizard", acme="make")
    install("zorro", acme="make")

    with pytest.raises(ConfigError, match=r"`provider` .*acme-wizard.* and .*zorro"):
        ModelConfig(name="a", provider="acme")


@pytest.mark.parametrize(
    ("maker", "told"),
    [
        ("fails", "failed to make this model's provider: KeyError: 'no such thing as ***'"),
        ("breaks", "failed to make this model's provider: KeyError: 'voice'"),
        ("late", "which is an async function"),
        ("wrong", "which must give a provider, with `open` and `streams`, and gave a table"),
        ("Forgotten", "which gave a provider (Forgotten) whose `open` is an async function"),
        ("nothing", "which is no function that makes a provider"),
        ("missing", "which cannot be loaded: AttributeError"),
    ],
)
async def test_a_factory_that_fails_is_named_without_the_key(
    install: Install, autojump_clock: MockClock, maker: str, told: str
) -> None:
    """With the model, the package and the entry point, when the client is opened."""
    install(acme=maker)
    model = ModelConfig(name="a", provider="acme", api_key_env="ACME_KEY")

    with pytest.raises(ConfigError) as caught:
        async with ResilientClient.open(only(evolve(model, environ={"ACME_KEY": KEY}))):
            pass

    for part in ("models.a.provider", "acme-wizard", f"acme_wizard:{maker}", told):
        assert part in str(caught.value)
    assert KEY not in "".join(traceback.format_exception(caught.value))
    assert (caught.value.__cause__ is not None) == (maker in {"breaks", "missing"})


async def test_a_key_that_cannot_be_read_hides_no_factorys_error(install: Install) -> None:
    """What went wrong first is what is told."""
    install(acme="breaks")
    model = ModelConfig(name="a", provider="acme", api_key_env="ACME_KEY")
    async with httpx.AsyncClient() as http:
        with pytest.raises(ConfigError, match="KeyError: 'voice'"):
            make_own(evolve(model, environ={}), http)


async def test_a_provider_is_looked_up_once(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look goes through all installed packages."""
    install(acme="make")
    model = ModelConfig(name="a", provider="acme")
    looks: list[object] = []

    def looked(**options: str) -> object:
        looks.append(options)
        return entry_points(**options)

    monkeypatch.setattr(plugins, "entry_points", looked)
    async with httpx.AsyncClient() as http:
        make_own(model, http)

    assert len(looks) == 1


async def test_a_config_error_of_a_factory_comes_out_as_it_is(install: Install, autojump_clock: MockClock) -> None:
    """It says more of its own options than anybody else can."""
    install(
        source="from wizard_actors import *\ndef make(config, http):\n"
        "    raise ConfigError([ConfigProblem('models.a.options.voice', 'is too loud')])",
        acme="make",
    )
    with pytest.raises(ConfigError, match=r"`models\.a\.options\.voice` is too loud"):
        async with ResilientClient.open(only(ModelConfig(name="a", provider="acme"))):
            pass


async def test_a_disabled_model_loads_nothing(install: Install, autojump_clock: MockClock) -> None:
    """Nor does one whose provider is given in code."""
    install(source="raise RuntimeError('imported')", acme="make")
    off = ModelConfig(name="off", provider="acme", enabled=False)
    own = ModelConfig(name="own", provider="acme")

    async with ResilientClient.open(
        WizardConfig(models=[off, own]), providers={"own": Scripted(says("mine"))}
    ) as client:
        assert (await client.generate("Why?")).text == "mine"


async def test_key_headers_and_address_reach_a_factory_as_they_reach_ours(install: Install) -> None:
    """Through the configuration, in which the key is a Secret."""
    install(acme="make")
    model = ModelConfig(
        name="a",
        provider="acme",
        base_url="http://127.0.0.1:9/",
        api_key_env="ACME_KEY",
        headers={"x-team": KEY},
        options={"voice": "calm"},
    )
    async with httpx.AsyncClient() as http:
        made = make_own(evolve(model, environ={"ACME_KEY": KEY}), http)
    config = made.config  # type: ignore[attr-defined]  # of the stand-in above

    assert config.api_key().reveal() == config.headers["x-team"].reveal() == KEY
    assert config.base_url == "http://127.0.0.1:9"
    assert KEY not in f"{config!r} {config.api_key()}"


# -- given in code -----------------------------------------------------------------------------------


async def test_a_custom_provider_has_to_be_given(autojump_clock: MockClock) -> None:
    """The error says of which model, and what to pass."""
    config = only(ModelConfig(name="mine", provider="custom"))
    with pytest.raises(ConfigError, match=r"`models\.mine\.provider` is \"custom\".*providers=\{'mine': \.\.\.\}"):
        async with ResilientClient.open(config):
            pass
    async with ResilientClient.open(config, providers={"mine": Scripted(says("mine"))}) as client:
        assert (await client.generate("Why?")).text == "mine"


async def test_what_is_no_provider_is_refused_at_once(autojump_clock: MockClock) -> None:
    """And not with the first call."""
    config = only(ModelConfig(name="mine", provider="custom"))
    with pytest.raises(ConfigError, match=r"`providers\['mine'\]` .* with `open` and `streams`"):
        async with ResilientClient.open(config, providers={"mine": object()}):  # type: ignore[dict-item]  # the mistake
            pass


class Wrapper:
    """Hands on everything that it has not itself, but for what is `hidden`."""

    def __init__(self, inner: object, hidden: str = "") -> None:
        self._inner = inner
        self._hidden = hidden

    def __getattr__(self, name: str) -> object:
        if name == self._hidden:
            raise KeyError(name)
        return getattr(self._inner, name)


async def test_a_wrapper_that_hands_on_is_a_provider(autojump_clock: MockClock) -> None:
    """What is not found on it from outside is asked for, where it says that it answers."""
    config = only(ModelConfig(name="mine", provider="custom"))
    wrapped = Wrapper(Scripted(says("mine"), streams=False))
    async with ResilientClient.open(config, providers={"mine": wrapped}) as client:  # type: ignore[dict-item]
        assert (await client.generate("Why?")).text == "mine"
    with pytest.raises(ConfigError, match="must give a provider"):
        async with ResilientClient.open(
            config,
            providers={"mine": Wrapper(Scripted(), "open")},  # type: ignore[dict-item]  # the mistake
        ):
            pass


class Late:
    streams = True

    async def open(self, call: Call) -> Answer:
        raise NotImplementedError


class LateStatic:
    streams = True

    @staticmethod
    async def open(call: Call) -> Answer:
        raise NotImplementedError


class Bare:
    streams = True

    async def open(self, call: Call, answer: Answer | None = None) -> AsyncIterator[Answer]:
        if answer is not None:
            yield answer


class Managed:
    streams = True

    @asynccontextmanager
    async def open(self, call: Call, answer: Answer | None = None) -> AsyncIterator[Answer]:
        if answer is None:
            raise UnicodeError("asked")
        yield answer


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (Scripted, "what was passed here must give a provider, and gave the class Scripted: call it"),
        (Late(), "whose `open` is an async function"),
        (LateStatic(), "whose `open` is an async function"),
        (Bare(), "whose `open` is an async function"),
    ],
)
async def test_what_cannot_be_entered_is_refused_at_once(autojump_clock: MockClock, given: object, told: str) -> None:
    """The class in place of a provider, and an `open` that would have to be awaited first."""
    config = only(ModelConfig(name="mine", provider="custom"))
    with pytest.raises(ConfigError, match=re.escape(told)):
        async with ResilientClient.open(config, providers={"mine": given}):  # type: ignore[dict-item]  # the mistake
            pass


async def test_an_open_made_by_asynccontextmanager_is_right(autojump_clock: MockClock) -> None:
    """The function that it makes is a plain one."""
    config = only(ModelConfig(name="mine", provider="custom"))
    async with ResilientClient.open(config, providers={"mine": Managed()}) as client:
        with pytest.raises(ProviderBugError, match="UnicodeError: asked"):
            await client.generate("Why?")


# -- options -----------------------------------------------------------------------------------------


def test_options_cannot_be_changed() -> None:
    """Neither by who gave them nor by who got them."""
    given: dict[str, object] = {"voice": "calm"}
    model = ModelConfig(name="a", provider="custom", options=given)
    given["voice"] = "loud"

    assert model.options == {"voice": "calm"}
    with pytest.raises(TypeError):
        model.options["voice"] = "loud"  # type: ignore[index]  # the mistake
    assert evolve(model, model="other").options == model.options


@pytest.mark.parametrize("provider", ["openai", "simulated", "groq", "local", "anthropic"])
def test_options_of_a_built_in_provider_are_a_mistake(provider: str) -> None:
    """In code and in a file: they would have no effect."""
    text = f'[[models]]\nname = "a"\nprovider = "{provider}"\noptions = {{ voice = "calm" }}\n'
    with pytest.raises(ConfigError, match=r"`models\[0\]\.options` is only for providers that are not built in"):
        WizardConfig.from_toml(text, env={})
    with pytest.raises(ConfigError, match="`options` is only for providers that are not built in"):
        ModelConfig(name="a", provider=provider, options={"voice": "calm"})


def test_options_of_defaults_reach_only_models_that_take_them() -> None:
    """Merged key by key, with the origin that `wizard check` shows."""
    config = WizardConfig.from_toml(
        '[defaults.options]\nvoice = "calm"\npace = 2\n'
        '[[models]]\nname = "own"\nprovider = "custom"\noptions = { pace = 3 }\n'
        '[[models]]\nname = "spare"\nprovider = "simulated"\n',
        env={},
    )
    origins = {each.key: (each.value, each.origin) for each in config.effective()}

    assert config.model("own").options == {"voice": "calm", "pace": 3}
    assert config.model("spare").options == {}
    assert origins["models[0].options.voice"] == ("calm", "defaults")
    assert origins["models[0].options.pace"] == (3, "model")


def test_options_count_in_the_cache() -> None:
    """Another voice is another answer."""
    models = [ModelConfig(name="a", provider="custom", options={"voice": voice}) for voice in ("calm", "loud", "calm")]
    keys = [cache_key(Prompt("Why?"), [model]) for model in models]

    assert keys[0] == keys[2] != keys[1]
    assert keys[0] is not None


# -- the document ------------------------------------------------------------------------------------


def files_of_the_document(folder: Path) -> None:
    """Write the two programs of the document where it says that they stand."""
    provider, tests = re.findall(r"^```python\n(.*?)^```$", DOCUMENT.read_text(), flags=re.MULTILINE | re.DOTALL)
    (folder / "acme_wizard.py").write_text(provider)
    (folder / "test_acme.py").write_text(tests)


def test_the_documents_provider_keeps_the_contract(tmp_path: Path) -> None:
    """As its reader runs it; nothing of it is skipped."""
    files_of_the_document(tmp_path)
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "test_acme.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert re.search(r"^\d{2} passed in", run.stdout, flags=re.MULTILINE), run.stdout


def test_the_contract_runs_without_pytest(tmp_path: Path) -> None:
    """Under unittest, where pytest is not installed."""
    files_of_the_document(tmp_path)
    (tmp_path / "test_plain.py").write_text(
        "import sys, unittest\n"
        "sys.modules['pytest'] = sys.modules['_pytest'] = None\n"  # so that to import them fails
        "from test_acme import TestAcme\n"
        "class TestPlain(TestAcme, unittest.TestCase):\n    pass\n"
        "del TestAcme\n"
    )
    run = subprocess.run(
        [sys.executable, "-W", "error", "-m", "unittest", "test_plain"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert re.search(r"Ran \d{2} tests", run.stderr)


async def test_the_documents_entry_point_works(install: Install, tmp_path: Path, autojump_clock: MockClock) -> None:
    """The lines for pyproject.toml name the function that the program has, and its configuration is valid."""
    text = DOCUMENT.read_text()
    entry = re.search(r'entry-points\."([\w.]+)"\]\n(\w+) = "acme_wizard:(\w+)"', text)
    assert entry is not None
    assert entry[1] == plugins.PROVIDERS
    provider = re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)[0]
    install(source=provider, **{entry[2]: entry[3]})
    [settings] = re.findall(r"^```toml\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    config = WizardConfig.from_toml(settings, env={"ACME_KEY": KEY})

    async with httpx.AsyncClient() as http:
        made = make_own(config.models[0], http)
        with pytest.raises(ConfigError, match="voice"):
            make_own(evolve(config.models[0], options={"volume": 11}), http)

    assert repr(made) == "<AcmeProvider 'clever'>"
