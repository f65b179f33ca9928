"""What can be wrong with a source as it is read: a file a rule."""
