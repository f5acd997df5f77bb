"""`edgevit.quantize`, end to end: trace, calibrate, correct, fine-tune, snap, prove."""

from __future__ import annotations

import copy
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import edgevit
from edgevit.choices import Precision
from edgevit.data.batches import (
    batch_of,
    draw,
    outputs_of,
    weights_channels_last,
)
from edgevit.data.distributed import Group
from edgevit.data.sequence import Images, as_source
from edgevit.data.source import ImageFolder, ImageSource
from edgevit.device import at_precision, device_text
from edgevit.errors import GateFailed, InputError
from edgevit.files import writing
from edgevit.graph.passes import swap_gelus
from edgevit.program import Metric, Program, Reference
from edgevit.program.compact import check_size
from edgevit.quantize.damage import Damage, DamageRules
from edgevit.quantize.distill import (
    Teacher,
    check_teacher,
    load_teacher,
    teacher_key,
    teacher_name,
)
from edgevit.quantize.downstream import NAME as DOWNSTREAM
from edgevit.quantize.downstream import Downstream, Scorer, check_downstream, check_labelled
from edgevit.quantize.finetune import FineTuner, History
from edgevit.quantize.net import QuantizedNet
from edgevit.quantize.options import QuantizeOptions, run_key
from edgevit.quantize.parts import Parts, check_enough, divide
from edgevit.quantize.post_training import post_training
from edgevit.quantize.run import Run, program_info, program_now
from edgevit.quantize.subject import Subject, module_of, subject_of, with_output_types
from edgevit.runs.deterministic import deterministic
from edgevit.runs.folder import METRICS, RECIPE, STATE, run_folder
from edgevit.runs.options import MachineOptions
from edgevit.runs.recording import check_tensorboard
from edgevit.tasks import Gate, Limits, LossWeights, load_task
from edgevit.tasks.features import DownstreamFigures, FeatureGate

PROOF_IMAGES = 64

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Result:
    """A quantized program, and what was measured on the reported images.

    metrics     by name, such as "float_top1", as fractions of 1
    history     the states that fine-tuning evaluated; none without fine-tuning
    """

    program: Program
    gate: Gate
    metrics: dict[str, float]
    history: History


def quantize(
    model: nn.Module | str | os.PathLike[str],
    train: Images,
    val: Images | None = None,
    options: QuantizeOptions | None = None,
    *,
    teacher: nn.Module | Teacher | str | None = None,
    task: str = "classification",
    output_names: Sequence[str] | None = None,
    downstream: Downstream | None = None,
    name: str | None = None,
    author: str | None = None,
    license: str | None = None,
    run_dir: str | os.PathLike[str] | None = None,
    fresh: bool = False,
    device: str = MachineOptions.device,
    snapshot_interval_s: float = MachineOptions.snapshot_interval_s,
    tensorboard: str | os.PathLike[str] | None = None,
    recipe: str | None = None,
    workers: int | None = MachineOptions.workers,
    resume_with_processes: bool = MachineOptions.resume_with_processes,
    precision: Precision = MachineOptions.precision,
    skip_broken: bool = False,
    broken_list: str | os.PathLike[str] | None = None,
    **changed: Any,
) -> Result:
    """Quantize a trained net to INT8 with learned scales, gated on accuracy.

        result = quantize(model, train, val, epochs=4, max_drop=0.5)
        result.program.save("model.evq")

    model       any traceable net of operations that edgevit knows, or a RepViT checkpoint's path;
                it is left as it is
    train       labelled images that calibrate, train and select: an ImageFolder or another source,
                a sequence of (image, class), a DataLoader
    val         images that the accuracy is reported on; default: a tenth of `train`, held out.
                Where they do not say how they are pre-processed, they are as `train`
    options     how; single ones may be given by name as well (`epochs=4`, see QuantizeOptions)
    teacher     what the student learns from: a net, a function from images to outputs, a
                checkpoint, or "module:function"; default: the float net
    task        what the outputs mean
    output_names
                what the outputs are called in the program and every artifact; default: the keys of
                a dict or the fields of a named tuple that the model returns, its `output_names`,
                or else the names of its tensors
    downstream  of features: a function that scores what is built on them, from 0 to 1, on the
                reported images and their labels (see `edgevit.quantize.downstream`); float, PTQ and
                the program are scored, and the program may lose `max_drop` points against float
    name, author, license
                for the program and the artifacts' metadata; the default name is the net's
    run_dir     a folder that keeps the state: the same call goes on from there after a kill, to
                the same weights, and `fresh` discards it; default: a temporary folder
    device      "cpu", "cuda", or "auto": CUDA where torch sees it, else the CPU
    precision   of the fine-tuning's products on CUDA, "tf32" or "float32"; what is
                measured is measured in float32
    tensorboard
                a folder for TensorBoard's events of the fine-tuning
    recipe      the call as a text, which `run_dir` keeps as recipe.toml
    workers     processes that decode images, for each that trains; 0: that one itself; default:
                the cores, where the set is large. The images are the same for any number
    resume_with_processes
                go on with the state in `run_dir` of a run of another number of processes, whose
                sums are added in another order
    skip_broken, broken_list
                of an ImageFolder: leave out the damaged images, which are named; else they end
                the call at once. `broken_list` is a text file to write the names of all to

    torch's settings and random state are left as they are. Raises InputError for bad input;
    GateFailed, whose `result` is the Result all the same, when the drop against float on the
    reported images is over `max_drop`, or the agreement with it below `min_agreement`.
    """
    options = _options(options, changed)
    if tensorboard is not None:
        check_tensorboard()
    group = Group(device, workers)
    if group.is_main:
        log.info("on %s", device_text(group.device))
    chosen_task = load_task(task)
    state = None if run_dir is None else Path(run_dir)
    rules = DamageRules(skip_broken, None if broken_list is None else Path(broken_list))
    damage = Damage(state, fresh, rules, group)
    check_downstream(downstream, chosen_task, group.size)
    labelled = chosen_task.has_labels or downstream is not None
    images = as_source(train, None, None if labelled else ())
    if downstream is not None:
        check_labelled(images, "training")
    report = None if val is None else as_source(val, images.preprocessing, images.classes)
    images = damage.settle(images, "train")
    report = images if report is None else damage.settle(report, "report")
    module = module_of(model, images.preprocessing.image_size)
    with deterministic(group.device), at_precision("float32", group.device):
        parts = divide(images, report, options)
        paths = (report.names[i] for i in parts.reported)
        if chosen_task.has_labels:
            lengths = map(len, map(os.fsencode, paths))
            check_size(len(parts.reported), len(images.classes), sum(lengths))
        subject = _subject(module, parts, options, name, group, output_names)
        chosen_task = chosen_task.for_outputs(subject.graph.public_names)
        shapes = [subject.graph.shape(output) for output in subject.graph.outputs]
        chosen_task.check(shapes, len(images.classes))
        check_enough(parts, options, group.size)
        taught = load_teacher(teacher, copy.deepcopy(subject.net), group.device)
        if teacher is not None:
            image = subject.graph.input_shape[1:]
            check_teacher(taught, image, shapes, chosen_task.kept, group.device)
        key = _key(subject, parts, options, teacher_key(teacher, taught), task, group, precision)
        # Last: what is refused before leaves no folder behind.
        claimed = run_folder(state, key, fresh, group, resume_with_processes)
        with claimed as folder, damage.met(folder):
            if group.is_main:
                damage.write(folder)
                if recipe is not None:
                    with writing(folder / RECIPE):
                        (folder / RECIPE).write_text(recipe, encoding="utf-8")
            run = Run(
                subject=subject,
                task=chosen_task,
                parts=parts,
                options=options,
                teacher=taught,
                group=group,
                folder=folder,
                graph=swap_gelus(subject.graph, options.activation),
                precision=precision,
                about={k: v for k, v in (("author", author), ("license", license)) if v},
            )
            events = None if tensorboard is None else Path(tensorboard)
            scorer = None if downstream is None else Scorer(run, downstream)
            return _run(run, snapshot_interval_s, events, teacher_name(teacher), scorer)


def _run(
    run: Run,
    snapshot_interval_s: float,
    tensorboard: Path | None,
    teacher_name: str,
    scorer: Scorer | None,
) -> Result:
    parts = run.parts
    classes = f", {len(parts.images.classes)} classes" if run.task.has_labels else ""
    run.say(
        f"{run.subject.name}{classes}, "
        f"{parts.images.preprocessing.size_text}; fine-tuning on {len(parts.train)} images, "
        f"selecting on {len(parts.holdout)}, reporting on {parts.report_text}"
    )
    float_outputs = run.outputs(run.subject.net, "float", run.group)
    _believe(run, float_outputs)
    net, equalization = post_training(run, float_outputs)
    metrics = json.loads((run.folder / METRICS).read_text())
    if scorer is not None:
        metrics[f"float_{DOWNSTREAM}"] = scorer.of(run.subject.net, "float")
        metrics[f"ptq_{DOWNSTREAM}"] = scorer.of(program_now(run, net), "PTQ, biases corrected")
    history = History()
    if run.options.steps(len(parts.train)):
        history = _fine_tune(run, net, snapshot_interval_s, tensorboard)
        net = _better(run, net, history, float_outputs)
    else:
        net.snap()
    run = replace(run, about={**run.about, "equalization": equalization})
    return _finish(run, net, float_outputs, metrics, history, teacher_name, scorer)


def _believe(run: Run, outputs: Tensor) -> None:
    """Say how good float is; InputError where it cannot be the net that was trained."""
    labels = torch.from_numpy(run.parts.report_labels)
    if run.task.has_labels:
        score = 100 * run.task.score(outputs, labels, outputs)
        run.say(f"float {run.task.score_title} {score:.2f} % of {len(labels)} images")
    doubt = run.task.doubt(outputs, labels, run.parts.images.classes)
    if doubt is None:
        return
    if not run.options.allow_poor_float:
        raise InputError(doubt)
    run.say(f"going on all the same: {doubt}")


def _options(given: QuantizeOptions | None, changed: dict[str, Any]) -> QuantizeOptions:
    known = {field.name for field in fields(QuantizeOptions)}
    if unknown := sorted(set(changed) - known):
        raise InputError(
            f"quantize has no option {', '.join(unknown)}; QuantizeOptions has "
            f"{', '.join(sorted(known))}"
        )
    return replace(given or QuantizeOptions(), **changed)


def _key(
    subject: Subject,
    parts: Parts,
    options: QuantizeOptions,
    teacher: str,
    task: str,
    group: Group,
    precision: Precision,
) -> str:
    # On the CPU it changes nothing.
    chosen: dict[str, Any] = {} if group.device.type == "cpu" else {"precision": precision}
    if subject.graph.given_names:
        chosen["output_names"] = list(subject.graph.given_names)
    return run_key(
        options,
        model=subject.key,
        task=task,
        data=_run_sha256(parts.images),
        report=_run_sha256(parts.report),
        preprocessing=parts.images.preprocessing.to_json(),
        labels=list(parts.images.classes),
        teacher=teacher,
        threads=torch.get_num_threads(),
        device=group.device.type,
        version=edgevit.__version__,
        **chosen,
    )


def _run_sha256(source: ImageSource) -> str:
    """Of the set as the run began with it: an image that is damaged since keeps its place."""
    is_folder = isinstance(source, ImageFolder)
    return source.images.sha256_with_holes if is_folder else source.sha256


def _subject(
    model: nn.Module,
    parts: Parts,
    options: QuantizeOptions,
    name: str | None,
    group: Group,
    output_names: Sequence[str] | None,
) -> Subject:
    chosen = draw(sorted(parts.train + parts.holdout), PROOF_IMAGES, options.seed)
    source = f"{len(chosen)} images of {parts.images.title}"
    images = batch_of(parts.images, chosen)
    subject = subject_of(model, images, source, name, options.bound, output_names)
    weights_channels_last(subject.net).to(group.device)
    return replace(subject, graph=with_output_types(subject.graph, options.output_type))


def _fine_tune(
    run: Run, net: QuantizedNet, snapshot_interval_s: float, tensorboard: Path | None
) -> History:
    tuner = FineTuner(
        net,
        run.teacher,
        run.task,
        run.parts,
        run.options,
        run.group,
        run.folder / STATE,
        snapshot_interval_s,
        tensorboard,
        run.precision,
    )
    history = tuner.run()
    best = next(e for e in history.evaluations if e["step"] == history.best_step)
    run.say(
        f"fine-tuned {history.step} steps; best state after {history.best_step}: "
        f"{best['holdout_agreement']:.2f} % agreement with the teacher on the selection images"
    )
    return history


def _better(run: Run, tuned: QuantizedNet, history: History, float_outputs: Tensor) -> QuantizedNet:
    """The fine-tuned net, or that of before where the selection images say so; noted as step 0."""
    net, _ = post_training(run, float_outputs)
    net.snap()
    o, parts = run.options, run.parts
    found, taught = (
        outputs_of(each, run.task.kept, parts.images, parts.holdout, run.group, title)
        for each, title in ((net, "PTQ on hold-out"), (run.teacher, "teacher on hold-out"))
    )
    labels = torch.from_numpy(parts.images.labels[parts.holdout])
    weights = LossWeights(o.temperature, o.teacher_weight, o.label_weight)
    figures = run.task.selection(found, taught, labels, weights)
    history.evaluations.insert(0, {"step": 0, **figures})
    loss = figures["holdout_loss"]
    if history.best_loss is None or loss >= history.best_loss:
        return tuned
    run.say(
        f"fine-tuning did not help: on the selection images its loss is {history.best_loss:.4g}, "
        f"that of corrected PTQ {loss:.4g}; the program is the latter. More images or "
        "epochs may help"
    )
    history.best_step, history.best_loss = 0, loss
    return net


def _finish(
    run: Run,
    net: QuantizedNet,
    float_outputs: Tensor,
    metrics: dict[str, float],
    history: History,
    teacher_name: str,
    scorer: Scorer | None,
) -> Result:
    """Build the program, measure it (not the training net) on the report images, gate."""
    info = program_info(run, history, teacher_name)
    program = program_now(run, net, info)
    outputs = run.outputs(program, "program", run.group)
    labels = run.parts.report_labels
    o = run.options
    limits = Limits(o.max_drop, o.min_agreement, o.min_sqnr, o.min_cosine)
    found = run.task.gate(float_outputs.numpy(), outputs.numpy(), labels, limits)
    if scorer is not None and isinstance(found, FeatureGate):
        metrics[f"program_{DOWNSTREAM}"] = score = scorer.of(program, "quantized program")
        downstream = DownstreamFigures(metrics[f"float_{DOWNSTREAM}"], score, o.max_drop)
        found = replace(found, downstream=downstream)
    metrics = run.task.metrics(found, metrics)
    run.say(str(found))
    report = run.parts.report
    names = report.names
    reference = None
    if run.task.has_labels:
        reference = Reference(
            outputs.numpy(),
            tuple(names[i] for i in run.parts.reported),
            report.sha256,
            float_outputs.numpy(),
        )
    count = len(run.parts.reported)
    measured = tuple(Metric(name, v, count, report.sha256) for name, v in metrics.items())
    program = program.with_info(replace(info, metrics=measured), reference)
    result = Result(program, found, metrics, history)
    try:
        found.require()
    except GateFailed as error:
        error.result = result
        raise
    return result
