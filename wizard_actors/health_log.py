"""What goes wrong with a model, and when it is over, as lines in the log: for whoever looks at night."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from math import inf

from wizard_actors.errors import WizardError
from wizard_actors.events import AttemptEnded, BreakerChanged, Event
from wizard_actors.plan import BARRED_FOR
from wizard_actors.verdict import Row

__all__ = ["HealthLog"]

log = logging.getLogger("wizard_actors.health")


class HealthLog:
    """Tells of circuits that open and close, and of models that refuse our key, our account or their name: hears a
    client's events, and writes to the logger "wizard_actors.health". What was said of a request is not repeated, but
    for the provider's own words. A model that goes on refusing us is told of as often as it is left out anew.
    """

    def __init__(self) -> None:
        self._told: dict[str, float] = {}

    def hear(self, event: Event) -> None:
        """Write a line where there is something to tell."""
        if isinstance(event, BreakerChanged):
            self._circuit(event)
        elif isinstance(event, AttemptEnded) and event.error is not None and event.error.row is Row.BARRED:
            self._refused(event.model, event.error, event.at)

    def forget(self, models: Iterable[str]) -> None:
        """Tell at once of these models where they refuse us: each is another one now, or asked otherwise."""
        for model in models:
            self._told.pop(model, None)

    def _refused(self, model: str, error: WizardError, now: float) -> None:
        if now >= self._told.get(model, -inf) + BARRED_FOR:
            self._told[model] = now
            log.warning("%s is left out for %g s: %s", model, BARRED_FOR, error)

    def _circuit(self, event: BreakerChanged) -> None:
        if event.circuit == "open":
            wait = max(0.0, event.retry_at - event.at)
            log.warning("%s failed too often: its circuit is open, for %.3g s", event.model, wait)
        elif event.circuit == "closed":
            log.warning("%s: its circuit is closed again", event.model)
