"""A folder a question that is asked of a source."""
