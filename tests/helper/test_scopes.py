"""Scopes entered and left in any order, in threads and async tasks: each sees its own."""

import asyncio
import contextvars
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar

import hypothesis.strategies as st
import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import helper.config
from helper import (
    MoeConfig,
    NoConfigError,
    current_config,
    should_use_dp_reduce_scatterv,
    should_use_flashinfer_cutlass_moe_fp4_allgather,
    use_config,
)
from helper.predicates import uses_dp_reduce_scatterv, uses_flashinfer_fp4_allgather

T = TypeVar("T")


def what_is_seen() -> tuple[MoeConfig, bool, bool]:
    return (
        current_config(),
        should_use_dp_reduce_scatterv(),
        should_use_flashinfer_cutlass_moe_fp4_allgather(),
    )


class Actor(Protocol):
    """Whoever enters and leaves scopes."""

    def run(self, work: Callable[[], T]) -> T: ...

    def close(self) -> None: ...


class Here:
    """This thread, in a context of its own."""

    def __init__(self, context: contextvars.Context) -> None:
        self.context = context

    def run(self, work: Callable[[], T]) -> T:
        return self.context.run(work)

    def close(self) -> None:
        """Nothing to end."""


class Thread:
    """One thread that lives on between calls; it starts without any scope."""

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(max_workers=1)

    def run(self, work: Callable[[], T]) -> T:
        return self.pool.submit(work).result(timeout=10)

    def close(self) -> None:
        self.pool.shutdown()


class Task:
    """One async task that lives on between calls; it starts with its creator's scopes."""

    def __init__(self, loop: asyncio.AbstractEventLoop, context: contextvars.Context) -> None:
        self.loop = loop
        self.inbox: asyncio.Queue[tuple[Callable[[], object], asyncio.Future[object]]] = (
            asyncio.Queue()
        )
        self.task = context.run(loop.create_task, self._serve())

    async def _serve(self) -> None:
        while True:
            work, answer = await self.inbox.get()
            try:
                answer.set_result(work())
            except NoConfigError as error:
                answer.set_exception(error)

    def run(self, work: Callable[[], T]) -> T:
        answer: asyncio.Future[object] = self.loop.create_future()
        self.inbox.put_nowait((work, answer))
        return self.loop.run_until_complete(asyncio.wait_for(answer, 10))  # type: ignore[return-value]  # what work returned

    def close(self) -> None:
        self.task.cancel()
        self.loop.run_until_complete(asyncio.gather(self.task, return_exceptions=True))


@dataclass(frozen=True, kw_only=True, eq=False)
class Entered:
    """A scope, and the actor whose it is to leave."""

    scope: AbstractContextManager[MoeConfig]
    config: MoeConfig
    owner: int


class Scopes(RuleBasedStateMachine):
    """The model: for each actor, the scopes it is in, the innermost last.

    Actor 0 runs in a context of the machine's own, so that runs do not see each other.
    """

    opened = staticmethod(use_config)

    def __init__(self) -> None:
        super().__init__()
        self.context = contextvars.copy_context()
        self.loop = asyncio.new_event_loop()
        self.actors: list[Actor] = [Here(self.context)]
        self.inside: list[list[Entered]] = [[]]

    @rule(data=st.data(), config=st.from_type(MoeConfig))
    def enter(self, data: st.DataObject, config: MoeConfig) -> None:
        owner = data.draw(st.sampled_from(range(len(self.actors))))
        scope = self.opened(config)
        assert self.actors[owner].run(scope.__enter__) is config
        self.inside[owner].append(Entered(scope=scope, config=config, owner=owner))

    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        """Any scope that is open, not only the innermost; a task keeps what it inherited."""
        own = [
            entered
            for actor, scopes in enumerate(self.inside)
            for entered in scopes
            if entered.owner == actor
        ]
        if own:
            left = data.draw(st.sampled_from(own))
            self.actors[left.owner].run(lambda: left.scope.__exit__(None, None, None))
            self.inside[left.owner].remove(left)

    @precondition(lambda self: len(self.actors) < 5)
    @rule()
    def start_thread(self) -> None:
        self.actors.append(Thread())
        self.inside.append([])

    @precondition(lambda self: len(self.actors) < 5)
    @rule()
    def start_task(self) -> None:
        self.actors.append(Task(self.loop, self.context.copy()))
        self.inside.append(list(self.inside[0]))

    @invariant()
    def each_actor_sees_its_innermost_scope(self) -> None:
        for actor, scopes in zip(self.actors, self.inside, strict=True):
            if not scopes:
                with pytest.raises(NoConfigError):
                    actor.run(current_config)
                continue
            config, dp, fi = actor.run(what_is_seen)
            assert config is scopes[-1].config
            assert dp == uses_dp_reduce_scatterv(config)
            assert fi == uses_flashinfer_fp4_allgather(config)
            assert not (dp and fi)

    def teardown(self) -> None:
        for actor in self.actors:
            actor.close()
        self.loop.close()


TestScopes = Scopes.TestCase
TestScopes.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)


@contextmanager
def restoring_what_was(config: MoeConfig) -> Iterator[MoeConfig]:
    """Corrupt: on leaving, puts back what was in force on entering, were it left already."""
    before = helper.config._SCOPES.get()
    with use_config(config):
        yield config
    helper.config._SCOPES.set(before)


class Global:
    """Corrupt: one value for all threads and tasks."""

    def __init__(self) -> None:
        self.value: tuple[object, ...] = ()

    def get(self) -> tuple[object, ...]:
        return self.value

    def set(self, value: tuple[object, ...]) -> None:
        self.value = value


def found_by_the_machine(machine: type[Scopes]) -> bool:
    search = settings(
        max_examples=300,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        print_blob=False,
        report_multiple_bugs=False,
    )
    try:
        run_state_machine_as_test(machine, settings=search)
    except (AssertionError, NoConfigError, pytest.fail.Exception):
        return True
    return False


def test_the_machine_finds_scopes_that_must_be_left_in_order() -> None:
    class InOrder(Scopes):
        opened = staticmethod(restoring_what_was)

    assert found_by_the_machine(InOrder)


def test_the_machine_finds_a_global_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    class Shared(Scopes):
        def __init__(self) -> None:
            monkeypatch.setattr(helper.config, "_SCOPES", Global())
            super().__init__()

    assert found_by_the_machine(Shared)
