"""RepViT and the rivals of its paper on this CPU: size and latency, float32 and int8, as ratios.

    python benchmarks/rivals.py [--peers DIR] [--rounds 3] [--threads 1] [--only NAME ...] [--all]

Every net has seeded random weights, which take as long as trained ones; batch norms have the
statistics of a few images. 224 px, FastViT 256 px as its paper has it, EfficientNet-B3 288 px. A
net whose operations edgevit knows is written by edgevit, float32 and int8. DIR is an environment of
litert-torch, which writes the float32 file of the others (attention, other norms; minutes each, the
first time), and of ai-edge-quantizer, which makes a static int8 file (int8 weights and activations)
of every float32 file:

    python3.11 -m venv DIR && DIR/bin/pip install torch==2.13.0 torchvision==0.28.0 timm==1.0.29 \\
        litert-torch==0.10.0 ai-edge-litert==2.3.0      (3 GB; a CPU build of torch will do)

Its files are kept in DIR/rivals and used again. Without DIR, and for a net that a tool refuses, a
figure is missing and the reason stands in its place. All files run in LiteRT's Python interpreter,
the same for all, in turn: each round runs each file once, in an order of its own, and a ratio is
of times within a round. The iPhone 12 figures beside them are the paper's (arXiv 2307.09283 v8,
tables 1 and 2, and its README's picture): 1 ms there is not 1 ms here, so that both are ratios to
RepViT-M0.9. Rivals of over 20 M parameters are left out without --all.
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from common import ROOT, machine, write_result
from modes import interpreter

sys.path.insert(0, str(ROOT))
BASE = "repvit_m0_9"
KINDS = ("float32", "int8", "int8 (ai-edge-quantizer)")
OWN_INT8, PEER_INT8 = KINDS[1:]
CALIBRATION_IMAGES = 4
CLASS_POINTS = 1.0
LIMIT_S = 1200.0


@dataclass(frozen=True)
class Rival:
    """A net as published.

    name        edgevit's variant, or timm's net
    params_m, gmacs, ms, top1   published; None where the paper prints none. ms: iPhone 12
    distilled   whether top1 is of table 1 (distilled, 300 epochs) or a distilled net in the picture
    large       whether it is left out without --all
    """

    name: str
    params_m: float | None
    gmacs: float | None
    ms: float
    top1: float
    distilled: bool = True
    size: int = 224
    large: bool = False


RIVALS = (
    Rival("repvit_m0_6", 2.5, 0.4, 0.6, 74.1),
    Rival("repvit_m0_9", 5.1, 0.8, 0.9, 78.7),
    Rival("repvit_m1_0", 6.8, 1.1, 1.0, 80.0),
    Rival("repvit_m1_1", 8.2, 1.3, 1.1, 80.7),
    Rival("repvit_m1_5", 14.0, 2.3, 1.5, 82.3),
    Rival("repvit_m2_3", 22.9, 4.5, 2.3, 83.3),
    Rival("fastvit_t8", 3.6, 0.7, 0.9, 76.7, size=256),
    Rival("fastvit_s12", 8.8, 1.8, 1.5, 80.9, size=256),
    Rival("fastvit_sa12", 10.9, 1.9, 1.8, 81.9, size=256),
    Rival("swiftformer_xs", 3.5, 0.6, 1.0, 75.7),
    Rival("swiftformer_s", 6.1, 1.0, 1.2, 78.5),
    Rival("swiftformer_l1", 12.1, 1.6, 1.6, 80.9),
    Rival("swiftformer_l3", 28.5, 4.0, 2.9, 83.0, large=True),
    Rival("efficientformerv2_s0", 3.5, 0.4, 0.9, 75.7),
    Rival("efficientformerv2_s1", 6.1, 0.7, 1.1, 79.0),
    Rival("efficientformerv2_s2", 12.6, 1.3, 1.6, 81.6),
    Rival("efficientformerv2_l", 26.1, 2.6, 2.7, 83.3, large=True),
    Rival("efficientformer_l1", 12.3, 1.3, 1.4, 79.2),
    Rival("efficientformer_l3", 31.3, 3.9, 2.7, 82.4, large=True),
    Rival("efficientformer_l7", 82.1, 10.2, 6.6, 83.3, large=True),
    Rival("mobileone_s1", None, None, 0.9, 75.9, False),
    Rival("mobileone_s2", None, None, 1.1, 77.4, False),
    Rival("mobileone_s3", None, None, 1.3, 78.1, False),
    Rival("mobileone_s4", None, None, 1.6, 79.4, False),
    Rival("fastvit_t12", None, None, 1.4, 80.3, size=256),
    Rival("fastvit_sa24", None, None, 2.8, 83.4, size=256, large=True),
    Rival("efficientnet_b0", None, None, 1.4, 77.1, False),
    Rival("efficientnet_b3", None, None, 5.3, 81.6, False, size=288),
    Rival("poolformer_s12", None, None, 1.5, 77.2, False),
    Rival("poolformer_s24", None, None, 2.4, 80.3, False, large=True),
    Rival("poolformer_s36", None, None, 3.5, 81.4, False, large=True),
    Rival("mobilenetv3_large_100", None, None, 1.01, 71.5, False),
)
"""MobileNetV3-L is the road's, with GELU there and hard-swish here."""
BASE_TOP1 = {True: 78.7, False: 77.4}
"""RepViT-M0.9's, distilled and not."""


@dataclass
class Measured:
    """params, macs: of the net as it is compiled (fused), or else as timm builds it."""

    rival: Rival
    params: int | None = None
    macs: int | None = None
    written_by: str | None = None
    files: dict[str, Path] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    times_us: dict[str, list[float]] = field(default_factory=dict)


class Peers:
    """The tools of another environment; files that they made are kept there."""

    def __init__(self, folder: Path | None, images: dict[int, Path]) -> None:
        self.python = None if folder is None else folder / "bin" / "python"
        self.kept = None if folder is None else folder / "rivals"
        self.images = images
        if self.python is not None and not self.python.is_file():
            sys.exit(f"{folder} is no environment: make it as the text of --help says")

    def float32(self, rival: Rival, net: Any, work: Path) -> Path:
        import torch

        out = self._place(f"{rival.name}-{rival.size}.tflite")
        if not out.exists():
            weights = work / "weights.pt"
            torch.save(net.state_dict(), weights)
            self._run("float32", rival.name, str(rival.size), str(weights), out=out)
        return out

    def int8(self, rival: Rival, float_model: Path) -> Path:
        """Made anew of a file that edgevit wrote: the file may have changed."""
        kept = self.kept is not None and float_model.parent == self.kept
        out = self._place(f"{rival.name}-{rival.size}-int8.tflite")
        if not (kept and out.exists()):
            self._run("int8", str(float_model), str(self.images[rival.size]), out=out)
        return out

    def _place(self, name: str) -> Path:
        if self.kept is None:
            raise RuntimeError("no --peers")
        self.kept.mkdir(exist_ok=True)
        return self.kept / name

    def _run(self, *words: str, out: Path) -> None:
        part = out.with_suffix(".part")
        worker = Path(__file__).with_name("rivals_peer.py")
        try:
            done = subprocess.run(
                [str(self.python), str(worker), *words, str(part)],
                capture_output=True, text=True, errors="replace", timeout=LIMIT_S, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise RuntimeError(f"took over {LIMIT_S:.0f} s") from error
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            raise RuntimeError(lines[-1][:300] if lines else f"exit code {done.returncode}")
        part.replace(out)


def build(rival: Rival) -> Any:
    """The net with seeded weights, in eval mode."""
    import torch

    from edgevit.measure.timing_program import settle
    from edgevit.models.variants import VARIANTS
    from tests.timm_compat import import_timm

    torch.manual_seed(0)
    if rival.name in VARIANTS:
        return settle(VARIANTS[rival.name](distillation=False), rival.size, 0).fuse()
    import_timm()
    from edgevit.models.timm_nets import untrained

    return settle(untrained(f"timm:{rival.name}", rival.size), rival.size, 0)


def make(found: Measured, peers: Peers, work: Path) -> None:
    """Write the files of a net, or say why one is not there."""
    from edgevit.errors import EdgevitError
    from edgevit.graph import trace
    from edgevit.graph.count import count
    from edgevit.measure.timing_program import timing_program
    from edgevit.targets import load_target

    rival = found.rival
    net = build(rival)
    try:
        graph = trace(net, (3, rival.size, rival.size))
        counted = count(graph)
        found.params, found.macs = counted.parameters, counted.macs
        program, target = timing_program(graph, rival.name), load_target("tflite")
        for kind in KINDS[:2]:
            folder = work / f"{rival.name}-{kind}"
            target.compile(program, folder, precision=kind)
            found.files[kind] = folder / target.file
        found.written_by = "edgevit"
    except EdgevitError as error:
        found.params, found.macs = torch_count(net, rival.size)
        found.problems[OWN_INT8] = str(error).partition("\n")[0]
        try:
            found.files["float32"] = peers.float32(rival, net, work)
            found.written_by = "litert-torch"
        except RuntimeError as failed:
            found.problems["float32"] = f"not run: {failed}"
    if "float32" not in found.files:
        found.problems[PEER_INT8] = "not run: there is no float32 file"
        return
    try:
        found.files[PEER_INT8] = peers.int8(rival, found.files["float32"])
    except RuntimeError as failed:
        found.problems[PEER_INT8] = f"not run: {failed}"


def torch_count(net: Any, size: int) -> tuple[int, int]:
    """Parameters and MACs of a torch net as it is, products of two tensors among them."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        net(torch.zeros(1, 3, size, size))
    return sum(p.numel() for p in net.parameters()), counter.get_total_flops() // 2


def write_images(work: Path, sizes: set[int]) -> dict[int, Path]:
    """Normalised images of the embedded set by size, (N, H, W, 3), for the peer's calibration."""
    from edgevit.measure.timing_program import embedded_images

    found = {}
    for size in sizes:
        found[size] = work / f"images-{size}.npy"
        images = embedded_images(size, CALIBRATION_IMAGES)
        np.save(found[size], images.permute(0, 2, 3, 1).contiguous().numpy())
    return found


def measure(nets: list[Measured], images: dict[int, Path], rounds: int, threads: int) -> None:
    """Every file once a round; a file that LiteRT refuses has a problem in place of a time."""
    values = {size: np.load(path)[:1] for size, path in images.items()}
    pairs = [(found, kind) for found in nets for kind in found.files]
    for number in range(rounds):
        random.Random(number).shuffle(order := list(pairs))
        for found, kind in order:
            try:
                # Loaded anew each time: all of them at once would not leave a cache to any.
                run = interpreter(found.files[kind], threads, values[found.rival.size])
                time_us = run()
            except (RuntimeError, ValueError) as error:
                found.problems[kind] = f"LiteRT: {str(error).strip().splitlines()[0]}"
                pairs.remove((found, kind))
                found.times_us.pop(kind, None)
            else:
                found.times_us.setdefault(kind, []).append(time_us)
        print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)


def ratio(own: list[float] | None, other: list[float] | None) -> dict[str, float] | None:
    """own / other: of the rounds' ratios the median, the least and the most."""
    if not own or not other:
        return None
    each = [a / b for a, b in zip(own, other, strict=True)]
    values = {"median": statistics.median(each), "min": min(each), "max": max(each)}
    return {name: round(value, 3) for name, value in values.items()}


def row_of(found: Measured, base: Measured) -> dict[str, Any]:
    rival, times = found.rival, found.times_us
    return {
        "net": rival.name,
        "image_size": rival.size,
        "parameters": found.params,
        "macs": found.macs,
        "published": {
            "parameters_m": rival.params_m, "gmacs": rival.gmacs, "iphone12_ms": rival.ms,
            "top1": rival.top1, "distilled": rival.distilled,
        },
        "float32_written_by": found.written_by,
        "size_bytes": {kind: path.stat().st_size for kind, path in found.files.items()},
        "p50_us": {kind: round(statistics.median(each), 1) for kind, each in times.items()},
        "time_over_m0_9": {
            kind: ratio(times.get(kind), base.times_us.get(kind)) for kind in KINDS
        },
        "iphone12_over_m0_9": round(rival.ms / base.rival.ms, 2),
        "float32_over_int8": ratio(times.get("float32"), times.get(OWN_INT8)),
        "own_int8_over_peer_int8": ratio(times.get(OWN_INT8), times.get(PEER_INT8)),
        "problems": found.problems,
    }  # fmt: skip


def verdicts(nets: list[Measured], base: Measured) -> dict[str, Any]:
    """The two goals: where they hold, where not, and what was not measured."""
    slower, unknown = {}, []
    for found in nets:
        each = ratio(found.times_us.get(OWN_INT8), found.times_us.get(PEER_INT8))
        if each is None:
            unknown.append(found.rival.name)
        elif each["median"] > 1:
            slower[found.rival.name] = each
    own = base.times_us.get(OWN_INT8)
    rivals: dict[str, Any] = {}
    for found in nets:
        rival = found.rival
        near = abs(rival.top1 - BASE_TOP1[rival.distilled]) <= CLASS_POINTS
        if rival.name.startswith("repvit") or not near:
            continue
        files = {
            kind: each
            for kind in (OWN_INT8, PEER_INT8)
            if (each := ratio(found.times_us.get(kind), own)) is not None
        }
        best = min(files, key=lambda kind: files[kind]["median"], default=None)
        rivals[rival.name] = {
            "top1": rival.top1,
            "distilled": rival.distilled,
            "best_int8": best,
            "time_over_m0_9": files[best] if best else None,
            "m0_9_is_faster": files[best]["median"] > 1 if best else None,
        }
    return {
        "own_int8_slower_than_peer_int8": slower,
        "without_both_int8_files": unknown,
        "m0_9_int8_against_its_accuracy_class": rivals,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", type=Path, help="environment of the other tools")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=[], help="names; RepViT-M0.9 is always there")
    parser.add_argument("--all", action="store_true", help="rivals over 20 M parameters as well")
    given = parser.parse_args()
    known = {rival.name for rival in RIVALS}
    if unknown := set(given.only) - known:
        sys.exit(f"{', '.join(sorted(unknown))}: not one of {', '.join(sorted(known))}")
    chosen = [
        Measured(rival)
        for rival in RIVALS
        if rival.name in {BASE, *given.only} or not (given.only or (rival.large and not given.all))
    ]
    before, started = machine(), time.monotonic()
    (base,) = (found for found in chosen if found.rival.name == BASE)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        images = write_images(work, {found.rival.size for found in chosen})
        peers = Peers(None if given.peers is None else given.peers.absolute(), images)
        for found in chosen:
            start = time.monotonic()
            make(found, peers, work)
            took_s = time.monotonic() - start
            print(f"{found.rival.name}: files {took_s:.0f} s", file=sys.stderr, flush=True)
        measure(chosen, images, given.rounds, given.threads)
        rows = [row_of(found, base) for found in chosen]
    figures = {
        "threads": given.threads,
        "rounds": given.rounds,
        "runtime": f"LiteRT {before['versions']['ai-edge-litert']}, Python interpreter",
        "weights": "random (seed 0), batch norms by a pass over 8 images",
        "seconds": round(time.monotonic() - started),
        "rows": rows,
        "goals": verdicts(chosen, base),
    }
    show(figures)
    write_result("rivals" + ("-some" if given.only else ""), figures, before)


def show(figures: dict[str, Any]) -> None:
    times = " ".join(f"{kind:>15}" for kind in ("float32", "int8", "peer's int8"))
    print(f"{'net':22} {'px':>4} {'M':>6} {'MMACs':>6} {times} {'iPhone':>6} {'top-1':>6}")
    for row in figures["rows"]:
        texts = []
        for kind in KINDS:
            each = row["time_over_m0_9"][kind]
            time_us = row["p50_us"].get(kind)
            texts.append(f"{time_us / 1e3:7.2f} {each['median']:5.2f}×" if each else "not run")
        params, macs = (row["parameters"] or 0) / 1e6, (row["macs"] or 0) / 1e6
        print(
            f"{row['net']:22} {row['image_size']:4} {params:6.2f} {macs:6.0f} "
            + " ".join(f"{text:>15}" for text in texts)
            + f" {row['iphone12_over_m0_9']:6.2f} {row['published']['top1']:6.1f}"
        )
        for kind, why in row["problems"].items():
            print(f"    {kind}: {why}")
    goals = figures["goals"]
    for name, each in goals["own_int8_slower_than_peer_int8"].items():
        print(
            f"{name}: our int8 takes {each['median']:.3f} ({each['min']:.3f} to {each['max']:.3f}) "
            "times as long as ai-edge-quantizer's"
        )
    for name, each in goals["m0_9_int8_against_its_accuracy_class"].items():
        if each["time_over_m0_9"] is None:
            print(f"{name} ({each['top1']} %): no int8 file that runs")
        else:
            print(
                f"{name} ({each['top1']} %): {each['best_int8']}, "
                f"{each['time_over_m0_9']['median']:.2f} times RepViT-M0.9's time"
            )


if __name__ == "__main__":
    main()
