"""What can be wrong with a pull request's sites and migrated calls: a file a rule."""
