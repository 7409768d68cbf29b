"""What is measured inside one process: each module has `figures()`, which yields what it found.

python -m benchmarks.suites NAME prints them, one JSON object a line.
"""
