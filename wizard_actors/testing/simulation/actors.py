"""The actors of a simulated client: the paths by which a scenario kills them. Pure."""

from __future__ import annotations

from wizard_actors.config import ModelConfig, WizardConfig
from wizard_actors.seats import limit_path, model_path

__all__ = ["actors_of", "killable"]


def actors_of(model: ModelConfig) -> list[str]:
    """Return the paths of the actors that a model's calls pass, its group's limiter among them."""
    path, group = model_path(model.name), model.rate_limit_group
    return [f"{path}/breaker", f"{path}/worker", f"{path}/limiter" if group is None else limit_path(group)]


def killable(config: WizardConfig) -> list[str]:
    """Return the paths of all actors that a client has, each once."""
    shared = ["router", "sessions", *(["cache"] if config.cache.max_entries else [])]
    return list(
        dict.fromkeys([*shared, *(path for model in config.models if model.enabled for path in actors_of(model))])
    )
