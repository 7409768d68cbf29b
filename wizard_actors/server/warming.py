"""Fills the cache for a key, as the key that asks for it may ask."""

from __future__ import annotations

from collections.abc import Iterable

from wizard_actors.ask_options import AskOptions
from wizard_actors.batch import run_batch
from wizard_actors.cache_messages import cacheable
from wizard_actors.errors import ConfigError, ConfigProblem, WizardError
from wizard_actors.patience import failure_behind
from wizard_actors.server.callers import CallersClient
from wizard_actors.trio_client import Warmed
from wizard_actors.types import Prompt, WizardResponse

__all__ = ["warm"]


async def warm(
    client: CallersClient, prompts: Iterable[str | Prompt], options: AskOptions, *, tenant: str, at_once: int
) -> Warmed:
    """Ask what the cache does not hold for `tenant` yet, `at_once` of them at once, within what the caller's own key
    allows and has left.

    Raises `ConfigError` where there is no cache, or the options are wrong; `AccessDeniedError` where they are not for
    the caller.
    """
    if not client.caching or options.get("cache") == "bypass":
        raise ConfigError([ConfigProblem("cache", "is off", "set cache.max_entries")])
    stored = already = 0
    failed: dict[int, WizardError] = {}

    async def done(index: int, _prompt: str | Prompt, outcome: WizardResponse | WizardError) -> None:  # noqa: ASYNC124
        nonlocal stored, already
        failure = failure_behind(outcome)
        if failure is not None:
            failed[index] = failure
        elif isinstance(outcome, WizardResponse):
            already += outcome.cached
            stored += cacheable(outcome)

    with client.patient(options, tenant=tenant) as ask:
        await run_batch(ask, prompts, max_concurrency=at_once, done=done)
    return Warmed(stored=stored, already=already, failed=tuple(sorted(failed.items())))
