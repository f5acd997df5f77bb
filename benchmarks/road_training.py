"""A short training of each step of the road: top-1 with an interval, the same budget for all.

    python benchmarks/road_training.py --data eurosat-train.tar --val eurosat-val.tar --work DIR
        [--images 4000] [--epochs 4] [--seeds 0 1 2] [--steps 0 1 2a ...] [--image-size 64]
        [--threads 1]

Each net (see road_nets.py) is trained from scratch by edgevit's own training loop on the same
`--images` images of `--data`, drawn once, and top-1 on `--val` is measured once, at its end.
Nothing was chosen by what `--val` gave. All steps of a seed come before the next seed. An
interrupted run goes on, and what is finished is read from `--work`; two processes of one thread may
share it, with other seeds each:

    python benchmarks/road_training.py ... --seeds 0 2 &
    python benchmarks/road_training.py ... --seeds 1

What is written is of all nets of this budget that `--work` has finished: their number of seeds is
beside them. A training this short says what a net learns in little time. It is not the paper's
recipe: ImageNet-1k, 300 epochs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import math
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from common import ROOT, machine, write_result
from road_nets import ROAD, STEPS, RoadConfig, seeded_net
from scipy import stats

sys.path.insert(0, str(ROOT))

from edgevit.data.batches import draw, weights_channels_last
from edgevit.data.distributed import Group
from edgevit.data.images import Preprocessing
from edgevit.data.overlap import check_overlap
from edgevit.data.source import ImageFolder
from edgevit.files import atomic_path
from edgevit.runs.deterministic import deterministic
from edgevit.runs.folder import STATE, remove_run, run_folder
from edgevit.train.options import TrainOptions
from edgevit.train.trainer import Trainer, Where
from tests.timm_compat import import_timm

IMAGES_SEED = 0
SNAPSHOT_INTERVAL_S = 30.0


@dataclass(frozen=True)
class Budget:
    """What is the same for every net: all that decides a result but the net and the seed.

    learned   indices of the training images that are learned
    """

    images: ImageFolder
    val: ImageFolder
    learned: list[int]
    options: dict[str, Any]
    threads: int

    def to_json(self) -> dict[str, Any]:
        return {
            "data": {"file": self.images.title, "sha256": self.images.sha256},
            "val": {"file": self.val.title, "sha256": self.val.sha256, "images": len(self.val)},
            "preprocessing": self.images.preprocessing.to_json(),
            "learned_images": len(self.learned),
            "learned_seed": IMAGES_SEED,
            "options": self.options,
            "threads": self.threads,
            "torch": torch.__version__,
        }


def budget_of(args: argparse.Namespace) -> Budget:
    images = ImageFolder(args.data, like=Preprocessing(args.image_size, args.image_size))
    val = ImageFolder(args.val, like=images)
    check_overlap(images.images, val.images)
    options = {
        "epochs": args.epochs, "batch_size": 64, "lr": 1.6e-2, "weight_decay": 0.025,
        "crop_scale": 0.5, "vflip": 0.5, "auto_augment": "none", "color_jitter": 0.0,
        "random_erasing": 0.0, "mixup": 0.0, "cutmix": 0.0, "ema": 0.0, "clip_grad": 0.0,
    }  # fmt: skip
    learned = sorted(draw(range(len(images)), args.images, IMAGES_SEED))
    return Budget(images, val, learned, options, args.threads)


def result_path(work: Path, config: RoadConfig, seed: int) -> Path:
    return work / f"step-{config.step}-seed-{seed}.json"


def finished(path: Path, budget: dict[str, Any]) -> dict[str, Any] | None:
    """A finished net's figures, or None. Ends the program where they are of another budget."""
    if not path.exists():
        return None
    found = json.loads(path.read_text())
    if found["budget"] != budget:
        raise SystemExit(f"{path} is of another budget: repeat its options, or give another --work")
    return found


def train_one(budget: Budget, work: Path, config: RoadConfig, seed: int) -> dict[str, Any]:
    """Train one step's net, or read it where it is finished."""
    path, asked = result_path(work, config, seed), budget.to_json()
    if (found := finished(path, asked)) is not None:
        return found
    options = TrainOptions(seed=seed, **budget.options)
    key = hashlib.sha256(json.dumps([asked, config.step, seed]).encode()).hexdigest()
    folder, group = path.with_suffix(".run"), Group.alone(workers=0)
    with deterministic(group.device), run_folder(folder, key, False, group) as state:
        net = weights_channels_last(seeded_net(config, seed, len(budget.images.classes)))
        where = Where(group, state / STATE, SNAPSHOT_INTERVAL_S)
        trainer = Trainer(net, budget.images, (budget.learned, []), options, None, where)
        begun, first = time.perf_counter(), time.process_time()
        already = (state / STATE).exists()
        history = trainer.run()
        took = None if already else time.perf_counter() - begun
        cpu = None if already else time.process_time() - first
        top1 = trainer.top1(budget.val, list(range(len(budget.val))), "val")
        result = {
            "budget": asked, "step": config.step, "seed": seed, "top1_percent": 100 * top1,
            "losses": [each["loss"] for each in history.evaluations],
            "train_s": took, "train_cpu_s": cpu,
        }  # fmt: skip
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")
        remove_run(folder)
    return result


def interval(values: list[float]) -> dict[str, float | None]:
    """Mean and half of its 95 % interval (Student's t, None of one value)."""
    half = None
    if len(values) > 1:
        error = statistics.stdev(values) / math.sqrt(len(values))
        half = float(stats.t.ppf(0.975, len(values) - 1) * error)
    return {"mean": statistics.fmean(values), "half_width": half}


def collected(work: Path, budget: dict[str, Any]) -> dict[str, Any]:
    """Of every step with a finished net: top-1 by seed, their mean, its interval."""
    rows: dict[str, Any] = {}
    for config in ROAD:
        seeds: dict[int, float] = {}
        for path in sorted(work.glob(f"step-{config.step}-seed-*.json")):
            found = finished(path, budget)
            if found is not None:
                seeds[found["seed"]] = found["top1_percent"]
        if seeds:
            values = [seeds[seed] for seed in sorted(seeds)]
            rows[config.step] = {
                "seeds": sorted(seeds), "top1_percent": values, **interval(values),
            }  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--val", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--images", type=int, default=4000, help="of --data, drawn once")
    parser.add_argument("--epochs", type=float, default=4)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--steps", choices=STEPS, nargs="+", default=list(STEPS))
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    import_timm()
    torch.set_num_threads(args.threads)
    before, budget = machine(), budget_of(args)
    args.work.mkdir(parents=True, exist_ok=True)
    for seed in args.seeds:
        for step in args.steps:
            found = train_one(budget, args.work, STEPS[step], seed)
            print(f"step {step}, seed {seed}: {found['top1_percent']:.2f} %", flush=True)
    figures = {"budget": budget.to_json(), "steps": collected(args.work, budget.to_json())}
    write_result("road-training", figures, before)


if __name__ == "__main__":
    main()
