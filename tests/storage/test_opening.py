"""Which storage a configuration names: ours by their schemes, others by the entry points of installed packages."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest
from trio.testing import MockClock

from wizard_actors.config import SessionsConfig, WizardConfig
from wizard_actors.errors import ConfigError
from wizard_actors.session_record import SessionRecord
from wizard_actors.storage.file import FileStorage
from wizard_actors.storage.memory import MemoryStorage
from wizard_actors.storage.opening import Opener, opener, scheme_of
from wizard_actors.storage.sqlite import SqliteStorage

CANARY = "pa:ss-w0rd"
PLACE = f"//user:{CANARY}@host/base"
Install: TypeAlias = Callable[..., None]

WORKS = """
from contextlib import asynccontextmanager
from wizard_actors.storage.memory import MemoryStorage
places = []
@asynccontextmanager
async def make(place):
    places.append(place)
    async with MemoryStorage.open() as storage:
        yield storage
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Return a function that installs a package, its module's source, that offers `make` as the schemes given."""

    def install(source: str, *schemes: str, package: str = "acme") -> None:
        module = f"{package}_storages"
        (tmp_path / f"{module}.py").write_text(source)
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = [f"{scheme} = {module}:make\n" for scheme in schemes]
        (info / "entry_points.txt").write_text(f"[wizard_actors.storages]\n{''.join(lines)}")
        monkeypatch.delitem(sys.modules, module, raising=False)

    monkeypatch.syspath_prepend(tmp_path)
    return install


def shown(error: BaseException | None) -> str:
    """Return all that an error tells, and those behind it."""
    told = ""
    while error is not None:
        told += str(error) + repr(error)
        error = error.__cause__ or error.__context__
    return told


async def open_it(open_storage: Opener) -> None:
    """Open a storage, and use it."""
    async with open_storage() as storage:
        assert await storage.load("alice") is None


# -- ours


async def test_memory_is_a_storage_in_memory(autojump_clock: MockClock) -> None:
    """Each opening begins an empty one."""
    async with opener("memory:")() as storage:
        assert isinstance(storage, MemoryStorage)
        await storage.save(SessionRecord("alice", created_at=1.0))
    await open_it(opener("memory:"))


@pytest.mark.parametrize(("scheme", "kind"), [("sqlite", SqliteStorage), ("file", FileStorage)])
async def test_a_path_is_relative_to_where_the_program_was_when_it_was_named(
    scheme: str, kind: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is there before it is opened; a program that changes its folder meanwhile keeps its sessions."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    open_storage = opener(f"{scheme}:kept")
    assert not (tmp_path / "kept").exists()
    monkeypatch.chdir(tmp_path / "elsewhere")

    async with open_storage() as storage:
        assert isinstance(storage, kind)
        await storage.save(SessionRecord("alice", created_at=1.0))

    assert (tmp_path / "kept").exists()
    assert list((tmp_path / "elsewhere").iterdir()) == []


async def test_a_path_may_begin_at_the_users_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a shell has it; the home of nobody is an error."""
    monkeypatch.setenv("HOME", str(tmp_path))

    await open_it(opener("sqlite:~/kept.db"))

    assert (tmp_path / "kept.db").exists()
    with pytest.raises(ConfigError, match=r"`sessions\.storage` names the home of an unknown user"):
        opener("file:~nobody-of-that-name/x")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("memory", 'must be "memory:", "sqlite:PATH" or "file:FOLDER"'),
        ("memory:x", 'must be "memory:" alone'),
        ("sqlite:", 'must name a path after "sqlite:"'),
        ("file: ", 'must name a path after "file:"'),
        ("sqlite:///wizard.db", "not a URL"),
        ("sqlite::memory:", 'write "memory:"'),
        ("sqlite:a\nb", "must be"),
        ("nothing:x", "another scheme needs the package that offers it"),
    ],
)
def test_what_names_no_storage_is_a_config_error(url: str, reason: str) -> None:
    """In a configuration, and where it is opened."""
    with pytest.raises(ConfigError) as configured:
        SessionsConfig(storage=url)
    with pytest.raises(ConfigError) as opened:
        opener(url)

    assert reason in str(configured.value)
    assert reason in str(opened.value)
    assert [problem.key for problem in opened.value.problems] == ["sessions.storage"]


def test_the_scheme_is_the_backends_name() -> None:
    """And all that errors and logs tell of where sessions are."""
    assert [scheme_of(url) for url in ("memory:", "sqlite:x:y", f"postgres:{PLACE}")] == [
        "memory",
        "sqlite",
        "postgres",
    ]


# -- of other packages


async def test_an_installed_package_may_offer_a_storage(install: Install, autojump_clock: MockClock) -> None:
    """Its function is called with what stands after the colon, once for each opening; nothing shows that place."""
    install(WORKS, "postgres")
    url = f"postgres:{PLACE}"
    config = WizardConfig.from_toml(
        f'[sessions]\nstorage = "{url}"\n[[models]]\nname = "a"\nprovider = "simulated"', env={}
    )
    open_storage = opener(config.sessions.storage)
    await open_it(open_storage)
    await open_it(open_storage)

    assert sys.modules["acme_storages"].places == [PLACE, PLACE]
    assert config.sessions.storage == url
    in_force = {setting.key: setting.value for setting in config.effective()}
    assert in_force["sessions.storage"] == "postgres:***"
    assert CANARY not in repr(config) + repr(open_storage) + repr(getattr(open_storage, "__self__", ""))


def test_what_is_offered_is_named_where_a_scheme_is_unknown(install: Install) -> None:
    """Beside ours."""
    install(WORKS, "postgres")

    with pytest.raises(ConfigError, match=r'"sqlite:PATH", "file:FOLDER" or "postgres:\.\.\.";'):
        SessionsConfig(storage="postgers:x")


async def test_no_package_can_take_one_of_ours_over(install: Install, autojump_clock: MockClock) -> None:
    """Schemes of ours are never looked for."""
    install(WORKS, "memory", "sqlite", "file")

    async with opener("memory:")() as storage:
        assert type(storage) is MemoryStorage
    assert "acme_storages" not in sys.modules


def test_a_scheme_that_two_packages_offer_is_an_error(install: Install) -> None:
    """Which one is meant nobody can tell; the place is not told."""
    install(WORKS, "postgres")
    install(WORKS, "postgres", package="other")

    with pytest.raises(ConfigError, match="several packages") as caught:
        SessionsConfig(storage=f"postgres:{PLACE}")

    assert CANARY not in shown(caught.value)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("raise RuntimeError('broken')", "which cannot be loaded: RuntimeError: broken"),
        ("make = 7", "no function that opens a storage, but an object of type int"),
    ],
)
def test_an_entry_point_that_opens_nothing_is_a_config_error(install: Install, source: str, told: str) -> None:
    """At once, and not when the first session is used."""
    install(source, "postgres")

    with pytest.raises(ConfigError) as caught:
        opener(f"postgres:{PLACE}")

    assert told in str(caught.value)
    assert "acme" in str(caught.value)
    assert CANARY not in shown(caught.value)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("async def make(place): pass", "is an async function"),
        ("def make(place): return place", "returned no async context manager, but an object of type str"),
        ("def make(place): raise OSError(place)", "its OSError is not told, for it repeats the place"),
        (
            WORKS.replace("    async with", "    raise OSError(place.split(':', 1)[1].split('@')[0])\n    async with"),
            "OSError",
        ),
        ("def make(place):\n  try: raise OSError(place)\n  except OSError: raise ValueError('no')", "its ValueError"),
    ],
)
async def test_a_function_that_fails_to_open_never_tells_the_place(
    install: Install, source: str, told: str, autojump_clock: MockClock
) -> None:
    """Neither in its own error nor in one behind it: there may be a password."""
    install(source, "postgres")

    with pytest.raises(ConfigError) as caught:
        await open_it(opener(f"postgres:{PLACE}"))

    assert told in str(caught.value)
    assert "acme" in str(caught.value)
    assert CANARY not in shown(caught.value)


async def test_another_error_at_opening_is_raised_as_it_is(install: Install, autojump_clock: MockClock) -> None:
    """What tells nothing of the place says best what is wrong."""
    install("def make(place): raise OSError('no route to host')", "postgres")

    with pytest.raises(OSError, match="no route to host"):
        await open_it(opener(f"postgres:{PLACE}"))
