"""The quantized net: its steps, its agreement with NNCF's own run of the same quantizers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from edgevit.errors import InputError
from edgevit.graph import Graph, trace
from edgevit.graph.float_run import GraphNet
from edgevit.ops import AvgPool2d, FloatWeights, Quantizer, Resize, Weighted
from edgevit.quantize.net import QuantizedNet
from edgevit.quantize.place import (
    observe,
    place,
    quantizers_from_ranges,
    weight_scale,
)
from edgevit.quantize.ptq import correct_biases
from tests.programs import seeded_graph, seeded_images
from tests.random_graphs import random_graph, random_program


def quantizers(
    graph: Graph, images: torch.Tensor, profile: str = "portable"
) -> tuple[dict[str, Quantizer], dict[str, np.ndarray]]:
    activations = quantizers_from_ranges(graph, observe(graph, [images]), profile)
    return activations, {node.module: weight_scale(node) for node in graph.weighted()}


def test_a_missing_or_unknown_quantizer_is_named() -> None:
    graph, images = seeded_graph(), seeded_images(2, 64)
    activations, scales = quantizers(graph, images)
    missing = {k: v for k, v in activations.items() if k != "stem.conv2"}
    with pytest.raises(InputError, match=r"none for stem\.conv2"):
        QuantizedNet(graph, missing, scales)
    with pytest.raises(InputError, match=r"no tensor named stem\.conv9"):
        QuantizedNet(graph, activations, {**scales, "stem.conv9": scales["stem.conv1"]})


@pytest.mark.parametrize("seed", range(6))
def test_the_trainers_tensors_are_the_programs(seed: int) -> None:
    """The same names in the same order, and values that differ by the rounding of sums alone."""
    program = random_program(seed, "portable" if seed % 2 else "asymmetric")
    images, made = seeded_images(4, 32, seed), program.graph()
    graph = random_graph(seed).with_nodes(
        # The program rounds biases to their int32 grid; that difference is not meant here.
        replace(node, weights=FloatWeights(node.weight, made.node(node.name).bias))
        if isinstance(node, Weighted)
        else node
        for node in random_graph(seed).nodes
    )
    assert [node.name for node in graph.nodes] == [node.name for node in made.nodes]
    scales = {node.module: node.weight_scale for node in made.weighted()}
    net = QuantizedNet(graph, made.quantizers, scales).eval()
    net.snapped.fill_(True)  # the scales are the program's already
    assert list(net.activation_quantizers()) == list(made.activations())
    with torch.no_grad():
        trained = {n: v for n, v in net.run(images) if graph.owner(n) == n}
    computed = dict(program.tensors(images))
    assert list(trained) == list(computed)
    # A value on a rounding edge falls on its other side, and the next layers carry it on. A mean of
    # a few values at one scale lies on an edge every other time.
    averages = any(isinstance(node, AvgPool2d | Resize) for node in made.nodes)
    for name, values in computed.items():
        quantizer = made.quantizer(name)
        steps = (trained[name] / quantizer.scale).round() + quantizer.zero_point - values
        assert float((steps != 0).float().mean()) < (0.05 if averages else 0.002), name


@pytest.mark.parametrize("profile", ["portable", "asymmetric"])
def test_snapped_scales_survive_fp16_and_the_program_is_the_net(
    profile: str, embedded_checkpoint: Path, embedded_val: Path
) -> None:
    from edgevit.data.images import ImageSet, Preprocessing
    from edgevit.models.checkpoint import load
    from edgevit.program import ModelInfo, ProgramInfo, build_program

    graph = trace(load(embedded_checkpoint).model.fuse(), (3, 64, 64))
    preprocessing = Preprocessing(64)
    images_in = ImageSet.open(embedded_val)
    images = preprocessing.normalise(images_in.pixels(range(0, 1000, 8), preprocessing))
    quantized = QuantizedNet(graph, *quantizers(graph, images, profile)).eval()
    quantized.snap()
    for q in quantized.activation_quantizers().values():
        assert float(torch.tensor(q.scale).half()) == q.scale
        assert profile == "asymmetric" or q.zero_point == 0 or q.how == "fixed"
    info = ProgramInfo(
        ModelInfo("repvit_m0_9", 10, 64), profile, preprocessing, tuple(images_in.classes)
    )
    program = build_program(
        graph, quantized.activation_quantizers(), quantized.weight_scales(), info
    )
    with torch.no_grad():
        found, wanted = program.run(images), quantized(images)
    # The program rounds biases to their int32 grid and adds in another order: values that lie on
    # a rounding edge fall on its other side, here and there, and the next layers carry it on.
    steps = (found - wanted).abs() / quantized.activation_quantizers()["head"].scale
    assert float(steps.mean()) < 4
    assert float((found.argmax(1) == wanted.argmax(1)).float().mean()) >= 0.97


def test_bias_correction_restores_the_channel_means() -> None:
    graph, images = seeded_graph(), seeded_images(32, 64)
    with torch.no_grad():
        floats = GraphNet(graph).run(images)
        wanted = {n: v.mean((0, 2, 3)) for n, v in floats if v.dim() == 4}
    activations, scales = quantizers(graph, images)
    # Coarse weights, so that there is something to correct.
    scales = {name: 6 * scale for name, scale in scales.items()}
    before = QuantizedNet(graph, activations, scales)
    after = QuantizedNet(graph, activations, scales)
    assert correct_biases(after, images) > 0

    made_by_layers = {node.name for node in graph.weighted()}

    def error(quantized: QuantizedNet) -> float:
        seen = {}
        for step_name, value in quantized.run(images):
            if step_name in made_by_layers and value.dim() == 4:
                seen[step_name] = (value.mean((0, 2, 3)) - wanted[step_name]).abs().mean()
        return float(sum(seen.values()))

    with torch.no_grad():
        assert error(after) < 0.5 * error(before)


@pytest.mark.parametrize("profile", ["portable", "asymmetric"])
def test_nncf_places_and_the_completion_pass_completes(profile: str) -> None:
    graph, images = seeded_graph(), seeded_images(8, 64)
    activations, scales, completed = place(graph, list(images.split(4)), profile)
    # What NNCF leaves out is exactly what INT8 runtimes need on top: GELU inputs and SE.
    acts = [name for name in completed if not name.endswith(".weight")]
    assert acts and all(".se." in n or n.endswith("conv1") for n in acts)
    assert set(completed) - set(acts) == {
        f"{n.module}.weight" for n in graph.weighted() if n.module.endswith((".se.fc1", ".se.fc2"))
    }
    quantized = QuantizedNet(graph, activations, scales).eval()
    with torch.no_grad():
        cosine = torch.nn.functional.cosine_similarity(
            quantized(images).flatten(), GraphNet(graph)(images).flatten(), dim=0
        )
    assert float(cosine) > 0.95
    gates = [q for name, q in activations.items() if name.endswith("se.gate")]
    assert gates and all((q.scale, q.zero_point, q.how) == (1 / 256, -128, "fixed") for q in gates)
