"""What is kept of large image sets for the next run: the index of tars, and which images are whole.

One file a set in the user's cache folder. What it says holds for files of the same path, size and
time of change only, so that a changed file is looked at again; without it everything is. It is no
part of any result: what cannot be read or written is passed over.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
import zipfile
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgevit.data.found import Listing
from edgevit.errors import InputError
from edgevit.files import atomic_path

if TYPE_CHECKING:
    from edgevit.data.image_set import ImageSet

MIN_IMAGES = 20_000
"""Of a set that anything is kept of; a smaller one is soon looked at."""
MAX_KEPT_BYTES = 4 * 2**30
SETTLED_NS = 2 * 10**9
"""A file that changed less long before a look may change again within one tick of its time."""
_VERSION = 1
_COLUMNS = ("sizes", "places", "archives", "stamps")

log = logging.getLogger(__name__)


def kept_index(tars: Sequence[Path]) -> Listing | None:
    """The index of these tars as they are now; None where none is kept."""
    found = _read("index", tars)
    try:
        if found is None or _text(found["stamps_of_tars"]) != _stamps(tars):
            return None
        return _listing(found, tars)
    except (KeyError, ValueError, TypeError, IndexError) as error:
        log.debug("what is kept of the set is damaged: %s", error)
        return None


def _listing(found: dict[str, np.ndarray], tars: Sequence[Path]) -> Listing:
    """Raises ValueError and the like for what no index of these tars can be."""
    about = json.loads(_text(found["about"]))
    listing = Listing(tars=list(tars), visited=int(about["visited"]))
    listing.raws = _split(found["raws"].tobytes(), found["ends"])
    for name in _COLUMNS:
        column: array[int] = getattr(listing, name)
        column.frombytes(found[name].tobytes())
        if len(column) != len(listing.raws):
            raise ValueError(f"{len(column)} {name} of {len(listing.raws)} images")
    sizes, places = np.asarray(listing.sizes), np.asarray(listing.places)
    ends_of_tars = np.array([os.stat(tar).st_size for tar in tars])[np.asarray(listing.archives)]
    if sizes.min() < 0 or places.min() < 0 or (places > ends_of_tars - sizes).any():
        raise ValueError("an image lies outside its tar")
    listing.folders = [name.encode("latin-1") for name in about["folders"]]
    listing.left_out = [(name.encode("latin-1"), str(why)) for name, why in about["left_out"]]
    return listing


def keep_index(listing: Listing, began_ns: int) -> None:
    """Keep the index of `listing.tars`, which was begun then (ns since 1970)."""
    stamps = _stamps(listing.tars)
    newest = max(os.stat(tar).st_mtime_ns for tar in listing.tars)
    if len(listing.raws) < MIN_IMAGES or newest > began_ns - SETTLED_NS:
        return
    about = {
        "visited": listing.visited,
        "folders": [name.decode("latin-1") for name in listing.folders],
        "left_out": [(name.decode("latin-1"), why) for name, why in listing.left_out],
    }
    lengths = np.fromiter(map(len, listing.raws), np.int64, len(listing.raws))
    columns = {name: np.asarray(getattr(listing, name)) for name in _COLUMNS}
    _write(
        "index",
        listing.tars,
        stamps_of_tars=_bytes(stamps),
        about=_bytes(json.dumps(about)),
        raws=np.frombuffer(b"".join(listing.raws), np.uint8),
        ends=np.cumsum(lengths),
        **columns,
    )


class Whole:
    """Which images of a set are known to be whole.

    full   they were decoded; otherwise their structure was looked at
    """

    def __init__(self, images: ImageSet, full: bool) -> None:
        self._paths = images.tars or [images.path]
        self._kind = "decoded" if full else "structure"
        self._began_ns = time.time_ns()
        self._is_kept = len(images) >= MIN_IMAGES
        self.known = np.zeros(len(images), bool)
        if self._is_kept:
            # Of a tar its own time counts: its members have none that can be trusted.
            times = {i: os.stat(tar).st_mtime_ns for i, tar in enumerate(images.tars)}
            self._prints = images.fingerprints(_stamps(images.tars))
            self._newest = np.full(len(images), max(times.values())) if times else images.stamps
            found = _read(self._kind, self._paths)
            if found is not None:
                self.known = np.isin(self._prints, found["prints"])

    def keep(self, whole: np.ndarray) -> None:
        """Keep that these images (bool, one each) are whole, and forget what was known."""
        if self._is_kept and (whole & ~self.known).any():
            settled = self._newest <= self._began_ns - SETTLED_NS
            _write(self._kind, self._paths, prints=np.unique(self._prints[whole & settled]))


def _stamps(tars: Sequence[Path]) -> str:
    found = [os.stat(tar) for tar in tars]
    return json.dumps([(f.st_size, f.st_mtime_ns, f.st_ino, f.st_dev) for f in found])


def _split(text: bytes, ends: np.ndarray) -> list[bytes]:
    starts = np.concatenate([[0], ends[:-1]])
    if len(ends) == 0 or ends[-1] != len(text) or (starts > ends).any():
        raise ValueError("the names do not fit")
    return [text[start:end] for start, end in zip(starts.tolist(), ends.tolist())]


def _bytes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), np.uint8)


def _text(data: np.ndarray) -> str:
    return data.tobytes().decode()


def _file(kind: str, paths: Sequence[Path]) -> Path:
    name = json.dumps([_VERSION, *(os.path.realpath(path) for path in paths)])
    key = hashlib.sha256(os.fsencode(name)).hexdigest()[:32]
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "edgevit" / "sets" / f"{key}-{kind}.npz"


def _read(kind: str, paths: Sequence[Path]) -> dict[str, np.ndarray] | None:
    try:
        path = _file(kind, paths)
        if path.stat().st_size > MAX_KEPT_BYTES:
            return None
        with np.load(path, allow_pickle=False) as found:
            return dict(found)
    except (OSError, ValueError, KeyError, EOFError, MemoryError, RuntimeError, zipfile.BadZipFile):
        return None


def _write(kind: str, paths: Sequence[Path], **columns: Any) -> None:
    try:
        path = _file(kind, paths)
        with atomic_path(path, force=True) as temporary, temporary.open("wb") as file:
            np.savez(file, **columns)
    except (InputError, OSError, RuntimeError) as error:
        log.debug("nothing is kept of the set: %s", error)
