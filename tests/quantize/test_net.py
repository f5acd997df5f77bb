"""The quantized net: the graph with fake quantizers, its snapping, correction, placement."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from edgevit.data.images import ImageSet, Preprocessing
from edgevit.errors import InputError
from edgevit.graph import Graph, trace
from edgevit.graph.float_run import GraphNet
from edgevit.models.checkpoint import load
from edgevit.ops import BY_KIND, AvgPool2d, Quantizer, Resize, Weighted
from edgevit.program import ModelInfo, ProgramInfo, build_program
from edgevit.quantize.net import QuantizedNet, quantized_weight
from edgevit.quantize.place import observe, place, quantizers_from_ranges, weight_scale
from edgevit.quantize.ptq import correct_sums
from tests.programs import seeded_graph, seeded_images, seeded_net
from tests.random_graphs import IMAGE_SIZE, random_graph

Scales = tuple[dict[str, Quantizer], dict[str, np.ndarray]]
SEEDS = range(8)
"""Random nets that have, together, every operation (see tests/graph/test_execute.py)."""


def quantizers(graph: Graph, images: torch.Tensor, profile: str = "portable") -> Scales:
    activations = quantizers_from_ranges(graph, observe(graph, [images]), profile)
    return activations, {node.module: weight_scale(node) for node in graph.weighted()}


def test_the_graph_computes_the_net() -> None:
    """Bit for bit, where the net's weights lie in memory as the graph's do."""
    net, images = seeded_net().to(memory_format=torch.channels_last), seeded_images(3, 64)
    with torch.no_grad():
        assert torch.equal(GraphNet(trace(net, (3, 64, 64)))(images), net(images))


@pytest.mark.parametrize("seed", SEEDS)
def test_names_are_the_programs(seed: int) -> None:
    graph, images = random_graph(seed, operations=10), seeded_images(4, IMAGE_SIZE, seed)
    net = QuantizedNet(graph, *quantizers(graph, images))
    assert net.names == graph.owners() and list(net.activation_quantizers()) == graph.owners()
    assert list(net.weight_scales()) == [node.module for node in graph.weighted()]
    with torch.no_grad():
        assert [name for name, _ in net.run(images)] == graph.tensors()


def test_a_missing_or_unknown_quantizer_is_named() -> None:
    graph, images = seeded_graph(), seeded_images(2, 64)
    activations, scales = quantizers(graph, images)
    missing = {k: v for k, v in activations.items() if k != "stem.conv2"}
    with pytest.raises(InputError, match="none for stem.conv2"):
        QuantizedNet(graph, missing, scales)
    with pytest.raises(InputError, match="no tensor named flatten"):
        QuantizedNet(graph, {**activations, "flatten": activations["mean"]}, scales)
    with pytest.raises(InputError, match="no tensor named stem.conv9"):
        QuantizedNet(graph, activations, {**scales, "stem.conv9": scales["stem.conv1"]})


def test_a_weight_has_one_scale_an_output_channel() -> None:
    """Of a transposed convolution too, whose output channels are its weight's second axis."""
    for seed in SEEDS:
        for node in random_graph(seed, operations=10).weighted():
            scale = weight_scale(node)
            found = quantized_weight(node, torch.tensor(node.weight), torch.tensor(scale))
            expected = torch.fake_quantize_per_channel_affine(
                torch.tensor(node.weight), torch.tensor(scale),
                torch.zeros(len(scale), dtype=torch.int32), node.channel_axis, -127, 127,
            )  # fmt: skip
            assert torch.equal(found, expected), node.kind


@pytest.mark.parametrize("fuse_gelu", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_snapped_net_is_its_program(seed: int, fuse_gelu: bool) -> None:
    """Every operation: values differ where one lies on an edge, and an edge is rare.

    The net gets the program's biases, which are rounded to their int32 grid. Left out is what lies
    behind an average of windows or a bilinear resize: they have halves, which real values do not
    hold, so that they go up or down there.
    """
    profile = ("portable", "asymmetric")[seed % 2]
    graph, images = random_graph(seed, operations=10), seeded_images(4, IMAGE_SIZE, seed)
    net = QuantizedNet(graph, *quantizers(graph, images, profile)).eval()
    net.snap()
    info = ProgramInfo(
        ModelInfo("random", 10, IMAGE_SIZE), profile, Preprocessing(IMAGE_SIZE),
        tuple(f"class {i}" for i in range(10)),
    )  # fmt: skip
    program = build_program(
        net.float_graph(), net.activation_quantizers(), net.weight_scales(), info
    )
    halves: set[str] = set()
    for node in graph.nodes:
        if isinstance(node, AvgPool2d | Resize) or halves & {*node.inputs}:
            halves.add(node.name)
    with torch.no_grad():
        for node in program.graph().weighted():
            net.layers[node.module].weights[1].copy_(torch.tensor(node.bias))
        values = dict(net.run(images, fuse_gelu=fuse_gelu))
    for name, wanted in program.tensors(images):
        if name in halves or (fuse_gelu and name in net.gelu_inputs):
            continue
        quantizer = program.graph().quantizer(name)
        steps = (values[name] / quantizer.scale + quantizer.zero_point - wanted.float()).abs()
        assert float((steps > 0.5).float().mean()) < 0.002, name
        # A step of a coarser input is several of a fixed output's: tanh has a slope of 1.
        made = graph.makes(name)
        inputs = made.inputs if made else ()
        gains = (program.graph().quantizer(i).scale / quantizer.scale for i in inputs)
        assert float(steps.max()) < 2.01 * max([1.0, *gains]), name


@pytest.mark.parametrize("profile", ["portable", "asymmetric"])
def test_snapped_scales_survive_fp16_and_the_program_is_the_net(
    profile: str, embedded_checkpoint: Path, embedded_val: Path
) -> None:
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


def test_corrected_sums_lie_about_the_float_nets_with_slope_one() -> None:
    graph, images = seeded_graph(), seeded_images(32, 64)
    wanted: dict[str, Tensor] = {}
    activations, scales = quantizers(graph, images)
    # A part of each range is cut off, so that the sums behind it shrink.
    activations = {
        n: q if q.how == "fixed" else replace(q, scale=0.8 * q.scale)
        for n, q in activations.items()
    }
    before, biases, both = (QuantizedNet(graph, activations, scales) for _ in range(3))
    assert correct_sums(biases, images, gains=False) > 0
    assert correct_sums(both, images) > 0

    def see(node: Weighted, sums: Tensor) -> Tensor:
        wanted[node.name] = sums.transpose(0, 1).flatten(1)
        return sums

    def errors(quantized: QuantizedNet) -> tuple[float, float]:
        """Of means and of slopes, averaged over channels and layers."""
        found: list[tuple[float, float]] = []

        def compare(node: Weighted, sums: Tensor) -> Tensor:
            values, expected = sums.transpose(0, 1).flatten(1), wanted[node.name]
            apart = values - values.mean(1, keepdim=True)
            slope = (apart * expected).mean(1) / apart.square().mean(1)
            means = (values - expected).mean(1).abs()
            found.append((float(means.mean()), float((slope - 1).abs().mean())))
            return sums

        for _ in quantized.run(images, compare):
            pass
        mean, slope = np.mean(found, axis=0)
        return float(mean), float(slope)

    with torch.no_grad():
        for _ in GraphNet(graph).run(images, see):
            pass
        assert max(errors(biases)[0], errors(both)[0]) < 0.05 * errors(before)[0]
        assert errors(both)[1] < 0.2 * min(errors(biases)[1], errors(before)[1])


def test_a_gain_leaves_the_int8_weights_as_they_are() -> None:
    graph, images = seeded_graph(), seeded_images(8, 64)
    activations, scales = quantizers(graph, images)
    net = QuantizedNet(graph, activations, scales)

    def int8() -> dict[str, Tensor]:
        found = net.weight_log_scales()
        return {
            name: layer.weights[0].detach().flatten(1) / found[name].exp()[:, None]
            for name, layer in net.layers.items()
        }

    before = int8()
    correct_sums(net, images)
    for name, values in int8().items():
        assert torch.allclose(values, before[name], rtol=1e-5, atol=1e-4), name
    grown = torch.cat([net.weight_log_scales()[name] for name in net.layers])
    assert not torch.equal(grown, torch.from_numpy(np.concatenate(list(scales.values()))).log())


def test_a_copy_of_a_net_is_trained_apart() -> None:
    graph, images = random_graph(2, operations=6), seeded_images(2, IMAGE_SIZE)
    net = QuantizedNet(graph, *quantizers(graph, images))
    other = copy.deepcopy(net)
    with torch.no_grad():
        other.log_scale.add_(1.0)
        next(iter(other.layers.values())).weights[0].zero_()
    assert other.graph is net.graph
    assert not torch.equal(other.log_scale, net.log_scale)
    assert next(iter(net.layers.values())).weights[0].any()


@pytest.mark.parametrize("profile", ["portable", "asymmetric"])
def test_nncf_places_and_the_completion_pass_completes(profile: str) -> None:
    net, images = seeded_net(), seeded_images(8, 64)
    graph = trace(net, (3, 64, 64))
    before = [node.weight.copy() for node in graph.weighted()]
    activations, scales, completed = place(graph, list(images.split(4)), profile)
    assert all(np.array_equal(w, n.weight) for w, n in zip(before, graph.weighted(), strict=True))
    # What NNCF leaves out is exactly what INT8 runtimes need on top: GELU inputs and SE.
    acts = [name for name in completed if not name.endswith(".weight")]
    assert acts and all(".se." in n or n.endswith("conv1") for n in acts)
    assert set(completed) - set(acts) == {
        f"{n.module}.weight" for n in graph.weighted() if n.module.endswith((".se.fc1", ".se.fc2"))
    }
    quantized = QuantizedNet(graph, activations, scales).eval()
    with torch.no_grad():
        cosine = torch.nn.functional.cosine_similarity(
            quantized(images).flatten(), net(images).flatten(), dim=0
        )
    assert float(cosine) > 0.95
    gates = [q for name, q in activations.items() if name.endswith("se.gate")]
    assert gates and all((q.scale, q.zero_point, q.how) == (1 / 256, -128, "fixed") for q in gates)


def test_every_operation_gets_its_quantizers() -> None:
    """Three random nets through NNCF, which have every operation among them."""
    kinds: set[str] = set()
    for seed, operations in ((0, 14), (16, 14), (22, 14)):
        graph = random_graph(seed, operations, softmax=seed == 0)
        kinds |= {node.kind for node in graph.nodes}
        images = seeded_images(8, IMAGE_SIZE, seed)
        activations, scales, _ = place(graph, list(images.split(4)), "portable")
        assert list(activations) == graph.owners()
        assert set(scales) == {node.module for node in graph.weighted()}
        quantized = QuantizedNet(graph, activations, scales).eval()
        with torch.no_grad():
            cosine = torch.nn.functional.cosine_similarity(
                quantized(images).flatten(), GraphNet(graph)(images).flatten(), dim=0
            )
        assert float(cosine) > 0.99, seed
    assert kinds == set(BY_KIND)
