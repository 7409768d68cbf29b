"""Environment variables: the overrides WIZARD_<SECTION>_<KEY>, and the models that API keys stand for."""

from __future__ import annotations

import tomllib
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Union, get_args, get_origin

from attrs import AttrsInstance, frozen

from wizard_actors.config.presets import PRESETS
from wizard_actors.config.strict import Field, KeyPath, check, inner_table, is_choice, problems_in, settings
from wizard_actors.config.values import BadValue, closest
from wizard_actors.errors import ConfigProblem

__all__ = [
    "API_KEYS",
    "PREFIX",
    "RESERVED",
    "Override",
    "keys_without_model",
    "models_from_keys",
    "overrides",
    "set_by",
    "variables",
]

PREFIX: Final = "WIZARD_"
RESERVED: Final = frozenset({"WIZARD_CONFIG", "WIZARD_API_KEYS"})
"""Variables that are no settings: WIZARD_CONFIG is the path of the file, WIZARD_API_KEYS the text of a file of keys."""

API_KEYS: Final = {
    "OPENAI_API_KEY": ("openai", "gpt-5-mini"),
    "ANTHROPIC_API_KEY": ("anthropic", "claude-haiku-4-5"),
    "GEMINI_API_KEY": ("gemini", "gemini-2.5-flash"),
    "GOOGLE_API_KEY": ("gemini", "gemini-2.5-flash"),
}
"""Which provider, and which of its models, a key in the environment stands for, in the order of the chain."""

BASE_URLS: Final = {"openai": "OPENAI_BASE_URL", "anthropic": "ANTHROPIC_BASE_URL"}
"""The variables in which those who use a provider's own library name another address."""


@frozen
class Override:
    """A setting that the environment gives: by which variable, where it stands, its value as the setting takes it."""

    variable: str
    path: KeyPath
    value: object


def variables(sections: Mapping[str, type[AttrsInstance]]) -> dict[str, tuple[KeyPath, Field]]:
    """Return the variable, the place and the field of every setting in `sections` that holds one plain value."""
    places = (place for section, table in sections.items() for place in _plain_settings((section,), table))
    return {PREFIX + "_".join(map(str, path)).upper(): (path, field) for path, field in places}


def _plain_settings(above: KeyPath, table: type[AttrsInstance]) -> Iterator[tuple[KeyPath, Field]]:
    for field in settings(table):
        inner = inner_table(field.type)
        if get_origin(field.type) in (tuple, Mapping) or field.name == "name":
            continue
        if inner is None:
            yield (*above, field.name), field
        else:
            yield from _plain_settings((*above, field.name), inner)


def overrides(
    env: Mapping[str, str], sections: Mapping[str, type[AttrsInstance]]
) -> tuple[list[Override], list[ConfigProblem]]:
    """Return what the environment sets, and what is wrong with its variables."""
    known = variables(sections)
    found: list[Override] = []
    problems: list[ConfigProblem] = []
    for variable in sorted(env):
        if not variable.startswith(PREFIX) or variable in RESERVED:
            continue
        if variable not in known:
            problems.append(ConfigProblem(variable, "is an unknown environment variable", _unknown(variable, known)))
            continue
        path, field = known[variable]
        try:
            found.append(Override(variable, path, check(field, _value(field.type, env[variable]))))
        except BadValue as bad:
            problems.extend(problems_in(set_by(variable, bad), path))
    return found, problems


def set_by(variable: str, bad: BadValue) -> BadValue:
    """Return what is wrong with a value, named as the variable's."""
    return BadValue(f"as the environment variable {variable} sets it, {bad.reason}", bad.hint)


def _unknown(variable: str, known: Mapping[str, object]) -> str:
    if variable.startswith(("WIZARD_MODELS", "WIZARD_ROUTES")):
        return "models and routes are set in the file; WIZARD_DEFAULTS_* sets what all models have"
    meant = closest(variable, known)
    return (
        f"did you mean {meant}?" if meant else "such variables are WIZARD_<SECTION>_<KEY>, as in WIZARD_LOGGING_LEVEL"
    )


def _value(kind: object, text: str) -> object:
    """Return the value that `text` would be in TOML; a setting that takes texts needs no quotes."""
    if not text.isprintable() or not text.strip():
        raise BadValue("must be printable text" if text.strip() else "must not be empty", "unset the variable")
    kinds = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    if any(each in (str, Path) or is_choice(each) for each in kinds):
        return text
    try:
        return tomllib.loads(f"value = {text.strip()}")["value"]
    except (ValueError, RecursionError):
        return text.strip()  # a duration, or a mistake that the setting's own check names


def models_from_keys(env: Mapping[str, str]) -> list[dict[str, object]]:
    """Return a `[[models]]` table for each provider whose key the environment holds; `BASE_URLS` are obeyed."""
    models: dict[str, dict[str, object]] = {}
    for variable, (provider, model) in API_KEYS.items():
        if env.get(variable, "").strip() and provider not in models:
            models[provider] = {"name": provider, "provider": provider, "model": model, "api_key_env": variable}
    for provider, variable in BASE_URLS.items():
        if provider in models and env.get(variable, "").strip():
            models[provider]["base_url"] = env[variable].strip()
    return list(models.values())


def keys_without_model(env: Mapping[str, str]) -> list[str]:
    """Return a sentence for each key in the environment of which no model can be made: which of its provider's models
    is meant, nobody knows.
    """
    return [
        f"{variable} is set: to ask a model of {provider}, name it in a file"
        for provider, preset in PRESETS.items()
        for variable in preset.key_variables
        if env.get(variable, "").strip()
    ]
