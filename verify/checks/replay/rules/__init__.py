"""What can be wrong with a source's own layers when they run: a file a rule."""
