"""What a server makes of its options, read from the source that handles them; nothing is executed.

A launch is followed through the argument handling and through the constructors of a layer with
what is known of it: its options and the model's architecture. Everything else is unknown, and a
test of something unknown goes both ways. A launch is refused where every way ends in a raise.
"""
