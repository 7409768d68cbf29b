"""Whole outages, simulated: `simulate` runs a `Scenario` and returns a `Report`."""
