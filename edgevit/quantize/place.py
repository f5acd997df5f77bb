"""Where quantizers go and the ranges they start from: NNCF, then the completion pass.

NNCF places and calibrates what its hardware-agnostic patterns know. A full-INT8 runtime also holds
the convolution outputs in front of GELU and the whole squeeze-excite block as int8; the completion
pass gives every one of those tensors a quantizer with the range seen on the same images.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from edgevit.choices import Profile, RangeRule
from edgevit.errors import EdgevitError
from edgevit.graph import Graph
from edgevit.graph.float_run import GraphNet
from edgevit.ops import INT8_MAX, INT8_MIN, WEIGHT_MAX, Clamp, Node, Quantizer, Weighted
from edgevit.quantize.clip import Ranges, least_error_ranges

# Dead channels: a smaller weight scale would overflow the int32 bias.
MIN_WEIGHT_SCALE = 2.0**-14
MIN_ACTIVATION_SCALE = 2.0**-14


def place(
    graph: Graph, images: Sequence[Tensor], profile: Profile, ranges: RangeRule = "minmax"
) -> tuple[dict[str, Quantizer], dict[str, np.ndarray], list[str]]:
    """Activation quantizers by owner, weight scales [O] by module, and the completed names.

    `graph` is the float graph; `images` are float32 (1, C, H, W) or larger batches; `ranges` says
    how the activations' are found: "minmax", as NNCF's are, or "mse" (see `quantize.clip`). Raises
    EdgevitError when NNCF placed a quantizer that INT8 runtimes cannot run (per-channel
    activations).
    """
    placed, weight_scales = nncf_quantizers(graph, images, profile)
    observed = observe(graph, images)
    if ranges == "mse":
        activations = quantizers_from_ranges(
            graph, least_error_ranges(graph, images, observed, profile), profile
        )
    else:
        activations = quantizers_from_ranges(graph, observed | placed, profile)
    completed = [name for name in graph.owners() if name not in placed and not graph.fixed(name)]
    for node in graph.weighted():
        if node.module not in weight_scales:
            weight_scales[node.module] = weight_scale(node)
            completed.append(f"{node.module}.weight")
    return activations, weight_scales, completed


def quantizers_from_ranges(graph: Graph, ranges: Ranges, profile: Profile) -> dict[str, Quantizer]:
    """The quantizer of every owner from the (low, high) of its tensors; fixed ones as they are."""
    found: dict[str, Quantizer] = {}
    for owner in graph.owners():
        fixed = graph.fixed(owner)
        if fixed is not None:
            found[owner] = fixed
            continue
        sources = graph.sources(owner)
        low = min(_lowest(graph.makes(name), ranges[name][0]) for name in sources)
        found[owner] = activation_quantizer(low, max(ranges[n][1] for n in sources), profile)
    return found


def _lowest(node: Node | None, low: float) -> float:
    # A ReLU's output has no negative values; a learned range below 0 would be lost on it.
    clamps = isinstance(node, Clamp) or (isinstance(node, Weighted) and node.activation)
    return 0.0 if clamps else low


def activation_quantizer(low: float, high: float, profile: Profile) -> Quantizer:
    """The int8 quantizer that covers low...high and represents 0 exactly."""
    low, high = min(low, 0.0), max(high, 0.0)
    if profile == "portable":
        return Quantizer(max(high / INT8_MAX, low / INT8_MIN, MIN_ACTIVATION_SCALE), 0)
    scale = max((high - low) / (INT8_MAX - INT8_MIN), MIN_ACTIVATION_SCALE)
    zero_point = min(max(round(INT8_MIN - low / scale), INT8_MIN), INT8_MAX)
    return Quantizer(scale, zero_point)


def weight_scale(node: Weighted) -> np.ndarray:
    """float32 [O]: symmetric, from the largest magnitude of each output channel."""
    largest = np.abs(node.by_channel(node.weight)).max(1)
    return np.maximum(largest / np.float32(WEIGHT_MAX), np.float32(MIN_WEIGHT_SCALE))


@torch.no_grad()
def observe(graph: Graph, images: Sequence[Tensor]) -> Ranges:
    """The smallest and largest value of every tensor over the images, by canonical name."""
    net = GraphNet(graph).to(images[0].device)
    ranges: Ranges = {}

    def see(name: str, value: Tensor) -> None:
        low, high = ranges.get(name, (float("inf"), float("-inf")))
        ranges[name] = (min(low, float(value.min())), max(high, float(value.max())))

    for batch in images:
        see(graph.input_name, batch)
        for name, value in net.run(batch):
            see(name, value)
    return ranges


def nncf_quantizers(
    graph: Graph, images: Sequence[Tensor], profile: Profile
) -> tuple[Ranges, dict[str, np.ndarray]]:
    """Activation ranges and weight scales [O] as `nncf.quantize` places and calibrates them."""
    with _quiet_nncf():
        import nncf
        from nncf.common.quantization.structs import QuantizationScheme
        from nncf.quantization.advanced_parameters import (
            AdvancedQuantizationParameters,
            OverflowFix,
            QuantizationParameters,
        )
        from nncf.torch.function_hook.hook_storage import decode_hook_name
        from nncf.torch.function_hook.wrapper import get_hook_storage
        from nncf.torch.quantization.layers import AsymmetricQuantizer, SymmetricQuantizer

        symmetric = QuantizationScheme.SYMMETRIC
        mode = symmetric if profile == "portable" else QuantizationScheme.ASYMMETRIC
        advanced = AdvancedQuantizationParameters(
            overflow_fix=OverflowFix.DISABLE,
            quantize_outputs=True,
            # Bias correction comes after the completion pass, when all errors are in.
            disable_bias_correction=True,
            activations_quantization_params=QuantizationParameters(
                num_bits=8, mode=mode, per_channel=False
            ),
            weights_quantization_params=QuantizationParameters(
                num_bits=8,
                mode=symmetric,
                per_channel=True,
                signedness_to_force=True,
                narrow_range=True,
            ),
        )
        quantized = nncf.quantize(
            GraphNet(graph).eval().to(images[0].device),
            nncf.Dataset(images),
            subset_size=len(images),
            preset=nncf.QuantizationPreset.MIXED,
            advanced_parameters=advanced,
        )
        activations: Ranges = {}
        weights: dict[str, np.ndarray] = {}
        for hook_name, quantizer in get_hook_storage(quantized).named_hooks():
            kind, operation, port = decode_hook_name(hook_name)
            node = _node_of(graph, operation)
            if node is not None and node.runs_in_float:
                continue  # its parts and weights are real; its own result is completed
            if not isinstance(quantizer, AsymmetricQuantizer | SymmetricQuantizer):
                kind = type(quantizer).__name__
                raise EdgevitError(f"NNCF placed a {kind} where a quantizer belongs: {hook_name}")
            low, high = (t.detach().flatten().cpu() for t in quantizer.get_input_low_input_high())
            if kind == "pre_hooks" and port == 1 and isinstance(node, Weighted):
                if high.numel() == node.channels:
                    largest = high.numpy() / np.float32(WEIGHT_MAX)
                    weights[node.module] = np.maximum(largest, np.float32(MIN_WEIGHT_SCALE))
            elif low.numel() == 1:
                # In front of an operation: of the tensor that it reads there.
                made = node.name if node is not None else graph.input_name
                name = node.inputs[port] if node and kind == "pre_hooks" else made
                least, most = activations.get(name, (float("inf"), float("-inf")))
                activations[name] = (min(least, float(low)), max(most, float(high)))
            else:
                raise EdgevitError(f"NNCF placed a quantizer that INT8 runtimes lack: {hook_name}")
    return activations, weights


def _node_of(graph: Graph, operation: str) -> Node | None:
    """The node that NNCF calls "layer_12/conv2d/0"; None for the net's input.

    `GraphNet` runs each node in a module of its own, so that the number is the node's place.
    """
    if "/" not in operation:  # the net's only input goes by the name of its argument
        return None
    layer, *_ = operation.strip("/").split("/")
    return graph.nodes[int(layer.removeprefix("layer_"))]


@contextlib.contextmanager
def _quiet_nncf() -> Iterator[None]:
    """NNCF's traps: its extension needs `ninja` on the path, a lock without time-out, few words."""
    saved = {k: os.environ.get(k) for k in ("PATH", "NNCF_EXTENSION_LOAD_TIMEOUT")}
    os.environ["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), saved["PATH"] or ""))
    os.environ["NNCF_EXTENSION_LOAD_TIMEOUT"] = "0"
    try:
        with _nncf_errors_only(), contextlib.redirect_stdout(io.StringIO()):
            # Its progress bars go to standard output, which belongs to our results.
            yield
    finally:
        for key, value in saved.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


@contextlib.contextmanager
def _nncf_errors_only() -> Iterator[None]:
    logger_class = logging.getLoggerClass()
    import nncf  # noqa: F401  (sets its logger up, and Python's class of loggers as well)

    logging.setLoggerClass(logger_class)
    logger = logging.getLogger("nncf")
    level = logger.level
    # Not nncf.set_log_level: that mutes, for good, the handlers that the caller attached.
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
