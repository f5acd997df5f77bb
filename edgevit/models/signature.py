"""What a file is that is no checkpoint, from its first bytes: for a message that helps."""

from __future__ import annotations

_UNPACK = "unpack it, and give the checkpoint that is in it"
_EXPORTED = "it has no weights by name; give the checkpoint it was exported from"

# (where, bytes there, what the file is)
_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"version https://git-lfs", "this is a Git LFS pointer; fetch it with `git lfs pull`"),
    (0, b"\x1f\x8b", f"this is a gzip archive; {_UNPACK}"),
    (0, b"BZh", f"this is a bzip2 archive; {_UNPACK}"),
    (0, b"\xfd7zXZ", f"this is an xz archive; {_UNPACK}"),
    (0, b"\x28\xb5\x2f\xfd", f"this is a Zstandard archive; {_UNPACK}"),
    (0, b"7z\xbc\xaf", f"this is a 7-Zip archive; {_UNPACK}"),
    (0, b"Rar!", f"this is a RAR archive; {_UNPACK}"),
    (257, b"ustar", f"this is a tar archive; {_UNPACK}"),
    (4, b"TFL3", f"this is a TFLite model; {_EXPORTED}"),
    (0, b"\x89HDF", "this is an HDF5 file, as Keras writes; edgevit reads PyTorch's checkpoints"),
    (0, b"\x93NUMPY", "this is a NumPy array; edgevit reads PyTorch's checkpoints"),
    (0, b"GGUF", "this is a GGUF file, whose weights are quantized; give the original checkpoint"),
    (0, b"\x89PNG", "this is a PNG image"),
    (0, b"\xff\xd8\xff", "this is a JPEG image"),
    (0, b"%PDF", "this is a PDF document"),
    (0, b"\x7fELF", "this is a program or library"),
    (0, b"ftrt", f"this is a TensorRT plan; {_EXPORTED}"),
)  # fmt: skip


def what_it_looks_like(start: bytes) -> str | None:
    """A clause on a file by its first 512 bytes; None where nothing is known of them."""
    for place, mark, what in _SIGNATURES:
        if start[place : place + len(mark)] == mark:
            return what
    # A small version number, then the name of the producer or a graph.
    if start[:1] == b"\x08" and start[1:2] < b"\x20" and start[2:3] in (b"\x12", b"\x3a", b"\x42"):
        return f"this looks like an ONNX model; {_EXPORTED}"
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text[:1] == b"<":
        return "this looks like a web page; download the file itself"
    if text[:1] in (b"{", b"["):
        return "this looks like JSON text; give the file that holds the weights"
    if text and all(byte in b"\t\r\n" or 32 <= byte < 127 for byte in text):
        first = text.splitlines()[0][:40].decode()
        return f"this is text, beginning {first!r} ({text[:4].hex(' ')})"
    return None
