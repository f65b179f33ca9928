"""Counts, for every legal deployment, how often each rank's partial sum ends up in each tensor.

Collectives are linear, so counting replaces arithmetic: every partial starts as one unit on its
own axis, the layer's steps add those units up, and what the next layer reads must hold each unit
exactly once. That is a proof for all values, not a sample.
"""
