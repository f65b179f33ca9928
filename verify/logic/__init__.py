"""Truth tables and decision diagrams."""
