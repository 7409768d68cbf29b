"""Tests of what offers a client to others."""
