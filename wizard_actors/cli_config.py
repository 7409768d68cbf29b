"""Which configuration a command uses, and what to say about it; which logs it prints."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import trio
from attrs import frozen

from wizard_actors import logs
from wizard_actors.config import WizardConfig
from wizard_actors.config.environment import API_KEYS, keys_without_model
from wizard_actors.errors import ConfigError, ConfigProblem
from wizard_actors.providers.local import available

__all__ = ["DEFAULT_FILE", "Found", "find_config", "named_file", "set_up_logs", "silence_logs"]

DEFAULT_FILE: Final = "wizard.toml"

EMBEDDED: Final = """\
[[models]]
name = "embedded"
provider = "local"
"""
SIMULATED: Final = """\
[[models]]
name = "simulated"
provider = "simulated"
"""
ADVICE: Final = "set OPENAI_API_KEY, ANTHROPIC_API_KEY or GEMINI_API_KEY, or let `wizard init` write a file"


@frozen
class Found:
    """A configuration, where it came from, and what whoever asked should know of it."""

    config: WizardConfig
    source: str
    notes: tuple[str, ...] = ()


async def find_config(path: str | None, env: Mapping[str, str]) -> Found:
    """Return the configuration of the file at `path`, else at `env`'s WIZARD_CONFIG, else of ./wizard.toml; without any
    file, the chain of the API keys in `env`, with a note for each that makes no model; without any key, the embedded
    model, or where that is not installed a simulated one.

    Reads in a thread, for a path may be a pipe that nobody writes to; cancelling leaves the thread behind.

    Only where nobody has a key does a model answer that nobody asked for. Raises `ConfigError`, also where there are
    keys and none makes a model.
    """
    return await trio.to_thread.run_sync(_find, path, env, abandon_on_cancel=True)


def named_file(path: str | None, env: Mapping[str, str]) -> str | None:
    """Return the file that `find_config` reads, None where it reads none."""
    return path or env.get("WIZARD_CONFIG") or (DEFAULT_FILE if Path(DEFAULT_FILE).exists() else None)


def _find(path: str | None, env: Mapping[str, str]) -> Found:
    named = named_file(path, env)
    if named is not None:
        return Found(WizardConfig.load(named, env), named)
    more = keys_without_model(env)
    if any(env.get(variable, "").strip() for variable in API_KEYS):
        return Found(WizardConfig.from_env(env), "environment", tuple(more))
    if more:  # an answer from somebody else is not what its owner wants
        raise ConfigError([ConfigProblem("", seen, "`wizard init` writes one") for seen in more])
    return _without_keys(env)


def _without_keys(env: Mapping[str, str]) -> Found:
    if available():
        note = "no configuration file and no API key: the small embedded model answers"
        return Found(WizardConfig.from_toml(EMBEDDED, env=env), "embedded", (f"{note} ({ADVICE})",))
    note = "no configuration file, no API key and no embedded model: a simulated model makes an answer up"
    return Found(WizardConfig.from_toml(SIMULATED, env=env), "simulated", (f"{note} ({ADVICE})",))


def silence_logs() -> None:
    """Print no log but what is CRITICAL, not even what Python prints by itself where nobody has set up logging: what a
    person has to know of a request, its command says.
    """
    logging.getLogger().setLevel(logging.CRITICAL)


def set_up_logs(config: WizardConfig, *, verbose: bool) -> None:
    """Print the package's log on standard error with `verbose`, and where somebody has set up `[logging]`."""
    if verbose or any(each.origin != "default" for each in config.effective() if each.key.startswith("logging.")):
        logs.configure(config.logging)
