"""Writes the golden manifests and table.json again: python -m tests.manifests.make

Not of version 1: no edgevit writes that any more.
"""

from __future__ import annotations

import copy
import json
import tempfile
from pathlib import Path
from typing import Any

from edgevit.data.images import Preprocessing
from edgevit.limits import (
    MAX_CLASSES,
    MAX_IMAGE_SIZE,
    MAX_LABEL_BYTES,
    MAX_OUTPUTS,
    MAX_RESIZE_SIZE,
    MAX_TENSOR_ELEMENTS,
    MAX_TENSOR_RANK,
)
from edgevit.targets import load_target
from edgevit.targets.manifest import InputTensor, ReferenceFile
from tests.manifests import FOLDER, TABLE, Golden, Step, null_manifest

COMPILED = {
    "tflite-int8": ("tflite", {"io": "int8"}),
    "tflite-uint8": ("tflite", {"io": "uint8"}),
    "tflite-float32": ("tflite", {"io": "float32"}),
    "tflite-weights-only": ("tflite", {"weights_only": "on"}),
    "coreml-weights-only": ("coreml", {"weights_only": "on"}),
    "coreml-image": ("coreml", {"input_type": "image"}),
    "coreml-classifier": ("coreml", {"input_type": "image", "output_type": "classifier"}),
    "tensorrt": ("tensorrt", {}),
}
"""Good file -> target and options of the small program of tests.programs."""

VERSION_1 = ("version-1-tflite-int8", "version-1-tensorrt")
HUGE = 10**30
MISSING = "is a required property"
VERSION_3 = "says what schema_version 3 brought"

FAULTS: list[tuple[str, str, Any, str | None, str | None]] = [
    # reason, JSON pointer, value, messages of Python and of C++; None: the reader takes it
    ("schema-version-newer", "/schema_version", 4, "reads up to 3", "reads up to 3"),
    ("schema-version-text", "/schema_version", "2", "'2' is not one of [2, 3]", "an integer"),
    ("kind-other", "/kind", "edgevit-result", "is not 'edgevit-artifact'", "expected"),
    ("key-unknown", "/a_later_key", 1, "Additional properties", None),
    ("file-outside", "/artifact/file", "../model.bin", "does not match", "name of a file"),
    ("file-with-backslash", "/artifact/file", "a\\b", "does not match", None),
    ("file-parent", "/artifact/file", "..", "does not match", "name of a file"),
    ("sha256-short", "/artifact/sha256", "abc", "does not match", "64 lower-case"),
    ("sha256-line-break", "/artifact/sha256", "0" * 64 + "\n", "does not match", "64 lower-case"),
    ("size-zero", "/artifact/size_bytes", 0, "less than the minimum", None),
    ("profile-unknown", "/profile", "loud", "is not one of", None),
    ("options-number", "/options/io", 8, "not of type 'string'", "must be a string"),
    ("classes-none", "/model/classes", 0, "expected 0, one a class", "from 1 to"),
    ("classes-many", "/model/classes", MAX_CLASSES + 1, "greater than", "from 1 to 1000000"),
    ("classes-fraction", "/model/classes", 3.0, "not of type 'integer'", "must be an integer"),
    ("classes-boolean", "/model/classes", True, "not of type 'integer'", "must be an integer"),
    ("input-without-table", "/input/table", None, "not of type 'array'", "array of 3"),
    ("input-table-short", "/input/table/1", [1, 2], "too short", "arrays of 256"),
    ("input-table-range", "/input/table/1/7", 256, "integers from 0 to 255", "from 0 to 255"),
    ("input-table-fraction", "/input/table/1/7", 7.5, "integers from 0 to 255", "an integer"),
    ("input-shape", "/input/shape", [1, 9, 8, 3], "must be [1, 8, 8, 3]", "must be [1,8,8,3]"),
    ("input-layout", "/input/layout", "CHWN", "is not one of", "known are NHWC, NCHW"),
    ("input-layout-of-the-shape", "/input/layout", "NCHW", "[1, 3, 8, 8]", "must be [1,3,8,8]"),
    ("input-table-two-rows", "/input/table", [[0] * 256] * 2, "2 rows, expected 3", "array of 3"),
    ("input-table-negative", "/input/table/0/0", -1, "integers from 0 to 255", "from 0 to 255"),
    ("input-table-huge", "/input/table/0/0", HUGE**20, "not valid JSON", "not valid JSON"),
    ("input-dtype", "/input/dtype", "int4", "is not one of", "input.dtype is 'int4'"),
    ("input-float-with-scale", "/input/dtype", "float32", "null for floats", "null for floats"),
    ("input-scale-zero", "/input/scale", 0, "less than or equal", "positive float32"),
    ("input-scale-tiny", "/input/scale", 1e-60, "positive float32", "positive float32"),
    ("input-scale-large", "/input/scale", 1e60, "positive float32", "positive float32"),
    ("input-scale-huge-integer", "/input/scale", HUGE**20, "not valid JSON", "not valid JSON"),
    ("input-zero-point-alone", "/input/scale", None, "has both", "finite number"),
    ("input-zero-point-range", "/input/zero_point", 256, "must be 0 to 255", "from 0 to 255"),
    ("output-zero-point-range", "/outputs/0/zero_point", 300, "must be -128 to 127", "to 127"),
    ("output-zero-point-alone", "/outputs/0/zero_point", None, "has both", "an integer from -128"),
    ("outputs-none", "/outputs", [], "too short", "array of 1 to"),
    ("output-int8-without-scale", "/outputs/0/scale", None, "has both", "finite number"),
    ("output-classes", "/outputs/0/shape", [1, 4], "[1, model.classes]", "[1, model.classes]"),
    ("output-meaning", "/outputs/0/meaning", "odds", "odds", "known are logits, probabilities"),
    ("output-batch", "/outputs/0/shape", [2, 3], "must start with 1", "must start with 1"),
    ("output-rank", "/outputs/0/shape", [1] * (MAX_TENSOR_RANK + 1), "too long", "array of 1 to 8"),
    ("output-side-zero", "/outputs/0/shape", [1, 0], "less than the minimum", "from 1 to"),
    (
        "output-elements", "/outputs/0/shape", [1, 2**20, 2**20], f"over {MAX_TENSOR_ELEMENTS}",
        f"over {MAX_TENSOR_ELEMENTS}",
    ),
    ("labels-few", "/labels", ["a", "b"], "expected 3, one a class", "array of 3"),
    ("labels-twice", "/labels/1", "c0", "non-unique", "names 'c0' twice"),
    ("labels-empty", "/labels/1", "", "too short", "1 to 4096 bytes"),
    ("labels-zero-byte", "/labels/1", "a\0b", "zero byte", "zero byte"),
    ("labels-number", "/labels/1", 5, "not of type 'string'", "must be strings"),
    ("labels-long", "/labels/1", "é" * (MAX_LABEL_BYTES // 2 + 1), "over 4096 bytes", "4096 bytes"),
    ("image-size-large", "/preprocessing/image_size", MAX_IMAGE_SIZE + 1, "greater", "to 4096"),
    (
        "resize-size-large", "/preprocessing/resize_size", MAX_RESIZE_SIZE + 1, "greater",
        "to 16384",
    ),
    ("resize-size-below-crop", "/preprocessing/resize_size", 7, "would not fit", "from 8"),
    ("interpolation-unknown", "/preprocessing/interpolation", "lanczos", "not one of", "known are"),
    ("std-zero", "/preprocessing/std", [0.2, 0.0, 0.2], "std must be positive", "must be positive"),
    ("std-of-bytes", "/preprocessing/std", [58.4, 57.1, 57.4], "greater than", "from 0 to 1"),
    ("mean-of-bytes", "/preprocessing/mean", [123.7, 116.3, 103.5], "greater than", "from 0 to 1"),
    ("mean-of-two", "/preprocessing/mean", [0.5, 0.5], "three finite numbers", "array of 3"),
    ("exact-in-version-2", "/preprocessing/resize", "exact", VERSION_3, VERSION_3),
    ("sizes-in-version-2", "/preprocessing/resize_size", [9, 12], VERSION_3, VERSION_3),
    ("area-in-version-2", "/preprocessing/interpolation", "area", VERSION_3, VERSION_3),
    ("plain-in-version-2", "/preprocessing/antialias", False, VERSION_3, VERSION_3),
    ("bgr-in-version-2", "/preprocessing/channels", "BGR", VERSION_3, VERSION_3),
    ("padding-of-shorter", "/preprocessing/pad_color", [0], "belong to 'fit'", "belong to the"),
    ("mean-text", "/preprocessing/mean/0", "0.485", "not of type 'number'", "finite number"),
    (
        "audit-inexact", "/audit", {"activations": 1, "weight_channels": 1, "exact": False},
        "is not True", None,
    ),
]  # fmt: skip
SWIFT = {
    "schema-version-newer": "schema_version is",
    "schema-version-text": "typeMismatch",
    "labels-number": "typeMismatch",
    "image-size-large": "image_size is not",
    "resize-size-large": "resize_size is not",
    "resize-size-below-crop": "resize_size is not",
    "interpolation-unknown": "dataCorrupted",
    "resize-unknown": "dataCorrupted",
    "channels-unknown": "dataCorrupted",
    "pad-position-unknown": "dataCorrupted",
    "antialias-number": "typeMismatch",
    "sizes-three": "typeMismatch",
    "sizes-large": "resize_size is not",
    "exact-below-crop": "resize_size is not",
    "pad-color-range": "pad_color is not",
    "without-artifact": "keyNotFound",
    "without-labels": "keyNotFound",
    "without-preprocessing": "keyNotFound",
    "without-schema_version": "keyNotFound",
}
"""The reasons for which the Swift package refuses, and what its error is called or says."""

NEEDED = {  # keys without which a reader refuses; False: C++ does not read the key
    "/schema_version": True, "/kind": True, "/target": True, "/task": True, "/artifact": True,
    "/program": True, "/profile": True, "/model": True, "/options": True, "/input": True,
    "/outputs": True, "/preprocessing": True, "/labels": True, "/reference": True,
    "/tools": False, "/drops": False, "/ops": False, "/audit": False,
}  # fmt: skip


def put(document: Any, pointer: str, value: Any) -> Any:
    """A copy of a JSON document with another value at a pointer."""
    changed = copy.deepcopy(document)
    *path, last = pointer.split("/")[1:]
    place = changed
    for step in path:
        place = place[int(step)] if isinstance(place, list) else place[step]
    place[int(last) if isinstance(place, list) else last] = value
    return changed


def null_document() -> dict[str, Any]:
    """The good manifest that the bad ones differ from in one place."""
    manifest = null_manifest(
        ("c0", "c1", "c2"),
        Preprocessing(8, 8),
        "c7c5c1d70c5dec4416ab6158afd0b223ef40c29b1dc1f97ed9428b94d4cadb1c",  # of "artifact"
        8,
        options={"io": "int8"},
        input=InputTensor.of(
            "input", (1, 8, 8, 3), "NHWC", "uint8", Step(0.5, 3), [range(256)] * 3
        ),
    )
    document = manifest.to_json()
    document["outputs"][0]["zero_point"] = -1
    return document


def good_documents() -> dict[str, Any]:
    """Name -> good manifest, of those that are not simply compiled."""
    null = null_document()
    features = [
        {"name": f"stage {i}", "shape": [1, 8 * i, 8 // i, 8 // i], "dtype": "float32",
         "scale": None, "zero_point": None}
        for i in (1, 2, 4)
    ]  # fmt: skip
    reference = ReferenceFile("reference.safetensors", "a" * 64, "b" * 64, 5)
    everything = null | {
        "reference": vars(reference), "commands": {"a title": "a command"},
        "files": {"beside.plan": "c" * 64}, "drops": ["stem.conv1"], "ops": {"CONV_2D": 3},
        "audit": {"activations": 4, "weight_channels": 5, "exact": True},
    }  # fmt: skip
    with_features = null | {"outputs": null["outputs"] + features[:1]}
    without_classes = null | {
        "task": "features", "outputs": features, "labels": [],
        "model": {"variant": "repvit_m0_9", "classes": 0},
    }  # fmt: skip
    newer = {f"version-3-{name}": of_version_3(keys) for name, keys in OF_VERSION_3.items()}
    most = [features[0] | {"name": f"stage {i}"} for i in range(MAX_OUTPUTS - 1)]
    return {
        "null": null, "every-key": everything, "several-outputs": with_features,
        "features-without-classes": without_classes,
        "most-outputs": null | {"outputs": null["outputs"] + most},
        "probabilities": null | {"outputs": [null["outputs"][0] | {"meaning": "probabilities"}]},
        **newer,
    }  # fmt: skip


OF_VERSION_3: dict[str, dict[str, Any]] = {
    "exact": {"resize": "exact", "resize_size": 8},
    "fit": {
        "resize": "fit", "resize_size": [6, 12], "pad_color": [1, 2, 3], "pad_position": "top-left",
    },
    "filled": {"resize_size": [8, 12], "interpolation": "bilinear", "antialias": False},
    "area": {"interpolation": "area"},
    "bgr": {"channels": "BGR"},
    "grey": {"channels": "L", "mean": [0.449], "std": [0.226]},
    "rgba": {"channels": "RGBA", "mean": [0.5] * 4, "std": [0.25, 0.25, 0.25, 1.0]},
    "wide": {"image_size": [6, 8], "resize_size": [6, 9], "resize": "exact"},
}  # fmt: skip
"""Name -> keys of preprocessing that version 3 brought."""

BAD_OF_VERSION_3 = {
    # name of a good one, its key and value, messages of Python and of C++
    "resize-unknown": ("exact", "resize", "squash", "not one of", "known are shorter"),
    "exact-below-crop": ("exact", "resize_size", [8, 7], "would not fit", "from 8"),
    "sizes-three": ("exact", "resize_size", [8, 8, 8], "not of type", "array of 2"),
    "sizes-large": ("fit", "resize_size", [6, MAX_RESIZE_SIZE + 1], "not of type", "to 16384"),
    "pad-color-range": ("fit", "pad_color", [1, 2, 256], "greater than", "from 0 to 255"),
    "pad-color-two": ("fit", "pad_color", [1, 2], "must be 3 integers", "array of 3"),
    "pad-position-unknown": ("fit", "pad_position", "left", "not one of", "known are centre"),
    "antialias-number": ("filled", "antialias", 0, "not of type 'boolean'", "true or false"),
    "area-without-antialias": ("area", "antialias", False, "averages", "averages"),
    "channels-unknown": ("bgr", "channels", "BGRA", "not one of", "known are RGB"),
    "channels-of-another-input": ("bgr", "channels", "RGBA", "four finite", "array of 4"),
    "grey-mean-of-three": ("grey", "mean", [0.5] * 3, "one finite number", "array of 1"),
    "wide-and-square": ("wide", "image_size", 6, "must be [1, 6, 6, 3]", "must be [1,6,6,3]"),
}  # fmt: skip


def of_version_3(keys: dict[str, Any]) -> dict[str, Any]:
    """The good manifest as version 3, with these keys of preprocessing and an input to fit."""
    null = null_document()
    rules = null["preprocessing"] | keys
    channels = {"L": 1, "RGBA": 4}.get(rules.get("channels", "RGB"), 3)
    size = rules["image_size"]
    height, width = size if isinstance(size, list) else (size, size)
    source = null["input"] | {
        "shape": [1, height, width, channels], "table": [list(range(256))] * channels
    }  # fmt: skip
    return null | {"schema_version": 3, "preprocessing": rules, "input": source}


def bad_documents() -> dict[str, tuple[Any, str | None, str | None]]:
    """Reason -> manifest, and the messages of Python and of C++."""
    null = null_document()
    found = {
        reason: (put(null, pointer, value), python, cpp)
        for reason, pointer, value, python, cpp in FAULTS
    }
    for pointer, is_read in NEEDED.items():
        name = pointer[1:]
        rest = {key: value for key, value in null.items() if key != name}
        found[f"without-{name}"] = (rest, f"'{name}' {MISSING}", "is missing" if is_read else None)
    output = null["outputs"][0]
    found["output-name-twice"] = (
        null | {"outputs": [output, output]}, "must have distinct names", "twice",
    )  # fmt: skip
    for reason, (base, key, value, python, cpp) in BAD_OF_VERSION_3.items():
        document = put(of_version_3(OF_VERSION_3[base]), f"/preprocessing/{key}", value)
        found[reason] = document, python, cpp
    many = [output] + [output | {"name": str(i)} for i in range(MAX_OUTPUTS)]
    found["outputs-many"] = null | {"outputs": many}, "too long", f"array of 1 to {MAX_OUTPUTS}"
    first = {key: value for key, value in null.items() if key not in ("task", "outputs")}
    first |= {"schema_version": 1}
    found["version-1-without-output"] = first, f"'output' {MISSING}", "output is missing"
    found["version-1-with-outputs"] = (
        first | {"output": output, "outputs": [output]}, "no key of schema_version 1", None,
    )  # fmt: skip
    found["version-2-with-output"] = null | {"output": output}, "Additional properties", None
    return found


def main() -> None:
    rows = [Golden(f"good-{name}.json", None, None, None) for name in VERSION_1]
    with tempfile.TemporaryDirectory() as folder:
        from tests.programs import make_program

        for name, (target, options) in COMPILED.items():
            out = Path(folder) / name
            load_target(target).compile(make_program(), out, **options)
            file = f"good-{name}.json"
            (FOLDER / file).write_bytes((out / "manifest.json").read_bytes())
            rows.append(Golden(file, None, None, None))
    for name, document in good_documents().items():
        rows.append(Golden(f"good-{name}.json", None, None, None))
        _write(rows[-1].file, document)
    for name, (document, python, cpp) in bad_documents().items():
        rows.append(Golden(f"bad-{name}.json", python, cpp, SWIFT.get(name)))
        _write(rows[-1].file, document)
    lines = ",\n".join(json.dumps(vars(row), ensure_ascii=False) for row in rows)
    TABLE.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def _write(file: str, document: Any) -> None:
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False)
    (FOLDER / file).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
