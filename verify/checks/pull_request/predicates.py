"""The configuration's flags as a source defines them, against the helper's definitions."""

from dataclasses import dataclass

from helper import MoeConfig, SkipReason, use_config
from verify.checks.pull_request.reachable import configurations, in_words
from verify.engines.ledger import FlagDefinitions
from verify.engines.sglang.vocabulary import FLAG_FUNCTIONS
from verify.logic.flags import skip_reasons


@dataclass(frozen=True, kw_only=True)
class Definition:
    """One flag as the source defines it; `text` is None where the source has no such flag.

    `unknown` is the first atom that no configuration answers, `differs` the smallest configuration
    in which source and helper disagree.
    """

    flag: str
    text: str | None
    unknown: str | None = None
    differs: MoeConfig | None = None

    @property
    def verdict(self) -> str:
        """The comparison in words."""
        if self.text is None:
            return "not in this source"
        if self.unknown is not None:
            return f"not compared: {self.unknown} is not part of a configuration here"
        if self.differs is not None:
            return f"differs with {in_words(self.differs)}: it is {self.text} here"
        return f"the same in {len(configurations())} configurations"


def compare_definitions(definitions: FlagDefinitions) -> tuple[Definition, ...]:
    """Each flag of the configuration that the helper defines too."""
    return tuple(
        _compare(reason, definitions)
        for reason in skip_reasons()
        if reason.value is not None and reason.flag in FLAG_FUNCTIONS.values()
    )


def _compare(reason: SkipReason, definitions: FlagDefinitions) -> Definition:
    assert reason.value is not None
    text = definitions.text(reason.flag)
    if text is None:
        return Definition(flag=reason.flag, text=None)
    unknown = definitions.unknown(reason.flag)
    if unknown is not None:
        return Definition(flag=reason.flag, text=text, unknown=unknown)
    for config in configurations():
        with use_config(config):
            if definitions.holds(reason.flag, config) != reason.value():
                return Definition(flag=reason.flag, text=text, differs=config)
    return Definition(flag=reason.flag, text=text)
