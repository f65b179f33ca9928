"""What runs in the engine's own Python: standard library, torch and the engine only."""
