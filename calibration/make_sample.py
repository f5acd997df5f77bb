"""Makes the embedded default: a sample of EuroSAT and a trained RepViT-M0.9 in fp16.

    python calibration/make_sample.py --train TRAIN.tar --val VAL.tar --checkpoint CKPT.pth

Images are drawn per class by a seeded shuffle and copied byte for byte. The validation sample
comes from images that neither the checkpoint's training nor the fine-tuning has seen.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import random
import tarfile
from pathlib import Path

from edgevit.data.images import ImageSet

HERE = Path(__file__).parent
SEED = 2026
TRAIN_PER_CLASS, VAL_PER_CLASS = 160, 100


def sample(images: ImageSet, per_class: int) -> list[int]:
    """Indices of `per_class` images of each class, in the set's order."""
    chosen = []
    for label in range(len(images.classes)):
        members = [i for i, (_, found) in enumerate(images.entries) if found == label]
        chosen += random.Random(f"{SEED}/{label}").sample(members, per_class)
    return sorted(chosen)


def write_tar(images: ImageSet, indices: list[int], path: Path) -> dict[str, object]:
    """A plain tar with fixed owner and time, so that the same images give the same bytes."""
    files = {}
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for index in indices:
            name, data = images.entries[index][0], images.read_bytes(index)
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o644
            archive.addfile(member, io.BytesIO(data))
            files[name] = hashlib.sha256(data).hexdigest()
    return {
        "file": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "count": len(files),
        "images": files,
    }


def write_checkpoint(source: Path, path: Path) -> dict[str, str]:
    """The tensors of the checkpoint as fp16 safetensors."""
    import torch
    from safetensors.torch import save_file

    tensors = torch.load(source, weights_only=True)
    halves = {name: t.half() if t.is_floating_point() else t for name, t in tensors.items()}
    save_file({name: t.contiguous() for name, t in halves.items()}, path)
    return {
        "file": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "source_sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("train", "val", "checkpoint"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    given = parser.parse_args()
    folder = HERE / "eurosat"
    train, val = ImageSet.open(given.train), ImageSet.open(given.val)
    manifest = {
        "schema_version": 1,
        "name": "EuroSAT RGB, a sample",
        "source": "Helber et al., EuroSAT, IEEE JSTARS 2019 (arXiv 1709.00029); Sentinel-2",
        "licence": "MIT, see LICENSE beside this file",
        "image_size": 64,
        "classes": train.classes,
        "checkpoint": write_checkpoint(
            given.checkpoint, folder / "repvit_m0_9_eurosat64.safetensors"
        ),
        "train": write_tar(train, sample(train, TRAIN_PER_CLASS), folder / "train.tar"),
        "val": write_tar(val, sample(val, VAL_PER_CLASS), folder / "val.tar"),
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


if __name__ == "__main__":
    main()
