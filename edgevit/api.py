"""What `import edgevit` offers beyond its classes: loading, compiling, opening, validating."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from edgevit.data.images import Preprocessing
from edgevit.data.sequence import Images, as_source
from edgevit.errors import InputError
from edgevit.measure.options import ClassifyOptions, ParityOptions
from edgevit.program import Program
from edgevit.targets import artifact as artifacts
from edgevit.targets import load_target

if TYPE_CHECKING:
    from edgevit.measure.classify import Classifier, Prediction
    from edgevit.measure.parity import Parity
    from edgevit.models.repvit import RepViT
    from edgevit.targets.manifest import Manifest

PathLike = str | os.PathLike[str]


def load(path: PathLike, *, variant: str | None = None, weights: str | None = None) -> RepViT:
    """The net of a RepViT checkpoint (.pth, .pt, .safetensors), in eval mode, on the CPU.

    variant     fail unless it is this one, such as "repvit_m0_9"
    weights     which weights of several in the file, such as "model_ema"
    `model.checkpoint_info` says what was recognised. Nothing in the file is run. Raises InputError
    when it cannot be read safely or is of another architecture.
    """
    from edgevit.models import checkpoint

    return checkpoint.load(path, variant=variant, weights=weights).model


def compile(
    program: Program | PathLike,
    target: str,
    folder: PathLike,
    *,
    force: bool = False,
    **options: str,
) -> Artifact:
    """Compile a program (or its .evq file) for a target ("tflite", "coreml", "tensorrt").

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
        **options: str,
    ) -> Parity:
        """Compare the artifact with its program, layer by layer and by predictions.

        images          an ImageFolder or another source, pre-processed as the program's images
        program         default: the one it was compiled from here, or the .evq beside the folder
        layer_images    images compared layer by layer
        limit           images predicted, evenly spread; default: all
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
            **options,
        )

    @overload
    def classify(
        self, images: PathLike, top_k: int = ClassifyOptions.top_k, **options: str
    ) -> list[Prediction]: ...
    @overload
    def classify(
        self, images: Sequence[Any], top_k: int = ClassifyOptions.top_k, **options: str
    ) -> list[list[Prediction]]: ...
    def classify(self, images: Any, top_k: int = ClassifyOptions.top_k, **options: str) -> Any:
        """The `top_k` likeliest classes of an image, or of each of several, best first.

        An image is the path of a JPEG or PNG, a PIL image, or uint8 (H, W, 3) RGB. Raises
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

    def source(self, images: Images) -> Any:
        """The images as a source with the artifact's preprocessing and classes."""
        return as_source(images, self.preprocessing, self.labels)

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
        return Program.load(find_program(self._artifact, path))

    def __repr__(self) -> str:
        return f"<edgevit.Artifact {self.manifest.target} in {self.folder}>"
