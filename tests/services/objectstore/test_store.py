"""What an interrupted process leaves behind, and who may clean it."""

from __future__ import annotations

from pathlib import Path

import pytest
from nova.objectstore.blobs import Pins
from nova.objectstore.checksum import Digests
from nova.objectstore.store import Store


def files(root: Path) -> list[Path]:
    return [path for folder in ("data", "incoming") for path in (root / folder).rglob("*") if path.is_file()]


def test_what_no_object_refers_to_is_gone_after_a_restart(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.open()
    half_written = store.new_blob(Digests(None))
    store.write(half_written, b"half")
    never_indexed = store.new_blob(Digests(None))
    store.write(never_indexed, b"whole")
    store.commit(never_indexed)
    store.close()
    assert len(files(tmp_path)) == 2
    again = Store(tmp_path)
    again.open()
    assert files(tmp_path) == []
    again.close()


def test_a_folder_has_one_process_at_a_time(tmp_path: Path) -> None:
    first = Store(tmp_path)
    first.open()
    with pytest.raises(RuntimeError, match="another nova-objectstore"):
        Store(tmp_path).open()
    first.close()
    again = Store(tmp_path)
    again.open()
    again.close()


def test_a_blob_that_is_read_goes_with_its_last_reader() -> None:
    pins = Pins()
    pins.pin(["a", "b"])
    pins.pin(["a"])
    assert pins.doom(["a", "b", "c"]) == ["c"]
    assert pins.unpin(["a", "b"]) == ["b"]
    assert pins.unpin(["a"]) == ["a"]
    assert pins.doom(["a"]) == ["a"]
