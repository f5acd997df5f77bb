"""What a file is, told by its name and by its first bytes.

targets/harness/kinds.cpp holds the same lists: a set has the same images in Python and in C++.
"""

from __future__ import annotations

READ_SUFFIXES = frozenset(
    b".jpg .jpeg .jfif .jpe .png .webp .bmp .dib .ppm .pgm .pnm".split()
)  # fmt: skip
"""Of the images of a set, in lower case; the content decides what they are decoded as."""

OTHER_PICTURE_SUFFIXES = frozenset(
    b".tif .tiff .gif .avif .avifs .heic .heif .jp2 .j2k .jpx .jxl .jxr .ico .cur .tga .psd .svg "
    b".svgz .pbm .pfm .pam .pcx .exr .hdr .dds .dng .cr2 .cr3 .nef .arw .orf .rw2 .raf .apng .mpo "
    b".jng .mng .qoi .xbm .xpm .icns .eps .wmf .emf".split()
)
"""Pictures that are left out of a set, and named."""

READ_KINDS = ("JPEG", "PNG", "WebP", "BMP", "PPM")
HEAD_BYTES = 64
"""What `kind_of` looks at."""

_HIDDEN_NAMES = frozenset((b"__macosx", b"thumbs.db", b"desktop.ini"))
_PICTURES = (
    (b"\xff\xd8\xff", "JPEG"), (b"\x89PNG\r\n\x1a\n", "PNG"), (b"GIF8", "GIF"),
    (b"II*\0", "TIFF"), (b"MM\0*", "TIFF"), (b"II+\0", "TIFF"), (b"MM\0+", "TIFF"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"), (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\xff\x0a", "JPEG XL"), (b"\0\0\0\x0cJXL ", "JPEG XL"), (b"8BPS", "Photoshop file"),
)  # fmt: skip
_OTHERS = (
    (b"PK\x03\x04", "zip archive"), (b"PK\x05\x06", "zip archive"), (b"\x1f\x8b", "gzip file"),
    (b"BZh", "bzip2 file"), (b"\xfd7zXZ\0", "xz file"), (b"\x28\xb5\x2f\xfd", "zstd file"),
    (b"7z\xbc\xaf\x27\x1c", "7z archive"), (b"Rar!", "rar archive"), (b"%PDF", "PDF"),
    (b"\0\x05\x16\x07", "AppleDouble file of macOS"), (b"\x7fELF", "program"),
    (b"version https://git-lfs", "pointer of Git LFS, not the file itself"),
)  # fmt: skip
_BRANDS = {b"avif": "AVIF", b"avis": "AVIF", b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIC",
           b"msf1": "HEIC", b"hevc": "HEIC"}  # fmt: skip
_TEXT_STARTS = ((b"<!doctype html", "web page (HTML)"), (b"<html", "web page (HTML)"),
                (b"<svg", "SVG"), (b"<?xml", "XML file"), (b"{", "JSON file"))  # fmt: skip


def is_hidden(name: bytes) -> bool:
    """Whether a file or folder of this name is passed over: ._x.jpg, .DS_Store, __MACOSX, ..."""
    return name.startswith(b".") or name.lower() in _HIDDEN_NAMES


def suffix_of(name: bytes) -> bytes:
    """Of a file's name, in lower case with its dot; empty where there is none."""
    dot = name.rfind(b".")
    return name[dot:].lower() if 0 < dot < len(name) - 1 else b""


def kind_of(head: bytes) -> str:
    """What a file is by its first `HEAD_BYTES` bytes: "JPEG", "zip archive", ...; "" if unknown."""
    head = head[:HEAD_BYTES]
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[:2] == b"BM" and len(head) >= 18 and head[15:18] == b"\0\0\0":
        return "BMP"
    if head[:1] == b"P" and head[1:2] in (b"5", b"6") and head[2:3] in _BLANKS:
        return "PPM"
    if head[4:8] == b"ftyp" and head[8:12] in _BRANDS:
        return _BRANDS[head[8:12]]
    for magic, name in (*_PICTURES, *_OTHERS):
        if head.startswith(magic):
            return name
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n").lower()
    return next((name for start, name in _TEXT_STARTS if text.startswith(start)), "")


_BLANKS = (b" ", b"\t", b"\n", b"\r", b"#")
_PICTURE_KINDS = frozenset(
    (*READ_KINDS, *(name for _, name in _PICTURES), *_BRANDS.values(), "SVG")
)  # fmt: skip


def is_picture(head: bytes) -> bool:
    """Whether the file is an image of any kind, by its first bytes."""
    return kind_of(head) in _PICTURE_KINDS


def name_text(raw: bytes) -> str:
    r"""A file's name as text that a terminal, a JSON file and a list of lines can hold.

    Bytes that are no UTF-8, and control characters but the tab, become \xNN; all else stays. The
    harness names images by the same rule: it is a part of what a set is, not of how it is shown.
    """
    text = raw.decode("utf-8", "surrogateescape")
    if text.isprintable():
        return text
    return "".join(_escaped(c) for c in text)


def _escaped(character: str) -> str:
    code = ord(character)
    is_control = (code < 0x20 and character != "\t") or 0x7F <= code < 0xA0
    if 0xDC80 <= code <= 0xDCFF or is_control:
        raw = character.encode("utf-8", "surrogateescape")
        return "".join(f"\\x{byte:02x}" for byte in raw)
    return character
