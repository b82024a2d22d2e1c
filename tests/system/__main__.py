"""`python -m tests.system [--short] [R01 ...]`: one line an experiment; exit 1 where one fails.

Every full form is followed by its controls, in short form, which must fail.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from pathlib import Path

from tests.system import board


def main() -> int:
    args = _arguments()
    table = board.load()
    unknown = [number for number in args.experiments if number not in table]
    if unknown:
        print(f"no such experiment: {', '.join(unknown)}; there are {', '.join(table)}", file=sys.stderr)
        return 2
    if args.inside is not None:
        print(json.dumps(judge(board.INSIDE[args.experiments[0]], json.loads(args.inside))))
        return 0
    failed = 0
    for number in args.experiments or table:
        found = table[number]
        sizes = found.short if args.short else found.full
        verdict, figures = judge(found.run, {**sizes})
        failed += verdict in ("fail", "error")
        report(number, verdict, f"{found.title}: {figures}", args.csv)
        for broken, change in {} if verdict == "skip" or args.no_controls else found.controls.items():
            verdict, figures = judge(found.run, {**found.short, **change})
            # A control has to fail; that it does is the pass.
            noticed = {"fail": "pass", "pass": "fail"}.get(verdict, verdict)
            failed += noticed in ("fail", "error")
            report(f"{number}c", noticed, f"control, {broken}: {figures}", args.csv)
    return 1 if failed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/scoreboard", description=__doc__)
    parser.add_argument("experiments", nargs="*", metavar="R01", help="which; all without one")
    parser.add_argument("--short", action="store_true", help="the forms of the test suite, in seconds")
    parser.add_argument("--no-controls", action="store_true", help="leave out what must fail")
    parser.add_argument("--csv", type=Path, help="append every line to this file, for a trend")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    return parser.parse_args()


def judge(run: board.Run, sizes: dict[str, object]) -> tuple[str, str]:
    """`pass`, `fail`, `skip`, or `error` where the harness itself failed; and the figures or the reason."""
    try:
        return "pass", board.perform(run, sizes)
    except board.Skip as why:
        return "skip", str(why)
    except board.Violation as violation:
        return "fail", str(violation)
    except Exception as error:
        traceback.print_exc()
        return "error", f"{type(error).__name__}: {error}"


def report(number: str, verdict: str, text: str, csv: Path | None) -> None:
    line = f"{number:4} {verdict} {' '.join(text.split())}"
    print(line, flush=True)
    if csv is not None:
        with csv.open("a") as file:
            stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            file.write(f'{stamp},{number},{verdict},"{text.replace(chr(34), chr(39))}"\n')


if __name__ == "__main__":
    sys.exit(main())
