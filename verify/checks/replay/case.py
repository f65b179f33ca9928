"""One model on one deployment: run it on in-process ranks, count, compare with one rank."""

import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from verify.checks.replay import environment, primitives, stack
from verify.checks.replay.decoders import Decoder
from verify.checks.replay.deployments import ONE_RANK, Execution, tokens_of
from verify.checks.replay.judge import Judged, judge
from verify.checks.replay.model_config import MissingError, neutral
from verify.emulator import groups
from verify.emulator.pipeline import Pipeline
from verify.emulator.ranks import Rank, RanksError, run_ranks
from verify.emulator.tree import SourceFiles, Tree
from verify.emulator.witness import Seen, Witness

TIME_LIMIT = 60.0
_MOST_LEARNED = 80


@dataclass(kw_only=True)
class Server:
    """A rank that has started; `model` is the last that was built on it, of the layer `decoder`."""

    witness: Witness
    tree: Tree
    decoder: Decoder | None = None
    model: Any = None


Servers = dict[int, Server]


@dataclass(kw_only=True)
class Source:
    """A release and what earlier cases learned about it.

    `told` is what earlier cases have said that was replaced and executed, `learned` are names of
    configurations, `references` results on one rank, `failures` why there is none, `servers` the
    started ranks of the last server, `attempts` a rank on which models are tried, `published` the
    flags of each server by the release's own functions, `answered` those of the last layer.
    """

    files: SourceFiles
    told: set[tuple[str, object]] = field(default_factory=set)
    learned: dict[Decoder, dict[str, Any]] = field(default_factory=dict)
    references: dict[Decoder, Seen] = field(default_factory=dict)
    failures: dict[Decoder, Judged] = field(default_factory=dict)
    servers: dict[Execution, Servers] = field(default_factory=dict)
    attempts: Servers = field(default_factory=dict)
    published: dict[Execution, dict[str, bool]] = field(default_factory=dict)
    answered: dict[str, bool] = field(default_factory=dict)

    def flags(self, server: Execution) -> dict[str, bool] | None:
        """All that the release said of itself in the last run; None where it did not start."""
        published = self.published.get(server)
        return None if published is None else {**published, **self.answered}

    def take_servers(self, server: Execution) -> Servers:
        """Ranks that an earlier case of this server started; others than one rank end."""
        kept = self.servers.pop(server, {})
        if server != ONE_RANK:
            self.servers = {d: s for d, s in self.servers.items() if d == ONE_RANK}
        return kept


def run_case(source: Source, decoder: Decoder, deployment: Execution) -> dict[str, Any]:
    """The case as JSON: `kind`, `counts`, `max_error`, `why`, and what was replaced and executed.

    Of the last two what no earlier case of this source has said: it is thousands of names.
    """
    replaced: dict[str, str] = {}
    executed: list[str] = []
    server = deployment.server
    try:
        if decoder in source.failures:
            judged = source.failures[decoder]
            return _result(decoder, judged, replaced, executed, source.published.get(server))
        if decoder not in source.references:
            source.references[decoder] = _reference(source, decoder)
        source.answered = {}
        ranks = _kept(source, decoder, deployment)
        judged = judge([seen for seen, _ in ranks], reference=source.references[decoder])
        tree = ranks[0][1]
        replaced = dict(sorted(tree.replaced.items() - source.told))
        executed = sorted(f"{path}:{line}" for path, line in tree.loaded - source.told)
        source.told.update(tree.replaced.items(), tree.loaded)
    except RanksError as error:
        judged = _failed(error, source)
    return _result(decoder, judged, replaced, executed, source.flags(server))


def _reference(source: Source, decoder: Decoder) -> Seen:
    """What one rank yields; why it yields nothing is the same on every deployment, and is kept."""
    try:
        return _learn(source, decoder)
    except RanksError as error:
        source.failures[decoder] = _failed(error, source)
        source.answered = {}
        raise


def _result(
    decoder: Decoder,
    judged: Judged,
    replaced: Mapping[str, str],
    executed: list[str],
    published: Mapping[str, bool] | None,
) -> dict[str, Any]:
    return {
        "model": decoder.model,
        "cls": decoder.cls,
        "kind": judged.kind,
        "counts": judged.counts,
        "max_error": judged.max_error,
        "why": judged.why,
        "producers": judged.producers,
        "replaced": replaced,
        "executed": executed,
        "published": published,
    }


def _learn(source: Source, decoder: Decoder) -> Seen:
    """Run on one rank until the configuration has every name that the model insists on.

    Attempts have a rank of their own; the result is of one that no failed attempt has touched.
    """
    learned = source.learned.setdefault(decoder, {})
    is_fresh = not source.attempts
    while True:
        try:
            source.attempts, _ = _run(source, decoder, ONE_RANK, source.attempts)
            return _kept(source, decoder, ONE_RANK)[0][0]
        except RanksError as error:
            missing = error.__cause__
            if isinstance(missing, MissingError) and len(learned) < _MOST_LEARNED:
                learned[str(missing.name)] = neutral(str(missing.name))
            elif is_fresh:
                source.attempts = {}
                raise
            else:
                # what earlier layers' attempts left may be in the way
                source.attempts, is_fresh = {}, True


def _kept(source: Source, decoder: Decoder, deployment: Execution) -> list[tuple[Seen, Tree]]:
    """Run on the deployment's ranks, which are kept unless it fails."""
    server = deployment.server
    servers, results = _run(source, decoder, deployment, source.take_servers(server))
    source.servers[server] = servers
    return results


def _run(
    source: Source, decoder: Decoder, deployment: Execution, servers: Servers
) -> tuple[Servers, list[tuple[Seen, Tree]]]:
    """Run on `servers`, started where they are not; returns them and each rank's result."""
    tokens = tokens_of(deployment)
    reference = source.references.get(decoder)
    pipeline = Pipeline(stages=deployment.stages)

    def body(rank: Rank) -> tuple[Seen, Tree]:
        # a setting of the thread
        torch.set_grad_enabled(False)
        if rank.rank not in servers:
            servers[rank.rank] = _start(source, rank, deployment)
        server = servers[rank.rank]
        witness, tree = server.witness, server.tree
        # until there is a reference the configuration is not known to its end
        if reference is None or server.decoder != decoder:
            server.model = stack.build(tree, decoder, source.learned[decoder])
            server.decoder = decoder
        model = server.model
        witness.watch(model, reference.slots if reference else None)
        batch = environment.make_batch(tree, deployment, tokens)
        if rank.rank == 0:
            source.answered = environment.answered(tree, model, batch)
        marks = batch.input_ids.clone()
        hidden = stack.run(tree, model, batch, pipeline=pipeline)
        # an earlier stage ends with no tokens
        return witness.read(hidden, marks[: len(hidden)]), tree

    results = run_ranks(body, world_size=deployment.world_size, time_limit=TIME_LIMIT)
    return servers, results


def _start(source: Source, rank: Rank, deployment: Execution) -> Server:
    witness = Witness(rank=rank.rank, world_size=rank.world_size)
    tree = _tree(source, witness, deployment)
    environment.start(tree, rank, deployment)
    if rank.rank == 0:
        source.published[deployment.server] = environment.published(tree)
    return Server(witness=witness, tree=tree)


def _tree(source: Source, witness: Witness, deployment: Execution) -> Tree:
    return Tree(
        source.files,
        primitives={
            **primitives.platform(),
            **primitives.arithmetic(witness, whole_experts=deployment.dwdp),
            **primitives.communication(stage_size=deployment.config.tp_size),
        },
        absent=primitives.ABSENT,
    )


def _failed(error: RanksError, source: Source) -> Judged:
    """What ranks say to each other is the release's doing; anything else may be ours.

    A hang is the release's, and so is a collective that cannot be: tensors that do not fit, sizes
    that do not fit the group. Any other exception may come from what was replaced.
    """
    cause = error.__cause__
    kind: str = error.kind
    if cause is not None and not _in_a_collective(cause):
        kind = "cannot run"
    return Judged(kind=kind, why=f"{error}{_last_line_in(source, cause)}")


def _in_a_collective(error: BaseException) -> bool:
    frames = traceback.extract_tb(error.__traceback__)
    return any(frame.filename == groups.__file__ for frame in frames)


def _last_line_in(source: Source, error: BaseException | None) -> str:
    frames = traceback.extract_tb(error.__traceback__) if error is not None else []
    package = f"{source.files.source.name}/"
    inside = [frame for frame in frames if frame.filename.startswith(package)]
    if not inside:
        return ""
    return f" [{inside[-1].filename}:{inside[-1].lineno} {inside[-1].name}]"
