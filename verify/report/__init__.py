"""Reports: findings, causes, rules, fingerprints, and what shows them."""
