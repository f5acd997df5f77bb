"""Trains a detector on scenes, quantizes and compiles it, and says each form's mAP.

    python -m examples.detector [--data eurosat-train.tar --eval-data eurosat-val.tar]

Needs pycocotools for the mAP (pip install 'edgevit[examples]').
"""

from __future__ import annotations

import numpy as np
import torch

import edgevit
from examples.common import REPORT, arguments, forms, trained
from examples.detector.boxes import decode, loss, mean_average_precision, targets
from examples.detector.net import Detector
from examples.scenes import Scenes, make_scenes, training_and_validation


def main(argv: list[str] | None = None) -> dict[str, tuple[float, float]]:
    """Title of each form -> mAP over overlaps of 0.5 to 0.95, and at 0.5."""
    given = arguments("A detector on RepViT", "build/detector").parse_args(argv)
    torch.manual_seed(given.seed)
    torch.set_num_threads(given.threads)
    things, others = training_and_validation(given.data, given.eval_data)

    def wanted(scenes: Scenes) -> tuple[np.ndarray, np.ndarray]:
        each = (targets(b, k, given.size) for b, k in zip(scenes.boxes, scenes.kinds, strict=True))
        kinds, distances = zip(*each, strict=True)
        return np.stack(kinds), np.stack(distances)

    net = Detector(edgevit.load(given.checkpoint), len(things.names))
    net = trained(net, given, things, wanted, loss)
    report = make_scenes(others, given.eval_scenes, (given.seed, REPORT), given.size)
    found = {}
    for title, maps in forms(net, given, things, report):
        found[title] = mean_average_precision(
            decode(maps), report.boxes, report.kinds, things.names
        )
        both, half = found[title]
        print(f"{title:20} mAP {100 * both:.2f}, at overlap 0.5 {100 * half:.2f}", flush=True)
    return found


if __name__ == "__main__":
    main()
