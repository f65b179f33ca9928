"""Atoms that decide about sums: they must stay visible in every condition."""

import re

from verify.interpreter.primitives import FLAGS

RELEVANT = re.compile(
    rf"^(?:{'|'.join(FLAGS)})$|_size > 1|backend\(\)\.|_dp|dp_|parallel|reduce_results|sparse"
)
