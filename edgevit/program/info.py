"""What a program says about itself besides its numbers, each part checked when it is made."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from edgevit.choices import PROFILES, WEIGHTS_ONLY
from edgevit.data.images import Preprocessing, check_labels
from edgevit.errors import InputError
from edgevit.options import Size
from edgevit.program.tensors import read_tensors, tensor_bytes
from edgevit.schema import to_json
from edgevit.tasks import load_task

CLASSIFICATION = "classification"
"""The task of a program that names none."""
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class ModelInfo:
    """Which RepViT: variant ("repvit_m0_9"), number of classes, input size in pixels.

    image_size  the side of a square, or (height, width)
    """

    variant: str
    classes: int
    image_size: Size

    def __post_init__(self) -> None:
        if isinstance(self.image_size, list):  # of JSON
            object.__setattr__(self, "image_size", tuple(self.image_size))


@dataclass(frozen=True)
class Metric:
    """One measured number.

    name            what and of which net, such as "qat_top1"
    value           in the unit the name implies; accuracies are fractions of 1
    count           samples it was measured on
    dataset_sha256  `ImageSet.sha256` of those samples, None where there is no such set
    """

    name: str
    value: float
    count: int
    dataset_sha256: str | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.value) or self.count < 0:
            raise InputError(f"metric {self.name}: {self.value} on {self.count} samples")
        if self.dataset_sha256 is not None and not SHA256.fullmatch(self.dataset_sha256):
            raise InputError(f"metric {self.name}: {self.dataset_sha256!r} is not a sha256")


@dataclass(frozen=True)
class ProgramInfo:
    """Everything in evq.json that is not a tensor.

    profile         "portable" or "asymmetric"; "weights-only" of a `WeightsProgram`
    labels          class names in the order of the logits; distinct, one line each
    metrics         with their sample counts
    provenance      JSON values only: sha256 of checkpoint and data, versions, command, seed, ...
    task            what the outputs mean (edgevit.tasks); a net of another one has no labels
    Plain dicts are taken for `model` and `preprocessing` as well.
    Raises InputError, naming the field.
    """

    model: ModelInfo
    profile: str
    preprocessing: Preprocessing
    labels: tuple[str, ...]
    metrics: tuple[Metric, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    task: str = CLASSIFICATION

    def __post_init__(self) -> None:
        if isinstance(self.model, Mapping):
            object.__setattr__(self, "model", ModelInfo(**self.model))
        if isinstance(self.preprocessing, Mapping):
            found = Preprocessing.from_json(dict(self.preprocessing))
            object.__setattr__(self, "preprocessing", found)
        for name in ("labels", "metrics"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.profile not in (*PROFILES, WEIGHTS_ONLY):
            raise InputError(f"profile {self.profile!r} is not one of {', '.join(PROFILES)}")
        load_task(self.task)
        if len(self.labels) != self.model.classes:
            raise InputError(f"{len(self.labels)} labels for {self.model.classes} classes")
        check_labels(self.labels)
        if self.preprocessing.image_size != self.model.image_size:
            raise InputError(
                f"preprocessing makes {self.preprocessing.size_text} images, the model takes "
                f"{self.model.image_size} px"
            )
        try:
            json.dumps(self.provenance, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InputError(f"provenance must hold JSON values only: {error}") from error

    def to_json(self) -> dict[str, Any]:
        """The fields as they stand in evq.json."""
        return {
            "model": to_json(self.model),
            "profile": self.profile,
            "preprocessing": self.preprocessing.to_json(),
            "labels": list(self.labels),
            "metrics": [asdict(metric) for metric in self.metrics],
            "provenance": dict(self.provenance),
            **({} if self.task == CLASSIFICATION else {"task": self.task}),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ProgramInfo:
        """The inverse of `to_json`, for values that fit schemas/evq.schema.json."""
        names = ("model", "profile", "preprocessing", "labels", "provenance")
        metrics = tuple(Metric(**metric) for metric in value["metrics"])
        task = value.get("task", CLASSIFICATION)
        return cls(metrics=metrics, task=task, **{name: value[name] for name in names})


@dataclass(frozen=True, eq=False)
class Reference:
    """What the program answers on known images, for the harness to compare an artifact with.

    logits          float32 (N, C), of the program
    paths           N image paths relative to their set
    dataset_sha256  `ImageSet.sha256` of the set
    float_logits    float32 (N, C), of the float net; optional
    """

    logits: np.ndarray
    paths: tuple[str, ...]
    dataset_sha256: str
    float_logits: np.ndarray | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "paths", tuple(self.paths))
        arrays = [self.logits] if self.float_logits is None else [self.logits, self.float_logits]
        for array in arrays:
            if array.dtype != np.float32 or array.ndim != 2 or not np.isfinite(array).all():
                raise InputError("reference logits must be finite float32 (N, C)")
            if array.shape != self.logits.shape or len(array) != len(self.paths):
                raise InputError("reference logits and paths differ in their number of images")
        if any(not path or "\n" in path for path in self.paths):
            raise InputError("a reference path is empty or has a line break in it")
        if not SHA256.fullmatch(self.dataset_sha256):
            raise InputError(f"reference: {self.dataset_sha256!r} is not a sha256")

    @property
    def size_bytes(self) -> int:
        """About the size of `to_bytes`."""
        return self.logits.nbytes * (1 if self.float_logits is None else 2)

    def to_bytes(self) -> bytes:
        """The safetensors file of the contract: logits, float_logits, paths as bytes."""
        text = np.frombuffer(os.fsencode("\n".join(self.paths)), np.uint8)
        tensors = {"logits": self.logits, "paths": text}
        if self.float_logits is not None:
            tensors["float_logits"] = self.float_logits
        return tensor_bytes(tensors, {"schema_version": "1", "dataset_sha256": self.dataset_sha256})

    @classmethod
    def from_bytes(cls, data: bytes) -> Reference:
        """The inverse of `to_bytes`. Raises InputError for any other file."""
        tensors, metadata = read_tensors(data, "reference.safetensors")
        known = {"logits", "float_logits", "paths"}
        if metadata.get("schema_version") != "1" or not set(tensors) <= known:
            raise InputError("reference.safetensors has another schema version or tensors")
        try:
            text = os.fsdecode(tensors["paths"].tobytes())
            paths = tuple(text.split("\n")) if text else ()
            return cls(
                tensors["logits"], paths, metadata["dataset_sha256"], tensors.get("float_logits")
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"reference.safetensors is damaged: {error}") from error
