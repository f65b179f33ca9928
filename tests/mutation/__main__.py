"""`python -m tests.mutation STAGE`: docs/results/mutation.md says what each stage does."""

import argparse
import json
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO

from tests.mutation import table
from tests.mutation.ask import COMMANDS, Asker
from tests.mutation.draw import draw, mutant
from tests.mutation.engine import opened
from tests.mutation.judge import control, models_of, ranks_of, verdict
from tests.mutation.reach import reached_once
from tests.mutation.strata import STRATA


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.mutation", description=__doc__)
    stages = parser.add_subparsers(required=True)
    one = stages.add_parser("judge", help="draw the mutants of a stratum, and let the engine judge")
    one.add_argument("release", type=Path, help="a folder that holds the unpacked release")
    one.add_argument("stratum", choices=STRATA)
    one.add_argument("--python", type=Path, required=True, help="has the engine's packages")
    one.add_argument("--seed", type=int, required=True)
    one.add_argument("--part", default="1/1", metavar="K/N", help="every Nth mutant from the Kth")
    one.add_argument("--output", type=Path, required=True, help="JSON lines; what it has is kept")
    one.add_argument("--seconds", type=float, default=1e9, help="start no mutant after that long")
    one.add_argument("--reached", type=Path, metavar="FOLDER", help="what parts need only once")
    one.add_argument("--ask", choices=COMMANDS, action="append", default=[], help="meanwhile")
    one.set_defaults(run=_judge)
    two = stages.add_parser("ask", help="ask a check about judged mutants, where it was not yet")
    two.add_argument("release", type=Path)
    two.add_argument("check", choices=COMMANDS)
    two.add_argument("results", type=Path, nargs="+", help="what `judge` wrote")
    two.add_argument("--truth", action="append", help="only those judged so; may be repeated")
    two.add_argument("--part", default="1/1", metavar="K/N")
    two.add_argument("--output", type=Path, required=True, help="JSON lines; what it has is kept")
    two.set_defaults(run=_ask)
    three = stages.add_parser("table", help="recall and precision, with their denominators")
    three.add_argument("results", type=Path, nargs="+", help="what `judge` and `ask` wrote")
    three.set_defaults(run=_table)
    arguments = parser.parse_args()
    arguments.run(arguments)


def _judge(arguments: argparse.Namespace) -> None:
    started = time.monotonic()
    stratum = STRATA[arguments.stratum]
    part, parts = map(int, arguments.part.split("/"))
    had = _read(arguments.output)
    with (
        tempfile.TemporaryDirectory(prefix="mutation-") as scratch,
        opened(arguments.release, arguments.python) as judge,
        arguments.output.open("a", encoding="utf-8") as stream,
        ThreadPoolExecutor(1) as aside,
    ):
        askers = [
            Asker(release=arguments.release.resolve(), scratch=Path(scratch), check=check)
            for check in arguments.ask
        ]
        reached = reached_once(judge, arguments.release, stratum, arguments.reached)
        for row in reached:
            _say(stream, {"launch": [row.model, row.layout, row.outcome, row.nats, row.reason]})
        seen = control(judge, arguments.release, stratum.judges[0][0])
        _say(stream, {"control": seen})
        if seen["outcome"] != "diverged":
            raise SystemExit(f"tests.mutation: the control is {seen['outcome']}: nothing is seen")
        drawn = draw(arguments.release, stratum, seed=arguments.seed, reached=reached)
        asked: list[tuple[str, str, Future[dict]]] = []
        for mutant in drawn[part - 1 :: parts]:
            if mutant.id in had:
                continue
            if time.monotonic() - started > arguments.seconds:
                break
            # the engine's ranks have other processors meanwhile; a check may take longer than they
            asked += [(mutant.id, each.check, aside.submit(each.ask, mutant)) for each in askers]
            judged = verdict(judge, arguments.release, mutant, reached)
            _say(stream, {**mutant.as_json(), **judged})
            print(mutant.id, mutant.mutation.operator, judged["truth"], flush=True)
            while asked and asked[0][2].done():
                _say_answer(stream, *asked.pop(0))
        for each in asked:
            _say_answer(stream, *each)


def _say_answer(stream: IO[str], name: str, check: str, answer: Future[dict]) -> None:
    _say(stream, {"id": name, check: answer.result()})


def _ask(arguments: argparse.Namespace) -> None:
    part, parts = map(int, arguments.part.split("/"))
    had = _read(arguments.output)
    rows = [
        row
        for row in table.read(arguments.results)
        if row["release"] == arguments.release.name
        and row["truth"] in (arguments.truth or row["truth"])
        and arguments.check not in row
    ]
    # a part asks about as few models as may be: each is asked for the release as it is too
    rows.sort(key=lambda row: (models_of(row), ranks_of(row), row["id"]))
    first, last = ((each * len(rows)) // parts for each in (part - 1, part))
    with (
        tempfile.TemporaryDirectory(prefix="mutation-") as scratch,
        arguments.output.open("a", encoding="utf-8") as stream,
    ):
        asker = Asker(
            release=arguments.release.resolve(), scratch=Path(scratch), check=arguments.check
        )
        for row in rows[first:last]:
            if row["id"] not in had:
                said = asker.ask(mutant(row), models=models_of(row), ranks=ranks_of(row))
                _say(stream, {"id": row["id"], arguments.check: said})
                print(
                    row["id"], row["truth"], len(said.get("new", ())), said.get("error"), flush=True
                )


def _table(arguments: argparse.Namespace) -> None:
    try:
        print(table.tables(table.read(arguments.results)))
    except table.TableError as error:
        raise SystemExit(f"tests.mutation: {error}") from error


def _read(file: Path) -> set[str]:
    """The ids that a file has; a line that a crash cut off is none."""
    ids = set()
    for line in file.read_text("utf-8").splitlines() if file.exists() else ():
        try:
            ids.add(json.loads(line).get("id"))
        except ValueError:
            continue
    return ids


def _say(stream: IO[str], row: dict) -> None:
    stream.write(json.dumps(row) + "\n")
    stream.flush()


if __name__ == "__main__":
    main()
