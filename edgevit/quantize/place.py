"""Where quantizers go and the ranges they start from: NNCF, then the completion pass.

NNCF places and calibrates what its hardware-agnostic patterns know. A full-INT8 runtime also holds
the convolution outputs in front of GELU and the whole squeeze-excite block as int8; the completion
pass gives every one of those tensors a quantizer with the range seen on the same images.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from edgevit.choices import Profile
from edgevit.errors import EdgevitError
from edgevit.graph.graph import SIGMOID_SCALE, SIGMOID_ZERO_POINT, Quantizer
from edgevit.quantize.net import INPUT, QUANT_MAX, QUANT_MIN, WEIGHT_MAX, Step, run_float, trace

# Dead channels: a smaller weight scale would overflow the int32 bias.
MIN_WEIGHT_RANGE = WEIGHT_MAX * 2.0**-14
MIN_ACTIVATION_SCALE = 2.0**-14


def place(
    net: nn.Module, images: list[Tensor], profile: Profile
) -> tuple[dict[str, Quantizer], dict[str, Tensor], list[str]]:
    """Activation quantizers by name, weight scales (O,) by layer, and the completed names.

    `net` is the fused float net in eval mode, left unchanged; `images` are float32 (1, 3, H, W)
    or larger batches. Raises EdgevitError when NNCF placed a quantizer that INT8 runtimes cannot
    run (per-channel activations).
    """
    steps = trace(net)
    names = [INPUT, *(s.name for s in steps if s.quantized)]
    ranges = observe(net, steps, images)
    placed, weight_scales = nncf_quantizers(net, images, profile)
    activations: dict[str, Quantizer] = {}
    completed = []
    sigmoids = {s.name for s in steps if s.op == "sigmoid"}
    relus = {s.name for s in steps if s.op == "relu"}
    for name in names:
        if name in sigmoids:
            activations[name] = Quantizer(
                SIGMOID_SCALE, SIGMOID_ZERO_POINT, QUANT_MIN, QUANT_MAX, "fixed"
            )
            continue
        low, high = placed.get(name, ranges[name])
        if name not in placed:
            completed.append(name)
        # A ReLU's output has no negative values; a learned range below 0 would be lost on it.
        activations[name] = activation_quantizer(0.0 if name in relus else low, high, profile)
    for step in steps:
        if step.layer is not None and step.name not in weight_scales:
            weight_scales[step.name] = weight_scale(step.layer.weight)
            completed.append(f"{step.name}.weight")
    return activations, weight_scales, completed


def activation_quantizer(low: float, high: float, profile: Profile) -> Quantizer:
    """The int8 quantizer that covers low...high and represents 0 exactly."""
    low, high = min(low, 0.0), max(high, 0.0)
    if profile == "portable":
        scale = max(high / QUANT_MAX, low / QUANT_MIN, MIN_ACTIVATION_SCALE)
        return Quantizer(scale, 0, QUANT_MIN, QUANT_MAX, "learned")
    scale = max((high - low) / (QUANT_MAX - QUANT_MIN), MIN_ACTIVATION_SCALE)
    zero_point = min(max(round(QUANT_MIN - low / scale), QUANT_MIN), QUANT_MAX)
    return Quantizer(scale, zero_point, QUANT_MIN, QUANT_MAX, "learned")


def weight_scale(weight: Tensor) -> Tensor:
    """float32 (O,): symmetric, from the largest magnitude of each output channel."""
    largest = weight.detach().abs().flatten(1).amax(1)
    return largest.clamp_min(MIN_WEIGHT_RANGE) / WEIGHT_MAX


@torch.no_grad()
def observe(
    net: nn.Module, steps: list[Step], images: list[Tensor]
) -> dict[str, tuple[float, float]]:
    """The smallest and largest value of every tensor over the images, by canonical name."""
    ranges: dict[str, tuple[float, float]] = {}

    def see(name: str, value: Tensor) -> None:
        low, high = ranges.get(name, (float("inf"), float("-inf")))
        ranges[name] = (min(low, float(value.min())), max(high, float(value.max())))

    for batch in images:
        see(INPUT, batch)
        for name, value in run_float(steps, batch):
            see(name, value)
    return ranges


def nncf_quantizers(
    net: nn.Module, images: list[Tensor], profile: Profile
) -> tuple[dict[str, tuple[float, float]], dict[str, Tensor]]:
    """Activation ranges and weight scales (O,) as `nncf.quantize` places and calibrates them."""
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
            copy.deepcopy(net),
            nncf.Dataset(images),
            subset_size=len(images),
            preset=nncf.QuantizationPreset.MIXED,
            advanced_parameters=advanced,
        )
        activations: dict[str, tuple[float, float]] = {}
        weights: dict[str, Tensor] = {}
        leaves = {name for name, module in net.named_modules() if not list(module.children())}
        for hook_name, quantizer in get_hook_storage(quantized).named_hooks():
            kind, operation, port = decode_hook_name(hook_name)
            name = _canonical(operation, leaves)
            low, high = (t.detach().flatten() for t in quantizer.get_input_low_input_high())
            if kind == "pre_hooks" and port == 1:
                weights[name] = high.clamp_min(MIN_WEIGHT_RANGE) / WEIGHT_MAX
            elif kind == "post_hooks" and low.numel() == 1:
                activations[name] = (float(low), float(high))
            else:
                raise EdgevitError(f"NNCF placed a quantizer that INT8 runtimes lack: {hook_name}")
    return activations, weights


def _canonical(operation: str, leaves: set[str]) -> str:
    """NNCF's "stages/0/blocks/0/se/mean/0" as "stages.0.blocks.0.se.mean"."""
    if "/" not in operation:  # the net's only input goes by the name of its argument
        return INPUT
    *path, function, _call = operation.strip("/").split("/")
    module = ".".join(path)
    if module in leaves:
        return module
    return ".".join([*path, function.strip("_")])


@contextlib.contextmanager
def _quiet_nncf() -> Iterator[None]:
    """NNCF's traps: its extension needs `ninja` on the path, a lock without time-out, few words."""
    saved = {k: os.environ.get(k) for k in ("PATH", "NNCF_EXTENSION_LOAD_TIMEOUT")}
    os.environ["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), saved["PATH"] or ""))
    os.environ["NNCF_EXTENSION_LOAD_TIMEOUT"] = "0"
    logger = logging.getLogger("nncf")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        import nncf

        nncf.set_log_level(logging.ERROR)
        # Its progress bars go to standard output, which belongs to our results.
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
        for key, value in saved.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value
