"""What a case has to come out as: the ledger's verdict on the same guard in the same deployment."""

from dataclasses import replace
from functools import lru_cache

from gpu_tests.cases import Case, sites_of
from verify.ledger.judge import Verdict, judge
from verify.ledger.subject import Guards, Producer, helper_guards, oracle_guards


def expected(case: Case) -> Verdict:
    """The ledger's verdict; it counts and never computes a value."""
    return judge(case.deployment, guards(case.subject, case.guard))


@lru_cache(maxsize=256)
def guards(subject: str, guard: str) -> Guards:
    """A block's reductions under `guard` (`Case.guard`) as the ledger takes them."""
    sites = sites_of(subject)
    if guard == "helper":
        producer: Producer = "two-site" if len(sites) > 1 else "one-site"
        return helper_guards(producer, handed=set(sites[0].passes.values()))
    if guard != "oracle":
        sites = tuple(replace(site, guard=guard) for site in sites)
    return oracle_guards(sites)
