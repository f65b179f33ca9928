"""The shipped code itself, on in-process ranks."""
