"""What runs inside any engine's Python: modules seen by name, and the first one at fault."""
