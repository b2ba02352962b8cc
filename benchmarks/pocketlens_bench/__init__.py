"""Measurements: committed scripts whose JSON results feed the README. Imports pocketlens, never the reverse."""
