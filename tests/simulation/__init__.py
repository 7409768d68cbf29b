"""Simulations, and the command that plays them."""
