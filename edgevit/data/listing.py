"""Which images a folder or a tar holds, and which files of it are left out.

The rules are those of targets/harness/listing.cpp, so that both languages see the same set:

- names that begin with a dot, __MACOSX, Thumbs.db and desktop.ini are passed over;
- links are followed (in a tar: inside it), but not back into a folder that they lie in;
- a suffix of `READ_SUFFIXES` makes a file an image; other pictures, dangling links, FIFOs, sockets
  and devices are left out and named. Nothing but a regular file is ever opened.
"""

from __future__ import annotations

import glob
import os
import stat
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from edgevit.data.found import Head, Listing
from edgevit.data.kept import keep_index, kept_index
from edgevit.data.kinds import is_hidden, kind_of, name_text
from edgevit.data.tar_index import BLOCK, Folder, Link, Node, Other, is_header, read_tar
from edgevit.errors import InputError
from edgevit.progress import Progress

MAX_LINK_STEPS = 40
MAX_TARS = 2**15 - 1
"""Of one set."""
_SHOWN_EVERY = 1024
_UNPACK = {
    "gzip file": "tar -xzf", "bzip2 file": "tar -xjf", "xz file": "tar -xJf",
    "zstd file": "tar --zstd -xf", "zip archive": "unzip", "7z archive": "7z x",
    "rar archive": "unrar x",
}  # fmt: skip


def list_set(path: Path) -> Listing:
    """The images below a folder, in a tar, or in several that are one set.

    path   a folder, a tar, a folder of tars, or a pattern for their names: "train-*.tar"

    Raises InputError when it is missing, no folder or tar, or holds a folder that cannot be listed.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if found := _matching(path):
            return list_tars(found, path)
        raise InputError(f"{path}: no such image folder or tar: {error.strerror}") from error
    except ValueError as error:  # a zero byte
        raise InputError(f"{name_text(os.fsencode(path))}: no such image folder or tar") from error
    if stat.S_ISDIR(mode):
        listing = _list_folder(path)
        tars = [] if listing.raws else _matching(path / "*.tar", escaped=path)
        return list_tars(tars, path) if tars else listing
    return list_tars([path], path)


def _matching(pattern: Path, escaped: Path | None = None) -> list[Path]:
    """What a pattern names, in order; `escaped` is a folder at its beginning that is no pattern."""
    text = str(pattern)
    if escaped is not None:
        text = glob.escape(str(escaped)) + text[len(str(escaped)) :]
    return [Path(name) for name in sorted(glob.glob(text), key=os.fsencode)]


def list_tars(tars: Sequence[Path], title: Path) -> Listing:
    """The images of tars that are one set; `title` stands for it in errors.

    Raises InputError as `list_set` does, and for a tar or an image that is there twice.
    """
    if len(tars) > MAX_TARS:
        raise InputError(f"{title} names {len(tars)} tars, at most {MAX_TARS} can be one set")
    known = dict[tuple[int, int], Path]()
    for path in tars:
        info = _regular(path)
        other = known.setdefault((info.st_dev, info.st_ino), path)
        if other is not path:
            raise InputError(
                f"{title}: the tar {path} is listed twice (it is {other}); name it once"
            )
    began_ns = time.time_ns()
    listing = kept_index(tars)
    if listing is None:
        listing = _indexed(tars)
        if len(tars) > 1:
            _check_no_doubles(listing, title)
        keep_index(listing, began_ns)
    return listing


def _indexed(tars: Sequence[Path]) -> Listing:
    listing = Listing()
    for path in tars:
        _check_no_packed(path)
        before = len(listing.raws)
        listing.tars.append(path)
        _add_tar(listing, path)
        if len(tars) > 1 and len(listing.raws) == before:
            listing.left_out.append((os.fsencode(path.name), "tar without an image"))
    return listing


def _regular(path: Path) -> os.stat_result:
    try:
        info = path.stat()
    except OSError as error:
        raise InputError(f"{path}: no such image folder or tar: {error.strerror}") from error
    if not stat.S_ISREG(info.st_mode):
        raise InputError(f"{path} is neither a folder nor a file: name an image folder or a tar")
    return info


def _check_no_doubles(listing: Listing, title: Path) -> None:
    order = sorted(range(len(listing.raws)), key=listing.raws.__getitem__)
    for one, other in pairwise(order):
        if listing.raws[one] == listing.raws[other]:
            first, second = (listing.tars[listing.archives[i]] for i in sorted((one, other)))
            raise InputError(
                f"{title}: the image {name_text(listing.raws[one])} is in {first} and again in "
                f"{second}; a set has each image once"
            )


def _check_no_packed(path: Path) -> None:
    try:
        with open(path, "rb") as file:
            start = file.read(BLOCK)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    # A tar begins with a name, which may look like anything: "BMW/".
    kind = "" if is_header(start) else kind_of(start)
    if kind in _UNPACK:
        raise InputError(
            f"{path} is a {kind}, and image sets are read from a folder or an uncompressed tar: "
            f"unpack it in a folder of its own with `{_UNPACK[kind]}` and name that"
        )
    if kind:
        raise InputError(
            f"{path}: not a readable, uncompressed tar: it is a {kind}; name the folder or tar of "
            "class folders"
        )


def _list_folder(root: Path) -> Listing:
    with Progress(f"indexing {root.name}", None, "files", quiet=True) as progress:
        return _walked(root, progress)


def _walked(root: Path, progress: Progress) -> Listing:
    listing, head = Listing(), Head()
    info = root.stat()

    def walk(folder: bytes, prefix: bytes, above: frozenset[tuple[int, int]], depth: int) -> None:
        for entry in _scanned(folder, root):
            if is_hidden(entry.name):
                continue
            path = prefix + entry.name
            listing.visit(path, depth, root)
            if listing.visited % _SHOWN_EVERY == 0:
                progress.update(listing.visited)
            try:
                found = entry.stat()
            except PermissionError as error:
                raise InputError(
                    f"{root}: {name_text(path)} cannot be read: {error.strerror}"
                ) from error
            except OSError:
                listing.left_out.append((path, "dangling link"))
                continue
            if stat.S_ISDIR(found.st_mode):
                identity = (found.st_dev, found.st_ino)
                if identity in above:
                    listing.left_out.append((path, "link to a folder around it"))
                    continue
                listing.folders.append(path)
                walk(entry.path, path + b"/", above | {identity}, depth + 1)
            elif stat.S_ISREG(found.st_mode):
                listing.add(path, entry.path, found.st_size, head, found.st_mtime_ns)
            else:
                listing.left_out.append((path, "special file"))

    walk(os.fsencode(root), b"", frozenset({(info.st_dev, info.st_ino)}), 1)
    return listing


def _scanned(folder: bytes, root: Path) -> Iterator[os.DirEntry[bytes]]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except OSError as error:
        raise InputError(
            f"{root}: the folder {name_text(folder)} cannot be listed: {error.strerror}"
        ) from error


def _add_tar(listing: Listing, path: Path) -> None:
    """The members of `listing.tars[-1]`."""
    tree, head = read_tar(path), Head(path)

    def walk(above: tuple[Folder, ...], real: list[bytes], prefix: bytes) -> None:
        for name, node in above[-1].members.items():
            if is_hidden(name):
                continue
            path_of, at = prefix + name, [*real, name]
            listing.visit(path_of, len(above), path)
            if isinstance(node, Link):
                node, at = _followed(tree, real, node)
            if node is None:
                listing.left_out.append((path_of, "dangling link"))
            elif isinstance(node, Other):
                listing.left_out.append((path_of.lstrip(b"/"), node.why))
            elif isinstance(node, tuple):
                listing.add(path_of, *node, head)
            elif any(node is each for each in above):
                listing.left_out.append((path_of, "link to a folder around it"))
            elif isinstance(node, Folder):
                listing.folders.append(path_of)
                walk((*above, node), at, path_of + b"/")

    try:
        walk((tree,), [], b"")
    finally:
        head.close()


def _followed(tree: Folder, real: list[bytes], link: Link) -> tuple[Node | None, list[bytes]]:
    """What a link in the folder `real` leads to, and the path of that; None outside the tar."""
    at, steps = list(real), 0
    waiting = _reversed_parts(link)
    if waiting is None:
        return None, at
    while waiting:
        part = waiting.pop()
        if part == b"..":
            if not at:
                return None, at
            at.pop()
            continue
        folder = _at(tree, at)
        node = folder.members.get(part) if isinstance(folder, Folder) else None
        if isinstance(node, Link):
            steps += 1
            more = _reversed_parts(node)
            if more is None or steps >= MAX_LINK_STEPS:
                return None, at
            waiting += more
        elif node is None:
            return None, at
        else:
            at.append(part)
    return _at(tree, at), at


def _reversed_parts(link: Link) -> list[bytes] | None:
    if not link.target or link.target.startswith(b"/"):
        return None
    return [part for part in reversed(link.target.split(b"/")) if part not in (b"", b".")]


def _at(tree: Folder, parts: list[bytes]) -> Node | None:
    node: Node | None = tree
    for part in parts:
        node = node.members.get(part) if isinstance(node, Folder) else None
    return node


def left_out_line(left_out: list[tuple[bytes, str]], title: str) -> str:
    """One sentence that counts and names what is left out; empty where nothing is."""
    if not left_out:
        return ""
    counts = Counter(why for _, why in left_out)
    parts = sorted(counts.items(), key=lambda part: (-part[1], part[0].encode()))
    first = name_text(min(path for path, _ in left_out))
    are = "file of {0} was" if len(left_out) == 1 else "files of {0} were"
    line = f"{len(left_out)} {are.format(title)} left out: "
    line += ", ".join(f"{count} {why}" for why, count in parts) + f" (first: {first})"
    if any(why.startswith(".") or "suffix" in why for why in counts):
        line += "; convert pictures to JPEG, PNG or WebP, with that suffix, to have them read"
    return line
