"""An .mlpackage, any, read by coremltools' own readers into a `MilProgram`.

An .mlpackage is a folder: Manifest.json, the specification (protobuf) and the weights. `read` makes
a graph of its ML Program, and the reference interpreter runs it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgevit.errors import InputError
from edgevit.files import write_tree
from edgevit.targets.coreml.toolkit import coremltools, empty_spec, quiet

SPEC_NAME = "Data/com.apple.CoreML/model.mlmodel"
WEIGHTS_NAME = "Data/com.apple.CoreML/weights/weight.bin"
FILES = {"Manifest.json", SPEC_NAME, WEIGHTS_NAME}
NEWEST_SPEC_VERSION = 9
"""That of iOS18."""


@dataclass(frozen=True)
class Ref:
    """An operation's argument that is another one's result, by its name."""

    name: str


@dataclass(frozen=True)
class Operation:
    """One operation of an ML Program; constants are arguments, not operations.

    kind    "conv", "quantize", "constexpr_affine_dequantize", ...
    inputs  argument name -> Ref, a tuple of Refs, or a constant (NumPy array, scalar, text, list)
    outputs (name, dtype, shape) of each result; dtype as MIL writes it: "fp16", "int8", ...
    """

    kind: str
    inputs: Mapping[str, Any]
    outputs: tuple[tuple[str, str, tuple[int, ...]], ...]

    @property
    def name(self) -> str:
        return self.outputs[0][0]

    @property
    def dtype(self) -> str:
        return self.outputs[0][1]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.outputs[0][2]


@dataclass(frozen=True)
class Feature:
    """The model's input or an output as the specification describes it.

    kind    "image RGB", "multiArray float32", "string", "dictionary", ...
    shape   of a multiArray; (height, width) of an image
    """

    name: str
    kind: str
    shape: tuple[int, ...] = ()


@dataclass(frozen=True)
class MilProgram:
    """An ML Program as it was read from a package.

    input           as the specification describes it
    input_dtype, input_shape    as the program itself declares it
    outputs, results    what the specification describes, and the variables that are given out
    """

    operations: tuple[Operation, ...]
    input: Feature
    input_dtype: str
    outputs: tuple[Feature, ...]
    results: tuple[str, ...]
    spec_version: int
    metadata: Mapping[str, str] = field(default_factory=dict)
    input_shape: tuple[int, ...] = ()


def read_package(files: Mapping[str, bytes]) -> MilProgram:
    """The ML Program in a package's files (relative path -> bytes).

    Raises InputError for a package of other software or with a newer specification, and for
    anything that coremltools cannot read.
    """
    if set(files) != FILES:
        odd = sorted(set(files) ^ FILES)
        raise InputError(
            f"not a package that edgevit wrote: {odd[0]} is "
            + ("missing" if odd[0] in FILES else "not one of its files")
        )
    spec = _parse_spec(files[SPEC_NAME])
    if spec.specificationVersion > NEWEST_SPEC_VERSION:
        raise InputError(
            f"its Core ML specification is version {spec.specificationVersion}, newer than "
            f"{NEWEST_SPEC_VERSION}, the newest this edgevit knows"
        )
    if (kind := spec.WhichOneof("Type")) != "mlProgram":
        raise InputError(f"holds a Core ML {kind or 'file without a model'}, not an ML Program")
    coremltools()
    from coremltools.converters.mil.frontend.milproto.load import load

    with tempfile.TemporaryDirectory(prefix="edgevit-") as folder, quiet():
        write_tree(Path(folder), files)
        weights = Path(folder) / WEIGHTS_NAME
        try:
            loaded = load(spec, spec.specificationVersion, str(weights.parent))
            return _mil_program(spec, loaded)
        except InputError:
            raise
        except Exception as error:  # of many kinds, for as many ways to be damaged
            raise InputError(f"coremltools cannot read this package: {error}") from error


def references(op: Operation) -> Iterator[Ref]:
    """The variables that an operation reads."""
    for value in op.inputs.values():
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, Ref):
                yield item


def _parse_spec(data: bytes) -> Any:
    from google.protobuf.message import DecodeError

    spec = empty_spec()
    try:
        spec.ParseFromString(data)
    except DecodeError as error:
        raise InputError(f"{SPEC_NAME} is not a Core ML specification: {error}") from error
    return spec


def _mil_program(spec: Any, loaded: Any) -> MilProgram:
    if set(loaded.functions) != {"main"}:
        raise InputError(f"has the functions {sorted(loaded.functions)}, expected main alone")
    main = loaded.functions["main"]
    operations = tuple(_operation(op) for op in main.operations if op.op_type != "const")
    features = [_feature(feature) for feature in spec.description.input]
    if len(features) != 1 or len(main.inputs) != 1:
        raise InputError(f"has {len(features)} inputs, expected one")
    (source,) = main.inputs.values()
    return MilProgram(
        operations=operations,
        input=features[0],
        input_dtype=_dtype(source),
        input_shape=_shape(source),
        outputs=tuple(_feature(feature) for feature in spec.description.output),
        results=tuple(var.name for var in main.outputs),
        spec_version=spec.specificationVersion,
        metadata=dict(spec.description.metadata.userDefined)
        | {
            name: getattr(spec.description.metadata, name)
            for name in ("author", "license", "versionString", "shortDescription")
        },
    )


def _operation(op: Any) -> Operation:
    if op.blocks:
        raise InputError(f"{op.op_type} with nested blocks: no RepViT has control flow")
    inputs = {name: _argument(var) for name, var in op.inputs.items() if var is not None}
    outputs = tuple((var.name, _dtype(var), _shape(var)) for var in op.outputs)
    return Operation(op.op_type, inputs, outputs)


def _argument(var: Any) -> Any:
    if isinstance(var, (list, tuple)):
        return tuple(_argument(item) for item in var)
    if var.op is None or var.op.op_type != "const":
        return Ref(var.name)
    return var.val


def _dtype(var: Any) -> str:
    from coremltools.converters.mil.mil.types import builtin_to_string

    return builtin_to_string(var.dtype)


def _shape(var: Any) -> tuple[int, ...]:
    # A list or dictionary (of `classify`) has none.
    shape = getattr(var.sym_type, "get_shape", tuple)()
    return tuple(int(size) for size in shape)


def _feature(feature: Any) -> Feature:
    kind = feature.type.WhichOneof("Type")
    value = getattr(feature.type, kind)
    if kind == "imageType":
        space = value.ColorSpace.Name(value.colorSpace)
        return Feature(feature.name, f"image {space}", (int(value.height), int(value.width)))
    if kind == "multiArrayType":
        dtype = value.ArrayDataType.Name(value.dataType).lower()
        return Feature(feature.name, f"multiArray {dtype}", tuple(int(n) for n in value.shape))
    return Feature(feature.name, kind.removesuffix("Type"))
