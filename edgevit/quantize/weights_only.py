"""A trained net with int8 weights and real activations: what is made of it without any image."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

from torch import nn

from edgevit.choices import WEIGHTS_ONLY
from edgevit.data.images import Preprocessing
from edgevit.errors import InputError
from edgevit.graph.weights import weights_form
from edgevit.models.fuse import NOISE_SOURCE, noise_images
from edgevit.program import ModelInfo, ProgramInfo, WeightsProgram
from edgevit.quantize.subject import Subject, module_of, subject_of
from edgevit.tasks import load_task

log = logging.getLogger(__name__)


def weights_program(
    model: nn.Module | str | os.PathLike[str],
    preprocessing: Preprocessing,
    labels: Sequence[str] | None = None,
    *,
    name: str | None = None,
) -> WeightsProgram:
    """The program of a net's weights as int8, to be compiled for TFLite or Core ML.

        net = edgevit.weights_program("repvit.pth", edgevit.Preprocessing(224, 256))
        net.compile("tflite", "build/tflite")

    model           a traceable net that classifies, or a RepViT checkpoint's path; it is fused, and
                    that is proved on seeded noise
    preprocessing   that of the net's validation: nothing here can tell a wrong one
    labels          class names in the order of the logits; default: class_0000, class_0001, ...
    name            for the manifest; default: the net's
    Raises InputError for a net that is no classifier of so many labels, that takes other channels
    or that holds an operation that no program has; GateFailed where fusing changes its logits.
    """
    module = module_of(model, preprocessing.image_size)
    _check_channels(module, preprocessing)
    images = noise_images(preprocessing.image_size, preprocessing.channel_count)
    subject = subject_of(module, images, NOISE_SOURCE, name)
    names = _labels(subject, labels)
    info = ProgramInfo(
        model=ModelInfo(subject.name, len(names), preprocessing.image_size),
        profile=WEIGHTS_ONLY,
        preprocessing=preprocessing,
        labels=names,
        provenance=subject.origin,
    )
    file = subject.origin.get("checkpoint", {"file": None, "sha256": subject.key})
    graph = weights_form(subject.graph)
    return WeightsProgram(graph, info, file_name=file["file"], sha256=file["sha256"])


def _check_channels(module: nn.Module, preprocessing: Preprocessing) -> None:
    taken = getattr(getattr(module, "config", None), "in_channels", preprocessing.channel_count)
    if taken != preprocessing.channel_count:
        raise InputError(
            f"the net takes images of {taken} channels, and {preprocessing.channels} has "
            f"{preprocessing.channel_count}: give the --channels of its training"
        )


def _labels(subject: Subject, given: Sequence[str] | None) -> tuple[str, ...]:
    """Raises InputError where they are not as many as the net's classes."""
    shapes = [subject.graph.shape(output) for output in subject.graph.outputs]
    classes = shapes[0][-1]
    load_task("classification").check(shapes, classes)
    if given is None:
        log.info("no labels are given: the %d classes are called class_0000 and so on", classes)
        return tuple(f"class_{index:04d}" for index in range(classes))
    if len(given) != classes:
        raise InputError(f"{len(given)} labels are given, and the net has {classes} classes")
    return tuple(given)
