"""The index of an uncompressed tar as a tree: ustar, with GNU long names, pax paths and sizes.

targets/harness/tar.cpp reads the same archives to the same trees. Links are kept and followed by
`edgevit.data.listing`, inside the archive only.
"""

from __future__ import annotations

import os
import re
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from edgevit.errors import InputError
from edgevit.progress import Progress

BLOCK = 512
MAX_EXTENSION_BYTES = 2**20
"""Of a long name or a pax header."""

_READ_BYTES = 4096
"""At once: headers of large images lie far apart, and what is read beside them is lost."""
_SHOWN_EVERY = 4096
_MIB = 2**20

_OCTAL = re.compile(rb"[0-7]*")
_PAX_RECORD = re.compile(rb"(\d{1,8}) ([^=]*)=")
_REGULAR = b"0\0" + b"7"
_HAS_NO_DATA = b"123456"
_ODD = (b"", b".", b"..")
"""Parts of a name that are none of a file."""


@dataclass
class Folder:
    """A folder of the archive: its members by name, which begins with "/" outside the archive."""

    members: dict[bytes, Node] = field(default_factory=dict)


@dataclass(frozen=True)
class Link:
    """A symbolic link; one that leads nowhere has no target."""

    target: bytes | None


@dataclass(frozen=True)
class Other:
    """What has no bytes to read as they are: a FIFO, a device, a sparse file."""

    why: str


Node = Folder | Link | Other | tuple[int, int]
"""A regular file is (offset of its first byte, size in bytes)."""


def read_tar(path: Path) -> Folder:
    """The tree of the archive; nothing but headers is read.

    Of two members with one name the later counts, as when the archive is unpacked. Raises
    InputError naming the archive and the offset for a bad checksum or number, a member that reaches
    past the end of the file, or an archive without its end marker.
    """
    try:
        with open(path, "rb") as file:
            return _Indexer(path, file.fileno()).run()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def is_header(block: bytes) -> bool:
    """Whether the 512 bytes are a member's header, by its checksum."""
    if len(block) != BLOCK:
        return False
    # The field itself counts as blanks.
    total = _sum(block[:256]) + _sum(block[256:]) - sum(block[148:156]) + 8 * ord(" ")
    return _number(block[148:156]) == total


def _sum(data: bytes) -> int:
    """Of up to 256 bytes: the low half of their Adler-32 less one, which is soon computed."""
    return (zlib.adler32(data) & 0xFFFF) - 1


class _Indexer:
    def __init__(self, path: Path, descriptor: int) -> None:
        self.path, self.descriptor = path, descriptor
        self.size = os.fstat(descriptor).st_size
        # Reading ahead would read the images too.
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        self.at = 0
        self.root = Folder()
        self._held, self._held_at = b"", 0
        self._last_folder: tuple[bytes, Folder] = (b"", self.root)
        self._reset()

    def _reset(self) -> None:
        """Forget what the extended headers said of the member that follows them."""
        self.name: bytes | None = None
        self.link: bytes | None = None
        self.long_size: int | None = None
        self.sparse = False

    def run(self) -> Folder:
        title, members = f"indexing {self.path.name}", 0
        with Progress(title, self.size // _MIB, "MiB", quiet=True) as progress:
            while header := self._header():
                kind = header[156:157]
                size = self._member_size(header, kind)
                if kind in (b"L", b"K", b"x", b"g"):
                    self._extension(kind, size)
                else:
                    if kind == b"S":
                        self._skip_sparse_map(header)
                    self._add(header, kind, size)
                    self._reset()
                self.at += -(-size // BLOCK) * BLOCK
                members += 1
                if members % _SHOWN_EVERY == 0:
                    progress.update(self.at // _MIB)
        return self.root

    def _fail(self, what: str) -> InputError:
        return InputError(
            f"{self.path}: not a readable, uncompressed tar: damaged or cut short at byte "
            f"{self.at}: {what}"
        )

    def _read(self, count: int) -> bytes:
        start = self.at - self._held_at
        if start < 0 or start + count > len(self._held):
            wanted = max(count, _READ_BYTES)
            self._held, self._held_at = os.pread(self.descriptor, wanted, self.at), self.at
            start = 0
        data = self._held[start : start + count]
        if len(data) != count:
            raise self._fail("it ends too early")
        return data

    def _header(self) -> bytes:
        """The next header, `at` behind it; empty at the end marker, a block of zeros."""
        if self.at == self.size and self.at > 0:
            raise self._fail("the end marker is missing: the archive was cut short")
        header = self._read(BLOCK)
        if header == bytes(BLOCK):
            return b""
        if not is_header(header):
            raise self._fail("bad header checksum")
        self.at += BLOCK
        return header

    def _member_size(self, header: bytes, kind: bytes) -> int:
        size = _number(header[124:136])
        if size is None:
            raise self._fail("bad size field")
        if kind not in (b"L", b"K", b"x", b"g") and self.long_size is not None:
            size = self.long_size
        # Links and folders carry a size in some archives, but no data.
        if kind in _HAS_NO_DATA:
            return 0
        if size > self.size - self.at:
            raise self._fail(f"a member of {size} bytes reaches past the end")
        return size

    def _extension(self, kind: bytes, size: int) -> None:
        if size > MAX_EXTENSION_BYTES:
            raise self._fail(f"an extended header of {size} bytes")
        text = self._read(size)
        if kind == b"L":
            self.name = text.partition(b"\0")[0]
        elif kind == b"K":
            self.link = text.partition(b"\0")[0]
        elif kind == b"x":
            self._pax(text)
        # 'g' sets defaults for all members: none of those matters here.

    def _pax(self, text: bytes) -> None:
        """Records of the form "LENGTH key=value\\n", LENGTH counting itself."""
        while text and text[0] != 0:
            record = _PAX_RECORD.match(text)
            length = int(record[1]) if record else 0
            if (
                record is None
                or not record.end() < length <= len(text)
                or text[length - 1 : length] != b"\n"
            ):
                raise self._fail("bad pax header")
            self._set_pax(record[2], text[record.end() : length - 1])
            text = text[length:]

    def _set_pax(self, key: bytes, value: bytes) -> None:
        if key in (b"path", b"linkpath", b"GNU.sparse.name") and b"\0" in value:
            raise self._fail("bad pax header")
        if key in (b"path", b"GNU.sparse.name"):
            self.name = value
        elif key == b"linkpath":
            self.link = value
        elif key == b"size":
            if not re.fullmatch(rb"\d{1,18}", value):
                raise self._fail("bad pax size")
            self.long_size = int(value)
        if key.startswith(b"GNU.sparse."):
            self.sparse = True

    def _skip_sparse_map(self, header: bytes) -> None:
        """GNU's old sparse files: more of the map follows the header while a byte says so."""
        more, place = header, 482
        while more[place]:
            more, place = self._read(BLOCK), 504
            self.at += BLOCK

    def _add(self, header: bytes, kind: bytes, size: int) -> None:
        name = _full_name(header) if self.name is None else self.name
        above, _, last = name.rpartition(b"/")
        known, folder = self._last_folder
        if kind in _REGULAR and not self.sparse and above == known != b"" and last not in _ODD:
            folder.members[last] = (self.at, size)  # as `_put` would, next to the one before
            return
        parts = _parts(name)
        if not parts:
            return
        target = _field(header[157:257]) if self.link is None else self.link
        if b".." in parts:
            self.root.members[b"/" + name] = Other("name that leads out of the tar")
            return
        if kind == b"5" or (kind in _REGULAR and name.endswith(b"/")):
            self._put(parts, Folder())
        elif kind == b"S" or (kind in _REGULAR and self.sparse):
            self._put(parts, Other("sparse file in a tar"))
        elif kind in _REGULAR:
            self._last_folder = above, self._put(parts, (self.at, size))
        elif kind == b"1":
            self._put(parts, self._linked(target))
        elif kind == b"2":
            self._put(parts, Link(target))
        elif kind in b"346":
            self._put(parts, Other("special file"))

    def _linked(self, target: bytes) -> Node:
        """What a hard link shares with a member before it."""
        node: Node | None = self.root
        for part in _parts(target):
            node = node.members.get(part) if isinstance(node, Folder) else None
        return Link(None) if node is None or isinstance(node, Folder) else node

    def _put(self, parts: list[bytes], node: Node) -> Folder:
        """The folder that the node is in now."""
        self._last_folder = b"", self.root  # which may be replaced here
        folder = self.root
        for part in parts[:-1]:
            inner = folder.members.get(part)
            if not isinstance(inner, Folder):
                inner = folder.members[part] = Folder()
            folder = inner
        if not (isinstance(node, Folder) and isinstance(folder.members.get(parts[-1]), Folder)):
            folder.members[parts[-1]] = node
        return folder


def _field(raw: bytes) -> bytes:
    return raw.partition(b"\0")[0]


def _number(raw: bytes) -> int | None:
    """Octal digits with blanks around, or GNU's base-256 form for sizes of 8 GiB and more."""
    if raw[0] & 0x80:
        value = int.from_bytes(bytes([raw[0] & 0x7F]) + raw[1:], "big")
        return value if value < 2**63 else None
    digits = _field(raw).lstrip(b" ").partition(b" ")[0]
    return int(digits or b"0", 8) if _OCTAL.fullmatch(digits) else None


def _full_name(header: bytes) -> bytes:
    name, prefix = _field(header[:100]), _field(header[345:500])
    is_ustar = header[257:263] == b"ustar\0"
    return prefix + b"/" + name if is_ustar and prefix else name


def _parts(name: bytes) -> list[bytes]:
    return [part for part in name.split(b"/") if part not in (b"", b".")]
