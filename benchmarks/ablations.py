"""The paper's ablations by training from scratch: branches on or off, SE none, every, every other.

    python benchmarks/ablations.py --data eurosat-train.tar --val eurosat-val.tar \\
        --work build/ablations [--epochs 10] [--seeds 0 1 2] [--variant repvit_m0_6]

Each net is trained by `edgevit train` with each seed, in turn; top-1 on `--val` is measured once
each, and a difference to the paper's net (branches, every other block) is paired by seed. An
interrupted run goes on: finished nets are read from `--work`. arXiv 2307.09283, section 5 and its
tables of ablations, are of ImageNet-1k at 300 epochs: at a tenth of that, on other images, orders
need not be the same.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import statistics
from pathlib import Path
from typing import Any

import torch
from common import machine, write_result
from scipy import stats

NETS: dict[str, dict[str, Any]] = {
    "the paper's": {},
    "no branches": {"reparameterization": False},
    "no SE": {"se": "none"},
    "SE in every block": {"se": "every"},
}


def trained(args: argparse.Namespace, name: str, seed: int) -> float:
    """Top-1 of one net, a fraction of 1."""
    from edgevit.data.images import Preprocessing
    from edgevit.data.source import ImageFolder
    from edgevit.runs.options import MachineOptions
    from edgevit.train.options import TrainOptions
    from edgevit.train.run import train

    out = args.work / f"{name.replace(' ', '-').replace(chr(39), '')}-{seed}"
    report = out / "training.json"
    if not report.exists():
        images = ImageFolder(args.data, like=Preprocessing(args.image_size, args.image_size))
        options = TrainOptions(
            variant=args.variant, epochs=args.epochs, seed=seed, batch_size=128, lr=8e-3,
            crop_scale=0.5, vflip=0.5, auto_augment="rand-m5-mstd0.5-inc1", mixup=0.2, cutmix=0,
            random_erasing=0.1, ema=0.999, clip_grad=0, **NETS[name],
        )  # fmt: skip
        val = ImageFolder(args.val, like=images)
        train(images, val, out, options, MachineOptions(workers=args.workers))
    return float(json.loads(report.read_text())["top1"])


def interval(values: list[float]) -> dict[str, float | None]:
    """The mean and half of its 95 % interval (Student's t); None of a single value."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return {"mean": mean, "half_width": None}
    error = statistics.stdev(values) / math.sqrt(len(values))
    return {"mean": mean, "half_width": float(stats.t.ppf(0.975, len(values) - 1) * error)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--val", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--variant", default="repvit_m0_6")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--epochs", type=float, default=10)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(os.cpu_count() or 1)
    before = machine()
    top1: dict[str, list[float]] = {name: [] for name in NETS}
    for seed in args.seeds:
        for name in NETS:
            top1[name].append(100 * trained(args, name, seed))
            print(name, seed, f"{top1[name][-1]:.2f} %", flush=True)
    paper = top1["the paper's"]
    rows = {
        name: {
            "top1_percent": values,
            **interval(values),
            "points_against_the_papers": interval([a - b for a, b in zip(values, paper)]),
        }
        for name, values in top1.items()
    }
    asked = {"variant": args.variant, "epochs": args.epochs, "image_size": args.image_size}
    write_result("ablations", {"asked": asked, "seeds": args.seeds, "nets": rows}, before)


if __name__ == "__main__":
    main()
