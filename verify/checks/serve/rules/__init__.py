"""What can be wrong with an engine that was started: a file a rule."""
