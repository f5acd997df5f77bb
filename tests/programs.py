"""Programs for tests, made without NNCF: scales observed as max-abs, snapped as in `quantize`.

The weights are seeded, or the trained checkpoint's; the images are seeded noise with structure,
or real ones. Nothing here is tuned for accuracy.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch

from edgevit.data.images import ImageSet, Preprocessing
from edgevit.graph import Graph, trace
from edgevit.graph.passes import swap_gelus
from edgevit.graph.ties import tie_free, to_fp16_grid
from edgevit.models.repvit import RepViT, RepViTConfig
from edgevit.ops import Quantizer
from edgevit.program import ModelInfo, Program, ProgramInfo, build_program
from edgevit.quantize.place import observe

SMALL = RepViTConfig("repvit_m0_9", (8, 16, 24, 32), (2, 1, 1, 1), num_classes=10)
"""Every operation of a RepViT in a fraction of the time."""


def seeded_net(config: RepViTConfig = SMALL, seed: int = 0) -> RepViT:
    """A fused net with seeded weights whose batch norms have seen images: values stay in range."""
    return copy.deepcopy(_seeded_net(config, seed))


@cache
@torch.no_grad()
def _seeded_net(config: RepViTConfig, seed: int) -> RepViT:
    torch.manual_seed(seed)
    net = RepViT(config).train()
    for module in net.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.weight.uniform_(0.7, 1.3)
            module.bias.normal_(0, 0.2)
            module.momentum = None  # plain averages over the one batch below
        elif isinstance(module, torch.nn.Linear):
            module.weight.normal_(0, 0.2)
    net(seeded_images(16, 64, seed))
    return net.eval().fuse()


def seeded_images(count: int, image_size: int, seed: int = 1) -> torch.Tensor:
    """float32 (count, 3, H, W) with smooth structure, about the range of normalised images."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, 8, 8, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (image_size, image_size), mode="bicubic")
    return smooth + 0.2 * torch.randn(smooth.shape, generator=generator)


def seeded_pixels(count: int, image_size: int = 64, seed: int = 2) -> np.ndarray:
    """uint8 (count, image_size, image_size, 3) with smooth structure."""
    images = seeded_images(count, image_size, seed)
    return (images * 50 + 120).clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous().numpy()


def quantizers(graph: Graph, images: torch.Tensor, profile: str) -> dict[str, Quantizer]:
    """Every tensor's quantizer from its observed range, snapped as in `quantize`."""
    found: dict[str, Quantizer] = {}
    owners = set(graph.owners())
    for name, (low, high) in observe(graph, [images]).items():
        if name not in owners:
            continue
        if (fixed := graph.fixed(name)) is not None:
            found[name] = fixed
        elif profile == "portable":
            scale = max(abs(low), abs(high)) / 127
            found[name] = Quantizer(scale, 0, how="calibrated")
        else:
            low, high = min(low, 0.0), max(high, 0.0)
            scale = (high - low) / 255
            zero_point = int(np.clip(round(-128 - low / scale), -128, 127))
            found[name] = Quantizer(scale, zero_point, how="calibrated")
    scales = tie_free(graph, {name: q.scale for name, q in found.items()})
    return {name: replace(q, scale=scales[name]) for name, q in found.items()}


def weight_scales(graph: Graph) -> dict[str, np.ndarray]:
    """Largest magnitude of each output channel over 127, snapped to float16."""
    return {
        node.module: to_fp16_grid(np.abs(node.by_channel(node.weight)).max(1) / 127)
        for node in graph.weighted()
    }


def make_info(config: RepViTConfig, image_size: int, profile: str) -> ProgramInfo:
    return ProgramInfo(
        ModelInfo(config.variant, config.num_classes, image_size),
        profile,
        Preprocessing(image_size),
        tuple(f"class {index}" for index in range(config.num_classes)),
        provenance={"made_by": "tests/programs.py"},
    )


@cache
def make_program(
    image_size: int = 64,
    profile: str = "portable",
    config: RepViTConfig = SMALL,
    seed: int = 0,
    activation: str = "gelu",
) -> Program:
    """A whole program of a seeded net; the same arguments give the same object."""
    graph = seeded_graph(image_size, config, seed, activation)
    activations = quantizers(graph, seeded_images(8, image_size), profile)
    info = make_info(config, image_size, profile)
    return build_program(graph, activations, weight_scales(graph), info, weight_how="calibrated")


def seeded_graph(
    image_size: int = 64,
    config: RepViTConfig = SMALL,
    seed: int = 0,
    activation: str = "gelu",
) -> Graph:
    """The float graph of a seeded net."""
    net = seeded_net(config, seed)
    return swap_gelus(trace(net, (3, image_size, image_size)), activation)


def m0_9(num_classes: int = 10) -> RepViTConfig:
    """The real M0.9, for tests that need its size."""
    config = RepViTConfig("repvit_m0_9", (48, 96, 192, 384), (2, 2, 14, 2))
    return replace(config, num_classes=num_classes)


def real_images(path: Path, count: int, image_size: int) -> torch.Tensor:
    """`count` normalised images of an image set, evenly spread: float32 (count, 3, H, W)."""
    images = ImageSet.open(path)
    rules = Preprocessing(image_size)
    places = [place * len(images.entries) // count for place in range(count)]
    return rules.normalise(np.stack([rules.crop(images.load_rgb(i)) for i in places]))


def trained_program(
    checkpoint: Path, images: torch.Tensor, profile: str, activation: str = "gelu"
) -> Program:
    """The trained M0.9 with max-abs scales over `images`."""
    from edgevit.models.checkpoint import load

    image_size = images.shape[-1]
    net = load(checkpoint).model.eval().fuse()
    graph = swap_gelus(trace(net, (3, image_size, image_size)), activation)
    activations = quantizers(graph, images, profile)
    info = make_info(m0_9(), image_size, profile)
    return build_program(graph, activations, weight_scales(graph), info)


def with_graph(program: Program, graph: Graph) -> Program:
    """The program with another graph, past every check: what a lowering must never trust."""
    broken = Program(program.graph(), program.info)
    broken._graph = graph
    return broken


def with_real_outputs(program: Program) -> Program:
    """The program with every output given out as real numbers."""
    graph = program.graph()
    bare = replace(graph, quantizers={}, real_outputs=frozenset(graph.outputs))
    kept = {name: graph.quantizers[name] for name in bare.owners()}
    return with_graph(program, replace(bare, quantizers=kept))


def replace_node(graph: Graph, name: str, **changes: object) -> Graph:
    """The graph with some fields of one node changed."""
    nodes = tuple(replace(n, **changes) if n.name == name else n for n in graph.nodes)
    return replace(graph, nodes=nodes)
