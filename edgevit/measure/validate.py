"""Runs the C++ harness over labelled images and judges what it measured."""

from __future__ import annotations

import json
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgevit.data.images import ImageSet
from edgevit.errors import GateFailed, InputError
from edgevit.files import atomic_path, check_target
from edgevit.measure.devices import open_device, run_on_device
from edgevit.measure.harness import SOURCES, measuring_options, run_harness
from edgevit.targets.manifest import Manifest
from edgevit.tasks.gate import GateResult, gate

SCHEMA_VERSION = 1
RESULT_NAME = "validation.json"
_NO_CLASS = -1


@dataclass(frozen=True)
class Limits:
    """What an artifact must reach: top-1 points below float, percent agreement with the program."""

    max_drop: float
    min_agreement: float

    @classmethod
    def of_target(
        cls, target: str, max_drop: float | None = None, min_agreement: float | None = None
    ) -> Limits:
        """The given limits; those not given are the budgets in targets/TARGET/target.toml."""
        path = SOURCES / "targets" / target / "target.toml"
        try:
            budgets = tomllib.loads(path.read_text("utf-8"))["budgets"]
        except OSError as error:
            raise InputError(f"unknown target {target!r}: there is no {path}") from error
        return cls(
            budgets["max_accuracy_drop_points"] if max_drop is None else max_drop,
            budgets["min_program_agreement_percent"] if min_agreement is None else min_agreement,
        )


@dataclass(frozen=True)
class Validation:
    """The harness's result and the gates, None where there was nothing to compare with.

    After an early stop because both gates surely hold, the gates count the images that were not
    run as wrong: their figures are bounds, and the result's are of the images that were run.
    """

    result: dict[str, Any]
    accuracy: GateResult | None
    agreement: GateResult | None
    limits: Limits
    device: str = "local"  # or "ssh", "adb": the address is its owner's

    @property
    def passed(self) -> bool:
        return not self.failures()

    def failures(self) -> list[str]:
        """One line for each gate that does not hold."""
        lines = []
        if self.accuracy is not None and not self.accuracy.passed:
            lines.append(f"accuracy against {self.compared_with}: {self.accuracy}")
        if self.agreement is not None and self.agreement.agreement < self.limits.min_agreement:
            lines.append(
                f"agreement with the program is {self.agreement.agreement:.2f} % of "
                f"{self.agreement.count} images, below {self.limits.min_agreement:.2f} %"
            )
        return lines

    @property
    def compared_with(self) -> str:
        return "float" if self.result["agreement_float"] else "the quantized program"

    def to_json(self) -> dict[str, Any]:
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": "edgevit-validation",
            "device": self.device,
            "passed": self.passed,
            "failures": self.failures(),
            "accuracy_gate": self.accuracy
            and {"against": self.compared_with, **self.accuracy.to_json()},
            "agreement_gate": self.agreement
            and {
                "agreement": self.agreement.agreement,
                "count": self.agreement.count,
                "min_agreement": self.limits.min_agreement,
                "passed": self.agreement.agreement >= self.limits.min_agreement,
            },
            "result": self.result,
        }


def validate(
    artifact: Path,
    data: Path,
    *,
    out: Path | None = None,
    program: Path | None = None,
    max_drop: float | None = None,
    min_agreement: float | None = None,
    apply_gates: bool = True,
    force: bool = False,
    device: str = "local",
    keep: bool = True,
    early_stop: bool = False,
    **harness: Any,
) -> Validation:
    """Run the artifact on the images, write the JSON (default: validation.json in the artifact).

    The gates compare with the logits recorded in the artifact for exactly these images; for other
    images `program` (.evq) is run on them first. The limits default to the target's budgets;
    without `apply_gates` the artifact is only measured. `device` is "local",
    "ssh://user@host[:port]" or "adb:SERIAL", where what was sent stays if `keep`; `early_stop` ends
    the run when the gates are decided. Other keywords go to `run_harness` (threads, warmup, limit,
    backend, runtime, harness, duration_s, bucket_s, mlperf).

    Raises InputError for bad input, GateFailed (after writing the JSON) when a gate does not hold,
    ToolMissing when the device cannot be reached.
    """
    out = artifact / RESULT_NAME if out is None else out
    transport = open_device(device)
    if early_stop and not apply_gates:
        raise InputError("--early-stop ends a run when its gates are decided; --no-gate has none")
    check_target(out, force)
    manifest = Manifest.load(artifact)
    limits = Limits.of_target(manifest.target, max_drop, min_agreement)
    with tempfile.TemporaryDirectory(prefix="edgevit-") as folder:
        reference = _reference(artifact, manifest, data, program, Path(folder))
        if reference is None and apply_gates:
            raise InputError(
                f"{artifact} has no recorded logits for the images of {data}, so there is nothing "
                "to gate on; name the program with --program M.evq, or measure with --no-gate"
            )
        logits = Path(folder) / "logits.safetensors"
        # The recorded file is left to the harness to find, which then checks its sha256.
        given = None if reference and reference.parent == artifact else reference
        if early_stop:
            harness["early_stop"] = (limits.max_drop, limits.min_agreement)
        if transport is None:
            result = run_harness(artifact, data, reference=given, logits=logits, **harness)
        else:
            result = _run_there(transport, artifact, data, given, logits, keep, harness)
        unseen = _surely_held(result, data, manifest)
        accuracy, agreement = _gates(logits, reference, limits.max_drop, unseen)
    if not apply_gates:
        accuracy = agreement = None
    kind = "local" if transport is None else transport.kind
    found = Validation(result, accuracy, agreement, limits, kind)
    with atomic_path(out, force) as temporary:
        temporary.write_text(json.dumps(found.to_json(), indent=2, allow_nan=False) + "\n")
    if not found.passed:
        raise GateFailed("; ".join(found.failures()) + f" (all figures are in {out})")
    return found


def _reference(
    artifact: Path, manifest: Manifest, data: Path, program: Path | None, folder: Path
) -> Path | None:
    """A reference file for these images: the recorded one, or one made by running the program."""
    images = ImageSet.open(data, manifest.labels)
    recorded = manifest.reference
    if recorded and recorded.dataset_sha256 == images.sha256:
        return artifact / recorded.file
    if program is None:
        return None
    from edgevit.data.batches import PixelSource, logits_of
    from edgevit.data.distributed import Group
    from edgevit.files import sha256_file
    from edgevit.program import Program, Reference

    if sha256_file(program) != manifest.program.sha256:
        raise InputError(f"{artifact} was not compiled from {program}: its sha256 is another")
    source = PixelSource(images, manifest.preprocessing)
    everything = range(len(images))
    logits = logits_of(
        Program.load(program).run, source, everything, Group.alone(), "program on the images"
    )
    path = folder / "reference.safetensors"
    names = tuple(name for name, _ in images.entries)
    path.write_bytes(Reference(logits.numpy(), names, images.sha256).to_bytes())
    return path


def _run_there(
    transport: Any, artifact: Path, data: Path, reference: Path | None, logits: Path, keep: bool,
    harness: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """`run_harness`'s keywords, sorted into numbers and files for a device."""
    if harness.pop("plan_cache", None) is not None:
        raise InputError("--plan-cache names a folder of this machine; --device has no use for it")
    files = {name: harness.pop(name, None) for name in ("backend", "runtime", "harness")}
    words = measuring_options(**harness)
    return run_on_device(
        transport, artifact, data, words, logits=logits, reference=reference, keep=keep, **files
    )


def _surely_held(result: dict[str, Any], data: Path, manifest: Manifest) -> list[tuple[str, int]]:
    """(path, label) of the images that an early stop left out because both gates hold anyway.

    After a stop because a gate fails there are none to add: it fails on the images run, too.
    """
    stop = result["early_stop"]
    if stop is None or not stop["stopped"] or stop["verdict"] != "holds":
        return []
    entries = ImageSet.open(data, manifest.labels).entries
    wanted = min(result["limit"] or len(entries), len(entries))
    chosen = [entries[i * len(entries) // wanted] for i in range(wanted)]
    return chosen[result["accuracy"]["count"] :]


def _gates(
    logits: Path, reference: Path | None, max_drop: float, unseen: list[tuple[str, int]]
) -> tuple[GateResult | None, GateResult | None]:
    """Gates against float (or the program, where float is not recorded) and the program.

    Images `unseen`, (path, label), count as wrong and as not agreeing.
    """
    from safetensors.numpy import load_file

    if reference is None:
        return None, None
    found, expected = load_file(logits), load_file(reference)
    rows = {name: i for i, name in enumerate(_paths(expected))}
    order = [rows[name] for name in _paths(found) if name in rows]
    kept = [i for i, name in enumerate(_paths(found)) if name in rows]
    left = [(rows[name], label) for name, label in unseen if name in rows]
    order += [row for row, _ in left]
    predictions = np.append(found["predictions"][kept], [_NO_CLASS] * len(left))
    labels = np.append(found["labels"][kept], [label for _, label in left])
    by_program = expected["logits"][order].argmax(1)
    better = expected.get("float_logits", expected["logits"])[order].argmax(1)
    return (
        gate(better, predictions, labels, max_drop),
        gate(by_program, predictions, labels, max_drop),
    )


def _paths(tensors: dict[str, np.ndarray]) -> list[str]:
    return tensors["paths"].tobytes().decode().split("\n")
