"""Run a layer with the machine that follows addends, and judge what its consumers get."""
