"""What a second process brings to fine-tuning: images/s of two against one, and of what they sum.

    python benchmarks/distributed.py [--rounds 3] [--steps 12] [--setting 64px]
    python benchmarks/distributed.py --device cuda --processes 1 2

Each process trains with one thread, as `torchrun -m edgevit quantize --threads 1` does: the steps
of edgevit's own FineTuner (RepViT-M0.9 under distillation from its float net, the batch divided
among the processes, gradients summed by gloo or NCCL), timed from one step's beginning to the
next's. The numbers of processes take turns in each round, and their ratio is taken in each round.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import machine, observed_quantizers, write_result

SETTINGS = {"64px": (64, 64), "224px": (224, 16)}  # image size, batch of all processes
IMAGES, CLASSES, WARMUP_STEPS = 256, 10, 2


def one_process(setting: str, steps: int, device: str, tar: Path, folder: Path) -> None:
    """Train, and write the seconds of a step as the main process sees them."""
    import torch

    from edgevit.data.batches import weights_channels_last
    from edgevit.data.distributed import Group
    from edgevit.data.source import ImageFolder
    from edgevit.graph import trace
    from edgevit.graph.float_run import GraphNet
    from edgevit.models.variants import repvit_m0_9
    from edgevit.quantize.finetune import FineTuner
    from edgevit.quantize.net import QuantizedNet
    from edgevit.quantize.options import QuantizeOptions
    from edgevit.quantize.parts import divide
    from edgevit.tasks import load_task

    torch.set_num_threads(1)
    group, (size, batch) = Group(device, workers=0), SETTINGS[setting]
    torch.manual_seed(0)
    net = repvit_m0_9(CLASSES, distillation=False).eval().fuse()
    graph = trace(net, (3, size, size))
    noise = [torch.randn(1, 3, size, size) for _ in range(2)]
    quantized = QuantizedNet(graph, *observed_quantizers(graph, noise)).to(group.device)
    teacher = weights_channels_last(GraphNet(graph).eval()).to(group.device)
    source = ImageFolder(tar, size=size)
    source.pixels(range(len(source)))  # decoding is benchmarks/data.py's
    chosen = QuantizeOptions(batch_size=batch, holdout=0.02, evaluations=1)
    parts = divide(source, source, chosen)
    wanted = (WARMUP_STEPS + steps) * batch / len(parts.train)
    options = QuantizeOptions(batch_size=batch, holdout=0.02, evaluations=1, epochs=wanted)
    began_s: list[float] = []

    class Timed(FineTuner):
        def _set_rate(self, step: int) -> None:  # what each step begins with
            began_s.append(time.perf_counter())
            super()._set_rate(step)

    task = load_task("classification")
    state = folder / "state.safetensors"
    tuner = Timed(quantized, teacher, task, parts, options, group, state, 1e6)
    tuner.run()
    # The step at which the scales are snapped does more.
    steps_s = np.diff(began_s)[WARMUP_STEPS:]
    if group.is_main:
        if len(steps_s) < steps - 1:
            raise SystemExit(f"{len(steps_s)} steps were timed, {steps - 1} were expected")
        step_s = float(np.median(steps_s))
        print(json.dumps({"step_s": step_s, "images_per_s": batch / step_s}))


def write_pictures(path: Path) -> Path:
    from PIL import Image

    with tarfile.open(path, "w") as archive:
        for i in range(IMAGES):
            noise = np.random.default_rng(i).integers(0, 256, (64, 64, 3), np.uint8)
            buffer = io.BytesIO()
            Image.fromarray(noise).save(buffer, "PNG")
            member = tarfile.TarInfo(f"c{i % CLASSES}/{i}.png")
            member.size = buffer.tell()
            archive.addfile(member, io.BytesIO(buffer.getvalue()))
    return path


def job(processes: int, given: argparse.Namespace, tar: Path) -> dict[str, float]:
    """The figures of a torchrun job of so many processes."""
    with tempfile.TemporaryDirectory() as folder:
        own = ["--one", given.setting, str(given.steps), given.device, str(tar), folder]
        command = [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node",
            str(processes), __file__, *own,
        ]  # fmt: skip
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        if done.returncode:
            raise SystemExit(done.stderr)
        return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--setting", choices=SETTINGS, default="64px")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--one", nargs=5, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        setting, steps, device, tar, folder = given.one
        one_process(setting, int(steps), device, Path(tar), Path(folder))
        return
    before = machine()
    runs: dict[int, list[dict[str, float]]] = {count: [] for count in given.processes}
    with tempfile.TemporaryDirectory() as folder:
        tar = write_pictures(Path(folder) / "pictures.tar")
        for _ in range(given.rounds):
            for count in given.processes:
                runs[count].append(job(count, given, tar))
                print(count, "processes", runs[count][-1], flush=True)
    first, (size, batch) = runs[given.processes[0]], SETTINGS[given.setting]
    figures: dict[str, Any] = {
        "device": given.device, "image_size": size, "batch": batch, "timed_steps": given.steps,
    }  # fmt: skip
    for count, found in runs.items():
        ratios = [a["images_per_s"] / b["images_per_s"] for a, b in zip(found, first, strict=True)]
        figures[f"{count} processes"] = {
            "images_per_s": statistics.median(run["images_per_s"] for run in found),
            f"ratio_to_{given.processes[0]}": statistics.median(ratios),
            "ratios": ratios,
        }
    write_result(f"distributed-{given.device}-{given.setting}", figures, before)


if __name__ == "__main__":
    main()
