"""What `import edgevit` offers beyond its classes: loading, compiling, opening, validating."""

from __future__ import annotations

import os
import tempfile
from dataclasses import fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, overload

from edgevit.data.export import image_files
from edgevit.data.images import Preprocessing
from edgevit.data.sequence import Images, as_source
from edgevit.data.soundness import sound
from edgevit.data.source import ImageFolder, ImageSource, check_same_input
from edgevit.errors import InputError
from edgevit.files import check_target
from edgevit.measure.options import ClassifyOptions, ParityOptions
from edgevit.program import Program
from edgevit.targets import artifact as artifacts
from edgevit.targets import load_target
from edgevit.tasks import load_task

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image as Picture
    from torch import Tensor

    from edgevit.measure.classify import Classifier, Prediction
    from edgevit.measure.parity import Parity
    from edgevit.measure.validate import Validation
    from edgevit.models.repvit import RepViT
    from edgevit.targets import Runner
    from edgevit.targets.manifest import Manifest

PathLike = str | os.PathLike[str]
Image: TypeAlias = "PathLike | Picture | np.ndarray | Tensor"


def load(
    path: PathLike, *, variant: str | None = None, weights: PathLike | None = None
) -> RepViT | Any:
    """The net of a RepViT checkpoint, in eval mode, on the CPU; a file's name does not matter.
    Or a net of timm by its name, with the weights of a file:

        net = edgevit.load("timm:mobilenetv3_large_100", weights="mine.pth")

    variant     fail unless it is this one, such as "repvit_m0_9"
    weights     which weights of several in the file, such as "model"; default: the averaged ones
                (EMA) where there are some. Of a net of timm: the file, or "mine.pth#model"
    `model.checkpoint_info` says what was recognised. Nothing in the file is run. Raises InputError
    when it cannot be read safely or is of another architecture, ToolMissing where timm is missing.
    """
    from edgevit.models.nets import load_net

    return load_net(path, variant=variant, weights=weights)


def compile(
    program: Program | PathLike,
    target: str,
    folder: PathLike,
    *,
    force: bool = False,
    **options: str,
) -> Artifact:
    """Compile a program (or its .evq file) for a target, such as "tflite".

    folder      the artifact folder to write, whole or not at all; `force` replaces one
    options     the target's own, as those of `edgevit compile --help`
    The written bytes are read back and every scale and weight compared with the program's. Raises
    InputError for an unknown target or option, an existing folder, or a program that the target
    cannot express, and EdgevitError when the comparison finds a difference.
    """
    if not isinstance(program, Program):
        program = Program.load(program)
    load_target(target).compile(program, Path(folder), force, **options)
    return Artifact(artifacts.load_artifact(folder), program)


def open(folder: PathLike) -> Artifact:
    """An artifact folder that `compile` wrote.

    Raises InputError when it is none, or holds other bytes than its manifest says.
    """
    return Artifact(artifacts.load_artifact(folder))


def validate(
    artifact: Artifact | PathLike,
    images: Images,
    *,
    program: Program | PathLike | None = None,
    out: PathLike | None = None,
    force: bool = False,
    **options: Any,
) -> Validation:
    """Run an artifact on images with the C++ harness, and gate what it measured.

        validate("build/tflite", val, device="ssh://pi@board", duration_s=60).gate

    images      labelled, or any of a task without classes; pre-processed as the program's images;
                what is no ImageFolder is written as files
    program     needed for images that the artifact records no logits for; default: the program it
                was compiled from in this process
    out         JSON to write as `edgevit validate` does (`force` replaces it); default: none
    options     fields of `ValidateOptions` (max_drop, min_agreement, device, ...) and of
                `HarnessRequest` (threads, limit, duration_s, ...), which has their documentation
    Raises InputError for bad input; GateFailed, whose `result` is the Validation, when a gate does
    not hold; ToolMissing when the harness cannot be built or the device not be reached.
    """
    from edgevit.measure.request import HarnessRequest, ValidateOptions
    from edgevit.measure.validate import measured, save

    opened = artifact if isinstance(artifact, Artifact) else open(artifact)
    if out is not None:
        check_target(out, force)
    judged = {f.name for f in fields(ValidateOptions)} - {"program"}
    asked = {f.name for f in fields(HarnessRequest)} - {
        "artifact",
        "data",
        "reference",
        "out",
        "maps_last",
    }
    if unknown := sorted(set(options) - judged - asked):
        listed = ", ".join(sorted(judged | asked))
        raise InputError(f"validate has no option {', '.join(unknown)}; it has {listed}")
    with tempfile.TemporaryDirectory(prefix="edgevit-") as folder:
        source = opened.source(images)
        if isinstance(source, ImageFolder):
            skip_broken = bool(options.get("skip_broken", False))
            source = source.with_images(sound(source.images, skip_broken))
        data, reference = opened._as_files(source, program, Path(folder))
        known = program is not None or opened._program is not None
        wanted = known and not load_task(opened.manifest.task).has_labels
        found = measured(
            HarnessRequest(
                artifact=opened.folder,
                data=data,
                reference=reference,
                **{name: value for name, value in options.items() if name in asked},
            ),
            ValidateOptions(**{name: v for name, v in options.items() if name in judged}),
            opened._own_program(program) if wanted else None,
        )
    if out is not None:
        save(found, Path(out), force)
    found.require()
    return found


class Artifact:
    """A compiled artifact: its folder, its manifest, and what can be asked of it on this machine.

    Some targets have no runtime here (TensorRT without a GPU, Core ML off a Mac): theirs are run
    by a reference interpreter, and `engine` of a result says so.
    """

    def __init__(self, artifact: artifacts.Artifact, program: Program | None = None) -> None:
        self._artifact, self._program = artifact, program

    @property
    def folder(self) -> Path:
        return self._artifact.folder

    @property
    def manifest(self) -> Manifest:
        """manifest.json, checked."""
        return self._artifact.manifest

    @property
    def preprocessing(self) -> Preprocessing:
        return self.manifest.preprocessing

    @property
    def labels(self) -> list[str]:
        """Class names in the order of the logits."""
        return list(self.manifest.labels)

    def parity(
        self,
        images: Images,
        *,
        program: Program | PathLike | None = None,
        layer_images: int = ParityOptions.layer_images,
        limit: int | None = ParityOptions.images,
        device: str = ParityOptions.device,
        **options: str,
    ) -> Parity:
        """Compare the artifact with its program, layer by layer and by predictions.

        images          an ImageFolder or another source, pre-processed as the program's images
        program         default: the one it was compiled from here, or the .evq beside the folder
        layer_images    images compared layer by layer
        limit           images predicted, evenly spread; default: all
        device          that runs the program: "cpu", "cuda" or "auto"
        options         of the target's runner, as those of `edgevit parity --help`
        Raises InputError for another program, images pre-processed otherwise, unknown options.
        """
        from edgevit.measure.parity import parity_of

        return parity_of(
            self._artifact,
            self._own_program(program),
            self.source(images),
            layer_images=layer_images,
            images=limit,
            device=device,
            **options,
        )

    @overload
    def classify(
        self, images: Image, top_k: int = ClassifyOptions.top_k, **options: str
    ) -> list[Prediction]: ...
    @overload
    def classify(
        self,
        images: list[Any] | tuple[Any, ...],
        top_k: int = ClassifyOptions.top_k,
        **options: str,
    ) -> list[list[Prediction]]: ...
    def classify(
        self,
        images: Image | list[Any] | tuple[Any, ...],
        top_k: int = ClassifyOptions.top_k,
        **options: str,
    ) -> list[Prediction] | list[list[Prediction]]:
        """The `top_k` likeliest classes of an image, or of each of several, best first.

        An image is the path of an image file, a PIL image, or uint8 (H, W, 3) RGB. Raises
        InputError for one that cannot be read, and for options the target's runner lacks.
        """
        several = isinstance(images, list | tuple)
        if options:
            from edgevit.measure.classify import Classifier

            classifier = Classifier(self._artifact, **options)
        else:
            classifier = self._classifier
        found = classifier.classify(images if several else [images], top_k)
        return found if several else found[0]

    def outputs(self, images: Images, **options: str) -> dict[str, np.ndarray]:
        """What the artifact answers, by the outputs' names in the manifest and in its order.

        images      N of them, as `parity` takes them; none needs a class
        options     of the target's runner, as those of `edgevit parity --help`
        Each output is float32 (N, ...), dequantized; a map is (N, C, H, W) on every target. Raises
        InputError as `parity` does, and for values that are not finite.
        """
        import numpy as np

        from edgevit.measure.parity import CHUNK_IMAGES, answers, open_artifact

        source = as_source(images, self.preprocessing, ())
        check_same_input(source, self.preprocessing, source.classes)
        runner = open_artifact(self._artifact, **options) if options else self._runner
        maps_last = load_target(self.manifest.target).maps_last
        starts = range(0, len(source), CHUNK_IMAGES)
        chunks = [range(i, min(i + CHUNK_IMAGES, len(source))) for i in starts]
        found = [answers(runner, source.pixels(chunk), maps_last) for chunk in chunks]
        return {name: np.concatenate([each[name] for each in found]) for name in found[0]}

    def source(self, images: Images) -> ImageSource:
        """The images as a source. Raises InputError for other preprocessing, or other classes."""
        found = as_source(images, self.preprocessing, self.labels)
        # Without labels folders mean nothing.
        check_same_input(found, self.preprocessing, self.labels or found.classes)
        return found

    def _as_files(
        self, source: ImageSource, program: Program | PathLike | None, folder: Path
    ) -> tuple[Path, Path | None]:
        """The images for the harness, and the program's logits for them, in `folder` if need be.

        No logits: the harness finds the recorded ones, or there are none.
        """
        from edgevit.measure.validate import program_reference

        data = image_files(source, folder)
        if not load_task(self.manifest.task).has_labels:
            return data, None
        recorded = self._artifact.reference()
        if recorded is None and self._program is not None:
            recorded = self._program.reference
        if recorded is not None and recorded.dataset_sha256 == source.sha256:
            if isinstance(source, ImageFolder) and self.manifest.reference is not None:
                return data, None
            reference = recorded
        elif program is None and self._program is None:
            return data, None
        else:
            task = load_task(self.manifest.task)
            reference = program_reference(self._own_program(program), source, task)
        written = ImageFolder(data, like=self.preprocessing, classes=self.labels)
        path = folder / "reference.safetensors"
        path.write_bytes(replace(reference, dataset_sha256=written.sha256).to_bytes())
        return data, path

    @cached_property
    def _runner(self) -> Runner:
        from edgevit.measure.parity import open_artifact

        return open_artifact(self._artifact)

    @cached_property
    def _classifier(self) -> Classifier:
        from edgevit.measure.classify import Classifier

        return Classifier(self._artifact)

    def _own_program(self, given: Program | PathLike | None) -> Program:
        from edgevit.measure.parity import find_program

        if given is None and self._program is not None:
            return self._program
        if isinstance(given, Program):
            if given.sha256 != self.manifest.program.sha256:
                raise InputError(f"{self.folder} was not compiled from this program")
            return given
        path = None if given is None else Path(given)
        return Program.load(find_program(self.folder, self.manifest, path))

    def __repr__(self) -> str:
        return f"<edgevit.Artifact {self.manifest.target} in {self.folder}>"
