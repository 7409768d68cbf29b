"""Providers that are not built in: made by what an installed package offers, or given in code."""

from __future__ import annotations

from inspect import getattr_static, isasyncgenfunction, iscoroutine, iscoroutinefunction
from typing import cast

import httpx

from wizard_actors import plugins
from wizard_actors.config import ModelConfig
from wizard_actors.config.values import described
from wizard_actors.errors import ConfigError, ConfigProblem, WizardError
from wizard_actors.providers.base import Provider
from wizard_actors.providers.unforeseen import Unforeseen

__all__ = ["make_own", "missing", "usable"]


def make_own(config: ModelConfig, http: httpx.AsyncClient) -> Provider:
    """Return the provider of a model whose `provider` is a name that another package offers.

    Raises `ConfigError` naming the model, and the package with its entry point, where nothing is offered under that
    name, or by several packages; where it cannot be loaded; and where it makes no provider. It is chained from what
    the factory raised, unless that repeats the model's key or the value of one of its headers.
    """
    key = f"models.{config.name}.provider"
    factory = plugins.load(plugins.PROVIDERS, config.provider, key=key)
    if not callable(factory):
        raise _wrong(config, f"is no function that makes a provider, but {described(factory)}")
    try:
        made = factory(config, http)
    except WizardError:
        raise
    except Exception as error:  # noqa: BLE001 - raised on, without what it may repeat
        seen = Unforeseen.of(error, config)
        raise _wrong(config, f"failed to make this model's provider: {seen.text}") from seen.cause
    if iscoroutine(made):
        made.close()
        raise _wrong(config, "is an async function: what makes a provider is a plain one")
    if (fault := _fault(made)) is not None:
        raise _wrong(config, fault)
    return cast("Provider", made)


def usable(provider: object, *, key: str, source: str) -> Provider:
    """Return `provider`, which `source` has made, or raise `ConfigError` about `key` where it is none at all."""
    if (fault := _fault(provider)) is not None:
        raise _problem(key, f"{source} {fault}")
    return cast("Provider", provider)


def missing(config: ModelConfig) -> ConfigError:
    """Return the error for a model whose provider was to be given in code, and was not."""
    return ConfigError(
        [
            ConfigProblem(
                f"models.{config.name}.provider",
                'is "custom", and no provider was given for this model',
                f"pass providers={{{config.name!r}: ...}} where the client is opened, or name an installed one here",
            )
        ]
    )


def _fault(provider: object) -> str | None:
    """Return why `provider` can be none, None where it may be one."""
    if isinstance(provider, type):
        return f"must give a provider, and gave the class {provider.__name__}: call it"
    if any(_member(provider, name) is None for name in ("open", "streams")):
        return f"must give a provider, with `open` and `streams`, and gave {described(provider)}"
    opens = getattr_static(provider, "open", None)
    function = opens.__func__ if isinstance(opens, staticmethod | classmethod) else opens
    if iscoroutinefunction(function) or isasyncgenfunction(function):
        return (
            f"gave a provider ({type(provider).__name__}) whose `open` is an async function: it is a plain one that "
            "returns an async context manager, such as `contextlib.asynccontextmanager` makes"
        )
    return None


def _member(provider: object, name: str) -> object:
    """Return a member as it is seen from outside: what it does when it is asked is a matter of the calls.

    Only of a provider that hands on what it has not itself has to be asked.
    """
    seen = getattr_static(provider, name, None)
    if seen is None and getattr_static(type(provider), "__getattr__", None) is not None:
        try:
            return getattr(provider, name, None)
        except Exception:  # noqa: BLE001 - it has none, then
            return None
    return seen


def _wrong(config: ModelConfig, what: str) -> ConfigError:
    """Return the error for the entry point that the model names: it `what`."""
    key = f"models.{config.name}.provider"
    return _problem(key, f"names {plugins.find(plugins.PROVIDERS, config.provider, key=key)}, which {what}")


def _problem(key: str, reason: str) -> ConfigError:
    return ConfigError([ConfigProblem(key, reason)])
