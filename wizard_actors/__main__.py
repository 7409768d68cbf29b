"""`python -m wizard_actors`, and the program `wizard`."""

import sys

from wizard_actors.cli_signals import Signals


def main() -> int:
    """Run the program with the process's arguments, and return its exit status. For a process's main thread."""
    signals = Signals()
    signals.install()
    from wizard_actors.cli import run  # what takes long: a signal meanwhile ends the process as it should

    return run(sys.argv[1:], signals)


if __name__ == "__main__":
    sys.exit(main())
