"""What is imported inside vLLM's own Python."""
