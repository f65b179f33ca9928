"""A source's own code on in-process ranks: loader, stand-ins, ranks, sandbox."""
