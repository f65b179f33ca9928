"""The tool: `python -m verify` shows that every partial sum is added up exactly once."""
