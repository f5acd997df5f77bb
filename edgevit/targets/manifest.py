"""manifest.json of an artifact folder: what the artifact is, what it takes and what it answers.

The classes here are the definition. schemas/manifest.schema.json is generated of them
(tools/generate.py), and targets/core/manifest.h is the same in C++; both are held to the
files in tests/manifests.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, cast

import numpy as np

from edgevit.data.images import Preprocessing, check_labels
from edgevit.errors import InputError
from edgevit.files import read_file
from edgevit.limits import (
    MANIFEST_SCHEMA_VERSION,
    MAX_CLASSES,
    MAX_MANIFEST_BYTES,
    MAX_OUTPUTS,
    MAX_TENSOR_ELEMENTS,
    MAX_TENSOR_RANK,
)
from edgevit.program.info import CLASSIFICATION
from edgevit.schema import OMIT_DEFAULT, Rule, parse_json, read_json, to_json
from edgevit.targets.placement import Placement

MANIFEST_FILE, REFERENCE_FILE = "manifest.json", "reference.safetensors"
VALIDATION_FILE, PARITY_FILE = "validation.json", "parity.json"
"""What `validate` and `parity` write beside the artifact."""

_FILE_NAME = r"(?!\.{1,2}$)[^/\\\x00]+"
FileName = Annotated[str, Rule(pattern=_FILE_NAME)]
Sha256 = Annotated[str, Rule(pattern="[0-9a-f]{64}")]
Text = Annotated[str, Rule(min_size=1)]
Count = Annotated[int, Rule(minimum=0)]
Positive = Annotated[int, Rule(minimum=1)]
Scale = Annotated[float, Rule(above=0)]
DType = Literal["int8", "uint8", "float16", "float32"]
Layout = Literal["NHWC", "NCHW"]
Profile = Literal["portable", "asymmetric", "float32", "float16", "weights-only"]
PixelRow = Annotated[tuple[float, ...], Rule(min_size=256, max_size=256)]
PixelTable = Annotated[tuple[PixelRow, ...], Rule(min_size=1, max_size=4)]

_RANGES = {"int8": (-128, 127), "uint8": (0, 255)}
_FLOATS: dict[str, type[np.floating[Any]]] = {"float16": np.float16, "float32": np.float32}


class Affine(Protocol):
    """real = (q - zero_point) * scale."""

    @property
    def scale(self) -> float: ...
    @property
    def zero_point(self) -> int: ...


@dataclass(frozen=True)
class ArtifactFile:
    """The artifact: a file, or a folder as Core ML's package is.

    file        its name in the artifact folder
    sha256      of the file; of a folder, of the sha256sum listing of its files, sorted by path
    size_bytes  of the file, or of all files of the folder
    """

    file: FileName
    sha256: Sha256
    size_bytes: Positive


@dataclass(frozen=True)
class ProgramFile:
    """The quantized program that the artifact was compiled from; of one whose weights alone are
    int8, maybe the checkpoint.

    file    its name; null for a program that was never saved
    """

    file: FileName | None
    sha256: Sha256


@dataclass(frozen=True)
class Model:
    """Which net: variant ("repvit_m0_9") and number of classes, 0 for a net without."""

    variant: Text
    classes: Annotated[int, Rule(minimum=0, maximum=MAX_CLASSES)]


@dataclass(frozen=True)
class InputTensor:
    """The artifact's input: one image.

    shape       [1, H, W, C] in the layout NHWC, [1, C, H, W] in NCHW
    scale, zero_point
                real = (stored - zero_point) * scale; null for floats, and for the pixels of an
                image (uint8) that the artifact normalises itself
    table       of each channel, in the order of preprocessing.channels, what the input holds for
                the pixel values 0..255
    """

    name: Text
    shape: Annotated[tuple[Positive, ...], Rule(min_size=4, max_size=4)]
    layout: Layout
    dtype: DType
    scale: Scale | None
    zero_point: int | None
    table: PixelTable

    def __post_init__(self) -> None:
        _check_tensor(self)
        values = [value for row in self.table for value in row]
        if self.dtype in _RANGES:
            low, high = _RANGES[self.dtype]
            if not all(type(value) is int and low <= value <= high for value in values):
                raise InputError(f"table: its values must be integers from {low} to {high}")
            return
        kind = _FLOATS[self.dtype]
        limit = float(np.finfo(kind).max)
        if not all(-limit <= value <= limit for value in values):
            raise InputError(f"table: holds a number that no {self.dtype} can hold")
        # Whoever wrote a float16 table wrote halves; a float32 is written in fewer digits.
        if self.dtype == "float16" and any(float(kind(value)) != value for value in values):
            raise InputError("table: holds a number that is no float16")

    @classmethod
    def of(
        cls,
        name: str,
        shape: tuple[int, ...],
        layout: Layout,
        dtype: str,
        quantizer: Affine | None,
        table: Any,
    ) -> InputTensor:
        """From a quantizer, or None for floats and for raw pixels.

        table   (C, 256) numbers, or an array of them
        """
        rows = table.tolist() if isinstance(table, np.ndarray) else table
        edge = OutputTensor.of(name, shape, dtype, quantizer)
        found = tuple(tuple(row) for row in rows)
        return cls(name, edge.shape, layout, edge.dtype, edge.scale, edge.zero_point, found)


@dataclass(frozen=True)
class OutputTensor:
    """One of the artifact's outputs; a classification's first one is the logits, [1, classes].

    shape       of one image's output: it starts with 1
    scale, zero_point
                real = (stored - zero_point) * scale; null for floats
    meaning     "probabilities" behind a softmax of the net's own: an app must not take another
    """

    name: Text
    shape: Annotated[tuple[Positive, ...], Rule(min_size=1, max_size=MAX_TENSOR_RANK)]
    dtype: DType
    scale: Scale | None
    zero_point: int | None
    meaning: Literal["logits", "probabilities"] = field(default="logits", metadata=OMIT_DEFAULT)

    def __post_init__(self) -> None:
        _check_tensor(self)

    @classmethod
    def of(
        cls, name: str, shape: tuple[int, ...], dtype: str, quantizer: Affine | None
    ) -> OutputTensor:
        """From a quantizer, or None for floats."""
        scale = quantizer.scale if quantizer else None
        zero_point = quantizer.zero_point if quantizer else None
        return cls(name, tuple(shape), cast(DType, dtype), scale, zero_point)


def _check_tensor(tensor: InputTensor | OutputTensor) -> None:
    """Raises InputError for a shape or a quantization that no runtime could mean."""
    if tensor.shape[0] != 1:
        raise InputError("shape: must start with 1, one image at a time")
    if prod(tensor.shape) > MAX_TENSOR_ELEMENTS:
        raise InputError(f"shape: has over {MAX_TENSOR_ELEMENTS} elements")
    scale, zero_point = tensor.scale, tensor.zero_point
    if scale is None and zero_point is None and tensor.dtype != "int8":
        return
    if tensor.dtype in _FLOATS:
        raise InputError("scale and zero_point: must be null for floats")
    if scale is None or zero_point is None:
        raise InputError(f"scale and zero_point: {tensor.dtype} has both")
    limits = np.finfo(np.float32)
    if not float(limits.tiny) <= scale <= float(limits.max):
        raise InputError(f"scale: {scale} must be a positive float32")
    low, high = _RANGES[tensor.dtype]
    if not low <= zero_point <= high:
        raise InputError(f"zero_point: {zero_point} must be {low} to {high}")


@dataclass(frozen=True)
class Audit:
    """How much the scale audit compared with the program and found equal.

    activations     0 where the weights alone are int8
    """

    activations: Count
    weight_channels: Positive
    exact: Literal[True] = True


@dataclass(frozen=True)
class ReferenceFile:
    """The program's recorded logits, beside the artifact.

    dataset_sha256  of the images they were recorded on
    count           images
    """

    file: FileName
    sha256: Sha256
    dataset_sha256: Sha256
    count: Count


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """manifest.json, one field a key.

    schema_version
                3 where preprocessing says what version 2 could not, 2 else: older readers read it
    task        what the outputs mean: "classification", or another kind of net's name
    profile     "portable" or "asymmetric" of an artifact of int8 throughout; "weights-only" of one
                whose weights alone are; "float32" or "float16" of one to compare with, which has no
                audit
    tools       package name to version
    options     what it was compiled with
    labels      in the order of the logits, distinct
    drops       tensors whose quantizer this target leaves out
    islands     operations that an int8 artifact computes on real numbers: between int8 ones, or
                as an output
    ops         operator name to count
    reference   null for a program without recorded logits, or with too many to lie beside
    commands    title to a command line that takes the artifact further on a device
    files       sha256 of what lies beside the artifact, by name
    placement   of each SoC that the artifact was compiled for ahead of time
    Raises InputError where two fields contradict each other.
    """

    schema_version: Literal[2, 3] = 2
    kind: Literal["edgevit-artifact"] = "edgevit-artifact"
    target: Annotated[str, Rule(pattern="[a-z][a-z0-9]*")]
    task: Annotated[str, Rule(pattern="[a-z][a-z0-9_]*")] = CLASSIFICATION
    artifact: ArtifactFile
    program: ProgramFile
    profile: Profile
    model: Model
    tools: Mapping[str, str]
    options: Mapping[str, str]
    input: InputTensor
    outputs: Annotated[tuple[OutputTensor, ...], Rule(min_size=1, max_size=MAX_OUTPUTS)]
    preprocessing: Preprocessing
    labels: Annotated[tuple[Text, ...], Rule(max_size=MAX_CLASSES, unique=True)]
    drops: tuple[str, ...]
    ops: Mapping[str, Positive]
    audit: Audit | None
    reference: ReferenceFile | None
    commands: Mapping[str, str] = field(default_factory=dict, metadata=OMIT_DEFAULT)
    files: Annotated[Mapping[str, Sha256], Rule(key_pattern=_FILE_NAME)] = field(
        default_factory=dict, metadata=OMIT_DEFAULT
    )
    placement: tuple[Placement, ...] = field(default=(), metadata=OMIT_DEFAULT)
    islands: tuple[str, ...] = field(default=(), metadata=OMIT_DEFAULT)

    def __post_init__(self) -> None:
        if self.preprocessing.schema_version > self.schema_version:
            raise InputError(
                "preprocessing: says what schema_version 3 brought, and schema_version is "
                f"{self.schema_version}"
            )
        channels, height, width = self.preprocessing.input_shape
        is_nhwc = self.input.layout == "NHWC"
        wanted = (1, height, width, channels) if is_nhwc else (1, channels, height, width)
        if self.input.shape != wanted:
            raise InputError(
                f"input/shape: {list(self.input.shape)} must be {list(wanted)}, as "
                f"preprocessing makes it for the layout {self.input.layout}"
            )
        if len(self.input.table) != channels:
            raise InputError(f"input/table: has {len(self.input.table)} rows, expected {channels}")
        names = [tensor.name for tensor in self.outputs]
        if len(set(names)) != len(names):
            raise InputError(f"outputs: {names} must have distinct names")
        if len(self.labels) != self.model.classes:
            raise InputError(
                f"labels: {len(self.labels)} of them, expected {self.model.classes}, one a class"
            )
        check_labels(self.labels)
        if self.task == CLASSIFICATION:
            self._check_classification()

    def _check_classification(self) -> None:
        classes, shape = self.model.classes, self.outputs[0].shape
        if classes < 1:
            raise InputError("model/classes: a classification has 1 or more")
        if shape != (1, classes):
            raise InputError(
                f"outputs/0/shape: {list(shape)} must be [1, model.classes], [1, {classes}]"
            )

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Manifest:
        """The manifest of an artifact folder.

        Raises InputError, naming the place, when there is none or it is not one that this version
        of edgevit reads.
        """
        path = Path(folder) / MANIFEST_FILE
        if not os.path.lexists(path):
            raise InputError(
                f"{folder} is not an artifact folder: it has no {MANIFEST_FILE} "
                f"({_where_artifacts_are(path.parent)})"
            )
        return cls.parse(read_file(path, MAX_MANIFEST_BYTES, "a manifest"), str(path))

    @classmethod
    def parse(cls, data: bytes, what: str = MANIFEST_FILE) -> Manifest:
        """The inverse of `text`; reads older schema versions as well. InputError as of `load`."""
        if len(data) > MAX_MANIFEST_BYTES:
            raise InputError(f"{what} is too large for a manifest: over {MAX_MANIFEST_BYTES} bytes")
        return read_json(cls, _upgraded(parse_json(data, what), what), what)

    def to_json(self) -> dict[str, Any]:
        """The JSON value, for `--json` and reports."""
        return to_json(self)

    def text(self) -> bytes:
        """The contents of manifest.json. Raises InputError when they could not be read back."""
        text = json.dumps(self.to_json(), indent=1, ensure_ascii=False, allow_nan=False)
        data = (text + "\n").encode("utf-8")
        Manifest.parse(data)
        return data

    @property
    def answers_probabilities(self) -> bool:
        """Whether the first output is the result of the net's own softmax."""
        first = self.outputs[0]
        return "probabilities" in (first.meaning, first.name)  # older manifests have the name alone

    def table(self) -> np.ndarray:
        """float32 (C, 256): what the input holds for a pixel of 0..255, by channel."""
        return np.array(self.input.table, np.float32)


def _where_artifacts_are(folder: Path) -> str:
    """For who names the folder above: compile's output folder holds one folder a target."""
    inside = sorted(folder.glob(f"*/{MANIFEST_FILE}"))[:4]
    if not inside:
        return "edgevit compile writes one for each target"
    return f"{' and '.join(str(found.parent) for found in inside)} below it has one"


def _upgraded(value: Any, what: str) -> Any:
    """A manifest of an older schema version as this version writes it."""
    version = value.get("schema_version") if isinstance(value, dict) else None
    if type(version) is not int:
        return value
    if version > MANIFEST_SCHEMA_VERSION:
        raise InputError(
            f"{what}: schema_version is {version}, this edgevit reads up to "
            f"{MANIFEST_SCHEMA_VERSION}: upgrade edgevit, or compile again"
        )
    if version != 1:
        return value
    # Version 1 had one output and no task.
    for name in ("task", "outputs"):
        if name in value:
            raise InputError(f"{what}: top level: {name!r} is no key of schema_version 1")
    if "output" not in value:
        raise InputError(f"{what}: top level: 'output' is a required property")
    newer = {key: inner for key, inner in value.items() if key != "output"}
    newer |= {"schema_version": 2, "task": CLASSIFICATION}
    return newer | {"outputs": [value["output"]]}
