"""Programs that have a net's shape and nobody's accuracy: for timing, sizes and compilers.

They are never written to a file: a user could take one for a quantized net.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgevit.data.images import ImageSet, Preprocessing
from edgevit.errors import ToolMissing
from edgevit.graph import Graph
from edgevit.options import Size
from edgevit.program import ModelInfo, Program, ProgramInfo, build_program
from edgevit.project import EMBEDDED
from edgevit.quantize.net import QuantizedNet
from edgevit.quantize.place import observe, quantizers_from_ranges, weight_scale

RANGE_IMAGES, STATISTICS_IMAGES = 16, 8
_SMALL = 0.1
"""A constant below it that multiplies a branch hides the branch, as layer scales begin."""


def timing_program(graph: Graph, name: str) -> Program:
    """A program of a float graph for 3 channels, with ranges of the embedded images.

    Nothing is corrected or tuned. A graph whose only output is (1, classes) is a classifier of
    that many nameless classes, any other one gives features. Raises InputError as `build_program`
    does, ToolMissing without the embedded images.
    """
    height, width = graph.input_shape[2:]
    size = height if height == width else (height, width)
    shapes = [graph.shape(output) for output in graph.outputs]
    classes = shapes[0][1] if len(shapes) == 1 and len(shapes[0]) == 2 else 0
    images = list(embedded_images(size, RANGE_IMAGES).split(1))
    ranges = quantizers_from_ranges(graph, observe(graph, images), "portable")
    scales = {node.module: weight_scale(node) for node in graph.weighted()}
    quantized = QuantizedNet(graph, ranges, scales)
    quantized.snap()
    info = ProgramInfo(
        ModelInfo(name, classes, size),
        "portable",
        Preprocessing(size, size),
        tuple(f"class_{i:04d}" for i in range(classes)),
        provenance={"timing_only": True},
        task="classification" if classes else "features",
    )
    return build_program(graph, quantized.activation_quantizers(), quantized.weight_scales(), info)


def embedded_images(size: Size, count: int) -> Tensor:
    """float32 (count, 3, H, W): normalised images of the embedded set, evenly spread.

    Raises ToolMissing where edgevit was installed without them.
    """
    if not EMBEDDED.is_dir():
        raise ToolMissing(f"the embedded images are not at {EMBEDDED}: install edgevit again")
    source = ImageSet.open(EMBEDDED / "train.tar")
    places = range(0, len(source), len(source) // count)[:count]
    ((images, _),) = source.batches(Preprocessing(size, size), count, places)
    return images


@torch.no_grad()
def settle(net: nn.Module, size: Size, seed: int) -> nn.Module:
    """Give a net of random weights the values that a trained one has in size; returns it in eval.

    Batch norms get seeded gains and the statistics of a pass over embedded images, and constants
    that would hide a branch (layer scales of 1e-5) become seeded ones below 1: else activations
    vanish, scales lie far apart, and a runtime runs other kernels than for a trained net.
    """
    generator = torch.Generator().manual_seed(seed)
    norms = [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for name, parameter in net.named_parameters():
        values = parameter.flatten()
        constant = bool((values == values[0]).all())
        if constant and 0 < abs(float(values[0])) < _SMALL and not name.endswith("bias"):
            parameter.uniform_(0.5, 1.0, generator=generator)
    net.eval()
    for norm in norms:
        if norm.affine:
            norm.weight.uniform_(0.5, 1.0, generator=generator)
            norm.bias.normal_(0.0, 0.1, generator=generator)
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
        norm.train()
    if norms:
        net(embedded_images(size, STATISTICS_IMAGES))
    return net.eval()
