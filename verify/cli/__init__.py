"""What a person types: commands, options, configuration, exit codes, output."""
