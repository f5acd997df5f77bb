"""`edgevit quantize`: a run that starts from files and ends in one."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from edgevit.data.distributed import Group
from edgevit.data.images import Preprocessing
from edgevit.data.options import ImageSetOptions
from edgevit.data.source import ImageFolder
from edgevit.device import chosen_device
from edgevit.errors import InputError, Interrupted
from edgevit.files import atomic_path, check_target, read_file
from edgevit.models.checkpoint import parts_of
from edgevit.models.fuse import noise_images
from edgevit.models.nets import load_net
from edgevit.models.repvit import RepViT
from edgevit.models.sam import SamEncoder, signal_to_noise
from edgevit.quantize.options import QuantizeOptions
from edgevit.quantize.pipeline import Result, quantize
from edgevit.runs.folder import CURVES, RUN_SUFFIX, remove_run
from edgevit.runs.options import MachineOptions
from edgevit.tasks.options import TaskOptions

MAX_CURVES_BYTES = 2**28

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """The files that a run starts from.

    data        training images: a folder or tar of class folders, or a pattern for several tars
    eval_data   images that the accuracy is reported on; None: a tenth of `data`, held out
    labels      class folder names in the order of the logits; None: sorted
    images      how the folders are numbered, and what is done with damaged images
    task        what the net is quantized for; features need no class folders
    teacher     a checkpoint, or "module:function"; None: the float net
    checkpoint, variant, weights
                as for `edgevit.load`
    author, license
                for the artifacts' metadata
    """

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
    images: ImageSetOptions = field(default_factory=ImageSetOptions)
    task: TaskOptions = field(default_factory=TaskOptions)


def quantize_files(
    source: Source,
    out: Path,
    options: QuantizeOptions,
    machine: MachineOptions | None = None,
    *,
    force: bool = False,
    recipe: str | None = None,
    curves: Path | None = None,
) -> Result:
    """Quantize a checkpoint and write the program (.evq) to `out`.

    State is kept in the folder `out`.run while it works: a run that was killed goes on from
    there, to the same final weights; `machine.fresh` discards it instead. The folder is removed
    once the program is written, and kept when the gate fails (a larger `max_drop` then costs no
    training). The curves of a fine-tuning go to `curves` then, a file of comma-separated values.
    Raises as `quantize` does; the program is not written then.
    """
    machine = machine or MachineOptions()
    folder = out.with_name(out.name + RUN_SUFFIX)
    chosen_device(
        machine.device
    )  # a device that is not here is said before a million images are listed
    check_target(out, force)
    if curves is not None and options.epochs:
        check_target(curves, force)
    if not folder.exists():  # asked now, as it is for a name that is too long
        check_target(folder)
    size = source.preprocessing.image_size
    loaded = model = load_net(
        source.checkpoint, variant=source.variant, weights=source.weights, image_size=size
    )
    is_features = source.task.task == "features"
    if is_features:
        if source.labels is not None:
            raise InputError("--labels names classes, which the task features does not have")
        model = _features(model, source)
    elif isinstance(model, RepViT) and model.config.features_only:
        raise InputError(_no_head(model))
    train = ImageFolder(
        source.data,
        labelled=not is_features,
        classes=source.labels,
        like=source.preprocessing,
        class_order=source.images.class_order,
    )
    val = ImageFolder(source.eval_data, like=train) if source.eval_data is not None else None
    teacher = source.teacher
    if teacher is None and model is not loaded and isinstance(model, SamEncoder):
        teacher = loaded  # as it was trained
    with _interruptible(folder):
        result = quantize(
            model,
            train,
            val,
            options,
            task=source.task.task,
            teacher=teacher,
            author=source.author,
            license=source.license,
            run_dir=folder,
            recipe=recipe,
            skip_broken=source.images.skip_broken,
            broken_list=source.images.broken_list,
            **machine.settings(),
        )
    group = Group(machine.device)
    if group.is_main:
        _save(result, out, force, folder)
        if curves is not None and (folder / CURVES).exists():
            with atomic_path(curves, force) as temporary:
                temporary.write_bytes(read_file(folder / CURVES, MAX_CURVES_BYTES, "curves"))
        if not remove_run(folder):
            log.info("%s is left: it holds files that are not edgevit's", folder)
    group.wait()
    return result


def _no_head(model: RepViT) -> str:
    info = model.checkpoint_info
    assert info is not None
    parts = parts_of(info.riders)
    beside = f" beside {', '.join(parts)}, of which edgevit has none" if parts else ""
    return (
        f"{info.path}: holds a backbone, {info.variant} without a classifier's head{beside}; "
        "--task features quantizes its maps, and its images need no classes"
    )


def _features(model: nn.Module, source: Source) -> RepViT:
    """The net whose outputs are the features that were asked for.

    Raises InputError for stages that it has not, for a neck that edgevit does not know, and where
    --upsample says too little or has nothing to say.
    """
    if not isinstance(model, RepViT):
        raise InputError(
            f"{source.checkpoint}: --task features takes the stages of a RepViT; of another net, "
            'quantize a module that returns the maps: edgevit.quantize(net, ..., task="features")'
        )
    asked = source.task
    found = model.features([s - 1 for s in asked.stages]) if asked.stages else model.as_features()
    if not isinstance(found, SamEncoder) or not found.config.fusion:
        if asked.upsample != "as-trained":
            raise InputError(
                f"--upsample {asked.upsample} is for an image encoder that sums two stages, which "
                f"{source.checkpoint} is not, or not with these --stages"
            )
        return found
    if asked.upsample == "as-trained" and found.config.upsample == "bicubic":
        raise InputError(
            f"{source.checkpoint}: this encoder enlarges its last stage by bicubic interpolation, "
            "which INT8 runtimes lack; --upsample bilinear takes bilinear interpolation in its "
            "place, with the encoder as it was trained as the teacher"
        )
    bilinear = found.with_upsample("bilinear")
    if bilinear is not found:
        images = noise_images(source.preprocessing.image_size, found.config.in_channels)[:1]
        log.info(
            "bilinear for bicubic: the float embeddings of seeded noise keep %.1f dB",
            signal_to_noise(found, bilinear, images),
        )
    return bilinear


@contextmanager
def _interruptible(folder: Path) -> Iterator[None]:
    """A Ctrl-C in the body says how to go on, where there is something to go on from."""
    try:
        yield
    except Interrupted:
        raise
    except KeyboardInterrupt as error:
        if not folder.exists():
            raise
        raise Interrupted(
            f"interrupted: what was finished is in {folder}, and the same command goes on from "
            "there"
        ) from error


def _save(result: Result, out: Path, force: bool, folder: Path) -> None:
    try:
        result.program.save(out, force)
    except InputError as error:
        raise InputError(
            f"{error}; the work is kept in {folder}, and the same command goes on from there"
        ) from error
