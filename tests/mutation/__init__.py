"""What the checks find and miss, measured: mutations of an engine's decision code, judged by it."""
