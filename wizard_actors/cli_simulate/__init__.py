"""`wizard simulate`: a whole outage, played in seconds, and what came of it."""

from wizard_actors.cli_simulate.command import simulate

__all__ = ["simulate"]
