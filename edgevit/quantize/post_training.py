"""What a run does before it trains: equalize, place, calibrate, correct sums, measure."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgevit.data.batches import batch_of, channels_last, draw
from edgevit.data.distributed import Group
from edgevit.graph.float_run import GraphNet
from edgevit.ops import Quantizer
from edgevit.quantize.equalize import equalize
from edgevit.quantize.net import QuantizedNet
from edgevit.quantize.place import place
from edgevit.quantize.ptq import correct_sums
from edgevit.quantize.run import Run, program_now
from edgevit.runs.folder import METRICS, POST_TRAINING
from edgevit.runs.snapshot import read_snapshot, write_snapshot

CALIBRATION_BATCH = 16
CORRECTION_IMAGES, CORRECTION_PIXELS = 256, 256 * 224**2
"""The most that sums are corrected on; they are held for all of these at once."""


def post_training(run: Run, float_outputs: Tensor) -> tuple[QuantizedNet, dict[str, Any] | None]:
    """Equalize, place, calibrate, correct sums; measured, and kept for a resumed run.

    float_outputs   what the task keeps of the float net's, on the reported images
    The second of the two is the proof of the equalizing, None where nothing was equalized.
    """
    path = run.folder / POST_TRAINING
    if run.group.is_main and not path.exists():
        _make(run, path, float_outputs)
    run.group.wait()
    tensors, state = read_snapshot(path)
    activations = {name: Quantizer(**q) for name, q in state["activations"].items()}
    scales = {n.removeprefix("scale."): t for n, t in tensors.items() if n.startswith("scale.")}
    ordered = {name: scales[name].numpy() for name in state["layers"]}
    net = QuantizedNet(run.graph, activations, ordered)
    net.load_state_dict({n[4:]: t for n, t in tensors.items() if n.startswith("net.")})
    return net.to(run.group.device), state["equalization"]


def _make(run: Run, path: Path, float_outputs: Tensor) -> None:
    o, parts = run.options, run.parts
    score_name, score_title = run.task.score_name, run.task.score_title
    chosen = draw(parts.train, o.calibration_images, o.seed)
    run.say(f"calibrating with NNCF on {len(chosen)} images ...")
    batch = batch_of(parts.images, chosen).to(run.group.device)
    pieces = [channels_last(piece) for piece in batch.split(CALIBRATION_BATCH)]
    graph, equalized = equalize(run.graph, pieces) if o.equalize else (run.graph, None)
    if equalized is not None:
        run.say(str(equalized))
    activations, scales, completed = place(graph, pieces, o.profile, o.ranges)
    alone = Group.alone(run.group.device, workers=run.group.workers)
    labels = torch.from_numpy(parts.report_labels)

    def score(net: Callable[[Tensor], Any], title: str) -> float:
        return run.task.score(run.outputs(net, title, alone), labels, float_outputs)

    metrics = {}
    if o.activation != "gelu":
        swapped = score(GraphNet(run.graph).eval().to(alone.device), o.activation)
        metrics[f"swapped_float_{score_name}"] = swapped
        run.say(
            f"{o.activation} in place of GELU: float {score_title} {100 * swapped:.2f} % before it "
            "is healed"
        )
    net = QuantizedNet(graph, activations, scales).eval().to(alone.device)
    before = metrics[f"ptq_uncorrected_{score_name}"] = score(program_now(run, net), "PTQ")
    pixels = batch.shape[2] * batch.shape[3]
    enough = min(CORRECTION_IMAGES, max(1, CORRECTION_PIXELS // pixels))
    shift = correct_sums(net, batch[:enough])
    after = score(program_now(run, net), "PTQ, sums corrected")
    metrics[f"ptq_{score_name}"] = after
    run.say(
        f"NNCF and the completion pass: {len(activations)} activation quantizers, {len(completed)} "
        f"of all quantizers added; {score_title} {100 * before:.2f} %, with gains and biases "
        f"corrected {100 * after:.2f} % (largest shift {shift:.3g})"
    )
    (run.folder / METRICS).write_text(json.dumps(metrics))
    tensors = {f"net.{n}": t for n, t in net.state_dict().items()}
    tensors |= {f"scale.{n}": torch.from_numpy(s) for n, s in scales.items()}
    state = {
        "activations": {name: vars(q) for name, q in activations.items()},
        "layers": list(net.layers),
        "equalization": equalized and equalized.to_json(),
    }
    write_snapshot(path, tensors, state)
