"""Tests of `wizard chat`."""
