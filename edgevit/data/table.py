"""The index of an image set in a few arrays: some 70 bytes an image, however many there are.

A million Python objects of a name, a path and a size would take most of a gigabyte.
"""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar, overload

import numpy as np

T = TypeVar("T")

GONE = -1
"""The place of an image whose file is gone."""


@dataclass(frozen=True)
class Row:
    """An image: `raw` is its name on disk where that is another one, `place` as in `Table`."""

    name: bytes
    label: int
    size: int
    place: int = GONE
    archive: int = 0
    stamp: int = 0
    raw: bytes | None = None


@dataclass(frozen=True)
class Table:
    """Images by the bytes of their names.

    text       all names (UTF-8), one after another
    ends       int64 (N,): where each ends in `text`
    labels     int64 (N,): class index
    sizes      int64 (N,): bytes of the encoded file
    places     int64 (N,): offset of the file in its tar, 0 for a file of its own, or `GONE`
    archives   int16 (N,): which tar of the set it is in
    stamps     int64 (N,): when the file was changed last, ns since 1970; 0 in a tar
    raws       names on disk, by index, where they are no printable UTF-8
    """

    text: bytes
    ends: np.ndarray
    labels: np.ndarray
    sizes: np.ndarray
    places: np.ndarray
    archives: np.ndarray
    stamps: np.ndarray
    raws: dict[int, bytes]

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Table:
        """The table of rows that are in order."""
        lengths = np.fromiter((len(row.name) for row in rows), np.int64, len(rows))
        columns = {
            column: np.fromiter((getattr(row, field) for row in rows), dtype, len(rows))
            for column, field, dtype in _COLUMNS
        }
        raws = {i: row.raw for i, row in enumerate(rows) if row.raw is not None}
        text = b"".join(row.name for row in rows)
        return cls(text, np.cumsum(lengths), **columns, raws=raws)

    def __len__(self) -> int:
        return len(self.ends)

    def name(self, index: int) -> bytes:
        """Of an image, UTF-8. Raises IndexError for an index out of range."""
        count = len(self.ends)
        if not -count <= index < count:
            raise IndexError(f"image {index} of {count}")
        index %= count
        start = int(self.ends[index - 1]) if index else 0
        return self.text[start : int(self.ends[index])]

    def names(self) -> Iterator[bytes]:
        """All names in order."""
        start = 0
        for end in self.ends.tolist():
            yield self.text[start:end]
            start = end

    def texts(self) -> View[str]:
        """All names as text."""
        return View(
            len(self), lambda i: self.name(i).decode(), lambda: (n.decode() for n in self.names())
        )

    def entries(self) -> View[tuple[str, int]]:
        """(name, class index) of every image."""
        return View(
            len(self),
            lambda i: (self.name(i).decode(), int(self.labels[i])),
            lambda: zip(self.texts(), self.labels.tolist()),
        )

    def raw(self, index: int) -> bytes:
        """An image's name on disk."""
        return self.raws.get(index) or self.name(index)

    def row(self, index: int) -> Row:
        """All that is known of an image."""
        columns = {f: int(getattr(self, c)[index]) for c, f, _ in _COLUMNS}
        return Row(self.name(index), **columns, raw=self.raws.get(index))

    def index_of(self, name: bytes) -> int | None:
        """The index of the image of that name."""
        at = self.place_of(name)
        return at if at < len(self) and self.name(at) == name else None

    def place_of(self, name: bytes) -> int:
        """Where the name stands, or would."""
        return bisect.bisect_left(range(len(self)), name, key=self.name)

    def less(self, dropped: Collection[int]) -> Table:
        """The table without the rows of these indices."""
        kept = np.setdiff1d(np.arange(len(self)), np.fromiter(dropped, np.int64, len(dropped)))
        lengths = np.diff(self.ends, prepend=0)[kept]
        text = b"".join(self.name(i) for i in kept.tolist())
        columns = {column: getattr(self, column)[kept] for column, _, _ in _COLUMNS}
        places = dict(zip(kept.tolist(), range(len(kept)))) if self.raws else {}
        raws = {places[i]: raw for i, raw in self.raws.items() if i in places}
        return Table(text, np.cumsum(lengths), **columns, raws=raws)

    def with_sizes(self, sizes: dict[int, int]) -> Table:
        """The table with other sizes for some indices."""
        changed = self.sizes.copy()
        for index, size in sizes.items():
            changed[index] = size
        return replace(self, sizes=changed)

    def with_rows(self, rows: Iterable[Row]) -> Table:
        """The table with more rows, each where its name belongs."""
        found = self
        for row in rows:
            found = found._with_row(row)
        return found

    def _with_row(self, row: Row) -> Table:
        at = self.place_of(row.name)
        start = int(self.ends[at - 1]) if at else 0
        ends = np.concatenate([self.ends[:at], [start], self.ends[at:]])
        ends[at:] += len(row.name)
        columns = {c: np.insert(getattr(self, c), at, getattr(row, f)) for c, f, _ in _COLUMNS}
        text = self.text[:start] + row.name + self.text[start:]
        raws = {i + (i >= at): raw for i, raw in self.raws.items()}
        return Table(text, ends, **columns, raws=raws)

    def sha256(self, left_out: Collection[int] = ()) -> str:
        """Of one line "name<TAB>bytes" an image, in order, but for some indices."""
        digest = hashlib.sha256()
        lines: list[bytes] = []
        for i, (name, size) in enumerate(zip(self.names(), self.sizes.tolist())):
            if i not in left_out:
                lines.append(b"%b\t%d\n" % (name, size))
            if len(lines) >= _LINES:
                digest.update(b"".join(lines))
                lines.clear()
        digest.update(b"".join(lines))
        return digest.hexdigest()


_COLUMNS: tuple[tuple[str, str, Any], ...] = (
    ("labels", "label", np.int64), ("sizes", "size", np.int64), ("places", "place", np.int64),
    ("archives", "archive", np.int16), ("stamps", "stamp", np.int64),
)  # fmt: skip
"""A column of the table, the field of a row that it holds, and its type."""
_LINES = 4096


class View(Sequence[T]):
    """One object an image, made when it is asked for; equal to a list of the same objects."""

    def __init__(
        self, count: int, one: Callable[[int], T], every: Callable[[], Iterator[T]]
    ) -> None:
        self._count, self._one, self._every = count, one, every

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        if isinstance(index, slice):
            return [self._one(i) for i in range(*index.indices(self._count))]
        return self._one(index)

    def __iter__(self) -> Iterator[T]:
        return self._every()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, View | list):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other))

    __hash__ = None  # pyright: ignore[reportAssignmentType]  # as of a list
