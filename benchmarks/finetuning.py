"""What each part of the fine-tuning brings: agreement with float and the logits' error.

    python benchmarks/finetuning.py \\
        --set tiny-imagenet TRAIN.tar repvit_m1_0_tin128.pth 128 \\
        --set eurosat TRAIN.tar repvit_m0_9_eurosat64.pth 64 \\
        [--images 4500] [--select 1000] [--epochs 1] [--seeds 0] [--only NAME ...]

A set is: its name, training images, checkpoint, input size. All candidates start from the same
post-training quantized net and see the same batches. Their figures are of `--select` training
images that neither calibrate nor train; they also choose the best state of a run, as in `quantize`.
Images to report on have no part in it. Figures are written after each candidate; those of an
earlier run of the same --name are kept where they are not measured again.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, machine, write_result
from recipe import BATCH, CALIBRATION_IMAGES, DEFAULT, HOLDOUT, Images, compared, logits_of, placed

from edgevit.data.batches import batch_of, channels_last, draw, split, weights_channels_last
from edgevit.data.distributed import Group
from edgevit.data.source import ImageFolder
from edgevit.graph.float_run import GraphNet
from edgevit.models.checkpoint import load
from edgevit.quantize.finetune import FineTuner
from edgevit.quantize.net import QuantizedNet
from edgevit.quantize.options import QuantizeOptions
from edgevit.quantize.parts import Parts
from edgevit.quantize.ptq import correct_sums
from edgevit.quantize.subject import subject_of
from edgevit.tasks import LossWeights
from edgevit.tasks.classification import Classification


class SquareError(Classification):
    """The mean square error of the logits in place of the distillation loss."""

    def loss(
        self, student: Any, teacher: Any, labels: torch.Tensor, weights: LossWeights
    ) -> torch.Tensor:
        return (self.kept(student) - self.kept(teacher)).square().mean()


class SmallMargins(Classification):
    """Images count by 1 / (margin of the teacher's two best logits + 0.5), 1 on average."""

    def loss(
        self, student: Any, teacher: Any, labels: torch.Tensor, weights: LossWeights
    ) -> torch.Tensor:
        found, wanted = self.kept(student), self.kept(teacher)
        first, second = wanted.topk(2, 1).values.T
        counts = 1 / (first - second + 0.5)
        t = weights.temperature
        target = torch.log_softmax(wanted / t, 1)
        each = (target.exp() * (target - torch.log_softmax(found / t, 1))).sum(1)
        return t**2 * (each * counts).sum() / counts.sum()


@dataclass(frozen=True)
class Candidate:
    """One way to fine-tune.

    options     of `QuantizeOptions`, in place of the defaults
    task        where the loss comes from
    biases      whether the biases are corrected again on the tuned, snapped net
    """

    options: dict[str, Any] = field(default_factory=dict)
    task: Classification = field(default_factory=Classification)
    biases: bool = False


CANDIDATES: dict[str, Candidate] = {
    "default": Candidate(),
    "rates 1e-4 and 1e-3": Candidate({"lr": 1e-4, "scale_lr": 1e-3}),
    "rates 3e-5 and 3e-4": Candidate({"lr": 3e-5, "scale_lr": 3e-4}),
    "rates 3e-6 and 3e-5": Candidate({"lr": 3e-6, "scale_lr": 3e-5}),
    "scales not trained": Candidate({"scale_lr": 0.0}),
    "scales at 1e-3": Candidate({"scale_lr": 1e-3}),
    "temperature 1": Candidate({"temperature": 1.0}),
    "temperature 4": Candidate({"temperature": 4.0}),
    "square error of the logits": Candidate(task=SquareError()),
    "small margins count more": Candidate(task=SmallMargins()),
    "average of 0.999": Candidate({"ema": 0.999}),
    "no average": Candidate({"ema": 0.0}),
    "biases corrected after training": Candidate(biases=True),
}


@dataclass(frozen=True)
class Start:
    """What all candidates of one set and seed begin with; `equalized` is `net` in float."""

    parts: Parts
    net: QuantizedNet
    equalized: GraphNet
    teacher: torch.nn.Module
    calibration: list[torch.Tensor]
    selection: Images


def start_of(given: list[str], options: argparse.Namespace, seed: int) -> Start:
    """The post-training quantized net and the images of a set."""
    _, train_path, checkpoint, side = given
    source = ImageFolder(train_path, size=int(side))
    fit, held = split(len(source), HOLDOUT, 0)
    held = sorted(draw(held, options.select, 1))
    model = load(checkpoint, image_size=int(side)).model
    graph = subject_of(model, batch_of(source, draw(fit, 16, 0)), "training images", None).graph
    teacher = weights_channels_last(GraphNet(graph).eval().requires_grad_(False))
    batch = batch_of(source, draw(fit, CALIBRATION_IMAGES, seed))
    calibration = [channels_last(piece) for piece in batch.split(BATCH)]
    found = placed(graph, DEFAULT, calibration)
    net = QuantizedNet(found.graph, found.activations, found.weight_scales).eval()
    equalized = copy.deepcopy(net.net)
    correct_sums(net, batch)
    pixels = batch_of(source, held)
    selection = Images(pixels, source.labels[held], logits_of(teacher, pixels))
    train = draw(fit, options.images, 2 + seed) if options.images < len(fit) else fit
    parts = Parts(source, source, train, held, [])
    return Start(parts, net, equalized, teacher, calibration, selection)


def tuned(start: Start, candidate: Candidate, epochs: float, seed: int) -> dict[str, Any]:
    """The figures of one candidate's net."""
    options = QuantizeOptions(**{"epochs": epochs, "seed": seed, "batch_size": 64}
                              | candidate.options)  # fmt: skip
    net = copy.deepcopy(start.net)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        history = FineTuner(
            net, start.teacher, candidate.task, start.parts, options,
            Group("cpu", workers=0), Path(folder) / "state.safetensors", 1e6,
        ).run()  # fmt: skip
    net.eval()
    if candidate.biases:
        images = torch.cat(start.calibration)
        correct_sums(net, images, gains=False, float_net=start.equalized)
    found = compared(logits_of(net, start.selection.pixels), start.selection)
    return found | {
        "steps": history.step,
        "best_step": history.best_step,
        "seconds": round(time.perf_counter() - began),
    }


def one_set(
    given: list[str],
    options: argparse.Namespace,
    figures: dict[str, Any],
    write: Callable[[], object],
) -> None:
    """Every candidate on one set, added to the set's figures and written."""
    figures |= {
        "checkpoint": Path(given[2]).name, "image_size": int(given[3]),
        "images": options.images, "epochs": options.epochs,
    }  # fmt: skip
    measured = figures.setdefault("candidates", {})
    chosen = {title: c for title, c in CANDIDATES.items() if title in (options.only or CANDIDATES)}
    measured |= {title: [] for title in ("not fine-tuned", *chosen)}
    for seed in options.seeds:
        start = start_of(given, options, seed)
        plain = copy.deepcopy(start.net)
        plain.snap()
        found = compared(logits_of(plain, start.selection.pixels), start.selection)
        for title in ("not fine-tuned", *chosen):
            if title in chosen:
                found = tuned(start, chosen[title], options.epochs, seed)
            measured[title].append({"seed": seed, **found})
            print(given[0], title, seed, found["logit_rmse"], found["agreement"], flush=True)
            write()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--set", nargs=4, action="append", required=True, dest="sets",
        metavar=("NAME", "TRAIN", "CHECKPOINT", "SIZE"),
    )  # fmt: skip
    parser.add_argument("--images", type=int, default=4500, help="Images to fine-tune on.")
    parser.add_argument("--select", type=int, default=1000, help="Images to select by.")
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", choices=CANDIDATES, default=[])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--name", default="finetuning", help="Of the result file.")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    torch.set_num_threads(options.threads)
    before = machine()
    earlier = RESULTS / f"{options.name}.json"
    sets: dict[str, Any] = json.loads(earlier.read_text())["sets"] if earlier.exists() else {}
    for given in options.sets:
        one_set(
            given,
            options,
            sets.setdefault(given[0], {}),
            lambda: write_result(options.name, {"threads": options.threads, "sets": sets}, before),
        )


if __name__ == "__main__":
    main()
