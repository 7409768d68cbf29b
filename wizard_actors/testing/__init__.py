"""Conformance suites: what a provider, a strategy, a storage, an actor or a sink of one's own has to keep to."""
