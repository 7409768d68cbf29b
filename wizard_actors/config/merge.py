"""`[defaults]`, merged key by key into every model, and the note of where each value came from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Literal, TypeAlias

from wizard_actors.config.checks import speaks_openai, takes_options
from wizard_actors.config.idle import OF_A_MODEL, idle, merged
from wizard_actors.config.strict import KeyPath, shown_key

__all__ = ["Origin", "Origins", "merge_defaults", "note"]

Origin: TypeAlias = Literal["default", "defaults", "model", "file", "environment", "code", "genai-prices"]
"""Where a value came from: built in, `[defaults]`, the model's own table, another table, a variable, or code."""

Origins: TypeAlias = dict[str, Origin]
"""By key, as messages show it; built-in values are absent."""

KEYS: Final = {"api_key_env": "api_key_file", "api_key_file": "api_key_env"}
OWN_TABLE: Final = ("simulated", "local")


def note(origins: Origins, value: object, path: KeyPath, origin: Callable[[KeyPath], Origin]) -> None:
    """Record the origin of `value` at `path`, and of everything in it."""
    if path:
        origins[shown_key(path)] = origin(path)
    if isinstance(value, Mapping):
        for key, inner in value.items():
            note(origins, inner, (*path, key), origin)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            note(origins, inner, (*path, index), origin)


def merge_defaults(
    defaults: Mapping[str, object], model: Mapping[str, object], index: int, origins: Origins, own: Origin
) -> tuple[dict[str, object], set[str]]:
    """Return `model`, whose origin is `own`, with every key of `defaults` that it leaves open, tables merged alike;
    and the keys that it inherited so.

    Where a model chooses its own key file, a variable from `[defaults]` does not stand beside it, nor the other way
    round; a model without a provider's account needs neither. The tables of the simulated and the embedded model go to
    such models alone, `options` to those whose provider is not built in, `api` and `api_version` to those that read
    them, `transport` to those without a proxy of their own. A default that would have no effect beside the model's own
    settings is left out.
    """

    def inherited_from(path: KeyPath) -> Origin:
        return origins.get(shown_key(("defaults", *path[2:])), "defaults")

    provider = model.get("provider", defaults.get("provider"))
    suitable = {
        key: _effective(key, value, model.get(key, {}))
        for key, value in defaults.items()
        if _suits(key, provider, model)
    }
    inherited: Origins = {}
    given: Origins = {}
    for key, value in suitable.items():
        note(inherited, value, ("models", index, key), inherited_from)
    note(given, model, ("models", index), lambda _path: own)
    origins |= inherited | given
    return _merged(suitable, model), inherited.keys() - given.keys()


def _suits(key: str, provider: object, model: Mapping[str, object]) -> bool:
    if key in OWN_TABLE:
        return key == provider
    if key == "options":
        return takes_options(provider)
    if key == "api":
        return speaks_openai(provider)
    if key == "api_version":
        return provider == "azure"
    if key in KEYS:
        return KEYS[key] not in model and provider not in OWN_TABLE
    direct = model.get("proxy") is None
    return key != "name" and (direct or key != "transport")


def _effective(name: str, table: object, own: object) -> object:
    """Return what of the table `name` of the defaults has an effect in a model with such an `own` one."""
    if name not in OF_A_MODEL or not isinstance(table, Mapping) or not isinstance(own, Mapping):
        return table
    both = merged(name, table, own)
    lost = {problem.key for problem in idle(name, both)}
    return {key: value for key, value in table.items() if key in both and (key in own or key not in lost)}


def _merged(defaults: Mapping[str, object], own: Mapping[str, object]) -> dict[str, object]:
    result = dict(own)
    for key, value in defaults.items():
        mine = own.get(key)
        if key not in own:
            result[key] = value
        elif isinstance(value, Mapping) and isinstance(mine, Mapping):
            result[key] = _merged(value, mine)
    return result
