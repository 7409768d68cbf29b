"""Whole clients side by side: scripts, each run in a process of its own, some in an environment of their own."""
