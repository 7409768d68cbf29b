"""What other packages offer: found by name, loaded when it is asked for, and told apart."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from wizard_actors import plugins
from wizard_actors.errors import ConfigError

GROUP = "wizard_actors.tried"
Install: TypeAlias = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Return a function that installs a package: its name, its module's source, and its entry points."""

    def install(package: str, source: str, **entries: str) -> None:
        module = package.replace("-", "_")
        (tmp_path / f"{module}.py").write_text(source)
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = [f"{name} = {module}:{attribute}\n" for name, attribute in entries.items()]
        (info / "entry_points.txt").write_text(f"[{GROUP}]\n{''.join(lines)}")
        monkeypatch.delitem(sys.modules, module, raising=False)

    monkeypatch.syspath_prepend(tmp_path)
    return install


def test_names_are_sorted_and_nothing_is_imported(install: Install) -> None:
    """Looking is cheap: a package that cannot be imported has names all the same."""
    install("acme-wizard", "raise RuntimeError('imported')", zebra="z", acme="make")

    assert plugins.names(GROUP) == ("acme", "zebra")
    assert "acme_wizard" not in sys.modules
    assert plugins.names("wizard_actors.nothing") == ()


def test_what_is_named_is_loaded(install: Install) -> None:
    """The object itself, whatever it is; `find` says whose it is."""
    install("acme-wizard", "def make(): return 7", acme="make")

    made = plugins.load(GROUP, "acme")

    assert callable(made)
    assert made() == 7
    found = plugins.find(GROUP, "acme")
    assert (found.package, found.target) == ("acme-wizard", "acme_wizard:make")


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("import no_such_module_anywhere", ModuleNotFoundError),
        ("x = 1", AttributeError),
        ("def (", SyntaxError),
        ("raise ValueError('a bad start')", ValueError),
    ],
)
def test_what_cannot_be_loaded_is_a_config_error(install: Install, source: str, cause: type[Exception]) -> None:
    """It names the setting, the package, the entry point and the exception, and is chained from that."""
    install("acme-wizard", source, acme="make")

    with pytest.raises(ConfigError) as caught:
        plugins.load(GROUP, "acme", key="models.a.provider")

    assert isinstance(caught.value.__cause__, cause)
    for told in ("models.a.provider", "acme-wizard", "acme_wizard:make", cause.__name__):
        assert told in str(caught.value)


def test_a_name_that_nobody_offers_is_a_config_error(install: Install) -> None:
    """It lists what is offered."""
    install("acme-wizard", "", acme="make")

    with pytest.raises(ConfigError, match=r"no installed package offers.*offered: 'acme'"):
        plugins.load(GROUP, "amce")


def test_a_name_that_two_packages_offer_is_an_error_that_names_both(install: Install) -> None:
    """Which one is meant must not hang on the order in which they were installed; other names are not affected."""
    install("zorro", "def make(): pass", acme="make")
    install("acme-wizard", "def make(): pass", acme="make", other="make")

    for look in (plugins.find, plugins.load):
        with pytest.raises(ConfigError, match=r"several packages.* acme-wizard and .* zorro; uninstall all but one"):
            look(GROUP, "acme")
    assert plugins.names(GROUP) == ("acme", "other")
    assert callable(plugins.load(GROUP, "other"))


@pytest.mark.parametrize("look", [plugins.names, lambda group: plugins.load(group, "acme", key="models.a.provider")])
def test_a_package_whose_entry_points_cannot_be_read_is_named(
    install: Install, tmp_path: Path, look: Callable[[str], object]
) -> None:
    """All packages are read to find one: what is wrong is not what was asked for, and the error says whose it is."""
    install("acme-wizard", "make = 1", acme="make")
    install("broken", "")
    (tmp_path / "broken-1.0.dist-info" / "entry_points.txt").write_text("[console_scripts]\nno value\n")

    with pytest.raises(
        ConfigError, match=r"the package broken, in .*cannot be read: .*; repair or uninstall"
    ) as caught:
        look(GROUP)

    [problem] = caught.value.problems
    assert problem.key in {GROUP, "models.a.provider"}
    assert str(tmp_path) in problem.reason
    assert caught.value.__cause__ is not None


def test_a_package_without_a_name_is_told_apart(install: Install, tmp_path: Path) -> None:
    """One that offers what another offers too; some versions of Python refuse to read such a package at all."""
    install("acme-wizard", "make = 1", acme="make")
    install("nameless", "make = 2", acme="make")
    (tmp_path / "nameless-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nVersion: 1.0\n")

    with pytest.raises(ConfigError, match="the package of unknown name"):
        plugins.load(GROUP, "acme")


def test_a_package_installed_later_is_found(install: Install) -> None:
    """Nothing is remembered: a notebook that installs a package need not be restarted."""
    before = plugins.names(GROUP)
    install("acme-wizard", "make = 1", acme="make")

    assert (before, plugins.names(GROUP), plugins.load(GROUP, "acme")) == ((), ("acme",), 1)
