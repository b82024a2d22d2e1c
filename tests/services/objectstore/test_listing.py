"""Pages of a listing: whatever the page size, together they are what one pass over the sorted keys gives."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st
from nova.objectstore import listing


@dataclass(frozen=True)
class Stored:
    key: bytes


class Bucket:
    """Sorted keys, and how often and how much was asked for."""

    def __init__(self, *keys: str) -> None:
        self.keys = sorted(key.encode() for key in set(keys))
        self.fetches = 0

    def fetch(self, start: bytes, limit: int) -> list[Stored]:
        self.fetches += 1
        return [Stored(key) for key in self.keys if key >= start][:limit]


def names(page: listing.Page) -> tuple[list[str], list[str]]:
    return [entry.key.decode() for entry in page.entries], [prefix.decode() for prefix in page.prefixes]


def all_pages(bucket: Bucket, limit: int, prefix: bytes = b"", delimiter: bytes = b"") -> list[listing.Page]:
    pages, marker = [], b""
    while True:
        page = listing.page(bucket.fetch, prefix=prefix, delimiter=delimiter, marker=marker, limit=limit)
        pages.append(page)
        if not page.is_truncated:
            return pages
        marker = page.last


def test_a_delimiter_groups_what_lies_deeper() -> None:
    bucket = Bucket("a", "b/1", "b/2", "b/c/3", "d")
    assert names(listing.page(bucket.fetch, delimiter=b"/")) == (["a", "d"], ["b/"])
    assert names(listing.page(bucket.fetch, prefix=b"b/", delimiter=b"/")) == (["b/1", "b/2"], ["b/c/"])


def test_a_group_of_many_keys_is_jumped_over() -> None:
    bucket = Bucket(*(f"big/{number}" for number in range(5000)), "z")
    assert names(listing.page(bucket.fetch, delimiter=b"/")) == (["z"], ["big/"])
    assert bucket.fetches == 2


def test_a_page_that_is_exactly_full_is_not_truncated() -> None:
    assert not listing.page(Bucket("a", "b").fetch, limit=2).is_truncated
    assert listing.page(Bucket("a", "b", "c").fetch, limit=2).is_truncated


def test_max_keys_zero_is_an_empty_page_and_not_truncated() -> None:
    page = listing.page(Bucket("a").fetch, limit=0)
    assert (names(page), page.is_truncated) == (([], []), False)


def test_a_marker_need_not_exist() -> None:
    assert names(listing.page(Bucket("a", "c").fetch, marker=b"b"))[0] == ["c"]


KEYS = st.lists(st.text("ab/é\U0001f600", min_size=1, max_size=6), max_size=30)


@given(KEYS, st.integers(1, 5), st.sampled_from([b"", b"a", b"a/"]), st.sampled_from([b"", b"/", b"b"]))
def test_pages_together_are_the_whole(keys: list[str], limit: int, prefix: bytes, delimiter: bytes) -> None:
    bucket = Bucket(*keys)
    pages = all_pages(bucket, limit, prefix, delimiter)
    whole = listing.page(bucket.fetch, prefix=prefix, delimiter=delimiter, limit=1000)
    assert [entry for page in pages for entry in page.entries] == whole.entries
    assert [group for page in pages for group in page.prefixes] == whole.prefixes
    assert all(len(page.entries) + len(page.prefixes) <= limit for page in pages)


@given(KEYS, st.sampled_from([b"", b"a", b"a/"]), st.sampled_from([b"", b"/", b"b"]))
def test_the_whole_is_what_a_plain_loop_gives(keys: list[str], prefix: bytes, delimiter: bytes) -> None:
    bucket = Bucket(*keys)
    expected_keys, expected_prefixes = [], []
    for key in bucket.keys:
        if not key.startswith(prefix):
            continue
        end = key.find(delimiter, len(prefix)) if delimiter else -1
        if end < 0:
            expected_keys.append(key)
        elif key[: end + len(delimiter)] not in expected_prefixes:
            expected_prefixes.append(key[: end + len(delimiter)])
    whole = listing.page(bucket.fetch, prefix=prefix, delimiter=delimiter, limit=1000)
    assert [entry.key for entry in whole.entries] == expected_keys
    assert whole.prefixes == expected_prefixes
