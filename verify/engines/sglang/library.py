"""SGLang's library, as the interpreter is told of it."""

import re

from verify.engines.sglang import communicator
from verify.engines.sglang.decisions import DUTIES, NEEDS
from verify.engines.sglang.transfer import CALLS, CLASSES, FUNCTIONS
from verify.engines.sglang.vocabulary import (
    ATTENTION,
    COLLECTIVES,
    COMMUNICATOR,
    FLAG_NAMES,
    FLAGS,
    FORWARD_CONTEXT,
    FUSION_MARK,
    GROUP_METHODS,
    GROUPS,
    LAYERS,
    MODELS,
    ROW_LINEAR,
    SIZES,
    WHOLE,
)
from verify.interpreter.library import Library

_A_FLAG = rf"^(?:{'|'.join(FLAGS)})$"

LIBRARY = Library(
    models=MODELS,
    layers=LAYERS,
    flags=FLAGS,
    carriers=FLAG_NAMES,
    context=FORWARD_CONTEXT,
    mark=FUSION_MARK,
    attention=ATTENTION,
    whole=WHOLE,
    collectives=COLLECTIVES,
    groups=GROUPS,
    group_methods=GROUP_METHODS,
    # kernels that sum over ranks into what they are handed (NVLink multicast, one-shot, two-shot)
    sums_in_place=re.compile(r"all_?reduce_$|multimem|(?:one|two)_?shot"),
    sizes=SIZES,
    functions=FUNCTIONS,
    classes=CLASSES,
    calls=CALLS,
    method=communicator.method,
    attribute=communicator.attribute,
    scope=communicator.scope,
    row_linear=(ROW_LINEAR, "reduce_results"),
    prepares=(COMMUNICATOR, "prepare_mlp"),
    fuses=(COMMUNICATOR, "should_fuse_mlp_allreduce_with_next_layer"),
    duties=DUTIES,
    needs=NEEDS,
    # those that decide about or run a reduction, or ask whether there is one to run
    worth_following=re.compile(
        r"all_?reduce|reduce_scatter|_is_complete|should_skip|get_moe_a2a_backend|moe_ep_size"
    ),
    # what they return is named by the call itself
    accessor=re.compile(r"get_|is_dp_attention_enabled$|is_enable_|enable_"),
    # norms and linear layers: what comes out is a new value, not the sum that went in
    new_values=("Norm()", "norm", "Linear()", "Norm().forward", "Linear().forward"),
    relevant=re.compile(
        rf"{_A_FLAG}|_size > 1|backend\(\)\.|_dp|dp_|parallel|reduce_results|sparse"
    ),
    selects=re.compile(rf"{_A_FLAG}|a2a|backend|_dp|dp_|parallel|layer_id|sparse"),
)
