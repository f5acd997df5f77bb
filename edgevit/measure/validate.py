"""Runs the C++ harness over images and judges what it measured: classes, or each output."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgevit.choices import WEIGHTS_ONLY
from edgevit.data.export import image_files
from edgevit.data.images import ImageSet
from edgevit.data.soundness import sound
from edgevit.data.source import ImageFolder, ImageSource
from edgevit.errors import GateFailed, InputError
from edgevit.files import atomic_path, check_target
from edgevit.measure.devices import open_device, run_on_device
from edgevit.measure.devices.base import Transport
from edgevit.measure.harness import description_of, run_harness
from edgevit.measure.outputs import check_asked, output_gate, program_for
from edgevit.measure.own_file import is_own
from edgevit.measure.parity import find_program, program_beside
from edgevit.measure.request import GateLimits, HarnessRequest, ValidateOptions
from edgevit.program import Program, Reference
from edgevit.project import SOURCES
from edgevit.targets import load_target
from edgevit.targets.manifest import VALIDATION_FILE, Manifest
from edgevit.tasks import Task, load_task
from edgevit.tasks.features import FeatureGate
from edgevit.tasks.gate import GateResult, gate

SCHEMA_VERSION = 1
_NO_CLASS = -1

log = logging.getLogger(__name__)


def limits_of_target(
    target: str, max_drop: float | None = None, min_agreement: float | None = None
) -> GateLimits:
    """The given limits; those not given are the budgets in targets/TARGET/target.toml."""
    budgets = description_of(target).get("budgets")
    if budgets is None:
        path = SOURCES / "targets" / target / "target.toml"
        raise InputError(f"{target!r} is no target: {path} holds no budgets of one")
    return GateLimits(
        budgets["max_accuracy_drop_points"] if max_drop is None else max_drop,
        budgets["min_program_agreement_percent"] if min_agreement is None else min_agreement,
    )


KIND = "edgevit-validation"


@dataclass(frozen=True)
class Validation:
    """The harness's result and the gates, None where there was nothing to compare with.

    After an early stop because both gates surely hold, the gates count the images that were not
    run as wrong: their figures are bounds, and the result's are of the images that were run.
    """

    result: dict[str, Any]
    accuracy: GateResult | None
    agreement: GateResult | None
    limits: GateLimits
    device: str = "local"  # or "ssh", "adb": the address is its owner's
    outputs: FeatureGate | None = None  # of an artifact without classes: it has no other gate

    @property
    def gate(self) -> GateResult | None:
        """Top-1 against float (against the program, where float's is not known)."""
        return self.accuracy

    @property
    def passed(self) -> bool:
        return not self.failures()

    def require(self, where: str = "") -> None:
        """Raises GateFailed, with the figures, when a gate does not hold."""
        if not self.passed:
            error = GateFailed("; ".join(self.failures()) + where)
            error.result = self
            raise error

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
        if self.outputs is not None and not self.outputs.passed:
            lines.append(f"outputs {self.outputs}")
        return lines

    @property
    def compared_with(self) -> str:
        return "float" if self.result["agreement_float"] else "the quantized program"

    def to_json(self) -> dict[str, Any]:
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": KIND,
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
            **({"output_gate": self.outputs.to_json()} if self.outputs else {}),
            "result": self.result,
        }


def validate(
    request: HarnessRequest,
    options: ValidateOptions | None = None,
    *,
    out: Path | None = None,
    force: bool = False,
) -> Validation:
    """Run the artifact on the images, write the JSON (default: validation.json in the artifact).

    An earlier run's validation.json is replaced; `force` replaces other files.

    The gates compare with the logits recorded in the artifact for exactly these images; for other
    images `options.program` is run on them first, unless the request names its logits. The limits
    default to the target's budgets. An artifact without classes has a gate for each of its outputs,
    against the program's own, and needs the program.

    Raises InputError for bad input, GateFailed (after writing the JSON) when a gate does not hold,
    ToolMissing when the device cannot be reached.
    """
    options = options or ValidateOptions()
    again = False
    if out is None:
        out = request.artifact / VALIDATION_FILE
        again = is_own(out, KIND)
    check_target(out, force or again)
    for path in (request.out, request.logits, request.dump_inputs, request.profile):
        if path is not None:
            check_target(path, force)
    found = measured(request, options)
    save(found, out, force or again)
    found.require(f" (all figures are in {out})")
    return found


def save(found: Validation, out: Path, force: bool) -> None:
    """Write the JSON. Raises InputError when `out` exists, without `force`."""
    with atomic_path(out, force) as temporary:
        temporary.write_text(json.dumps(found.to_json(), indent=2, allow_nan=False) + "\n")


def measured(
    request: HarnessRequest, options: ValidateOptions, program: Program | None = None
) -> Validation:
    """`validate` without its JSON, and without an error for a gate that does not hold.

    program   what the outputs of a task without classes are compared with; default: that of
              `options`, or the one beside the artifact
    """
    transport = open_device(options.device)
    if request.early_stop is not None:
        raise InputError("the limits of an early stop are the gates'; ask for it with early_stop")
    manifest = Manifest.load(request.artifact)
    has_labels = load_task(manifest.task).has_labels
    limits = limits_of_target(manifest.target, options.max_drop, options.min_agreement)
    _check_gates(request, options, has_labels)
    every = ImageSet.open(
        request.data, manifest.labels if has_labels else None, labelled=has_labels
    )
    for line in every.notices:
        log.warning(line)
    images = sound(every, options.skip_broken, options.broken_list)
    with tempfile.TemporaryDirectory(prefix="edgevit-") as folder:
        source = ImageFolder.of(every, manifest.preprocessing)
        request = replace(
            request,
            data=image_files(source, Path(folder)),
            leave_out=_left_out(every, images, Path(folder)),
        )
        if not has_labels:
            check_asked(request, options, manifest, len(images.entries))
            program = program or program_for(request, options, manifest)
            return _measured_outputs(request, options, manifest, images, program, transport)
        reference, named = _references(request, manifest, options.program, Path(folder), images)
        if reference is None and options.gate:
            whole = manifest.profile != WEIGHTS_ONLY
            advice = "name the program with --program M.evq, or " if whole else ""
            raise InputError(
                f"{request.artifact} has no recorded logits for the images of {request.data}, so "
                f"there is nothing to gate on; {advice}measure with --no-gate"
            )
        logits = request.logits or Path(folder) / "logits.safetensors"
        early_stop = limits if options.early_stop else None
        asked = replace(request, reference=named, logits=logits, early_stop=early_stop)
        result = _run(asked, options, transport)
        unseen = _surely_held(result, images)
        accuracy, agreement = _gates(logits, reference, limits.max_drop, unseen)
    if not options.gate:
        accuracy = agreement = None
    return Validation(result, accuracy, agreement, limits, _kind(transport))


def _measured_outputs(
    request: HarnessRequest,
    options: ValidateOptions,
    manifest: Manifest,
    images: ImageSet,
    program: Program | None,
    transport: Transport | None,
) -> Validation:
    """`measured` of an artifact whose task has no classes: every output against the program's."""
    with tempfile.TemporaryDirectory(prefix="edgevit-") as folder:
        samples = request.logits or Path(folder) / "samples.safetensors"
        maps_last = load_target(manifest.target).maps_last
        asked = replace(request, logits=samples, maps_last=maps_last)
        result = _run(asked, options, transport)
        source = ImageFolder.of(images, manifest.preprocessing)
        gate = (
            output_gate(program, manifest, source, samples, options)
            if program and options.gate
            else None
        )
    limits = limits_of_target(manifest.target, options.max_drop, options.min_agreement)
    return Validation(result, None, None, limits, _kind(transport), gate)


def _check_gates(request: HarnessRequest, options: ValidateOptions, has_labels: bool) -> None:
    asked = options.min_sqnr, options.min_cosine, options.min_sqnr_of or None
    if has_labels and asked != (None, None, None):
        raise InputError(
            f"{request.artifact}: --min-sqnr and --min-cosine gate features; this artifact answers "
            "with classes, whose gates are --max-drop and --min-agreement"
        )


def _run(
    request: HarnessRequest, options: ValidateOptions, transport: Transport | None
) -> dict[str, Any]:
    if transport is None:
        return run_harness(request, options.harness)
    return run_on_device(transport, request, harness=options.harness, keep=options.keep)


def _kind(transport: Transport | None) -> str:
    return "local" if transport is None else transport.kind


def _left_out(every: ImageSet, images: ImageSet, folder: Path) -> Path | None:
    """A file that names the images of `every` that the harness passes over."""
    kept = {name for name, _ in images.entries}
    names = [name for name, _ in every.entries if name not in kept]
    if not names:
        return None
    path = folder / "left-out.txt"
    path.write_text("".join(f"{name}\n" for name in names), "utf-8")
    return path


def _references(
    request: HarnessRequest,
    manifest: Manifest,
    program: Path | None,
    folder: Path,
    images: ImageSet,
) -> tuple[Path | None, Path | None]:
    """The program's logits for these images, and the file of them to name to the harness.

    They are the request's, or the recorded ones beside the artifact, which the harness finds itself
    and checks by their sha256, or, in `folder`, those that the program file holds or that running
    the program makes; None where there are none.
    """
    if request.reference is not None:
        return request.reference, request.reference
    recorded = manifest.reference
    if recorded and recorded.dataset_sha256 == images.sha256:
        return request.artifact / recorded.file, None
    if program is None:
        near = program_beside(request.artifact, manifest)
        known = Program.load(near).reference if near and not recorded else None
        if known is None or known.dataset_sha256 != images.sha256:
            return None, None
    else:
        loaded = Program.load(find_program(request.artifact, manifest, program))
        known = loaded.reference
        if known is None or known.dataset_sha256 != images.sha256:
            source = ImageFolder.of(images, manifest.preprocessing)
            known = program_reference(loaded, source, load_task(manifest.task))
    path = folder / "reference.safetensors"
    path.write_bytes(known.to_bytes())
    return path, path


def program_reference(program: Program, source: ImageSource, task: Task) -> Reference:
    """What the program answers on a source's images."""
    from edgevit.data.batches import outputs_of
    from edgevit.data.distributed import Group

    logits = outputs_of(
        program,
        task.kept,
        source,
        range(len(source)),
        Group.alone(),
        "program on the images",
    )
    return Reference(logits.numpy(), tuple(source.names), source.sha256)


def _surely_held(result: dict[str, Any], images: ImageSet) -> list[tuple[str, int]]:
    """(path, label) of the images that an early stop left out because both gates hold anyway.

    After a stop because a gate fails there are none to add: it fails on the images run, too.
    """
    stop = result["early_stop"]
    if stop is None or not stop["stopped"] or stop["verdict"] != "holds":
        return []
    entries = images.entries
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
    return os.fsdecode(tensors["paths"].tobytes()).split("\n")
