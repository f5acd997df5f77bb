"""Goldens: sha256 of seeded programs' graphs and of every artifact that is made of them.

    python -m tests.goldens --write [--only tflite]     records tests/data/goldens.json anew

A change of a recorded value changes what users ship: it needs a reason in the commit that makes it.
The program's own sha256 stands in the artifacts' metadata and is blanked here: it names the
container, which may change while the artifact does not.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import re
from dataclasses import replace
from pathlib import Path

from edgevit.graph import Graph
from edgevit.ops import Linear, Weighted
from edgevit.program import Program
from edgevit.targets import load_target, make_options
from edgevit.targets.artifact import ArtifactData
from tests.npu import OWN_FORMAT
from tests.programs import SMALL, m0_9, make_program
from tests.target_contract import TargetContract

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
_CONVERSION_DATE = re.compile(rb"(coremltools\.conversion_date\x12\x0a)[0-9-]{10}")


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


def artifact_sha256(data: ArtifactData, program: Program) -> str:
    """Of a file, or of a folder's files by name, with the program's sha256 blanked.

    A package's Manifest.json holds nothing but identifiers that are made of that sha256. The
    day that coremltools notes is left out, too.
    """
    files = {"": data} if isinstance(data, bytes) else data
    digest = hashlib.sha256()
    for name in sorted(set(files) - {"Manifest.json"}):
        digest.update(name.encode() + b"\0")
        for length in (64, 12):  # in full, and as the package's version
            blank = files[name].replace(program.sha256[:length].encode(), b"0" * length)
            files = {**files, name: blank}
        digest.update(_CONVERSION_DATE.sub(rb"\1", files[name]))
    return digest.hexdigest()


def contract(name: str) -> TargetContract:
    """The contract tests of a target, which are in its own test module."""
    module = importlib.import_module(f"tests.targets.test_{name}")
    (found,) = {
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, TargetContract)
        and value is not TargetContract
        and value.target == name
    }
    return found()


def artifacts(name: str, program: Program) -> dict[str, ArtifactData]:
    """A target's artifacts of a program, by target and options; each is audited."""
    target = load_target(name)
    found: dict[str, ArtifactData] = {}
    for options in contract(name).golden_options(program):
        data = target.write(program, make_options(name, target.Options, options))
        target.audit(data, program)
        found[f"{name} {options}"] = data
    return found


def record(case: str, target: str) -> dict[str, str]:
    """Label -> sha256 of a target's artifacts of one case; "graph": of the program's graph."""
    program = make_program(**CASES[case])
    if target == "graph":
        return {target: graph_sha256(program.graph())}
    found = artifacts(target, program)
    return {label: artifact_sha256(data, program) for label, data in found.items()}


def kinds() -> list[str]:
    """What is recorded: "graph" and every target that has a format of its own."""
    return ["graph", *OWN_FORMAT]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", required=True)
    parser.add_argument("--only", choices=kinds(), help="leave what else is recorded as it is")
    only = parser.parse_args().only
    FILE.parent.mkdir(exist_ok=True)
    recorded = json.loads(FILE.read_text()) if only else {}
    found: dict[str, dict[str, str]] = {}
    for case in CASES:
        kept = {k: v for k, v in recorded.get(case, {}).items() if k.split()[0] != only}
        fresh = [record(case, kind) for kind in kinds() if only in (None, kind)]
        found[case] = kept | {label: sha for each in fresh for label, sha in each.items()}
    FILE.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
