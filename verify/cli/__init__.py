"""What a person types: commands, options, configuration, exit codes, output."""

import verify.checks  # noqa: F401 (every rule can be asked for, whichever check runs)
