"""Rules about what is added into a partial sum, and over which ranks it is summed up.

A value that every rank holds in full must not go into a sum that is completed later; a value that
is sharded must not stay where nobody completes its sum; a sum must run over the ranks that hold its
parts. `machine` follows addends while a layer runs; `judge` judges what the layer's consumers get,
`groups` over which ranks it is summed, `local_sums` what is summed and owes nothing; `rows` and
`reduction_groups` read from the source where rows are rank-local and which groups are picked;
`findings` collects it all over all layers.
"""
