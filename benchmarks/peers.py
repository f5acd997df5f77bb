"""Peers of the same net in one run: what others make of the float net that edgevit quantizes.

    python benchmarks/peers.py --name eurosat --checkpoint repvit_m0_9_eurosat64.pth \\
        --image-size 64 --train eurosat-train.tar --val eurosat-val.tar --tuned model.evq \\
        [--images 2000] [--rounds 7] [--envs build/peers] [--only NAME]

Every peer of `benchmarks/peers/` quantizes the fused float net of the checkpoint, each in an
environment of its own (made once, below --envs, from the versions that the peer's file pins; about
7 GB for all) and all of them on the 256 training images that `edgevit quantize` calibrates on. A
peer whose SCALES are "given" is handed the scales of --tuned instead. Beside them stand edgevit's
own `--epochs 0` program, which is made here once, and the fine-tuned program --tuned.

All artifacts answer the same validation images, evenly spread over the set, TFLite files under
LiteRT and ONNX files under ONNX Runtime, one thread. Agreement and logit RMSE are against the
float net in torch. Latency is measured in turn, round by round: a round's ratio is a file's median
over that of edgevit's fine-tuned artifact of the same format, by the clock and in CPU time, which
other work on the machine disturbs less. A peer that fails, or whose environment cannot be made, is
a row "not run" with the reason. What was made before is used again.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from common import machine, write_result
from peer_environments import FOLDER, NotRun, make_artifact, peers
from peer_files import open_artifact, other_scales

FORMATS = ("tflite", "onnx")
LEAST_INVOKES, LEAST_SECONDS, WARM_UP = 5, 0.3, 2
Row = dict[str, Any]
Times = tuple[float, float]
"""By the clock and of the CPU, in microseconds."""


def not_run(title: str, form: str, reason: str) -> Row:
    """The row of a peer without figures."""
    return {"title": title, "format": form, "state": "not run", "reason": reason}


def quality(logits: np.ndarray, labels: np.ndarray, float_logits: np.ndarray) -> Row:
    """Top-1 and agreement in percent of N images, logit RMSE in logits."""
    best = logits.argmax(1)
    error = float(np.sqrt(np.mean((logits.astype(np.float64) - float_logits) ** 2)))
    return {
        "images": len(labels),
        "top1_percent": round(100 * float((best == labels).mean()), 3),
        "agreement_float_percent": round(100 * float((best == float_logits.argmax(1)).mean()), 3),
        "logit_rmse": round(error, 4),
    }


def answers(opened: Any, images: np.ndarray, path: Path, kept: Path) -> np.ndarray:
    """An artifact's logits (N, classes); kept for the next run under the file's own digest."""
    digest = hashlib.sha256(path.read_bytes())
    digest.update(f"{images.shape} {opened.runtime}".encode())
    file = kept / f"logits-{digest.hexdigest()[:16]}.npy"
    if file.exists():
        return np.load(file)
    found = np.stack([opened.answer(image) for image in images])
    np.save(file, found)
    return found


def interleaved(
    runs: Mapping[str, Callable[[], Any]],
    rounds: int,
    time_one: Callable[[Callable[[], Any]], Times],
) -> dict[str, list[Times]]:
    """Each run once a round, every round beginning with another: its times by name."""
    times: dict[str, list[Times]] = {name: [] for name in runs}
    names = list(runs)
    for done in range(rounds):
        first = done % len(names) if names else 0
        for name in names[first:] + names[:first]:
            times[name].append(time_one(runs[name]))
        print(f"round {done + 1} of {rounds}", file=sys.stderr)
    return times


def median_us(invoke: Callable[[], Any]) -> Times:
    """The median times of an inference, in microseconds, of one round."""
    for _ in range(WARM_UP):
        invoke()
    clock: list[float] = []
    cpu: list[float] = []
    begun = time.perf_counter()
    while len(clock) < LEAST_INVOKES or time.perf_counter() - begun < LEAST_SECONDS:
        start, start_cpu = time.perf_counter(), time.thread_time()
        invoke()
        cpu.append(time.thread_time() - start_cpu)
        clock.append(time.perf_counter() - start)
    return 1e6 * statistics.median(clock), 1e6 * statistics.median(cpu)


def latency(times: Mapping[str, list[Times]], reference: str) -> dict[str, Row]:
    """Medians, and what each takes against the reference: the rounds' ratios.

    `invoke` is by the clock, which counts what else the machine did; `cpu` by the thread's own
    CPU time, which is the same on a machine without other work.
    """
    found: dict[str, Row] = {name: {} for name in times}
    for place, which in enumerate(("invoke", "cpu")):
        one = [each[place] for each in times[reference]]
        for name, pairs in times.items():
            own = [each[place] for each in pairs]
            ratios = [mine / its for mine, its in zip(own, one, strict=True)]
            ends = {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}
            found[name] |= {
                f"{which}_p50_us": round(statistics.median(own), 1),
                f"{which}_against_edgevit": {key: round(end, 3) for key, end in ends.items()},
            }
    return found


class Comparison:
    """The rows of one net as they are found, and the artifacts that are timed at the end."""

    def __init__(self, images: Any, kept: Path) -> None:
        self.images, self.kept = images, kept
        self.rows: dict[str, Row] = {}
        self._opened: dict[str, Any] = {}

    def measure(self, name: str, title: str, path: Path, opened: Any, **facts: Any) -> None:
        """Adds an artifact's row; what fails on the way makes it "not run"."""
        form = path.suffix.removeprefix(".")
        try:
            logits = answers(opened, self.images.values, path, self.kept)
            opened.answer(self.images.values[0])
            row = {
                "title": title, "format": form, "state": "run", "runtime": opened.runtime,
                **quality(logits, self.images.labels, self.images.float_logits),
                "operators": opened.operators(), "size_bytes": path.stat().st_size, **facts,
            }  # fmt: skip
        except Exception as error:  # of a file that others wrote: anything
            self.rows[name] = not_run(title, form, f"its artifact does not run: {error}"[:300])
            return
        self.rows[name], self._opened[name] = row, opened
        print(name, {key: row[key] for key in row if "percent" in key}, flush=True)

    def fail(self, name: str, title: str, form: str, reason: str) -> None:
        self.rows[name] = not_run(title, form, reason)
        print(f"{name}: not run: {reason}", flush=True)

    def time(self, rounds: int, references: Mapping[str, str]) -> None:
        """Adds latency to the rows, each format among its own.

        references  format -> name of the row that is 1
        """
        for form, reference in references.items():
            runs = {
                name: opened.invoke
                for name, opened in self._opened.items()
                if self.rows[name]["format"] == form
            }
            if reference in runs:
                for name, found in latency(interleaved(runs, rounds, median_us), reference).items():
                    self.rows[name] |= found


def our_program(given: argparse.Namespace) -> Path:
    """The `--epochs 0` program, made once; its own report is on few images, for ours is here."""
    path = given.work / "ptq.evq"
    if not path.exists():
        subprocess.run(
            [
                sys.executable, "-m", "edgevit", "quantize", str(given.checkpoint), "--data",
                str(given.train), "--eval-data", str(given.val), "--image-size",
                str(given.image_size), "--epochs", "0", "--eval-images", "200", "--threads", "1",
                "-o", str(path),
            ],
            check=True,
        )  # fmt: skip
    return path


def add_ours(found: Comparison, name: str, title: str, program: Any, work: Path) -> None:
    """edgevit's artifacts of a program, as `edgevit compile` makes them by default."""
    from edgevit.targets import load_target
    from edgevit.targets.onnx.options import OnnxOptions
    from edgevit.targets.onnx.session import settings_of

    for form, settings in (("tflite", None), ("onnx", settings_of(OnnxOptions()))):
        target, folder = load_target(form), work / f"{name}-{form}"
        start = time.perf_counter()
        target.compile(program, folder, True)  # audited: every scale is the program's
        seconds = {"convert": round(time.perf_counter() - start, 3)}
        path = folder / target.file
        opened = open_artifact(path, settings)
        scales = {"how": "given", **other_scales(program.graph(), opened.scales())}
        found.measure(f"{name}_{form}", title, path, opened, scales=scales, seconds=seconds)


def add_peers(
    found: Comparison, inputs: dict[str, Path], graph: Any, given: argparse.Namespace
) -> None:
    """A row a peer of `benchmarks/peers/`."""
    key = hashlib.sha256()
    for name in ("float_tflite", "calibration", "given_tflite"):
        key.update(inputs[name].read_bytes())
    for peer in peers(given.peers):
        if given.only and peer.name not in given.only:
            found.fail(peer.name, peer.title, peer.format, "left out by --only")
            continue
        try:
            path, answer = make_artifact(
                peer, inputs, key.hexdigest(), envs=given.envs, work=given.work,
                threads=1, timeout_s=given.timeout,
            )  # fmt: skip
        except NotRun as error:
            found.fail(peer.name, peer.title, peer.format, str(error))
            continue
        try:
            opened = open_artifact(path)
            scales = {"how": peer.scales}
            if peer.scales == "given":
                scales |= other_scales(graph, opened.scales())
        except Exception as error:  # of a file that others wrote: anything
            reason = f"its artifact cannot be read: {error}"[:300]
            found.fail(peer.name, peer.title, peer.format, reason)
            continue
        found.measure(peer.name, peer.title, path, opened, scales=scales, **answer)


def markdown(rows: Mapping[str, Row]) -> str:
    """The table of docs/peers.md."""
    lines = [
        "| | top-1 % | agrees with float % | logit RMSE | other scales | on floats | MB | time |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows.values():
        form = {"tflite": "TFLite", "onnx": "ONNX"}[row["format"]]
        if row["state"] != "run":
            reason = row["reason"].partition(". ")[0]
            lines.append(f"| {row['title']}, {form} | not run: {reason} | | | | | | |")
            continue
        scales, operators = row["scales"], row["operators"]
        others = scales["how"]
        if others == "given":
            others = (
                f"{scales['other_activations']} of {scales['activations']}, "
                f"{scales['other_weights']} ({scales['far_weights']}) of {scales['weights']}"
            )
        floats = f"{operators['float']} of {operators['total']}"
        if "run" in operators:
            floats += f" (run: {operators['run']['float']} of {operators['run']['total']})"
        ratio = row.get("cpu_against_edgevit")
        taken = "" if ratio is None else "{median:.2f} ({min:.2f} to {max:.2f})".format(**ratio)
        lines.append(
            f"| {row['title']}, {form} | {row['top1_percent']:.2f} | "
            f"{row['agreement_float_percent']:.2f} | {row['logit_rmse']:.3f} | {others} | "
            f"{floats} | {row['size_bytes'] / 1e6:.2f} | {taken} |"
        )
    return "\n".join(lines)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("checkpoint", "train", "val", "tuned"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--name", required=True, help="of the result: peers-NAME.json")
    parser.add_argument("--image-size", type=int, required=True)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--envs", type=Path, default=Path("build/peers"))
    parser.add_argument("--work", type=Path, help="default: build/peers-NAME")
    parser.add_argument("--only", action="append", help="these peers alone; may be repeated")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds a peer may take")
    parser.add_argument("--peers", type=Path, default=FOLDER, help="where the peers' programs are")
    given = parser.parse_args(arguments)
    given.work = given.work or Path(f"build/peers-{given.name}")
    return given


def compare(given: argparse.Namespace, net: Any, post: Any, tuned: Any) -> Row:
    """The figures of one net: every artifact made, asked and timed.

    net    float and fused; post and tuned are its programs
    """
    from peer_inputs import (
        CALIBRATION_IMAGES,
        Images,
        calibration,
        evenly,
        float_files,
        float_logits,
        given_files,
    )

    rules, work = tuned.info.preprocessing, given.work
    inputs = float_files(net, tuned, work) | given_files(tuned, work)
    inputs["calibration"] = calibration(given.train, rules, work / "calibration.npy")
    values, labels = evenly(given.val, rules, given.images)
    found = Comparison(Images(values, labels, float_logits(net, values)), work)
    for form in FORMATS:
        path = inputs[f"float_{form}"]
        scales = {"how": "float"}
        found.measure(f"float_{form}", "float32", path, open_artifact(path), scales=scales)
    add_ours(found, "edgevit_ptq", "edgevit, --epochs 0", post, work)
    add_ours(found, "edgevit_tuned", "edgevit, fine-tuned", tuned, work)
    add_peers(found, inputs, tuned.graph(), given)
    found.time(given.rounds, {form: f"edgevit_tuned_{form}" for form in FORMATS})
    return {
        "net": tuned.info.model.variant,
        "image_size": tuned.info.model.image_size,
        "validation_set": given.val.name,
        "calibration_images": CALIBRATION_IMAGES,
        "threads": 1,
        "rounds": given.rounds,
        "load_average_1min_at_the_end": machine()["load_average_1min"],
        "rows": found.rows,
    }


def main() -> None:
    given, before = parse(), machine()
    import torch

    import edgevit
    from edgevit.program import Program

    torch.set_num_threads(1)
    given.work.mkdir(parents=True, exist_ok=True)
    net = edgevit.load(given.checkpoint).fuse().eval()
    programs = Program.load(our_program(given)), Program.load(given.tuned)
    figures = compare(given, net, *programs)
    print(markdown(figures["rows"]))
    write_result(f"peers-{given.name}", figures, before)


if __name__ == "__main__":
    main()
