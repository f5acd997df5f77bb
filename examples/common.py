"""What both examples do with a net: train it, quantize it, compile it, run each of its forms."""

from __future__ import annotations

import argparse
import logging
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import edgevit
from examples.scenes import Scenes, Things, make_scenes

EMBEDDED = Path(__file__).resolve().parents[1] / "calibration" / "eurosat"
REPORT, QUANTIZE, TRAIN = 0, 1, 2
"""Second number of the seeds of the scenes: no part has a scene of another's."""
BATCH = 16

Maps = tuple[np.ndarray, ...]
"""A net's outputs for N images: float32 (N, C, H, W) each."""


def arguments(description: str, out: str) -> argparse.ArgumentParser:
    """The options of both examples."""
    parser = argparse.ArgumentParser(description=description)
    add = parser.add_argument
    add("--data", type=Path, help="class-folder set whose images are pasted; default: shapes")
    add("--eval-data", type=Path, help="the same for validation; default: a fifth of --data")
    add(
        "--checkpoint",
        type=Path,
        default=EMBEDDED / "repvit_m0_9_eurosat64.safetensors",
        help="RepViT classifier that gives the body; default: the embedded M0.9",
    )
    add("--size", type=int, default=128, help="side of a scene, pixels: a multiple of 32")
    add("--frozen-steps", type=int, default=400, help="of training around the body as it is")
    add("--steps", type=int, default=600, help="of training the whole net after that")
    add("--scenes", type=int, default=2000, help="that calibrate, fine-tune and select")
    add("--epochs", type=float, default=2, help="of fine-tuning the quantized net")
    add("--eval-scenes", type=int, default=500, help="to report on")
    add("--target", action="append", help="tflite (the default), onnx, coreml or tensorrt")
    types = ("int8", "float32")
    add("--output-type", choices=types, default="int8", help="of the quantized nets' outputs")
    add("--float-net", type=Path, help="weights that an earlier run left: no training")
    add("--seed", type=int, default=0)
    add("--threads", type=int, default=torch.get_num_threads())
    add("--out", type=Path, default=Path(out), help="folder for weights, programs and artifacts")
    return parser


def trained(
    net: nn.Module,
    given: argparse.Namespace,
    things: Things,
    targets: Callable[[Scenes], tuple[np.ndarray, ...]],
    loss: Callable[..., Tensor],
) -> nn.Module:
    """The float net: trained on scenes that are made as it learns, or read from `--float-net`.

    targets     scenes -> arrays that `loss(outputs, ...)` takes behind the outputs, as tensors
    """
    given.out.mkdir(parents=True, exist_ok=True)
    if given.float_net is not None:
        net.load_state_dict(torch.load(given.float_net, weights_only=True))
        return net.eval()

    def batches(first: int, count: int) -> Iterator[tuple[np.ndarray, ...]]:
        for step in range(first, first + count):
            scenes = make_scenes(things, BATCH, (given.seed, TRAIN, step), given.size)
            yield scenes.images, *targets(scenes)

    body = [p for name, p in net.named_parameters() if name.startswith("body.")]
    rest = [p for name, p in net.named_parameters() if not name.startswith("body.")]
    net.train()
    for title, first, steps, rates in (
        ("around the body", 0, given.frozen_steps, (1e-2, 0.0)),
        ("the whole net", given.frozen_steps, given.steps, (3e-3, 5e-4)),
    ):
        for parameter in body:
            parameter.requires_grad_(rates[1] > 0)
        groups = [{"params": p, "lr": r} for p, r in zip((rest, body), rates, strict=True) if r]
        optimizer = torch.optim.AdamW(groups, weight_decay=1e-4)
        _optimize(net, batches(first, steps), steps, loss, optimizer, title)
    torch.save(net.state_dict(), given.out / "float.pth")
    return net.eval()


def _optimize(
    net: nn.Module,
    batches: Iterator[tuple[np.ndarray, ...]],
    steps: int,
    loss: Callable[..., Tensor],
    optimizer: torch.optim.Optimizer,
    title: str,
) -> None:
    """Warm-up, then a cosine down to a hundredth."""
    cosine = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min(1, (step + 1) / 50, 0.505 + 0.495 * math.cos(math.pi * step / steps)),
    )
    begun_s, shown = time.monotonic(), max(1, steps // 4)
    losses: list[float] = []
    for images, *wanted in batches:
        found = loss(net(normalised(images)), *map(torch.from_numpy, wanted))
        optimizer.zero_grad()
        found.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 10)
        optimizer.step()
        cosine.step()
        losses.append(float(found.detach()))
        if len(losses) % shown == 0:
            print(
                f"{title}: {len(losses)} of {steps} steps, {time.monotonic() - begun_s:.0f} s, "
                f"loss {np.mean(losses[-shown:]):.3f}",
                flush=True,
            )


def normalised(images: np.ndarray) -> Tensor:
    """uint8 (N, S, S, 3) to float32 (N, 3, S, S), by ImageNet's mean and deviation."""
    return edgevit.Preprocessing(images.shape[1], images.shape[1]).normalise(images)


def run(net: Callable[[Tensor], Any], images: np.ndarray) -> Maps:
    """The outputs of a net, or of a quantized program."""
    with torch.no_grad():
        parts = [net(normalised(images[i : i + BATCH])) for i in range(0, len(images), BATCH)]
    return tuple(torch.cat(maps).numpy() for maps in zip(*map(_several, parts), strict=True))


def _several(outputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (outputs,) if isinstance(outputs, Tensor) else outputs


def forms(
    net: nn.Module, given: argparse.Namespace, things: Things, report: Scenes
) -> Iterator[tuple[str, Maps]]:
    """The net's outputs on the reported scenes: float, after PTQ, after fine-tuning, and those of
    each artifact; the title of each first.

    Needs no label: the quantized net is held to the float net's own maps.
    """
    logging.basicConfig(level="INFO", format="%(message)s")
    yield "float", run(net, report.images)
    scenes = make_scenes(things, given.scenes, (given.seed, QUANTIZE), given.size).images
    # No gate on the maps: what the boxes or masks of them are worth is measured instead.
    chosen: dict[str, Any] = {
        "task": "features", "seed": given.seed, "min_sqnr": -100, "min_cosine": -1,
        "output_type": {"all": given.output_type},
    }  # fmt: skip
    program = None
    for title, epochs in (("PTQ", 0.0), ("fine-tuned", given.epochs)):
        if program is None or epochs:
            result = edgevit.quantize(net, scenes, report.images, epochs=epochs, **chosen)
            program = result.program
            yield title, run(program, report.images)
    assert program is not None
    program.save(given.out / "model.evq", force=True)
    for target in given.target or ["tflite"]:
        artifact = program.compile(target, given.out / target, force=True)
        yield f"artifact {target}", tuple(artifact.outputs(report.images).values())
