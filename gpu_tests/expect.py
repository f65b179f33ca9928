"""What a case has to come out as: the ledger's verdict on the same guard in the same deployment."""

from dataclasses import replace
from functools import lru_cache

from gpu_tests.blocks import sites_of
from gpu_tests.cases import Case
from gpu_tests.planned import PlannedCase
from oracles import Site
from verify.checks.prove.judge import Verdict, judge
from verify.checks.prove.planned import judge_plan
from verify.checks.prove.subject import dense_subject, helper_guards, oracle_guards
from verify.logic import truth
from verify.logic.flags import flag_names, flag_tables
from verify.parallel.guards import Guards, Producer


def expected(case: Case) -> Verdict:
    """The ledger's verdict; it counts and never computes a value."""
    if isinstance(case, PlannedCase):
        return judge_plan(case.deployment, case.layer, case.plan, case.addend)
    return judge(case.deployment, guards(case.subject, case.guard))


@lru_cache(maxsize=256)
def guards(subject: str, guard: str) -> Guards:
    """A block's reductions under `guard` (`Case.guard`) as the ledger takes them."""
    sites = tuple(site for site in sites_of(subject) if isinstance(site, Site))
    if not sites:
        return _dense_guards(guard)
    if guard == "helper":
        producer: Producer = "two-site" if len(sites) > 1 else "one-site"
        return helper_guards(producer, handed=set(sites[0].passes.values()))
    if guard != "oracle":
        sites = tuple(replace(site, guard=guard) for site in sites)
    return oracle_guards(sites)


def _dense_guards(guard: str) -> Guards:
    own = dense_subject().guards
    if guard in ("helper", "oracle"):
        return own
    count = len(flag_names())
    return replace(own, skip_tp=truth.full(count) ^ truth.evaluate(guard, flag_tables(), count))
