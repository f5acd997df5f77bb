"""Every tensor of a program as the HTP's emulator computes it, to lay beside the reference."""

from __future__ import annotations

import numpy as np
import torch

from edgevit.program import Program
from edgevit.targets.onnx import TARGET
from edgevit.targets.onnx.options import OnnxOptions
from edgevit.targets.onnx.read import read_onnx
from edgevit.targets.qdq.runner import with_outputs
from edgevit.targets.qnn.emulator import HtpEmulator, HtpSettings


def int8_input(program: Program, images: torch.Tensor) -> np.ndarray:
    """Normalised images (N, C, H, W) on the grid of the program's input."""
    graph = program.graph()
    quantizer = graph.quantizer(graph.input_name)
    steps = np.rint(images.numpy() / np.float32(quantizer.scale)) + quantizer.zero_point
    return np.clip(steps, quantizer.quant_min, quantizer.quant_max).astype(np.int8)


def emulated(
    program: Program, values: np.ndarray, settings: HtpSettings, *, all_tensors: bool = True
) -> dict[str, np.ndarray]:
    """Canonical name -> int8 (N, ...), of the input `values` and every node, or of the outputs."""
    graph = program.graph()
    data = TARGET.write(program, OnnxOptions(activation_type="int8", io="int8"))
    held = read_onnx(data).tensors
    names = [node.name for node in graph.nodes] if all_tensors else list(graph.outputs)
    wanted = list(dict.fromkeys(held[name] for name in names))
    emulator = HtpEmulator(with_outputs(data, wanted), "model.onnx", settings)
    rows = [emulator({emulator.inputs[0]: value[None]}) for value in values]
    found = {own: np.concatenate([row[own] for row in rows]) for own in wanted}
    return {graph.input_name: values} | {name: found[held[name]] for name in names}
