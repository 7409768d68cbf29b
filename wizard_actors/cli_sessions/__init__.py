"""`wizard sessions`: what is stored of conversations, listed, shown, taken out, brought in and removed."""

from wizard_actors.cli_sessions.commands import app

__all__ = ["app"]
