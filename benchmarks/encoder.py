"""A SAM image encoder in int8: accuracy against float, size, latency and peak memory.

    python benchmarks/encoder.py FOLDER [--form edgesam|repvit-sam] [--checkpoint SAM.pth]
        [--body CKPT] [--image-size 1024] [--calibration 2] [--rounds 3] [--threads 1]

FOLDER holds pictures; they are scaled up to the image size where they are smaller. Without a
--checkpoint the weights are random ones: batch norms get their statistics by a pass over the
calibration images, and --body puts a real checkpoint's weights into the trunk, where its stages are
as wide and deep. Random weights say what the arithmetic costs; they say nothing of masks.

Accuracy is the gate's, on a tenth of the images, which nothing calibrates on. Latency is LiteRT's
(XNNPACK) in Python on noise, float32 and int8 in turn, each in a process of its own, whose growth
from before the model is read to its peak is the memory. Figures go to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import ROOT, machine, write_result

if TYPE_CHECKING:
    from torch import Tensor

    from edgevit.models.sam import SamEncoder

FORMS = {"edgesam": ("repvit_m1", True), "repvit-sam": ("repvit_m2_3", False)}
STATISTICS_IMAGES = 4
RANDOM_BOUND = 1e-2
"""On what fusing may change: fifty random blocks in a row make more of float32's roundings."""

_INVOKE = """
import json, sys, time
import numpy as np
from ai_edge_litert.interpreter import Interpreter
status = lambda: dict(line.split(":", 1) for line in open("/proc/self/status"))
peak = lambda: 1024 * int(status()["VmHWM"].split()[0])
before = peak()
model = Interpreter(model_path=sys.argv[1], num_threads=int(sys.argv[2]))
model.allocate_tensors()
(source,) = model.get_input_details()
noise = np.random.default_rng(0).normal(0, 40, source["shape"])
model.set_tensor(source["index"], noise.astype(source["dtype"]))
times = []
for _ in range(int(sys.argv[3]) + 1):
    start = time.perf_counter()
    model.invoke()
    times.append(time.perf_counter() - start)
print(json.dumps({"seconds": min(times[1:]), "peak_bytes": peak() - before}))
"""


def make_encoder(form: str, body: Path | None, images: Tensor) -> tuple[SamEncoder, str]:
    """An encoder without trained weights, in eval mode, and what its weights are."""
    import torch
    from torch import nn

    from edgevit.models.checkpoint import load
    from edgevit.models.sam import SamEncoder, sam_config
    from edgevit.models.variants import variant_config

    torch.manual_seed(0)
    variant, fusion = FORMS[form]
    config = variant_config(variant, distillation=False)
    trunk = None if body is None else load(body).model
    if trunk is not None:
        if (trunk.config.widths, trunk.config.depths) != (config.widths, config.depths):
            raise SystemExit(f"{body}: its stages are not those of {variant}")
        config = trunk.config
    net = SamEncoder(sam_config(config, fusion))
    if trunk is not None:
        own = net.state_dict().keys()
        held = {name: t for name, t in trunk.state_dict().items() if name in own}
        net.load_state_dict(held, strict=False)
        return net.eval(), f"the trunk of {body.name if body else ''}, the neck random (seed 0)"
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None  # the mean over all batches
            nn.init.uniform_(layer.weight, 0.2, 1.0)
            nn.init.normal_(layer.bias, std=0.1)
    with torch.no_grad():
        for image in images.split(2):
            net.train()(image)
    return net.eval(), f"random (seed 0), batch norms by a pass over {len(images)} images"


def invoked(path: Path, threads: int, runs: int) -> dict[str, float]:
    command = [sys.executable, "-c", _INVOKE, str(path), str(threads), str(runs)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    return json.loads(done.stdout.splitlines()[-1])


def interleaved(made: dict[str, Path], rounds: int, threads: int) -> dict[str, Any]:
    """Medians over the rounds, and the float32 artifact's time over int8's of each round."""
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in made}
    for _ in range(rounds):
        for kind, path in made.items():
            found[kind].append(invoked(path, threads, 2))
    ratios = [
        f["seconds"] / i["seconds"] for f, i in zip(found["float32"], found["int8"], strict=True)
    ]
    seconds = {k: statistics.median(each["seconds"] for each in v) for k, v in found.items()}
    peaks = {k: max(each["peak_bytes"] for each in v) for k, v in found.items()}
    return {
        "invoke_ms": {k: round(1000 * v, 1) for k, v in seconds.items()},
        "speed_up": {"median": round(statistics.median(ratios), 2),
                     "min": round(min(ratios), 2), "max": round(max(ratios), 2)},
        "peak_mb": {k: round(v / 1e6, 1) for k, v in peaks.items()},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pictures", type=Path, metavar="FOLDER")
    parser.add_argument("--form", choices=FORMS, default="edgesam")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--body", type=Path)
    parser.add_argument("--image-size", type=int, default=1024)
    parser.add_argument("--calibration", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    import edgevit
    from edgevit.data.batches import batch_of, draw
    from edgevit.data.options import PreprocessingOptions
    from edgevit.models.sam import SamEncoder, signal_to_noise
    from edgevit.quantize.options import QuantizeOptions
    from edgevit.targets import load_target
    from edgevit.tasks.features import FeatureGate

    before = machine()
    rules = edgevit.Preprocessing.from_options(
        PreprocessingOptions(
            image_size=given.image_size,
            resize_mode="fit",
            pad_position="top-left",
            pad_color=(124, 116, 104),
        )
    )
    source = edgevit.ImageFolder(given.pictures, labelled=False, like=rules)
    few = batch_of(source, draw(range(len(source)), min(STATISTICS_IMAGES, len(source)), 0))
    if given.checkpoint is not None:
        net, weights = edgevit.load(given.checkpoint), f"those of {given.checkpoint.name}"
        if not isinstance(net, SamEncoder):
            raise SystemExit(f"{given.checkpoint}: no SAM encoder")
    else:
        net, weights = make_encoder(given.form, given.body, few)
    bilinear = net.with_upsample("bilinear")
    lost = None if bilinear is net else round(signal_to_noise(net, bilinear, few[:2]), 2)
    print(f"weights: {weights}", flush=True)
    start = time.perf_counter()
    result = edgevit.quantize(
        bilinear, source, task="features", epochs=0, calibration_images=given.calibration,
        min_sqnr=0.0, min_cosine=0.0, workers=0,
        bound=RANDOM_BOUND if given.checkpoint is None else QuantizeOptions.bound,
    )  # fmt: skip
    took = time.perf_counter() - start
    gate = result.gate
    assert isinstance(gate, FeatureGate)
    (output,) = gate.outputs
    with tempfile.TemporaryDirectory() as name:
        folder, made = Path(name), {}
        for kind in ("float32", "int8"):
            load_target("tflite").compile(result.program, folder / kind, precision=kind)
            made[kind] = folder / kind / "model.tflite"
        sizes = {kind: round(path.stat().st_size / 1e6, 2) for kind, path in made.items()}
        timed = interleaved(made, given.rounds, given.threads)
    figures = {
        "form": given.form,
        "weights": weights,
        "weights_are_random": given.checkpoint is None,
        "image_size": given.image_size,
        "pictures": given.pictures.name,
        "calibration_images": given.calibration,
        "reported_images": gate.count,
        "bilinear_for_bicubic_db": lost,
        "sqnr_db": round(output.sqnr_db, 2),
        "cosine": round(output.cosine, 5),
        "quantize_s": round(took, 1),
        "size_mb": sizes,
        "threads": given.threads,
        "rounds": given.rounds,
        **timed,
    }
    print(json.dumps(figures, indent=1))
    write_result(f"encoder-{given.form}-{given.image_size}px", figures, before)


if __name__ == "__main__":
    main()
