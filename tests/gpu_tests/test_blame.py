"""Who is blamed, from notes alone; `test_faults.py` provokes the same for real."""

import multiprocessing

from gpu_tests.blame import Remains, blame
from gpu_tests.board import Board, Note

TITLES = ("first", "second")
WORLD = "over ranks 0,1,2"


def note(activity="experts", *, item=0, steps=3, waits=False, calls=(), error="") -> Note:
    return Note(
        item=item,
        steps=steps,
        activity=activity,
        in_collective=waits,
        calls=dict(enumerate(calls)),
        error=error,
    )


def waiting(call: str = f"all-reduce of [2] {WORLD}", **changes) -> Note:
    return note(call, waits=True, calls=(call,), **changes)


def told(*notes: Note, codes=(None, None, None), hung: float | None = None) -> str:
    remains = [
        Remains(rank=rank, note=each, exit_code=code)
        for rank, (each, code) in enumerate(zip(notes, codes, strict=True))
    ]
    return blame(remains, TITLES, hung_seconds=hung)


def test_the_dead_before_those_whose_connection_broke():
    message = told(
        waiting(error="RuntimeError: Connection closed by peer"),
        note(),
        waiting(error="RuntimeError: Connection closed by peer"),
        codes=(None, -9, None),
    )
    assert message == "rank 1 was killed by SIGKILL in case first, while experts"


def test_an_error_outside_a_collective_before_one_inside():
    message = told(
        waiting(error="RuntimeError: Connection closed by peer"),
        waiting(),
        note("judging", error="ValueError: no", steps=9),
    )
    assert message == "rank 2 raised ValueError: no in case first, while judging"


def test_who_waits_does_not_hang():
    message = told(waiting(steps=1), note(steps=5), waiting(steps=2), hung=60.0)
    assert message == "rank 1 hangs: no progress for 60 s in case first, while experts"


def test_who_is_behind_hangs():
    ahead = note(item=1)
    message = told(ahead, ahead, note(item=0, steps=9), hung=2.5)
    assert message == "rank 2 hangs: no progress for 2.5 s in case first, while experts"


def test_another_call_is_named_even_by_those_who_got_past_it():
    same, other = f"all-reduce of [2, 4] {WORLD}", f"all-reduce of [3, 4] {WORLD}"
    past = note(item=1, calls=(same, same))
    message = told(past, past, note(other, waits=True, calls=(same, other)), hung=3.0)
    assert message == f"rank 2 called {other} where the others called {same} in case first"


def test_ranks_of_different_groups_may_call_differently():
    pair, alone = "all-reduce of [2] over ranks 0,1", "all-reduce of [5] over ranks 2,3"
    message = told(waiting(pair), waiting(pair), waiting(alone), codes=(None, None, 3))
    assert message.startswith("rank 2 left early with exit code 3 in case first, while all-reduce")


def test_before_any_case():
    message = told(note("importing torch", item=-1), *[note(item=-1)] * 2, codes=(1, None, None))
    assert message == "rank 0 left early with exit code 1 before any case, while importing torch"


def test_no_word_at_all():
    assert told(*[note()] * 3) == "a rank stopped answering and left no word"


def test_a_board_says_what_was_written_on_it():
    board = Board.make(multiprocessing.get_context("forkserver"))
    board.begin(4)
    for number in range(6):
        board.call(f"all-reduce of [{number}] {WORLD}")
    assert board.read().in_collective
    assert list(board.read().calls) == [2, 3, 4, 5]
    board.say("judging é")
    board.fail("ValueError: " + 5000 * "x")
    seen = board.read()
    assert (seen.item, seen.steps, seen.activity) == (4, 8, "judging é")
    assert seen.error.startswith("ValueError: xxx")
    assert not seen.in_collective
