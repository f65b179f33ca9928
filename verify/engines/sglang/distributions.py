"""Under which names the engine and its declared forks are published: what may be fetched by name.

A fork is here when its package is `sglang` too.
"""

DISTRIBUTIONS = ("sglang", "lsglang")
