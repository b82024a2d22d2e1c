"""The rows of the table of verbs that are for tests and CI; see `commands`."""

from __future__ import annotations

import click

from novad.client.grammar import Verb, flag, option, seconds, services

TEST = "Test and CI"
DRILLS = ["kill", "flap", "freeze", "slow-start", "fill-log", "drop-port"]

TEST_VERBS: tuple[Verb, ...] = (
    Verb(
        "run",
        TEST,
        "Start a cluster of its own, run a command with the addresses of its services, stop everything. Exits with "
        "the command's code; 125 when the cluster did not come up, 124 when the time ran out, 1 when a service "
        "crashed and nobody asked for it. Free ports are picked in place of fixed ones (`8774!` insists). "
        "Everything is gone afterwards, however this ends. docs/ci.md lists the variables.",
        (
            ("novad run -- pytest -q", "the tests, against a cluster of their own"),
            ("novad --profile ci run --timeout 10m --report out -- make check", "in CI"),
        ),
        "novad.testing.run:run",
        (
            click.Argument(["command"], nargs=-1, required=True, metavar="-- CMD...", type=click.UNPROCESSED),
            option("--service", "names", multiple=True, metavar="SVC", help="start only SVC and what it needs"),
            flag("--keep", help="let the cluster run on; says how to reach it and how to stop it"),
            seconds("--timeout", help="end everything after TIME in all (exit 124)"),
            flag(
                "--fail-on-crash/--no-fail-on-crash",
                help="exit 1 when a service crashed although the command succeeded (the default)",
                default=True,
            ),
            flag("--fail-on-leak", help="exit 1 when the command or a service left something behind; names it"),
            option(
                "--report", metavar="DIR", help="write a page with times, crashes and logs, and the logs, to DIR"
            ),
            option("--junit", metavar="FILE", help="write a JUnit report with a case per service and phase"),
            flag("--shuffle", help="start one after another, in a random order that keeps every `after`"),
            option("--seed", type=int, metavar="N", help="of the order; printed where none is given"),
            option(
                "--max-ready-regression",
                metavar="N%",
                help="exit 1 when a service took N% longer to get ready than with earlier commits; keeps the times",
            ),
        ),
    ),
    Verb(
        "drill",
        TEST,
        "Harm services on purpose, one after another, and see whether each is ready again in time (exit 1: it is not). "
        "kill: SIGKILL. flap: killed three times. freeze: stopped for a while, alive and deaf. slow-start: restarted "
        "and frozen at birth. fill-log: its log cannot be written, as on a full disk. drop-port: nothing arrives at "
        "its ports. Everything is undone, also when this command is killed.",
        (
            ("novad drill kill api", "does api come back?"),
            ("novad drill drop-port db --hold 20s", "does anybody wait for ever?"),
        ),
        "novad.testing.drill:run",
        (
            click.Argument(["kind"], type=click.Choice(DRILLS), metavar="KIND"),
            services(required=True),
            seconds("--hold", help="how long what lasts is held: all but kill and flap (2s)", default=2.0),
            seconds("--timeout", help="how long each may take to be ready again (30s)", default=30.0),
        ),
    ),
    Verb(
        "soak",
        TEST,
        "Kill and freeze services at random, and check that each is ready again within its deadline (exit 1: it is "
        "not). The same seed repeats the same harms in the same order.",
        (
            ("novad soak --for 2m", "everything that is ready now"),
            ("novad soak compute --seed 4711", "the same once more, compute only"),
        ),
        "novad.testing.soak:run",
        (
            services(),
            option("--seed", type=int, metavar="N", help="of the plan; printed where none is given"),
            seconds("--for", "lasts", help="how long (60s)", default=60.0),
            seconds("--deadline", help="how long each may take to be ready again (30s)", default=30.0),
        ),
    ),
)
