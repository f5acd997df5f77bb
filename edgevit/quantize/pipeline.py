"""`edgevit quantize`, end to end: fuse, calibrate, correct, fine-tune, snap, prove, write."""

from __future__ import annotations

import copy
import json
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import edgevit
from edgevit.data.batches import batch_of, channels_last, draw, outputs_of, split
from edgevit.data.distributed import Group
from edgevit.data.images import Preprocessing
from edgevit.data.source import ImageFolder
from edgevit.errors import InputError
from edgevit.files import check_target
from edgevit.graph.graph import Quantizer
from edgevit.models.checkpoint import CheckpointInfo, load
from edgevit.models.fuse import FuseResult, fuse
from edgevit.program import Metric, ModelInfo, Program, ProgramInfo, Reference, build_program
from edgevit.quantize.activation import with_activation
from edgevit.quantize.distill import load_teacher
from edgevit.quantize.finetune import FineTuner, History
from edgevit.quantize.net import QuantizedNet
from edgevit.quantize.options import QuantizeOptions, run_key
from edgevit.quantize.place import place
from edgevit.quantize.ptq import correct_biases
from edgevit.quantize.snapshot import read_snapshot, remove_leftovers, write_snapshot
from edgevit.tasks.classification import TASK
from edgevit.tasks.gate import GateResult

CALIBRATION_BATCH = 16
BIAS_IMAGES = 256
PROOF_IMAGES = 64
REPORT_SHARE = 0.1
UNFINISHED_MARKER = ".run.json"


@dataclass(frozen=True)
class Source:
    """What a run starts from; see `edgevit quantize --help` for each."""

    checkpoint: Path
    data: Path
    preprocessing: Preprocessing
    eval_data: Path | None = None
    labels: tuple[str, ...] | None = None
    teacher: str | None = None
    variant: str | None = None
    weights: str | None = None
    author: str | None = None
    license: str | None = None


@dataclass(frozen=True)
class Result:
    """The program that was written and what was measured on the reported images."""

    program: Program
    path: Path
    gate: GateResult
    metrics: dict[str, float]
    history: History


@dataclass
class Run:
    """The open parts of a run: nets, images, index lists, and where its state is kept."""

    source: Source
    options: QuantizeOptions
    group: Group
    say: Callable[[str], None]
    folder: Path
    info: CheckpointInfo
    fused: FuseResult
    images: ImageFolder
    report: ImageFolder
    train_part: list[int]
    holdout_part: list[int]
    report_part: list[int]
    key: str

    @property
    def float_net(self) -> nn.Module:
        return self.fused.net

    def student_net(self) -> nn.Module:
        """A copy of the float net with the activation to be quantized."""
        return with_activation(self.float_net, self.options.activation)


def quantize(
    source: Source,
    out: Path,
    options: QuantizeOptions,
    *,
    force: bool = False,
    fresh: bool = False,
    device: str = "cpu",
    snapshot_interval_s: float = 60.0,
    say: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True),
) -> Result:
    """Quantize a checkpoint and write the program (.evq) to `out`.

    State is kept in the folder `out`.run while it works: a run that was killed goes on from
    there, to the same final weights; `fresh` discards it instead. The folder is removed once the
    program is written, and kept when the gate fails (a larger `max_drop` then costs no training).

    Raises InputError for bad input, GateFailed when the drop against float on the reported images
    is over `options.max_drop`; the program is not written then.
    """
    check_target(out, force)
    group = Group(device)
    torch.use_deterministic_algorithms(True)
    run = _open(source, out, options, group, fresh, say if group.is_main else lambda _text: None)
    float_logits = _measure(run, run.float_net, "float")
    net = _post_training(run)
    metrics = json.loads((run.folder / "ptq.json").read_text())
    history = History()
    if options.steps(len(run.train_part)):
        history = _fine_tune(run, net, snapshot_interval_s)
    else:
        net.snap()
    return _finish(run, net, float_logits, metrics, history, out, force)


def _open(
    source: Source,
    out: Path,
    options: QuantizeOptions,
    group: Group,
    fresh: bool,
    say: Callable[[str], None],
) -> Run:
    size = source.preprocessing.image_size
    loaded = load(
        source.checkpoint, variant=source.variant, weights=source.weights, image_size=size
    )
    images = ImageFolder(source.data, classes=source.labels, like=source.preprocessing)
    classes = images.classes
    if len(classes) != loaded.info.num_classes:
        raise InputError(
            f"{source.data} has {len(classes)} class folders, the checkpoint {source.checkpoint} "
            f"has {loaded.info.num_classes} classes; give the full list with --labels"
        )
    every = len(images.labels)
    rest, report_part = list(range(every)), list(range(every))
    report = images
    if source.eval_data is not None:
        report = ImageFolder(source.eval_data, like=images)
        report_part = list(range(len(report.labels)))
        if report.sha256 == images.sha256:
            raise InputError(
                f"--eval-data {source.eval_data} holds the images of --data: accuracy must be "
                "reported on images that the fine-tuning never saw"
            )
    else:
        rest, report_part = split(every, REPORT_SHARE, options.seed + 1)
    train, chosen = split(len(rest), options.holdout, options.seed)
    fused = fuse(
        loaded.model,
        batch_of(images, draw(rest, PROOF_IMAGES, options.seed)),
        images_source=f"{min(PROOF_IMAGES, len(rest))} images of {source.data.name}",
        original=loaded.info.proof,
    )
    fused.net.to(memory_format=torch.channels_last).to(group.device)
    key = run_key(
        options,
        checkpoint=loaded.info.sha256,
        weights=source.weights,
        data=images.sha256,
        report=report.sha256,
        preprocessing=source.preprocessing.to_json(),
        labels=classes,
        teacher=source.teacher,
        threads=torch.get_num_threads(),
        processes=group.size,
        device=group.device.type,
        version=edgevit.__version__,
    )
    folder = _run_folder(out, key, fresh, group)
    say(
        f"{loaded.info.variant}, {loaded.info.num_classes} classes, {size} px; fine-tuning on "
        f"{len(train)} images, selecting on {len(chosen)}, reporting on {len(report_part)}"
    )
    return Run(
        source, options, group, say, folder, loaded.info, fused, images, report,
        [rest[i] for i in train], [rest[i] for i in chosen], report_part, key,
    )  # fmt: skip


def _run_folder(out: Path, key: str, fresh: bool, group: Group) -> Path:
    folder = out.with_name(out.name + ".run")
    if group.is_main:
        marker = folder / "run.json"
        if folder.exists() and fresh:
            if _foreign_files(folder) and not marker.exists():
                raise InputError(f"{folder} is not a run folder of edgevit: not removed")
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if not marker.exists():
            if _foreign_files(folder):
                raise InputError(f"{folder} holds other files; choose another name for --output")
            temporary = folder / UNFINISHED_MARKER
            temporary.write_text(json.dumps({"schema_version": 1, "key": key}))
            temporary.replace(marker)
        elif _stored_key(marker) != key:
            raise InputError(
                f"{folder} holds the state of a run with other options, data or thread count; "
                "repeat those to go on with it, or use --fresh to discard it"
            )
        remove_leftovers(folder)
    group.wait()
    return folder


def _foreign_files(folder: Path) -> bool:
    """Whether there is more than the marker that a killed run had not renamed yet."""
    return any(path.name != UNFINISHED_MARKER for path in folder.iterdir())


def _stored_key(marker: Path) -> str | None:
    try:
        return json.loads(marker.read_text("utf-8"))["key"]
    except (OSError, ValueError, KeyError, TypeError):
        return None  # of no run that could go on


def _measure(run: Run, net: Callable[[Tensor], Tensor], title: str) -> Tensor:
    return _outputs(run, net, title, run.group)


def _outputs(run: Run, net: Callable[[Tensor], Tensor], title: str, group: Group) -> Tensor:
    title = f"{title} on report images"
    return outputs_of(net, TASK.kept, run.report, run.report_part, group, title)


def _post_training(run: Run) -> QuantizedNet:
    """Place, calibrate, correct biases; measured, and kept for a resumed run."""
    path = run.folder / "ptq.safetensors"
    if run.group.is_main and not path.exists():
        _make_post_training(run, path)
    run.group.wait()
    tensors, state = read_snapshot(path)
    activations = {name: Quantizer(**q) for name, q in state["activations"].items()}
    scales = {n.removeprefix("scale."): t for n, t in tensors.items() if n.startswith("scale.")}
    scales = {name: scales[name] for name in state["layers"]}
    net = QuantizedNet(run.student_net(), activations, scales)
    net.load_state_dict({n[4:]: t for n, t in tensors.items() if n.startswith("net.")})
    return net.to(run.group.device)


def _make_post_training(run: Run, path: Path) -> None:
    o = run.options
    chosen = draw(run.train_part, o.calibration_images, o.seed)
    run.say(f"calibrating with NNCF on {len(chosen)} images ...")
    batch = batch_of(run.images, chosen)
    float_net = run.student_net().cpu().requires_grad_(False)
    pieces = [channels_last(piece) for piece in batch.split(CALIBRATION_BATCH)]
    activations, scales, completed = place(float_net, pieces, o.profile)
    alone = Group.alone()
    labels = torch.from_numpy(run.report.labels[run.report_part])

    def top1(net: nn.Module, title: str) -> float:
        return TASK.score(_outputs(run, net, title, alone), labels)

    metrics = {}
    if o.activation != "gelu":
        metrics["swapped_float_top1"] = top1(float_net, o.activation)
        run.say(
            f"{o.activation} in place of GELU: float top-1 "
            f"{100 * metrics['swapped_float_top1']:.2f} % before it is healed"
        )
    net = QuantizedNet(float_net, activations, scales).eval()
    metrics["ptq_uncorrected_top1"] = top1(net, "PTQ")
    shift = correct_biases(net, batch[:BIAS_IMAGES])
    metrics["ptq_top1"] = top1(net, "PTQ, biases corrected")
    run.say(
        f"NNCF and the completion pass: {len(activations)} activation quantizers, {len(completed)} "
        f"of all quantizers added; top-1 {100 * metrics['ptq_uncorrected_top1']:.2f} %, with bias "
        f"correction {100 * metrics['ptq_top1']:.2f} % (largest shift {shift:.3g})"
    )
    (run.folder / "ptq.json").write_text(json.dumps(metrics))
    tensors = {f"net.{n}": t for n, t in net.state_dict().items()}
    tensors |= {f"scale.{n}": t for n, t in scales.items()}
    state = {
        "activations": {name: vars(q) for name, q in activations.items()},
        "layers": list(net.layers),
    }
    write_snapshot(path, tensors, state)


def _fine_tune(run: Run, net: QuantizedNet, snapshot_interval_s: float) -> History:
    tuner = FineTuner(
        net,
        load_teacher(run.source.teacher, copy.deepcopy(run.float_net), run.group.device),
        TASK,
        run.images,
        run.train_part,
        run.holdout_part,
        run.options,
        run.group,
        run.folder / "state.safetensors",
        snapshot_interval_s,
    )
    history = tuner.run()
    best = next(e for e in history.evaluations if e["step"] == history.best_step)
    run.say(
        f"fine-tuned {history.step} steps; best state after {history.best_step}: "
        f"{best['holdout_agreement']:.2f} % agreement with the teacher on the selection images"
    )
    return history


def _finish(
    run: Run,
    net: QuantizedNet,
    float_logits: Tensor,
    metrics: dict[str, float],
    history: History,
    out: Path,
    force: bool,
) -> Result:
    """Build the program, measure it (not the training net) on the report images, gate, write."""
    program = build_program(
        net.net.cpu().eval().to(memory_format=torch.contiguous_format),
        net.activation_quantizers(),
        net.weight_scales(),
        run.source.preprocessing.image_size,
        _program_info(run, {}, history),
    )
    logits = _measure(run, program.run, "program")
    labels = run.report.labels[run.report_part]
    result = TASK.gate(float_logits.numpy(), logits.numpy(), labels, run.options.max_drop)
    metrics = {
        "float_top1": result.reference_top1 / 100,
        **metrics,
        "program_top1": result.top1 / 100,
        "program_float_agreement": result.agreement / 100,
    }
    run.say(str(result))
    result.require()
    names = run.report.names
    reference = Reference(
        logits.numpy(),
        tuple(names[i] for i in run.report_part),
        run.report.sha256,
        float_logits.numpy(),
    )
    program = program.with_info(_program_info(run, metrics, history), reference)
    if run.group.is_main:
        program.save(out, force)
        shutil.rmtree(run.folder)
    run.group.wait()
    return Result(program, out, result, metrics, history)


def _program_info(run: Run, metrics: dict[str, float], history: History) -> ProgramInfo:
    classes = tuple(run.images.classes)
    sha256, count = run.report.sha256, len(run.report_part)
    options = run.options
    return ProgramInfo(
        model=ModelInfo(run.info.variant, len(classes), run.source.preprocessing.image_size),
        profile=options.profile,
        preprocessing=run.source.preprocessing,
        labels=classes,
        metrics=tuple(Metric(name, value, count, sha256) for name, value in metrics.items()),
        provenance={
            "checkpoint": {"file": run.source.checkpoint.name, "sha256": run.info.sha256},
            "data": {"file": run.source.data.name, "sha256": run.images.sha256},
            "report_data": {
                "file": (run.source.eval_data or run.source.data).name,
                "sha256": sha256,
                "images": count,
            },
            "images": {"fine_tuned": len(run.train_part), "selected": len(run.holdout_part)},
            "teacher": run.source.teacher or "the float net",
            **{k: v for k in ("author", "license") if (v := getattr(run.source, k))},
            "fusion_proof": run.fused.proof.to_json(),
            "options": options.to_json(),
            "seed": options.seed,
            "threads": torch.get_num_threads(),
            "selection": {"best_step": history.best_step, "evaluations": history.evaluations},
            "versions": _versions(),
        },
    )


def _versions() -> dict[str, Any]:
    from importlib.metadata import version

    packages = ("torch", "nncf", "numpy", "pillow")
    return {
        "edgevit": edgevit.__version__,
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }
