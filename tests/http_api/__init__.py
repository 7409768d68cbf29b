"""What the HTTP endpoint reads and writes: formats, errors, its description."""
