"""What a release's server may be told, read from its source: no other deployment is executed."""

import ast
from collections.abc import Iterator

from verify.checks.replay.classes import RUNTIME, strings
from verify.checks.replay.deployments import Execution
from verify.emulator.tree import SourceFiles
from verify.errors import VerifyError

# where `ServerArgs` has its fields; later releases keep them in a file a subject
ARGUMENTS, FIELDS = RUNTIME.arguments, RUNTIME.fields


def offered(
    deployments: tuple[Execution, ...], files: SourceFiles, *, source: str
) -> tuple[Execution, ...]:
    """Those that the release's server has options for.

    Raises `VerifyError` where it has them for none, and names what is missing.
    """
    options, backends = known_options(files), known_backends(files)
    kept = []
    missing: set[str] = set()
    for deployment in deployments:
        # a part of a release may have come without its server
        lacks = options_of(deployment) - options if options else set()
        if deployment.backend not in backends:
            lacks |= {f"moe_a2a_backend={deployment.backend}"}
        missing |= lacks
        if not lacks:
            kept.append(deployment)
    if not kept:
        raise VerifyError(f"{source}: its server has no {', '.join(sorted(missing))}")
    return tuple(kept)


def options_of(deployment: Execution) -> set[str]:
    """The server's options that this deployment sets to anything but their default."""
    config = deployment.config
    asked = {
        "ep_size": config.ep_size > 1,
        "moe_dp_size": config.moe_dp_size > 1,
        "attn_cp_size": config.attn_cp_size > 1,
        "enable_dp_attention": config.enable_dp_attention,
        "moe_dense_tp_size": deployment.dense_fully_dp and not deployment.dwdp,
        "pp_size": deployment.stages > 1,
        RUNTIME.local_size: deployment.dwdp,
    }
    return {name for name, is_asked in asked.items() if is_asked}


def known_options(files: SourceFiles) -> set[str]:
    """The fields of `ServerArgs`, and of the classes that later releases make it of."""
    modules = (ARGUMENTS, *files.modules(FIELDS))
    return {name for module in modules for name in _annotated(files, module)}


def _annotated(files: SourceFiles, module: str) -> Iterator[str]:
    source = files.get(module)
    for statement in source.statements if source else ():
        if isinstance(statement.node, ast.ClassDef):
            for field in statement.node.body:
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                    yield field.target.id


def known_backends(files: SourceFiles) -> set[str]:
    """What the release may be told to exchange tokens with; `none` at least."""
    source = files.get(RUNTIME.flags)
    indices = source.binders.get(RUNTIME.backends, ()) if source else ()
    return {"none"}.union(*(strings(source.statements[i].node) for i in indices if source))
