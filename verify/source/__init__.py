"""From SOURCE to its files."""
