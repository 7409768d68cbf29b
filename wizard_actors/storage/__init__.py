"""Where sessions are kept: `base` is the seam, each other file a backend."""
