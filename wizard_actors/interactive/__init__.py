"""`wizard chat`: a shell on a stored session."""

from wizard_actors.interactive.shell import ChatOptions, Given, run_chat

__all__ = ["ChatOptions", "Given", "run_chat"]
