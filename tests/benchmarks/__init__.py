"""The benchmarks themselves: what they measure is what they say, and no failure is hidden."""
