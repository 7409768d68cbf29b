"""A resilient client for large language models, built from supervised actors on Trio."""
