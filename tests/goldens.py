"""Goldens: sha256 of seeded programs' graphs and of every artifact that is made of them.

    python -m tests.goldens --write     records tests/data/goldens.json anew

A change of a recorded value changes what users ship: it needs a reason in the commit that makes it.
The program's own sha256 stands in the artifacts' metadata and is blanked here: it names the
container, which may change while the artifact does not.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from edgevit.graph import Graph
from edgevit.ops import Linear, Weighted
from edgevit.program import Program
from edgevit.targets import load_target
from edgevit.targets.coreml import Options as CoremlOptions
from edgevit.targets.coreml import coreml_files
from edgevit.targets.tensorrt import Options as TensorrtOptions
from edgevit.targets.tensorrt import onnx_bytes
from edgevit.targets.tflite import tflite_bytes
from tests.programs import SMALL, m0_9, make_program

FILE = Path(__file__).parent / "data" / "goldens.json"
CASES = {
    "tiny-portable-gelu": {"profile": "portable"},
    "tiny-asymmetric-gelu": {"profile": "asymmetric"},
    "tiny-portable-quick-gelu": {"profile": "portable", "activation": "quick-gelu"},
    "tiny-asymmetric-hard-swish": {"profile": "asymmetric", "activation": "hard-swish"},
    "tiny-portable-no-se": {"profile": "portable", "config": replace(SMALL, se="none")},
    "m0_9-portable-gelu": {"profile": "portable", "config": m0_9()},
    "m0_9-asymmetric-quick-gelu": {
        "profile": "asymmetric",
        "activation": "quick-gelu",
        "config": m0_9(),
    },
}
TFLITE = ({"io": "int8"}, {"io": "uint8"}, {"io": "float32"})
COREML = (
    {},
    {"compute_precision": "float32", "input_type": "tensor", "output_type": "classifier"},
    {"precision": "float16", "deployment_target": "iOS16"},
)
TENSORRT = ({}, {"io": "float32", "compute_precision": "float32"}, {"precision": "float16"})


def graph_sha256(graph: Graph) -> str:
    """Of every name, shape, attribute, scale, weight and bias, in execution order."""
    digest = hashlib.sha256()

    def add(*values: object) -> None:
        digest.update(repr(values).encode())

    add(graph.input_name, tuple(graph.input_shape), graph.output_name)
    for name, quantizer in graph.activations().items():
        add(name, quantizer.scale, quantizer.zero_point, quantizer.quant_min, quantizer.quant_max)
    for node in graph.nodes:
        add(node.kind, node.name, tuple(node.inputs), tuple(graph.shape(node.name)))
        if isinstance(node, Weighted):
            conv = node.as_convolution() if isinstance(node, Linear) else node
            add(conv.module, conv.stride, conv.padding, conv.groups, conv.activation is not None)
            for array in (node.weight, node.weight_scale, node.bias, node.bias_q):
                add(array.dtype.str, array.shape)
                digest.update(array.tobytes())
    return digest.hexdigest()


def artifact_sha256(data: bytes | Mapping[str, bytes], program: Program) -> str:
    """Of a file, or of a folder's files by name, with the program's sha256 blanked.

    A package's Manifest.json holds nothing but identifiers that are made of that sha256.
    """
    files = {"": data} if isinstance(data, bytes) else data
    digest = hashlib.sha256()
    for name in sorted(set(files) - {"Manifest.json"}):
        digest.update(name.encode() + b"\0")
        for length in (64, 12):  # in full, and as the package's version
            blank = files[name].replace(program.sha256[:length].encode(), b"0" * length)
            files = {**files, name: blank}
        digest.update(files[name])
    return digest.hexdigest()


def artifacts(program: Program) -> dict[str, bytes | Mapping[str, bytes]]:
    """Every artifact of a program, by target and options."""
    found: dict[str, bytes | Mapping[str, bytes]] = {}
    for options in TFLITE:
        found[f"tflite {options}"] = tflite_bytes(program, **options)
    silu = any(node.name.endswith("act1.mul") for node in program.graph().nodes)
    # A float package of a quick-GELU program cannot be made yet: coremltools writes silu for it.
    for options in COREML[: 2 if silu else 3]:
        found[f"coreml {options}"] = coreml_files(program, CoremlOptions(**options))
    if program.info.profile == "portable":
        for options in TENSORRT:
            found[f"tensorrt {options}"] = onnx_bytes(program, TensorrtOptions(**options))
    return found


def record(case: str) -> dict[str, str]:
    """Label -> sha256 of one case, its graph first."""
    program = make_program(**CASES[case])
    found = {"graph": graph_sha256(program.graph())}
    for label, data in artifacts(program).items():
        found[label] = artifact_sha256(data, program)
        load_target(label.split()[0]).audit_bytes(data, program)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", required=True)
    parser.parse_args()
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(json.dumps({case: record(case) for case in CASES}, indent=1) + "\n")


if __name__ == "__main__":
    main()
