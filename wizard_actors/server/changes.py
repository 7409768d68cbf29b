"""What a reload has changed, in words. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import attrs

from wizard_actors.config import WizardConfig
from wizard_actors.reloading import Reloaded
from wizard_actors.server.key_settings import KeyConfig, KeysConfig

__all__ = ["certificate_changes", "config_changes", "key_changes"]


def config_changes(before: WizardConfig, after: WizardConfig, reloaded: Reloaded) -> Iterator[str]:
    """Say which models are new, changed or gone, in which other tables there are changes, and what has to wait."""
    yield from _listed("model", "added", reloaded.added)
    yield from _listed("model", "changed", reloaded.changed)
    yield from _listed("model", "removed", reloaded.removed)
    tables = [field.name for field in attrs.fields(WizardConfig) if field.name != "models" and field.eq]
    yield from _listed("table", "changed", (each for each in tables if getattr(before, each) != getattr(after, each)))
    if reloaded.later:
        yield f"for a restart of the server: {', '.join(reloaded.later)}"


def key_changes(before: KeysConfig | None, after: KeysConfig | None) -> Iterator[str]:
    """Say which keys are new, changed, shut out, let in again, or gone, and whether anybody may use the server still;
    None: no key was needed.
    """
    old, new = _by_name(before), _by_name(after)
    both = [(old[name], new[name]) for name in new if name in old and old[name] != new[name]]
    yield from _listed("key", "added", (name for name in new if name not in old))
    yield from _listed("key", "disabled", (now.name for was, now in both if was.enabled and not now.enabled))
    yield from _listed("key", "enabled", (now.name for was, now in both if now.enabled and not was.enabled))
    yield from _listed("key", "changed", (now.name for was, now in both if now.enabled == was.enabled))
    yield from _listed("key", "removed", (name for name in old if name not in new))
    if new and not any(key.enabled for key in new.values()):
        yield "no key is enabled: nobody can use the server"


def certificate_changes(before: str, after: str) -> Iterator[str]:
    """Say that there is another certificate, or another key of it; each is given by a digest, "" stands for none."""
    if before != after:
        yield "certificate changed"


def _listed(what: str, became: str, names: Iterable[str]) -> Iterator[str]:
    """Yield "models a, b added"; nothing where there are no names."""
    shown = list(names)
    if shown:
        yield f"{what if len(shown) == 1 else f'{what}s'} {', '.join(shown)} {became}"


def _by_name(keys: KeysConfig | None) -> Mapping[str, KeyConfig]:
    return {key.name: key for key in (() if keys is None else keys.keys)}
