"""Write `data/preparation.safetensors`: pre-processing of every kind, for the C++ tests.

python -m tests.cpp.make_preparation

source/rgb, source/rgba   pictures, uint8 (H, W, 3) and (H, W, 4)
rules/N                   a record of preprocessing as manifest.json has it, JSON
pixels/N                  what edgevit.data.preprocessing makes of the picture by it
alpha/NAME/file           a PNG with alpha; alpha/NAME/rgba: Pillow's convert("RGBA") of it
"""

from __future__ import annotations

import io
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.numpy import save_file

from edgevit.choices import INTERPOLATIONS
from edgevit.data.preprocessing import Preprocessing
from tests.cpp.make_goldens import picture, pngs

WIDTH, HEIGHT = 29, 41
MODES: tuple[dict[str, Any], ...] = (
    {"resize": "exact"},
    {"resize": "exact", "resize_size": (13, 23)},
    {"resize": "fit", "pad_color": (9,)},
    {"resize": "fit", "pad_position": "top-left", "resize_size": (7, 60)},
    {"resize_size": (12, 33)},
    {"resize_size": 31},
    {"resize_size": 70},
)


def records() -> list[Preprocessing]:
    """Every mode, filter, form of it and kind of channels."""
    found = []
    for place, (mode, interpolation) in enumerate(itertools.product(MODES, INTERPOLATIONS)):
        for antialias in (True, False):
            if not antialias and interpolation not in ("bicubic", "bilinear"):
                continue
            channels = ("RGB", "BGR", "L", "RGBA")[(place + antialias) % 4]
            found.append(
                Preprocessing(
                    (11, 19), interpolation=interpolation, antialias=antialias, channels=channels,
                    mean=(0.5,), std=(0.25,), **mode,
                )
            )  # fmt: skip
    return found


def pictures_with_alpha(rgb: Image.Image) -> dict[str, bytes]:
    """The PNGs of `make_goldens` whose alpha Pillow and libpng can only understand alike."""
    files = pngs(rgb)
    kept = ("png-rgb", "png-rgba", "png-grey", "png-grey-alpha", "png-palette-256",
            "png-palette-clear", "png-rgb-clear", "png-interlaced")  # fmt: skip
    return {name: files[name] for name in kept}


def main() -> None:
    """Write the file and print its size."""
    rgb = picture(WIDTH, HEIGHT, 3)
    alpha = np.random.default_rng(4).integers(0, 256, (HEIGHT, WIDTH, 1), dtype=np.uint8)
    sources = {"RGB": rgb, "RGBA": np.concatenate([rgb, alpha], axis=2)}
    goldens = {f"source/{mode.lower()}": array for mode, array in sources.items()}
    for place, rules in enumerate(records()):
        text = json.dumps(rules.to_json()).encode()
        goldens[f"rules/{place}"] = np.frombuffer(text, np.uint8)
        goldens[f"pixels/{place}"] = rules.crop(Image.fromarray(sources[rules.source_mode]))
    for name, data in pictures_with_alpha(Image.fromarray(picture(19, 13, 1))).items():
        goldens[f"alpha/{name}/file"] = np.frombuffer(data, np.uint8)
        goldens[f"alpha/{name}/rgba"] = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))
    path = Path(__file__).parent / "data" / "preparation.safetensors"
    save_file({name: np.ascontiguousarray(array) for name, array in goldens.items()}, path)
    print(f"{path.name}: {len(goldens)} tensors, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
