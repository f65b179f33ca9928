"""What a case on real ranks is told is what the ledger proves: one row for one deployment."""

import pytest

from gpu_tests.blocks import DENSE
from gpu_tests.cases import Case
from verify.checks.prove.report import built_in_subjects
from verify.engines.ledger import LayerTraits
from verify.engines.sglang.layer import RELEASE_0_5_11, plan
from verify.logic.flags import flag_names
from verify.logic.truth import row_bits
from verify.parallel.deployment import deployments

ALL = tuple(weighted.deployment for weighted in deployments(max_world_size=4))


GUARDS = {subject.name: subject.guards for subject in built_in_subjects()}
BLOCK = "qwen3_moe/Qwen3MoeSparseMoeBlock.forward_normal"


@pytest.mark.parametrize(("subject", "guards"), [(BLOCK, BLOCK), (DENSE.block, "dense MLP")])
def test_a_case_is_in_the_row_that_the_ledger_says(subject, guards):
    traits = LayerTraits.of(GUARDS[guards])
    for deployment in ALL:
        case = Case(subject=subject, deployment=deployment, guard="oracle", dtype="float32")
        said = plan(deployment, traits, RELEASE_0_5_11)
        assert case.row == row_bits(said.row, len(flag_names())), deployment.as_json()
        assert case.mode == said.mode
