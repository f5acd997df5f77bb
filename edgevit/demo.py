"""The whole path on the embedded default: EuroSAT sample, trained RepViT-M0.9, every target."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgevit.data.images import Preprocessing
from edgevit.data.options import PreprocessingOptions
from edgevit.errors import ToolMissing
from edgevit.files import check_target, remove_written, writing
from edgevit.options import check, option
from edgevit.project import EMBEDDED

if TYPE_CHECKING:
    from edgevit.program import Program

EPOCHS = 8.0
# A thousand images and two minutes of training: the drop is known to about a point.
MAX_DROP = 1.5
TARGETS = ("tflite", "coreml")
ARTIFACTS: dict[str, tuple[str, dict[str, Any]]] = {
    "tflite": ("tflite", {}),
    "coreml": ("coreml", {}),
    "tflite-float32": ("tflite", {"precision": "float32"}),
}
"""Folder -> target and options of each artifact."""
MARKER, PROGRAM, VAL = "demo.json", "model.evq", "val.tar"
REPORT_FILES = ("report.json", "report.html")
LAYER_IMAGES = 16
IMAGE_SIZE = 64


@dataclass(frozen=True)
class DemoOptions:
    """Where the demo writes. Raises InputError when it is no path."""

    output: Path = option(
        Path("build/demo"), "Folder for everything the demo writes.", short="-o", metavar="DIR"
    )

    def __post_init__(self) -> None:
        check(self)


def run_demo(out: Path, force: bool) -> dict[str, Any]:
    """Quantize, compile, validate and report into the folder `out`; returns the report.

    Takes 2 to 5 minutes on two cores. A run that was interrupted goes on from where it was; with
    `force`, a finished one is removed first. Raises what its steps raise, InputError for a folder
    that holds anything but a demo; GateFailed when the artifact is not as good as it must be.
    """
    from edgevit.measure.report.page import write_report
    from edgevit.program import Program

    if not EMBEDDED.is_dir():
        raise ToolMissing(f"the embedded images are not at {EMBEDDED}: install edgevit again")
    started_s = time.monotonic()
    _claim(out, force)
    program = Program.load(_quantized(out))
    _measure(program, out)
    # A report of an interrupted run may be there in part.
    report = write_report(out, force=True)
    report["seconds"] = round(time.monotonic() - started_s)
    report["gate"] = _gate_line(program)
    return report


def _claim(out: Path, force: bool) -> None:
    """Make the folder, or find it as an interrupted demo left it."""
    check_target(out, force=True, listing=written_demo)
    if all((out / name).exists() for name in REPORT_FILES):
        check_target(out, force, listing=written_demo)
        remove_written(out, written_demo(out))
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        (out / MARKER).write_text(json.dumps({"schema_version": 1, "kind": "edgevit-demo"}))


def written_demo(out: Path) -> set[str]:
    """The files in a demo's folder that edgevit wrote; none without its marker."""
    from edgevit.runs.folder import RUN_SUFFIX, written_run
    from edgevit.targets.artifact import written_files

    if not (out / MARKER).is_file():
        return set()
    names = {MARKER, PROGRAM, *REPORT_FILES}
    names |= {f"{PROGRAM}{RUN_SUFFIX}/{n}" for n in written_run(out / (PROGRAM + RUN_SUFFIX))}
    for artifact in ARTIFACTS:
        names |= {f"{artifact}/{name}" for name in written_files(out / artifact)}
    return names


def _quantized(out: Path) -> Path:
    from edgevit.quantize.from_files import Source, quantize_files
    from edgevit.quantize.options import QuantizeOptions

    path = out / PROGRAM
    if not path.exists():
        checkpoint = EMBEDDED / "repvit_m0_9_eurosat64.safetensors"
        rules = Preprocessing.from_options(PreprocessingOptions(image_size=IMAGE_SIZE))
        source = Source(checkpoint, EMBEDDED / "train.tar", rules, EMBEDDED / VAL)
        options = QuantizeOptions(epochs=EPOCHS, augment="dihedral", max_drop=MAX_DROP)
        quantize_files(source, path, options)
    return path


def _measure(program: Program, out: Path) -> None:
    """Compile for every target, validate and compare, but for what is there already."""
    from edgevit.measure.parity import compare
    from edgevit.measure.proof import proof_of
    from edgevit.measure.request import HarnessRequest, ValidateOptions
    from edgevit.measure.validate import validate
    from edgevit.targets import load_target

    for name, (target, more) in ARTIFACTS.items():
        if not (out / name).exists():
            load_target(target).compile(program, out / name, **more)
    val = EMBEDDED / VAL
    for name, judged in (
        ("tflite-float32", ValidateOptions(gate=False)),
        ("tflite", ValidateOptions(max_drop=MAX_DROP)),
    ):
        proof = proof_of(out / name)
        if proof.validation is None or (judged.gate and not proof.passed):
            validate(HarnessRequest(out / name, val), judged, force=True)
    for target in TARGETS:
        if proof_of(out / target).parity is None:
            compare(out / target, val, layer_images=LAYER_IMAGES, force=True)


def _gate_line(program: Program) -> str:
    """What the program's gate came to, of the figures it holds."""
    found = {metric.name: metric for metric in program.info.metrics}
    float_top1, top1 = found["float_top1"].value, found["program_top1"]
    return (
        f"top-1 {100 * top1.value:.2f} % against {100 * float_top1:.2f} % on {top1.count} images, "
        f"allowed drop {MAX_DROP:.2f}"
    )
