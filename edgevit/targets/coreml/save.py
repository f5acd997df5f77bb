"""A converted model as the files of an .mlpackage, the same for the same program."""

from __future__ import annotations

import json
import re
import tempfile
import uuid
from pathlib import Path
from typing import Any

from edgevit.choices import WEIGHTS_ONLY
from edgevit.errors import InputError
from edgevit.files import read_tree
from edgevit.program import ProgramInfo
from edgevit.targets.coreml.toolkit import empty_spec, quiet

MANIFEST_NAME = "Manifest.json"
SPEC_NAME = "Data/com.apple.CoreML/model.mlmodel"
WEIGHTS_NAME = "Data/com.apple.CoreML/weights/weight.bin"
FILES = {MANIFEST_NAME, SPEC_NAME, WEIGHTS_NAME}
METADATA_PREFIX = "edgevit."
_IDENTIFIERS = uuid.UUID("6f1c3a0e-3d5c-5f0e-9a55-0d1f7e3b2c64")
"""Namespace of the identifiers in Manifest.json, which coremltools draws by chance."""


def package_files(model: Any, program_sha256: str, info: ProgramInfo) -> dict[str, bytes]:
    """The files of a converted model's package, the same for the same program."""
    _describe(model, program_sha256, info)
    with tempfile.TemporaryDirectory(prefix="edgevit-") as folder, quiet():
        path = Path(folder) / "model.mlpackage"
        model.save(str(path))
        files = read_tree(path)
    if FILES - set(files):
        raise InputError(f"coremltools wrote {sorted(files)}, expected {sorted(FILES)}")
    spec = empty_spec()
    spec.ParseFromString(files[SPEC_NAME])
    _number_constants(spec)
    return {
        MANIFEST_NAME: _package_manifest(program_sha256),
        # Protobuf maps have no order of their own.
        SPEC_NAME: spec.SerializeToString(deterministic=True),
        WEIGHTS_NAME: files[WEIGHTS_NAME],
    }


def _describe(model: Any, program_sha256: str, info: ProgramInfo) -> None:
    """What Xcode shows of a model, and what an app needs to feed it."""
    given = info.provenance
    model.author = str(given.get("author", "not stated"))
    model.license = str(given.get("license", "not stated"))
    model.version = program_sha256[:12]
    of = "with int8 weights alone" if info.profile == WEIGHTS_ONLY else "from a quantized program"
    model.short_description = (
        f"{info.model.variant}, {info.model.classes} classes, {info.preprocessing.size_text}; "
        f"compiled by edgevit {of}"
    )
    rows = {
        "program_sha256": program_sha256,
        "profile": info.profile,
        "labels": json.dumps(list(info.labels), ensure_ascii=False),
        "preprocessing": json.dumps(info.preprocessing.to_json()),
    }
    for name, value in rows.items():
        model.user_defined_metadata[METADATA_PREFIX + name] = value


_NUMBERED = re.compile(r"const_\d+(?=_|$)")


def _number_constants(spec: Any) -> None:
    """Numbers shared constants in their order: coremltools takes one of the numbers by chance."""
    (block,) = spec.mlProgram.functions["main"].block_specializations.values()
    names: dict[str, str] = {}
    for op in block.operations:
        if op.type == "const" and (found := _NUMBERED.match(op.outputs[0].name)):
            name = op.outputs[0].name
            names[name] = f"const_{len(names)}{name[found.end() :]}"
    for op in block.operations:
        for output in op.outputs:
            output.name = names.get(output.name, output.name)
        own = op.attributes["name"].immediateValue.tensor.strings.values
        own[:] = [names.get(name, name) for name in own]
        for argument in op.inputs.values():
            for binding in argument.arguments:
                if binding.name in names:
                    binding.name = names[binding.name]


def _package_manifest(program_sha256: str) -> bytes:
    items = {
        "model": ("model.mlmodel", "CoreML Model Specification", "com.apple.CoreML/model.mlmodel"),
        "weights": ("weights", "CoreML Model Weights", "com.apple.CoreML/weights"),
    }
    keys = {name: str(uuid.uuid5(_IDENTIFIERS, f"{program_sha256} {name}")) for name in items}
    entries = {
        keys[item]: {
            "author": "com.apple.CoreML", "description": description, "name": name, "path": path
        }
        for item, (name, description, path) in items.items()
    }  # fmt: skip
    manifest = {
        "fileFormatVersion": "1.0.0",
        "itemInfoEntries": entries,
        "rootModelIdentifier": keys["model"],
    }
    return (json.dumps(manifest, indent=4) + "\n").encode()
