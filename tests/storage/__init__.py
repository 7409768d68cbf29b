"""One file a storage, and one for their seam."""
