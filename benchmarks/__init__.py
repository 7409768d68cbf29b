"""What things cost here: each script prints its figures. `python -m benchmarks.buffer_pool`."""
