"""What every check presumes of ranks: groups, deployments, tokens, counts."""
