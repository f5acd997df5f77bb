"""What litert-torch and ai-edge-quantizer make of a net; run by rivals.py in their environment.

    DIR/bin/python benchmarks/rivals_peer.py float32 NAME SIZE WEIGHTS OUT
    DIR/bin/python benchmarks/rivals_peer.py int8 FLOAT32 IMAGES OUT

float32: timm's net NAME with the weights of a file of tensors, its branches merged where timm
knows how, channels last. int8: every weight and activation, calibrated on IMAGES (N, H, W, 3).
"""

from __future__ import annotations

import sys
from pathlib import Path


def float32(name: str, size: str, weights: str, out: str) -> None:
    import torch

    # timm's torchvision is CUDA's: beside a CPU build of torch it names these two at import.
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, operator):
            library.define(f"{operator}(Tensor dets, Tensor scores, float threshold) -> Tensor")

    import litert_torch
    import timm
    from timm.utils.model import reparameterize_model

    net = timm.create_model(name)
    net.load_state_dict(torch.load(weights, weights_only=True))
    net = reparameterize_model(net.eval())
    example = torch.zeros(1, int(size), int(size), 3)
    made = litert_torch.convert(litert_torch.to_channel_last_io(net, args=[0]), (example,))
    made.export(out)


def int8(float_model: str, images: str, out: str) -> None:
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import quantizer, recipe

    ((signature, edges),) = Interpreter(float_model).get_signature_list().items()
    (source,) = edges["inputs"]
    data = Path(float_model).read_bytes()
    made = quantizer.Quantizer(data, recipe.static_wi8_ai8())
    calibration = [{source: image[None]} for image in np.load(images, allow_pickle=False)]
    found = made.calibrate({signature: calibration})
    result = made.quantize(found, enable_progress_report=False)
    Path(out).write_bytes(bytes(result.quantized_model))


if __name__ == "__main__":
    {"float32": float32, "int8": int8}[sys.argv[1]](*sys.argv[2:])
