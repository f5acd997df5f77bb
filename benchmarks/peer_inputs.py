"""What every peer is given: one float net in the forms that they read, and the same images."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgevit.data.images import Preprocessing
from edgevit.data.source import ImageFolder
from edgevit.graph import Graph
from edgevit.ops import Conv2d, Linear, Node, Weighted
from edgevit.program import Program

CALIBRATION_IMAGES, HOLDOUT, SEED = 256, 0.1, 0
"""As `edgevit quantize` has them by default."""
OPSETS = {"float_onnx": 20, "float_onnx17": 17}
"""Of the ONNX files: the first with a GELU of its own, and one that older readers know."""


class FloatNet(Program):
    """A float graph in the place of a program, for the TFLite writer's `precision="float32"`.

    Unlike `compile --precision float32` its weights were never rounded.
    """

    def _check(self, graph: Graph, info: Any) -> None:
        if graph.quantized:
            raise ValueError("this is for a float graph")


@dataclass(frozen=True, eq=False)
class Images:
    """What the artifacts answer: normalised float32 (N, C, H, W), labels int64 (N,)."""

    values: np.ndarray
    labels: np.ndarray
    float_logits: np.ndarray


def calibration(path: Path, rules: Preprocessing, out: Path) -> Path:
    """The images that `edgevit quantize` calibrates on with its defaults, written once."""
    from edgevit.data.batches import draw, split

    if not out.exists():
        source = ImageFolder(path, like=rules)
        train, _ = split(len(source), HOLDOUT, SEED)
        chosen = draw(train, CALIBRATION_IMAGES, SEED)
        np.save(out, rules.normalise(source.pixels(chosen)).numpy())
    return out


def evenly(path: Path, rules: Preprocessing, count: int) -> tuple[np.ndarray, np.ndarray]:
    """`count` images spread evenly over a labelled set, normalised, and their labels."""
    source = ImageFolder(path, like=rules)
    count = min(count, len(source))
    order = [place * len(source) // count for place in range(count)]
    return rules.normalise(source.pixels(order)).numpy(), source.labels[order]


def float_logits(net: Any, images: np.ndarray) -> np.ndarray:
    """The float net's, float32 (N, classes)."""
    import torch

    with torch.inference_mode():
        parts = torch.from_numpy(images).split(32)
        return torch.cat([net(part) for part in parts]).numpy()


def float_files(net: Any, program: Program, folder: Path) -> dict[str, Path]:
    """The fused float net as TFLite, ONNX, torch.export archive and plain operations.

    program  tells the pre-processing and the labels
    """
    import torch

    from edgevit.graph import trace
    from edgevit.targets.tflite.options import TfliteOptions
    from edgevit.targets.tflite.write import tflite_bytes

    shape = program.graph().input_shape
    graph, image = trace(net, shape[1:]), torch.zeros(shape)
    files = {
        "float_tflite": folder / "float.tflite",
        "float_pt2": folder / "float.pt2",
        "net": folder / "net.json",
    }
    files |= {name: folder / f"{name}.onnx" for name in OPSETS}
    held = FloatNet(graph, program.info, sha256="0" * 64)
    files["float_tflite"].write_bytes(tflite_bytes(held, TfliteOptions(precision="float32")))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, opset in OPSETS.items():
            torch.onnx.export(
                net, (image,), str(files[name]), opset_version=opset, dynamo=False,
                input_names=["input"], output_names=["logits"],
            )  # fmt: skip
    torch.export.save(torch.export.export(net, (image,)), files["float_pt2"])
    write_net(graph, files["net"])
    return files


def given_files(program: Program, folder: Path) -> dict[str, Path]:
    """A program whose scales are handed over: float TFLite of its weights, ONNX and torch.export
    archive with a pair on every tensor, operations."""
    from edgevit.targets.onnx.options import OnnxOptions
    from edgevit.targets.onnx.write import onnx_bytes
    from edgevit.targets.tflite.options import TfliteOptions
    from edgevit.targets.tflite.write import tflite_bytes

    files = {
        "given_tflite": folder / "given.tflite",
        "given_onnx": folder / "given.onnx",
        "given_pt2": folder / "given.pt2",
        "given_net": folder / "given.json",
    }
    files["given_tflite"].write_bytes(tflite_bytes(program, TfliteOptions(precision="float32")))
    options = OnnxOptions(activation_type="int8")
    files["given_onnx"].write_bytes(onnx_bytes(program, options))
    files["given_pt2"].write_bytes(program.export("pt2"))
    write_net(program.graph(), files["given_net"])
    return files


def write_net(graph: Graph, path: Path) -> None:
    """The operations as JSON, the weights (and int8 weights' scales) as .npz beside it."""
    arrays: dict[str, np.ndarray] = {}
    for node in graph.weighted():
        arrays[f"{node.module}.weight"] = np.asarray(node.real_weight(), np.float32)
        arrays[f"{node.module}.bias"] = np.asarray(node.bias, np.float32)
        if graph.quantized:
            arrays[f"{node.module}.scale"] = node.weight_scale
    net: dict[str, Any] = {
        "input": graph.input_name,
        "input_shape": list(graph.input_shape),
        "output": graph.output_name,
        "nodes": [_described(node) for node in graph.nodes],
    }
    if graph.quantized:
        net["quantizers"] = {
            name: {"scale": float(q.scale), "zero_point": int(q.zero_point)}
            for name, q in graph.activations().items()
        }
    np.savez(path.with_suffix(".npz"), allow_pickle=False, **arrays)
    path.write_text(json.dumps(net))


def _described(node: Node) -> dict[str, Any]:
    found: dict[str, Any] = {"kind": node.kind, "name": node.name, "inputs": list(node.inputs)}
    if not isinstance(node, Weighted):
        return found
    found |= {"module": node.module, "stride": [1, 1], "padding": [0, 0], "groups": 1}
    if isinstance(node, Conv2d):
        found |= {"stride": node.stride, "padding": node.padding, "groups": node.groups}
    elif not isinstance(node, Linear):
        raise ValueError(f"{node.name}: {node.kind} is not described to the peers yet")
    activation = None if node.activation is None else node.activation.kind
    return found | {"activation": activation}
