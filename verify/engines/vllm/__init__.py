"""vLLM, served by its own CPU build."""
