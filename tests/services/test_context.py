from __future__ import annotations

import json

from nova import context


def test_a_context_survives_json_and_ignores_what_a_newer_peer_adds() -> None:
    original = context.RequestContext("u", "p", is_admin=True, roles=("admin",), remote_address="::1")
    sent = json.loads(json.dumps({**original.to_dict(), "from_the_future": 1}))
    assert context.RequestContext.from_dict(sent) == original


def test_each_request_has_an_id_of_twenty_characters_of_its_own() -> None:
    first, second = context.RequestContext(), context.RequestContext(request_id=None)  # type: ignore[arg-type]
    assert len(first.request_id) == len(second.request_id) == 20
    assert first.request_id != second.request_id


def test_the_current_context_is_that_of_the_block() -> None:
    outer, inner = context.get_admin_context(), context.RequestContext()
    assert context.current() is None
    with context.use(outer), context.use(inner):
        assert context.current() is inner
    assert context.current() is None


def test_elevated_is_the_same_request_with_more_rights() -> None:
    asked = context.RequestContext("u")
    assert asked.elevated().is_admin
    assert asked.elevated().request_id == asked.request_id
