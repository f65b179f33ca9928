"""sgl-project/sglang#23748 judged: the helper against every original guard."""
