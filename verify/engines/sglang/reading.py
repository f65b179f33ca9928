"""SGLang, as the checks that read a source are told of it."""

import re

from verify.engines.reading import (
    Atoms,
    Constraints,
    Files,
    Reading,
    Roles,
    Said,
    Structure,
    Traits,
    Wiring,
)
from verify.engines.sglang import (
    constraints,
    context_rows,
    fused_shared,
    reduction_groups,
    refusals,
    rows,
    wiring,
)
from verify.engines.sglang.launches import LAUNCHES
from verify.engines.sglang.library import LIBRARY
from verify.engines.sglang.package import ARGUMENTS, BOUNDARIES, SERVER_FILE
from verify.engines.sglang.vocabulary import (
    A2A_BACKEND,
    A2A_NONE,
    COMMUNICATOR,
    COMMUNICATOR_FILE,
    CONSUMER,
    EXPERT_FACTORY,
    EXPERT_LAYERS,
    IS_LAST,
    LAYERS,
    LOCAL_SIZE,
    LOCAL_WORK,
    MODEL,
    MODELS_PACKAGE,
    MOVES_ROWS,
    NORM,
    OWN_SUM,
    PIPELINE_HANDOFF,
    PRODUCER,
    SKIP_FLAGS,
    UTILS_FILE,
)

READING = Reading(
    title="SGLang",
    library=LIBRARY,
    files=Files(
        models=MODELS_PACKAGE,
        shared=UTILS_FILE,
        communicator=COMMUNICATOR_FILE,
        registries="sglang/srt/configs/",
        server=SERVER_FILE,
        arguments=ARGUMENTS,
        boundaries=BOUNDARIES,
        dispatchers=f"{LAYERS}moe/token_dispatcher/",
        imported=re.compile(r"sglang(?<!\wsglang)\.srt\.(?:layers|distributed)\.[\w.]+"),
        environment="sglang/srt/environ.py",
        declares=re.compile(r"\n\s+(?P<name>\w+) = Env(?:Bool|Int)\((?P<default>True|False|\d+)\)"),
        reads=re.compile(
            r"(?P<opposite>not )?(?:envs\.(?P<declared>\w+)\.get\(\)"
            r"|get_bool_env_var\(['\"](?P<named>\w+)['\"](?:, ['\"](?P<default>\w*)['\"])?\))"
        ),
    ),
    roles=Roles(fuses="AF", scatters="RS", scatters_by_size="DP", combines="FI"),
    atoms=Atoms(
        no_dispatch=A2A_NONE,
        local_work=LOCAL_WORK,
        attention_dp=refusals.ATTENTION_DP,
        asks_rows="mlp_mode == ",
        asked_late="_use_aiter",
        obvious=(
            # how large or on what
            "hidden_act",
            "hasattr(",
            "shape[0] > 0",
            "is_dp_attention_enabled",
            "_dp_size ==",
            # what the flags themselves imply
            A2A_NONE,
            f"{COMMUNICATOR}.",
            "is_flashinfer_cutlass()",
            "modelopt_fp4",
            "_use_aiter",
            "allreduce_fusion",
            "DISABLE_FLASHINFER",
            "disable_fp4",
            "_is_sm",
            "is_max_len()",
            # names that the interpreter gives, not the source
            "exit.",
        ),
    ),
    structure=Structure(
        norm=NORM,
        producer=PRODUCER,
        consumer=CONSUMER,
        model=MODEL,
        handoff=PIPELINE_HANDOFF,
        embedding="VocabParallelEmbedding",
        expert_layers=EXPERT_LAYERS,
        expert_factory=EXPERT_FACTORY,
        dispatcher=A2A_BACKEND,
    ),
    launches=LAUNCHES,
    said=Said(
        flags={flag.name: flag.says for flag in SKIP_FLAGS},
        moves=MOVES_ROWS,
        last_layer=IS_LAST,
        local_work=f"with data-parallel expert weights ({LOCAL_SIZE} above 1)",
        combined="where the FP4 dispatcher sums in combine (FI)",
    ),
    constraints=Constraints(
        definitions=constraints.definitions,
        general=constraints.general,
        of_atoms=constraints.of_atoms,
        refused=refusals.refused,
        published=constraints.published_flags,
        texts=constraints.predicate_texts,
        platforms=constraints.platforms_of,
        parts=constraints.PARTS_OF_TP,
        attention_group=refusals.ATTENTION_GROUP,
        copies=re.compile(r"moe_dp|attn_cp|moe_data_parallel|prefill_c(?:ontext_parallel|p\b)"),
    ),
    traits=Traits(
        groups=reduction_groups.read_groups,
        takes_the_picked_group=reduction_groups.takes_the_picked_group,
        boundary_rows=rows.boundary_rows,
        communicator_rows=rows.communicator_rows,
        fused_shared=fused_shared.on_every_rank,
        context_rows=context_rows.context_rows,
        boundary_sum=reduction_groups.boundary_sum,
    ),
    wiring=Wiring(
        why_not=wiring.why_not,
        producers=wiring.PRODUCERS,
        communicator=COMMUNICATOR,
        own_sum=OWN_SUM,
        asks_sizes=wiring.asks_sizes,
        release=wiring.release_of,
    ),
    local=lambda path: path.removeprefix("sglang/srt/"),
)
