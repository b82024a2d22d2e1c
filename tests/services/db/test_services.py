"""The services table and the rule of who is up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy
from nova import exception, flags, servicegroup
from nova.db import services, session

FLAGS = flags.FLAGS


@pytest.fixture(autouse=True)
def database(tmp_path: Path) -> Iterator[None]:
    with FLAGS.override(sql_connection=f"sqlite:///{tmp_path}/nova.sqlite"):
        session.sync()
        yield
        session.dispose()


def make_old(host: str, age_s: float) -> None:
    with session.begin() as s:
        query = sqlalchemy.update(services.Service).where(services.Service.host == host)
        s.execute(query.values(last_seen_up=session.now() - age_s))


def one(**values: object) -> services.Service:
    services.report("h", "nova-x", "x", **values)
    return services.get_by_args("h", "nova-x")


def test_a_heartbeat_creates_the_row_and_then_counts() -> None:
    assert one().report_count == 0
    assert one(state="ready", progress=7).report_count == 1
    row = services.get_by_args("h", "nova-x")
    assert (row.state, row.progress, row.topic) == ("ready", 7, "x")
    assert -0.1 < row.age_s < 5


def test_a_row_that_vanished_is_created_again() -> None:
    one()
    services.destroy("h", "nova-x")
    services.destroy("h", "nova-x")
    assert one(state="ready").state == "ready"


def test_a_service_is_down_after_service_down_time_without_a_heartbeat() -> None:
    assert servicegroup.service_is_up(one())
    make_old("h", FLAGS.service_down_time + 5)
    assert not servicegroup.service_is_up(services.get_by_args("h", "nova-x"))


def test_changing_a_dead_service_does_not_make_it_look_alive() -> None:
    one(state="ready")
    make_old("h", FLAGS.service_down_time + 5)
    services.set_disabled("h", "nova-x", False)
    row = services.get_by_args("h", "nova-x")
    assert row.updated_at is not None
    assert not servicegroup.service_is_up(row)


@pytest.mark.parametrize(
    ("state", "disabled", "takes"),
    [("ready", False, True), ("ready", True, False), ("draining", False, False), ("starting", False, False)],
)
def test_only_an_enabled_service_that_is_ready_takes_work(state: str, disabled: bool, takes: bool) -> None:
    one(state=state)
    services.set_disabled("h", "nova-x", disabled)
    row = services.get_by_args("h", "nova-x")
    assert servicegroup.service_is_up(row)
    assert servicegroup.may_take_work(row) is takes


def test_a_service_that_said_it_stopped_is_not_up() -> None:
    assert not servicegroup.service_is_up(one(state="stopped"))


def test_what_is_not_there_is_not_found() -> None:
    with pytest.raises(exception.NotFound):
        services.get_by_args("h", "none")
    with pytest.raises(exception.NotFound):
        services.set_disabled("h", "none", True)


def test_services_are_listed_by_topic() -> None:
    for host, topic in (("b", "x"), ("a", "x"), ("a", "y")):
        services.report(host, f"nova-{topic}", topic)
    assert [row.host for row in services.get_all("x")] == ["a", "b"]
    assert len(services.get_all()) == 3
