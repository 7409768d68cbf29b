"""Where sessions are kept: `base` is the seam, `opening` finds a backend by its URL, the others are backends."""
