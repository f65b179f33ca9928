"""A folder an engine: every name of it, as tables where it can be, as functions where it must."""
