"""`python -m wizard_actors`, and the program `wizard`."""

import sys

from wizard_actors.cli import main

if __name__ == "__main__":
    sys.exit(main())
