"""Image sets with all that is odd in folders and tars: links, hidden files, other pictures."""

from __future__ import annotations

import io
import os
import subprocess
from pathlib import Path

import numpy as np
from PIL import Image

SUFFIXES = (
    ".jpg", ".JPEG", ".png", ".webp", ".BMP", ".ppm", ".jfif", ".jpe", ".tif", ".gif", ".txt", "",
    ".Tiff", ".avif",
)  # fmt: skip
NAMES = (
    b"a", b"Z", b"10", b"2", b"caf\xc3\xa9", b"cafe\xcc\x81", b"\xff\xfe", b"line\nbreak",
    b"esc\x1b[31m", b"back\\slash", b"t\tab", b"sp ace", b"c1\xc2\x85", b"x" * 120,
    b"._a", b".hidden", b"'q'",
)  # fmt: skip


def encoded(seed: int, kind: str = "PNG", size: tuple[int, int] = (9, 8)) -> bytes:
    """A small picture as a file of that kind."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def odd_folder(root: Path, seed: int, classes: tuple[str, ...]) -> Path:
    """A folder of class folders, drawn by seed; every class has one plain image."""
    rng = np.random.default_rng(seed)
    folders = [os.fsencode(root / name) for name in classes]
    for folder in folders:
        os.makedirs(folder)
        _write(folder + b"/plain.png", encoded(seed))
    for i in range(int(rng.integers(5, 30))):
        folder = folders[rng.integers(len(folders))]
        if rng.random() < 0.3:
            folder += b"/" + NAMES[rng.integers(len(NAMES))]
        name = NAMES[rng.integers(len(NAMES))] + SUFFIXES[rng.integers(len(SUFFIXES))].encode()
        if not os.path.isdir(folder):
            if os.path.lexists(folder):
                continue
            os.makedirs(folder)
        _draw(rng, folder, name, folders, i)
    for name in (b".DS_Store", b"Thumbs.db", b"__MACOSX"):
        _write(folders[0] + b"/" + name, b"\0\0\0\1Bud1")
    return root


def _draw(
    rng: np.random.Generator, folder: bytes, name: bytes, folders: list[bytes], i: int
) -> None:
    path = folder + b"/" + name
    if os.path.lexists(path):
        return
    other = folders[rng.integers(len(folders))]
    choice = rng.integers(12)
    if choice == 0:
        os.link(other + b"/plain.png", path)
    elif choice == 1:
        os.symlink(os.path.relpath(other + b"/plain.png", folder), path)
    elif choice == 2:
        os.symlink(os.path.relpath(other, folder), path)  # a folder, perhaps one around it
    elif choice == 3:
        os.symlink(b"nowhere", path)
    elif choice == 4:
        os.mkfifo(path)
    elif choice == 5:
        os.symlink(name, path)  # itself
    elif choice == 6:
        _write(path, b"<html>404</html>")
    elif choice == 7:
        _write(path, b"")
    else:
        _write(path, encoded(i, ("PNG", "JPEG", "WEBP", "BMP", "PPM", "GIF")[i % 6]))


def _write(path: bytes, data: bytes) -> None:
    if not os.path.lexists(path):
        with open(path, "wb") as file:
            file.write(data)


def gnu_tar(folder: Path, out: Path, form: str, rename: bool) -> Path:
    """The folder as GNU tar writes it, with or without a folder around the class folders."""
    inner = ["-C", str(folder.parent), folder.name] if rename else ["-C", str(folder), "."]
    subprocess.run(["tar", f"--format={form}", "-cf", str(out), *inner], check=True)
    return out
