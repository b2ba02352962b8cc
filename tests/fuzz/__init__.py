"""Generators of hostile input, each drawn from a seed."""
