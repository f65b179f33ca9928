"""What a layer leaves to the next one must survive the step to the next pipeline stage.

The last layer of a stage has no next layer on its rank: the mark that its output is still owed is
an attribute of the tensor, and a tensor that is sent arrives without it (#27744, #28619).
"""

from collections.abc import Iterable, Iterator

from verify.checks.scan.roots import Roots, shown_layers
from verify.engines.sources import reading
from verify.interpreter.index import Class
from verify.report.report import Finding

ENGINE = reading()
RULE = "lost-at-pipeline"
# the layer leaves its sum, and nothing else is said
ROW = "".join("01"[flag == ENGINE.roles.fuses] for flag in ENGINE.flags)


def lost_at_pipeline(roots: Roots, fusing: Iterable[Class]) -> Iterator[Finding]:
    """A finding for each place that sends such a tensor without asking for its mark."""
    places: dict[tuple[str, int], tuple[Class, set[str]]] = {}
    for layer in fusing:
        for model in roots.built_by.get(layer, ()):
            sender = next(
                (a for a in model.ancestors if a.mentions((ENGINE.structure.handoff,))), None
            )
            if sender is not None and not model.has((ENGINE.library.mark,)):
                key = (sender.module.path, _line(sender))
                places.setdefault(key, (sender, set()))[1].add(layer.name)
    for (file, line), (sender, layers) in sorted(places.items()):
        shown = shown_layers(layers)
        yield Finding(
            rule=RULE,
            message=(
                "where the layer fuses the all-reduce into the next norm, the last layer of a "
                "pipeline stage leaves its sum to the next layer"
            ),
            sums="nobody: what is sent to the next stage no longer says that a sum is owed",
            fix="complete the sum before it is sent, or do not fuse at the end of a stage",
            subject=shown,
            kind="lost",
            file=file,
            line=line,
            cls=sender.name,
            method="forward",
            row=ROW,
            rows=(ROW,),
        )


def _line(cls: Class) -> int:
    return cls.line + cls.text[: cls.text.index(ENGINE.structure.handoff)].count("\n")
