"""The engine itself as judge: one rank against several, by log-probabilities."""
