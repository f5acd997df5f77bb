"""Trains a segmenter on scenes, quantizes and compiles it, and says each form's mean IoU.

python -m examples.segmenter [--data eurosat-train.tar --eval-data eurosat-val.tar]
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

import edgevit
from examples.common import REPORT, arguments, forms, trained
from examples.scenes import Scenes, make_scenes, training_and_validation
from examples.segmenter.net import Segmenter


def mean_iou(found: np.ndarray, wanted: np.ndarray, classes: int) -> float:
    """Intersection over union of each class over all pixels, the mean over the classes that are
    there, from 0 to 1; both hold class numbers, of any shape."""
    pairs = np.bincount((wanted.astype(np.int64) * classes + found).ravel(), minlength=classes**2)
    counts = pairs.reshape(classes, classes)
    both, union = counts.diagonal(), counts.sum(0) + counts.sum(1) - counts.diagonal()
    return float((both[union > 0] / union[union > 0]).mean())


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Title of each form -> mean IoU, background included."""
    given = arguments("A segmenter on RepViT", "build/segmenter").parse_args(argv)
    torch.manual_seed(given.seed)
    torch.set_num_threads(given.threads)
    things, others = training_and_validation(given.data, given.eval_data)
    classes = 1 + len(things.names)

    def wanted(scenes: Scenes) -> tuple[np.ndarray]:
        return (scenes.masks.astype(np.int64),)

    net = Segmenter(edgevit.load(given.checkpoint), classes)
    net = trained(net, given, things, wanted, functional.cross_entropy)
    report = make_scenes(others, given.eval_scenes, (given.seed, REPORT), given.size)
    found = {}
    for title, (logits,) in forms(net, given, things, report):
        found[title] = mean_iou(logits.argmax(1), report.masks, classes)
        print(f"{title:20} mIoU {100 * found[title]:.2f}", flush=True)
    return found


if __name__ == "__main__":
    main()
