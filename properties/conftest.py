"""Hypothesis profiles: `local` explores anew each run, `ci` repeats itself, `thorough` digs deeper, `mutation` repeats
itself and does not make a counterexample smaller.
"""

import os

from hypothesis import Phase, settings

# No deadline anywhere: a whole simulated outage is one example, and a busy machine is not a defect.
settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.register_profile("mutation", deadline=None, derandomize=True, phases=[Phase.explicit, Phase.generate])
settings.register_profile("thorough", deadline=None, max_examples=2_000)
default = "ci" if os.environ.get("CI") == "true" else "local"
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", default))
