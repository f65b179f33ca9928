"""What can be wrong with the steps of a legal deployment: a file a rule."""
