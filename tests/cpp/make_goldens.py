"""Write `data/goldens.safetensors`: what Pillow makes of small images, for the C++ tests.

python tests/cpp/make_goldens.py

decode/NAME/file, decode/NAME/rgb        an encoded image; Pillow's convert("RGB")
refuse/NAME                              an encoded image that must be refused
resize/source                            a picture, uint8 (H, W, 3)
resize/FILTER/WxH                        the same after Image.resize
input/IMAGE_SIZE/RESIZE_SIZE/FILTER      the same after edgevit.data.images.Preprocessing.crop;
                                         RESIZE_SIZE 0 stands for none
"""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import save_file

from edgevit.data.images import Preprocessing

WIDTH, HEIGHT = 19, 13
FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
RESIZES = ((32, 23), (10, 7), (29, 9), (8, 21), (29, 40), (51, 21), (1, 1), (3, 100))
INPUTS = (
    (16, 0, "bicubic"),
    (16, 18, "bicubic"),
    (17, 18, "bilinear"),
    (21, 21, "bicubic"),
    (32, 36, "bicubic"),
    (7, 7, "bilinear"),
    (12, 21, "bicubic"),
    (15, 18, "bilinear"),
)


def picture(width: int, height: int, seed: int) -> np.ndarray:
    """Smooth colours, hard edges and noise: uint8 (height, width, 3)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    red = 127 + 120 * np.sin(x / 3.1 + y / 7.3)
    green = np.where((x // 4 + y // 3) % 2, 255, 0)
    blue = rng.integers(0, 256, (height, width))
    return np.stack([red, green, blue], axis=-1).astype(np.uint8)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    """The encoded file."""
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    """One PNG chunk."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(
    width: int,
    height: int,
    depth: int,
    colour: int,
    rows: bytes,
    *extra: bytes,
    interlaced: bool = False,
) -> bytes:
    """A PNG of unfiltered rows, each with its leading filter byte; for what Pillow cannot write."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, int(interlaced))
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            *extra,
            chunk(b"IDAT", zlib.compress(rows, 9)),
            chunk(b"IEND", b""),
        ]
    )


def unfiltered(lines: np.ndarray) -> bytes:
    """uint8 (rows, bytes) with filter byte 0 before each row."""
    return b"".join(b"\0" + line.tobytes() for line in lines)


def packed_grey(depth: int) -> bytes:
    """Greyscale of 1, 2 or 4 bits, all levels in use."""
    values = np.random.default_rng(depth).integers(0, 2**depth, (HEIGHT, WIDTH))
    per_byte = 8 // depth
    wide = np.zeros((HEIGHT, -(-WIDTH // per_byte) * per_byte), int)
    wide[:, :WIDTH] = values
    shifts = (per_byte - 1 - np.arange(per_byte)) * depth
    lines = (wide.reshape(HEIGHT, -1, per_byte) << shifts).sum(-1).astype(np.uint8)
    return png(WIDTH, HEIGHT, depth, 0, unfiltered(lines))


def adam7(rgb: np.ndarray) -> bytes:
    """The picture as an interlaced PNG."""
    passes = (
        (0, 8, 0, 8),
        (0, 8, 4, 8),
        (4, 8, 0, 4),
        (0, 4, 2, 4),
        (2, 4, 0, 2),
        (0, 2, 1, 2),
        (1, 2, 0, 1),
    )
    rows = b""
    for y, dy, x, dx in passes:
        part = rgb[y::dy, x::dx]
        rows += unfiltered(part.reshape(len(part), -1)) if part.size else b""
    return png(rgb.shape[1], rgb.shape[0], 8, 2, rows, interlaced=True)


def sixteen_bit(channels: int) -> bytes:
    """Big-endian 16-bit samples: grey (1), RGB (3) or RGBA (4)."""
    rng = np.random.default_rng(16)
    samples = rng.integers(0, 65536, (HEIGHT, WIDTH * channels)).astype(">u2")
    lines = samples.view(np.uint8).reshape(HEIGHT, -1)
    return png(WIDTH, HEIGHT, 16, {1: 0, 3: 2, 4: 6}[channels], unfiltered(lines))


def short_palette(index: int) -> bytes:
    """A palette of three colours and a picture that uses `index`."""
    palette = chunk(b"PLTE", bytes(range(9)))
    return png(2, 1, 8, 3, bytes([0, 1, index]), palette)


def jpegs(rgb: Image.Image) -> dict[str, bytes]:
    """JPEG files by name."""
    files = {
        f"jpeg-{s.replace(':', '')}": saved(rgb, "JPEG", quality=85, subsampling=s)
        for s in ("4:4:4", "4:2:2", "4:2:0", "4:1:1")
    }
    for s in ("4:4:4", "4:2:0"):
        files[f"jpeg-progressive-{s.replace(':', '')}"] = saved(
            rgb, "JPEG", quality=70, progressive=True, subsampling=s
        )
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: a quarter turn, which must not be applied
    files["jpeg-oriented"] = saved(rgb, "JPEG", quality=90, exif=exif)
    files["jpeg-coarse"] = saved(rgb, "JPEG", quality=3)
    files["jpeg-rgb"] = saved(rgb, "JPEG", quality=90, keep_rgb=True)
    files["jpeg-restarts"] = saved(rgb, "JPEG", quality=85, restart_marker_blocks=1)
    files["jpeg-grey"] = saved(rgb.convert("L"), "JPEG", quality=85)
    files["jpeg-cmyk"] = saved(rgb.convert("CMYK"), "JPEG", quality=85)
    at = files["jpeg-cmyk"].index(b"Adobe") + 11  # the transform byte: 0 is CMYK, 2 is YCCK
    files["jpeg-ycck"] = files["jpeg-cmyk"][:at] + b"\2" + files["jpeg-cmyk"][at + 1 :]
    files["jpeg-1x1"] = saved(rgb.crop((5, 5, 6, 6)), "JPEG")
    return files


def pngs(rgb: Image.Image) -> dict[str, bytes]:
    """PNG files by name."""
    alpha = rgb.convert("RGBA")
    alpha.putalpha(rgb.getchannel("R"))
    palette = rgb.quantize(200)
    files = {
        "png-rgb": saved(rgb, "PNG"),
        "png-rgba": saved(alpha, "PNG"),
        "png-grey": saved(rgb.convert("L"), "PNG"),
        "png-grey-alpha": saved(alpha.convert("LA"), "PNG"),
        "png-bilevel": saved(rgb.convert("1"), "PNG"),
        "png-palette-256": saved(palette, "PNG"),
        "png-palette-16": saved(rgb.quantize(16), "PNG"),
        "png-palette-2": saved(rgb.quantize(2), "PNG"),
        "png-palette-clear": saved(palette, "PNG", transparency=bytes(range(200))),
        "png-rgb-clear": saved(rgb, "PNG", transparency=(1, 2, 3)),
        "png-interlaced": adam7(np.asarray(rgb)),
        "png-rgb-16": sixteen_bit(3),
        "png-rgba-16": sixteen_bit(4),
        "png-short-palette": short_palette(2),
    }
    files |= {f"png-grey-{depth}": packed_grey(depth) for depth in (1, 2, 4)}
    rows = unfiltered(np.asarray(rgb).reshape(HEIGHT, -1))
    gamma = chunk(b"gAMA", struct.pack(">I", 100000))
    files["png-gamma"] = png(WIDTH, HEIGHT, 8, 2, rows, gamma)
    return files


def webps(rgb: Image.Image) -> dict[str, bytes]:
    """WebP files by name."""
    alpha = rgb.convert("RGBA")
    alpha.putalpha(rgb.getchannel("R"))
    return {
        "webp-lossy": saved(rgb, "WEBP", quality=60),
        "webp-coarse": saved(rgb, "WEBP", quality=1, method=6),
        "webp-lossless": saved(rgb, "WEBP", lossless=True),
        "webp-alpha": saved(alpha, "WEBP", quality=70),
        "webp-alpha-lossless": saved(alpha, "WEBP", lossless=True, exact=True),
        "webp-profile": saved(rgb, "WEBP", icc_profile=b"x" * 31),
        "webp-1x1": saved(rgb.crop((5, 5, 6, 6)), "WEBP"),
    }


def bmp(
    rows: np.ndarray, width: int, bits: int, palette: np.ndarray | None = None, *masks: int,
    top_down: bool = False,
) -> bytes:  # fmt: skip
    """A BMP of packed rows, for what Pillow cannot write."""
    colours = b"" if palette is None else palette.astype(np.uint8).tobytes()
    extra = struct.pack(f"<{len(masks)}I", *masks) + colours
    padded = np.zeros((len(rows), (width * bits + 31) // 32 * 4), np.uint8)
    padded[:, : rows.shape[1]] = rows
    height = -len(rows) if top_down else len(rows)
    offset = 54 + len(extra)
    head = struct.pack("<2sIHHI", b"BM", offset + padded.size, 0, 0, offset)
    info = struct.pack(
        "<IiiHHIIiiII", 40, width, height, 1, bits, 3 if masks else 0, 0, 0, 0,
        0 if palette is None else len(palette), 0,
    )  # fmt: skip
    return head + info + extra + padded.tobytes()


def bmps(rgb: Image.Image) -> dict[str, bytes]:
    """BMP, PPM and PGM files by name."""
    rng = np.random.default_rng(3)
    pixels = np.asarray(rgb)
    high = rng.integers(0, 65536, (HEIGHT, WIDTH)).astype("<u2").view(np.uint8)
    four = np.concatenate([pixels[..., ::-1], pixels[..., :1]], axis=-1).reshape(HEIGHT, -1)
    palette = rng.integers(0, 256, (16, 4))
    return {
        "bmp-rgb": saved(rgb, "BMP"),
        "bmp-grey": saved(rgb.convert("L"), "BMP"),
        "bmp-bilevel": saved(rgb.convert("1"), "BMP"),
        "bmp-palette": saved(rgb.quantize(200), "BMP"),
        "bmp-palette-16": bmp(rng.integers(0, 256, (HEIGHT, -(-WIDTH // 2))), WIDTH, 4, palette),
        "bmp-top-down": bmp(pixels[..., ::-1].reshape(HEIGHT, -1), WIDTH, 24, top_down=True),
        "bmp-555": bmp(high, WIDTH, 16),
        "bmp-565": bmp(high, WIDTH, 16, None, 0xF800, 0x7E0, 0x1F),
        "bmp-32": bmp(four, WIDTH, 32),
        "bmp-32-masks": bmp(four, WIDTH, 32, None, 0xFF0000, 0xFF00, 0xFF),
        "ppm": saved(rgb, "PPM"),
        "pgm": saved(rgb.convert("L"), "PPM"),
        "ppm-comments": b"P6 # a\n#b\r\t19\n13 #c\n255\n" + pixels.tobytes(),
    }


def odd_pngs() -> dict[str, bytes]:
    """PNG files with something odd that changes no pixel, by name."""
    rows = unfiltered(np.random.default_rng(4).integers(0, 256, (HEIGHT, WIDTH * 3), np.uint8))
    start, end, packed = b"\x89PNG\r\n\x1a\n", chunk(b"IEND", b""), zlib.compress(rows)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 0))
    text = chunk(b"tEXt", b"a\0b")
    bomb = chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(4_000_000)))
    pixels = chunk(b"IDAT", packed)
    return {
        "png-split": start + header + chunk(b"IDAT", packed[:9]) + chunk(b"IDAT", packed[9:]) + end,
        "png-damaged-text": start + header + text[:-1] + b"!" + pixels + end,
        "png-text-bomb": start + header + bomb + pixels + end,
        "png-more-rows": start + header + chunk(b"IDAT", zlib.compress(rows * 2)) + end,
        "png-junk-behind": start + header + pixels + end + b"junk",
    }


def refused(rgb: Image.Image) -> dict[str, bytes]:
    """Files that both languages refuse, by name."""
    rows = unfiltered(np.random.default_rng(4).integers(0, 256, (HEIGHT, WIDTH * 3), np.uint8))
    start, end, packed = b"\x89PNG\r\n\x1a\n", chunk(b"IEND", b""), zlib.compress(rows)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 0))
    text, pixels = chunk(b"tEXt", b"a\0b"), chunk(b"IDAT", packed)
    indexed = chunk(b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 3, 0, 0, 0))
    places = chunk(b"IDAT", zlib.compress(unfiltered(np.zeros((HEIGHT, WIDTH), np.uint8))))
    palette = chunk(b"PLTE", bytes(9))
    whole, progressive = saved(rgb, "JPEG"), saved(rgb, "JPEG", progressive=True)
    frames = [rgb, rgb.transpose(Image.Transpose.FLIP_TOP_BOTTOM)]
    return {
        "png-grey-16": sixteen_bit(1),
        "png-colour-beyond-palette": short_palette(3),
        "png-short-rows": start + header + chunk(b"IDAT", zlib.compress(rows[:-60])) + end,
        "png-byte-short": start + header + chunk(b"IDAT", zlib.compress(rows[:-1])) + end,
        "png-unended-stream": start + header + chunk(b"IDAT", packed[:-4]) + end,
        "png-wrong-sum": start + header + pixels[:-1] + bytes([pixels[-1] ^ 1]) + end,
        "png-no-end": start + header + pixels,
        "png-no-palette": start + indexed + places + end,
        "png-palette-behind": start + indexed + places + palette + end,
        "png-palette-of-10-bytes": start + indexed + chunk(b"PLTE", bytes(10)) + places + end,
        "png-two-palettes": start + indexed + palette + palette + places + end,
        "png-two-headers": start + header + header + pixels + end,
        "png-text-first": start + text + header + pixels + end,
        "png-pixels-apart": start + header + chunk(b"IDAT", packed[:9]) + text
        + chunk(b"IDAT", packed[9:]) + end,
        "png-unknown-part": start + header + chunk(b"ABCD", b"") + pixels + end,
        "jpeg-no-end": whole[:-2],
        "jpeg-half": whole[: len(whole) // 2],
        "jpeg-progressive-quarter": progressive[: len(progressive) // 4] + b"\xff\xd9",
        "magic": b"\xff\xd8\xff",
        "webp-animated": saved(rgb, "WEBP", save_all=True, append_images=frames[1:]),
        "webp-half": saved(rgb, "WEBP")[:100],
        "bmp-run-length": bmp(np.zeros((2, 2), np.uint8), 2, 8)[:30] + b"\1" + bytes(60),
        "bmp-half": saved(rgb, "BMP")[:400],
        "bmp-beyond-palette": bmp(np.full((2, 2), 5), 2, 8, np.zeros((3, 4))),
        "ppm-16-bit": b"P6 2 2 65535\n" + bytes(24),
        "ppm-half": saved(rgb, "PPM")[:300],
        "ppm-no-header": b"P5#",
        "gif": saved(rgb.convert("L"), "GIF"),
        "tiff": saved(rgb, "TIFF"),
        "web-page": b"<!DOCTYPE html><html>",
        "zip": b"PK\3\4" + bytes(30),
        "text": b"hello",
        "empty": b"",
    }  # fmt: skip


def by_pillow(data: bytes) -> np.ndarray:
    """uint8 (H, W, 3)."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def main() -> None:
    """Write the file and print its size."""
    rgb = Image.fromarray(picture(WIDTH, HEIGHT, 1))
    every = jpegs(rgb) | pngs(rgb) | webps(rgb) | bmps(rgb)
    odd = odd_pngs()
    goldens: dict[str, np.ndarray] = {}
    for name, data in every.items():
        goldens[f"decode/{name}/file"] = np.frombuffer(data, np.uint8)
        goldens[f"decode/{name}/rgb"] = by_pillow(data)
    for name, data in odd.items():  # Pillow refuses some of them; their pixels are the same
        goldens[f"decode/{name}/file"] = np.frombuffer(data, np.uint8)
        goldens[f"decode/{name}/rgb"] = by_pillow(odd["png-split"])
    for name, data in refused(rgb).items():
        goldens[f"refuse/{name}"] = np.frombuffer(data, np.uint8)
    source = picture(29, 21, 2)
    goldens["resize/source"] = source
    for kind, resampling in FILTERS.items():
        for width, height in RESIZES:
            resized = Image.fromarray(source).resize((width, height), resampling)
            goldens[f"resize/{kind}/{width}x{height}"] = np.asarray(resized)
    for size, resize, kind in INPUTS:
        crop = Preprocessing(size, resize or None, kind).crop(Image.fromarray(source))
        goldens[f"input/{size}/{resize}/{kind}"] = crop
    path = Path(__file__).parent / "data" / "goldens.safetensors"
    save_file({name: np.ascontiguousarray(array) for name, array in goldens.items()}, path)
    print(f"{path.name}: {len(goldens)} tensors, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
