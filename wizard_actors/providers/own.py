"""Providers that are not built in: made by what an installed package offers, or given in code."""

from __future__ import annotations

from collections.abc import Iterator
from inspect import getattr_static, iscoroutine
from typing import cast

import httpx

from wizard_actors import plugins
from wizard_actors.config import ModelConfig
from wizard_actors.config.values import described
from wizard_actors.errors import ConfigError, ConfigProblem, WizardError
from wizard_actors.providers.base import Provider
from wizard_actors.providers.refusals import excerpt

__all__ = ["make_own", "missing", "usable"]


def make_own(config: ModelConfig, http: httpx.AsyncClient) -> Provider:
    """Return the provider of a model whose `provider` is a name that another package offers.

    Raises `ConfigError` naming the model, and the package with its entry point, where nothing is offered under that
    name, or by several packages; where it cannot be loaded; and where it makes no provider.
    """
    key = f"models.{config.name}.provider"
    factory = plugins.load(plugins.PROVIDERS, config.provider, key=key)
    offer = plugins.find(plugins.PROVIDERS, config.provider, key=key)
    if not callable(factory):
        raise _problem(key, f"names {offer}, which is no function that makes a provider, but {described(factory)}")
    try:
        made = factory(config, http)
    except WizardError:
        raise
    except Exception as error:
        said = excerpt(f"{type(error).__name__}: {error}", tuple(_secrets(config)))
        raise _problem(key, f"names {offer}, which failed to make this model's provider: {said}") from error
    if iscoroutine(made):
        made.close()
        raise _problem(key, f"names {offer}, which is an async function: what makes a provider is a plain one")
    return usable(made, key=key, source=f"names {offer}, which")


def usable(provider: object, *, key: str, source: str) -> Provider:
    """Return `provider`, which `source` has made, or raise `ConfigError` about `key` where it is none at all."""
    # Looked at from outside: what a member does when it is asked is a matter of the calls.
    if any(getattr_static(provider, member, None) is None for member in ("open", "streams")):
        raise _problem(key, f"{source} must give a provider, with `open` and `streams`, and gave {described(provider)}")
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


def _secrets(config: ModelConfig) -> Iterator[str]:
    """Yield what no error may repeat."""
    key = config.api_key()
    if key is not None:
        yield key.reveal()
    yield from (value.reveal() for value in config.headers.values() if value.reveal())


def _problem(key: str, reason: str) -> ConfigError:
    return ConfigError([ConfigProblem(key, reason)])
