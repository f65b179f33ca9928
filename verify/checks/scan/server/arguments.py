"""How the server's arguments become a configuration: the names that the engine gives to that.

No model, option or release is named here: options come from the launch that is asked about, what
they mean from the source.
"""

import ast
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from verify.checks.scan.server.evaluate import TooMuchError
from verify.checks.scan.server.follow import Follower, RefusedError
from verify.checks.scan.server.memory import Memory
from verify.checks.scan.server.models import Model
from verify.checks.scan.server.recall import GIVEN, Recaller
from verify.checks.scan.server.values import SOME_TEXT, UNKNOWN, Code, Thing, Word
from verify.engines.sources import reading
from verify.interpreter.index import Class, Function, Index, UnreadableError

ENGINE = reading()
KNOWN = ENGINE.launches
SERVER_ARGS_FILE = ENGINE.files.server
SERVER_ARGS = "ServerArgs"
ARGUMENTS = ENGINE.files.arguments
FIELDS = f"{ARGUMENTS}fields/"
ENTRIES = ("__post_init__", "resolve_once")
LOCAL_PATH = "model"
# what reads the record through what was declared about it: the record itself here
_VIEWS = ("resolving_view", "resolved_view", "record_of", "ResolvedView", "ResolvingConfig")
_MODEL = ("model_config_of", "get_model_config", "get_hf_config")
_NO_WORD = re.compile(r"\n[ \t]+(\w+): A\[[^\n]*\bno_cli=True")
_SIZE = re.compile(r"\b(\w+) ?= ?(\d+)\b")
_REGISTERS = re.compile(r"\n@\w*regist\w*\(([^()]*)\)\n(?:def|async def) (\w+)")

Options = Mapping[str, Any]
# a word in one of a model's names, and whether the name begins and ends with it
Told = tuple[str, str, bool, bool]
DRAFTS: Told = ("drafts", "", True, True)


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Where the source ends a launch."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a launch: refused, or the options as the server sets them.

    `places` says where an option was set last. `whole` is false where the source took more steps
    to follow than are allowed.
    """

    refused: Refusal | None = None
    options: Options = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict)
    whole: bool = True


@dataclass(eq=False)
class Arguments:
    """The argument handling of one source."""

    index: Index
    _words: dict[Model, frozenset[Told]] = field(default_factory=dict)
    _memory: Memory = field(default_factory=Memory)

    @cached_property
    def server(self) -> Class | None:
        """The class of the server's arguments."""
        module = self.index.module(SERVER_ARGS_FILE)
        found = module.lookup(SERVER_ARGS) if module else None
        return found if isinstance(found, Class) else None

    @cached_property
    def defaults(self) -> dict[str, Any]:
        """Every option with its default; unknown where it is made by a call.

        A field that has no word on the command line, made or written by hand, is no option.
        """
        classes = [*(self.server.ancestors if self.server else ())]
        for path in self.index.tree.under(FIELDS):
            module = self.index.module(path)
            found = map(module.lookup, module.pieces) if module else ()
            classes += [one for one in found if isinstance(one, Class)]
        follower = Follower(self.index, {})
        found_defaults: dict[str, Any] = {}
        for cls in reversed(classes):
            hidden = frozenset(_NO_WORD.findall(cls.text)) - self._by_hand
            try:
                assigned = cls.assigned
            except UnreadableError as error:
                self.index.unread.setdefault(cls.module.path, str(error))
                continue
            for name, written in assigned.items():
                if name in hidden:
                    continue
                constant = isinstance(written, ast.Constant | ast.UnaryOp)
                found_defaults[name] = follower.value(written) if constant else UNKNOWN
        return found_defaults

    @cached_property
    def by_architecture(self) -> dict[str, list[Function]]:
        """What decorators register for an architecture, by the architecture's name."""
        found: dict[str, list[Function]] = {}
        for path in self.index.tree.under(ARGUMENTS):
            module = self.index.module(path)
            for names, function in _REGISTERS.findall(module.text) if module else ():
                registered = module.lookup(function) if module else None
                for name in re.findall(r"[\"'](\w+)[\"']", names):
                    if isinstance(registered, Function):
                        found.setdefault(name, []).append(registered)
        return found

    @cached_property
    def _by_hand(self) -> frozenset[str]:
        """The options whose word on the command line is written out."""
        words = re.findall(r"[\"']--([\w-]+)[\"']", self._text)
        return frozenset(word.replace("-", "_") for word in words)

    @cached_property
    def _text(self) -> str:
        """The argument handling, all of it."""
        paths = (SERVER_ARGS_FILE, *self.index.tree.under(ARGUMENTS))
        return "\n".join(module.text for module in map(self.index.module, paths) if module)

    @cached_property
    def _told(self) -> frozenset[str]:
        """The words in the argument handling that may be part of a model's name."""
        quoted = re.findall(r"[\"']([A-Za-z]\w{4,})[\"']", self._text)
        return frozenset(quoted)

    @cached_property
    def by_machine(self) -> Mapping[str, tuple[int, ...]]:
        """The sizes that the server sets by itself where an option is not given, all of them."""
        found: dict[str, set[int]] = {}
        for name, value in _SIZE.findall(self._text):
            if self.defaults.get(name, UNKNOWN) is None:
                found.setdefault(name, set()).add(int(value))
        return {name: tuple(sorted(sizes)) for name, sizes in found.items() if len(sizes) > 2}

    @cached_property
    def drafts(self) -> frozenset[str]:
        """The architectures that are only built to draft for another model."""
        module = self.index.module(KNOWN.configures)
        return frozenset(KNOWN.drafts.findall(module.text)) if module else frozenset()

    def told_apart(self, model: Model) -> frozenset[Told]:
        """What the argument handling can tell a model by: two of which it knows nothing are one."""
        if model not in self._words:
            self._words[model] = frozenset(
                (name, word, told.startswith(word), told.endswith(word))
                for name, told in (("name", model.architecture), ("type", model.model_type))
                # the empty one: that it is known at all
                for word in (("", *self._told) if isinstance(told, str) else ())
                if word in told
            ) | ({DRAFTS} if model.architecture in self.drafts else frozenset())
        return self._words[model]

    def follow(self, options: Options, model: Model) -> Outcome:
        """What the server makes of these options for a model."""
        if self.server is None:
            return Outcome(options=options)
        fields = {"model_path": LOCAL_PATH, **options}
        if model.architecture in self.drafts and KNOWN.drafted in self.defaults:
            fields.setdefault(KNOWN.drafted, SOME_TEXT)
        record = Thing(self.server, fields, whole=True, base=self.defaults)
        # one that is given stays unless it is surely moved
        fields |= {f"{GIVEN}{name}": True for name in options}
        words: list[Word] = []
        architecture, kind = (_word(name, words) for name in (model.architecture, model.model_type))
        config = Thing(None, {"architectures": (architecture,), "model_type": kind})
        model_config = Thing(None, {"hf_config": config, "hf_text_config": config})
        shared = (record, model_config, config)
        follower = Recaller(
            self.index, self._natives(), shared=shared, words=words, memory=self._memory
        )
        follower.model = model_config
        whole = True
        try:
            for entry in ENTRIES:
                method = self.server.method(entry)
                if method is not None:
                    follower.call(Code(method, record), (), {})
        except RefusedError as error:
            return Outcome(refused=Refusal(file=error.file, line=error.line))
        except (TooMuchError, RecursionError):
            whole = False
        return Outcome(options={**record.base, **record.fields}, places=record.places, whole=whole)

    def _natives(self) -> Mapping[str, Callable[..., Any]]:
        return {
            **dict.fromkeys(_VIEWS, lambda _, __, given, named: given[0] if given else UNKNOWN),
            **dict.fromkeys(_MODEL, lambda follower, *_: follower.model),
            "parse_connector_type": lambda *_: None,
            "declare_resolution": _declare,
            "run_post_process_pass": _post_process,
            "run_hook": _hook,
            "collect_model_override_declarations": self._declared_for,
        }

    def _declared_for(
        self, follower: Follower, _: Any, given: Sequence[Any], named: Mapping[str, Any]
    ) -> Any:
        """What is declared for an architecture, in the order in which it was registered."""
        architecture, *rest = given or (UNKNOWN,)
        if not isinstance(architecture, str):
            return UNKNOWN
        if not follower.compared(ast.In(), architecture, tuple(sorted(self.by_architecture))):
            return ()
        follower.spelled(architecture)
        found = []
        for function in self.by_architecture.get(architecture, ()):
            declared = follower.call(Code(function), rest, {})
            if isinstance(declared, dict):
                found.append((function.name, declared))
        return tuple(found)


def _word(name: Any, words: list[Word]) -> Any:
    """A model's name as a word of the launch; what is unknown, or nothing, stays as it is."""
    if not isinstance(name, str) or not name:
        return name
    words.append(Word(name, len(words)))
    return words[-1]


def _declare(follower: Follower, _: Any, given: Sequence[Any], named: Mapping[str, Any]) -> Any:
    if given and isinstance(given[0], Thing):
        follower.write(given[0], named)
    return None


def _hook(follower: Follower, _: Any, given: Sequence[Any], named: Mapping[str, Any]) -> Any:
    return follower.call(given[0], given[1:], named) if given else UNKNOWN


def _post_process(
    follower: Follower, _: Any, given: Sequence[Any], named: Mapping[str, Any]
) -> Any:
    if len(given) < 2:
        return UNKNOWN
    record, function = given[:2]
    declared = follower.call(function, (record,), {})
    if isinstance(record, Thing) and isinstance(declared, dict):
        follower.write(record, declared)
    return None
