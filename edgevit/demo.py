"""The whole path on the embedded default: EuroSAT sample, trained RepViT-M0.9, every target."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgevit.data.images import Preprocessing
from edgevit.data.options import PreprocessingOptions
from edgevit.errors import ToolMissing
from edgevit.files import check_target
from edgevit.options import check, option

EMBEDDED = Path(__file__).resolve().parent.parent / "calibration" / "eurosat"
EPOCHS = 8.0
# A thousand images and two minutes of training: the drop is known to about a point.
MAX_DROP = 1.5
TARGETS = ("tflite", "coreml")
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

    Takes 2 to 5 minutes on two cores. Raises what its steps raise; GateFailed when the artifact
    is not as good as it must be. A run that was interrupted goes on from where it was.
    """
    from edgevit.measure.parity import compare
    from edgevit.measure.report.page import write_report
    from edgevit.measure.request import HarnessRequest, ValidateOptions
    from edgevit.measure.validate import validate
    from edgevit.program import Program
    from edgevit.quantize.from_files import Source, quantize_files
    from edgevit.quantize.options import QuantizeOptions
    from edgevit.targets import load_target

    if not EMBEDDED.is_dir():
        raise ToolMissing(
            f"the embedded images are not at {EMBEDDED}: run the demo from a checkout of edgevit"
        )
    started_s = time.monotonic()
    marker = out / "demo.json"
    if (out / "report.json").exists() or (out / "model.evq").exists():
        check_target(out, force)
        _clear(out, marker)
    out.mkdir(parents=True, exist_ok=True)
    marker.write_text(json.dumps({"schema_version": 1, "kind": "edgevit-demo"}))
    checkpoint = EMBEDDED / "repvit_m0_9_eurosat64.safetensors"
    val = EMBEDDED / "val.tar"
    preprocessing = Preprocessing.from_options(PreprocessingOptions(image_size=IMAGE_SIZE))
    source = Source(checkpoint, EMBEDDED / "train.tar", preprocessing, val)
    options = QuantizeOptions(epochs=EPOCHS, augment="dihedral", max_drop=MAX_DROP)
    result = quantize_files(source, out / "model.evq", options)
    program = Program.load(out / "model.evq")
    for target in TARGETS:
        load_target(target).compile(program, out / target)
    load_target("tflite").compile(program, out / "tflite-float32", precision="float32")
    validate(HarnessRequest(out / "tflite-float32", val), ValidateOptions(gate=False))
    validate(HarnessRequest(out / "tflite", val), ValidateOptions(max_drop=MAX_DROP))
    for target in TARGETS:
        compare(out / target, val, layer_images=LAYER_IMAGES)
    report = write_report(out)
    report["seconds"] = round(time.monotonic() - started_s)
    report["gate"] = str(result.gate)
    return report


def _clear(out: Path, marker: Path) -> None:
    """Remove an earlier demo's folder, and nothing else."""
    if not marker.exists():
        from edgevit.errors import InputError

        raise InputError(
            f"{out} was not written by `edgevit demo`: not replaced; choose another -o"
        )
    shutil.rmtree(out)
