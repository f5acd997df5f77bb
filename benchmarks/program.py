"""Images a second of `Program.run`, against an older edgevit's in the same run.

    git worktree add build/before 0f395e3
    python benchmarks/program.py --before build/before [--programs M.evq ...] [--sizes 64 128 224]
                                 [--threads N] [--images 32] [--rounds 5] [--device cpu]

Each version runs in a process of its own. Rounds take turns, so that another program's load meets
both; the best round of each is reported, and the median of the rounds' ratios. On a machine that
others use the processor's seconds say more than the clock's: both are written. The logits of the
two must be equal (of a program without products of two tensors, whose rounding changed behind
0f395e3), and are compared. Without `--programs`: a seeded RepViT-M0.9 and M1.0 of each size,
calibrated by the largest values of four images, which take time and have no accuracy.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from common import ROOT, machine, observed_quantizers, write_result

VARIANTS = ("m0_9", "m1_0")
WORKER = """
import sys, time, torch
from edgevit.program import Program
path, images, threads, device, out = sys.argv[1:]
torch.set_num_threads(int(threads))
program = Program.load(path)
torch.manual_seed(0)
x = torch.randn(int(images), *program.graph().input_shape[1:])
x = x.contiguous(memory_format=torch.channels_last).to(device)
torch.save(program.run(x).cpu(), out)
print("ready", flush=True)
for _ in sys.stdin:
    wall, cpu = time.perf_counter(), time.process_time()
    program.run(x).cpu()
    print(time.perf_counter() - wall, time.process_time() - cpu, flush=True)
"""


class Version:
    """A process that runs one program by the edgevit of one folder."""

    def __init__(self, root: Path, program: Path, given: argparse.Namespace, logits: Path) -> None:
        self.logits = logits
        words = [program, given.images, given.threads, given.device, logits]
        self._process = subprocess.Popen(
            [sys.executable, "-c", WORKER, *map(str, words)],
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root.resolve())},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._read()

    def round(self) -> tuple[float, float]:
        """Seconds by the clock and of the processor."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        wall, cpu = self._read().split()
        return float(wall), float(cpu)

    def close(self) -> None:
        self._process.communicate()

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            sys.exit("a version ended before it gave a figure; its message is above")
        return line


def seeded_program(variant: str, size: int, folder: Path) -> Path:
    """A program of a net with seeded weights."""
    import torch

    from edgevit.data.images import Preprocessing
    from edgevit.graph import trace
    from edgevit.graph.ties import tie_free, to_fp16_grid
    from edgevit.models import repvit
    from edgevit.program import ModelInfo, ProgramInfo, build_program

    torch.manual_seed(0)
    net = getattr(repvit, f"repvit_{variant}")(num_classes=1000).eval().fuse()
    images = [torch.randn(4, 3, size, size)]
    graph = trace(net, (3, size, size))
    info = ProgramInfo(
        ModelInfo(f"repvit_{variant}", 1000, size),
        "portable",
        Preprocessing(image_size=size),
        tuple(map(str, range(1000))),
        {},
    )
    found, weights = observed_quantizers(graph, images)
    scales = tie_free(graph, {name: quantizer.scale for name, quantizer in found.items()})
    snapped = {name: replace(quantizer, scale=scales[name]) for name, quantizer in found.items()}
    on_grid = {name: to_fp16_grid(scale) for name, scale in weights.items()}
    program = build_program(graph, snapped, on_grid, info)
    return program.save(folder / f"repvit_{variant}-{size}.evq")


def measure(path: Path, given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Figures of one program."""
    import torch

    now = Version(ROOT, path, given, folder / "now.pt")
    versions = [now]
    if given.before:
        versions.append(Version(given.before, path, given, folder / "before.pt"))
    rounds = [[version.round() for version in versions] for _ in range(given.rounds)]
    for version in versions:
        version.close()
    names = ("now", "before")
    result: dict[str, Any] = {}
    for name, times in zip(names, zip(*rounds)):
        walls, processors = zip(*times)
        result[name] = {
            "images_per_s": round(given.images / min(walls), 1),
            "cpu_ms_per_image": round(1e3 * min(processors) / given.images, 2),
        }
    if given.before:
        for kind, index in (("by_clock", 0), ("by_cpu_time", 1)):
            ratios = [before[index] / new[index] for new, before in rounds]
            result[f"times_faster_{kind}"] = round(statistics.median(ratios), 2)
        logits = [torch.load(v.logits, weights_only=True) for v in versions]
        result["images_with_equal_logits"] = int((logits[0] == logits[1]).all(1).sum())
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", type=Path, help="a checkout of the version to compare with")
    parser.add_argument("--programs", type=Path, nargs="*", default=[])
    parser.add_argument("--sizes", type=int, nargs="*", default=[64, 128, 224])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--result", default="program", help="name of the file of figures")
    given = parser.parse_args()
    before = machine()
    figures = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        paths = [path.resolve() for path in given.programs] or [
            seeded_program(variant, size, folder) for variant in VARIANTS for size in given.sizes
        ]
        for path in paths:
            figures[path.stem] = measure(path, given, folder)
            print(path.stem, figures[path.stem], flush=True)
    shown = {key: getattr(given, key) for key in ("threads", "images", "rounds", "device")}
    write_result(given.result, {**shown, "programs": figures}, before)


if __name__ == "__main__":
    main()
