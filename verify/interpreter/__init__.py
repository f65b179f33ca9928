"""Symbolic execution of Python: every path of a function at once."""
