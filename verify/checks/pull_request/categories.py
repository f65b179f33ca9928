"""The pull request's categories: in which rows helper and oracle may differ."""

from dataclasses import dataclass

from verify.errors import VerifyError
from verify.logic.flags import alone


@dataclass(frozen=True, kw_only=True)
class Category:
    """`latent` are the flags that the originals lacked: helper and oracle differ, on the TP path,
    in the rows where one of them is the only true flag, and in no other.

    `counter` is the name under which the pull request prints the category's unexpected diffs.
    """

    id: str
    counter: str
    title: str
    latent: tuple[str, ...] = ()

    def latent_rows(self) -> int:
        """The rows in which one latent flag is true and no other flag, as a truth table."""
        return sum(1 << alone(flag) for flag in self.latent)


CATEGORIES: tuple[Category, ...] = (
    Category(id="A", counter="Cat A", title="byte-identical"),
    Category(id="B", counter="Cat B", title="latent fix: FI", latent=("FI",)),
    Category(
        id="C",
        counter="Cat C",
        title="latent fix: FI, AF not received",
        latent=("FI",),
    ),
    Category(id="D-EP", counter="Cat D EP", title="hunyuan_v3 EP: byte-identical"),
    Category(
        id="D-TP",
        counter="Cat D TP",
        title="hunyuan_v3 TP: latent fix: FI",
        latent=("FI",),
    ),
)


def category(name: str) -> Category:
    """The category called `name`, in any case; raises `VerifyError` for an unknown one."""
    for candidate in CATEGORIES:
        if candidate.id == name.upper():
            return candidate
    known = ", ".join(candidate.id for candidate in CATEGORIES)
    raise VerifyError(f"no category {name!r}; there are {known}")
