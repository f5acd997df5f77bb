"""Damaged images of a run: found at its start, or met by it, and kept out of it from then on.

A run draws its images by place, so its set must stay the same from start to end. What the first
start left out stays out. An image that is found damaged later keeps its place as a hole: training
takes the next image instead, the other parts do without it. So the run goes on when the image was
removed, mended, or is to be skipped, and every step before it is what it would have been.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edgevit.data.distributed import Group
from edgevit.data.image_set import DamagedImages, ImageSet
from edgevit.data.sequence import ImageSequence
from edgevit.data.soundness import damaged_images, refusal, skipped_line, write_list
from edgevit.data.source import ImageFolder, ImageSource
from edgevit.errors import InputError
from edgevit.files import atomic_path
from edgevit.runs.folder import DAMAGE, MARKER

_THEN = "; the same command then goes on where this run stopped"

log = logging.getLogger(__name__)


@dataclass
class Known:
    """Of one set of a run.

    left_out   names that its start left out
    holes      (name, bytes) of images that were damaged later
    """

    left_out: list[str] = field(default_factory=list)
    holes: list[tuple[str, int]] = field(default_factory=list)


@dataclass(frozen=True)
class DamageRules:
    """What to do with damaged images; `broken_list` is a file for the names of all."""

    skip: bool = False
    broken_list: Path | None = None


class Damage:
    """The damaged images of a run, by the paths of its sets; kept in its folder."""

    def __init__(self, folder: Path | None, fresh: bool, rules: DamageRules, group: Group) -> None:
        self._folder, self._rules, self._group = folder, rules, group
        self._sets: dict[str, ImageSet] = {}
        # One process looks: the folder may be made before another one does.
        found = group.same_object(lambda: None if fresh or folder is None else _found_in(folder))
        self._resumed = found is not None
        self._known: dict[str, Known] = found or {}

    def settle(self, source: ImageSource, role: str) -> ImageSource:
        """The source without its damaged images, or with holes in their places.

        role   "train" or "report"
        Raises DamagedImages, naming all, where there are some that are not to be skipped.
        """
        if isinstance(source, ImageSequence) and (damaged := source.damaged()):
            raise refusal(Path(source.title), len(source), damaged)
        if not isinstance(source, ImageFolder):
            return source
        known = self._known.setdefault(role, Known())
        images = source.images.without(known.left_out).with_holes(known.holes)
        found = self._group.same_object(lambda: self._look(images))
        if found and self._group.is_main:
            write_list(found, self._rules.broken_list)
        if found and not self._rules.skip:
            raise refusal(images.path, len(images), found, _THEN if self._resumed else "")
        names = [name for name, _ in found]
        if found and self._group.is_main:
            log.warning(skipped_line(images.path, found))
        if self._resumed:
            known.holes = sorted({*known.holes, *images.sizes_of(names)})
            images = images.with_holes(known.holes)
        else:
            known.left_out = sorted(names)
            images = images.without(names)
        self._sets[role] = images
        return source.with_images(images)

    def _look(self, images: ImageSet) -> list[tuple[str, str]]:
        """What is damaged now; of the holes only what is still there, and asked about."""
        found = damaged_images(images, full=self._rules.skip)
        if not self._rules.skip and images.holes:
            there = [i for i in sorted(images.holes) if images.is_on_disk(i)]
            whole = images.without_holes()
            found += damaged_images(whole, full=True, indices=there)
        return found

    def write(self, folder: Path) -> None:
        """Keep what is known, in the folder of the run."""
        known = {role: asdict(each) for role, each in self._known.items()}
        with atomic_path(folder / DAMAGE, force=True) as temporary:
            temporary.write_text(json.dumps({"schema_version": 1, "sets": known}))

    @contextmanager
    def met(self, folder: Path) -> Iterator[None]:
        """What the run meets is kept in its folder; all of the set is then decoded, once.

        Raises DamagedImages that names all that are damaged.
        """
        try:
            yield
        except DamagedImages as error:
            role = next((r for r, s in self._sets.items() if s.path == error.path), None)
            if role is None or not self._folder:
                raise
            images = self._sets[role]
            self._keep(folder, role, images, error.names)
            log.warning("%s; looking for more of them", error)
            found = damaged_images(images, full=True)
            self._keep(folder, role, images, [name for name, _ in found])
            write_list(found, self._rules.broken_list)
            raise refusal(images.path, len(images), found, _THEN) from error

    def _keep(self, folder: Path, role: str, images: ImageSet, names: Sequence[str]) -> None:
        known = self._known[role]
        known.holes = sorted({*known.holes, *images.sizes_of(names)})
        self.write(folder)


def _found_in(folder: Path) -> dict[str, Known] | None:
    """What the run in the folder knows; None where there is no run.

    Raises InputError for a file that no run wrote.
    """
    path = folder / DAMAGE
    if not (folder / MARKER).exists():
        return None
    try:
        document: Any = json.loads(path.read_bytes())
        return {
            str(role): Known(
                [str(name) for name in each["left_out"]],
                [(str(name), int(size)) for name, size in each["holes"]],
            )
            for role, each in document["sets"].items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: cannot be read: {error}; use --fresh to start anew") from error
