"""What a source of the toy engine holds."""
