"""Rules about what is added into a partial sum: is the addend of the right kind?

A value that every rank holds in full must not go into a sum that is completed later; a value that
is sharded must not stay where nobody completes its sum. `machine` follows addends while a layer
runs, `judge` judges what the layer's consumers get, `findings` collects it over all layers.
"""
