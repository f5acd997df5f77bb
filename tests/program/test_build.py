"""Building programs: canonical names, int8 weights and int32 biases, wrong scales by name."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgevit.errors import InputError
from edgevit.graph import Graph, quantize_graph, trace
from edgevit.graph.quantized import bias_on_grid, bias_value
from edgevit.ops import Conv2d, Quantizer, Relu, Sigmoid
from edgevit.program import Reference, build_program
from edgevit.program.v1.evq import tensor_table
from tests.nets import Net, seeded
from tests.programs import (
    SMALL,
    make_info,
    make_program,
    quantizers,
    seeded_graph,
    seeded_images,
    seeded_net,
    weight_scales,
)

PROFILES = ("portable", "asymmetric")
SHAPE = (3, 64, 64)


@pytest.fixture(scope="module")
def float_graph() -> Graph:
    return seeded_graph()


@pytest.fixture(scope="module")
def parts(float_graph: Graph) -> tuple[dict[str, Quantizer], dict[str, np.ndarray]]:
    return quantizers(float_graph, seeded_images(8, 64), "portable"), weight_scales(float_graph)


def test_tensors_have_the_canonical_names(float_graph: Graph) -> None:
    names = [node.name for node in float_graph.nodes]
    assert names[:3] == ["stem.conv1", "stem.act1", "stem.conv2"]
    assert names[-3:] == ["mean", "flatten", "head"]
    block = "stages.0.blocks.0"
    assert {f"{block}.token_mixer", f"{block}.se.mean", f"{block}.se.gate", f"{block}.se.mul",
            f"{block}.channel_mixer.conv1", f"{block}.add"} <= set(names)  # fmt: skip
    relu = float_graph.node(f"{block}.se.act")
    assert isinstance(relu, Conv2d) and relu.activation is Relu
    assert relu.module == f"{block}.se.fc1"
    modules = dict(seeded_net().named_modules())
    for node in float_graph.nodes:
        path = node.name if node.kind not in ("add", "mul", "mean", "flatten") else ""
        assert path in modules
    assert {node.module for node in float_graph.weighted()} <= set(modules)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_program_holds_int8_weights_and_int32_biases(profile: str) -> None:
    graph = make_program(profile=profile).graph()
    net = dict(seeded_net().named_modules())
    for node in graph.weighted():
        step = np.float64(graph.quantizer(node.inputs[0]).scale) * node.weight_scale
        assert np.array_equal(node.bias, (node.bias_q * step).astype(np.float32))
        bias = net[node.module].bias.detach().numpy()
        assert np.all(np.abs(node.bias - bias) <= 0.501 * step)
        weight = net[node.module].weight.detach()
        scale = torch.tensor(node.weight_scale)
        fake = torch.fake_quantize_per_channel_affine(
            weight, scale, torch.zeros(len(scale), dtype=torch.int32), 0, -127, 127
        )
        per_channel = scale.view(-1, *[1] * (weight.ndim - 1))
        assert torch.equal(torch.tensor(node.weight).float() * per_channel, fake)


def test_a_transposed_convolutions_scales_lie_along_its_outputs() -> None:
    graph = trace(seeded(Net(lambda n, x: n.c(x), c=torch.nn.ConvTranspose2d(3, 5, 2))), SHAPE)
    scale = np.float32([2.0**-5, 2.0**-6, 2.0**-7, 2.0**-6, 2.0**-5])
    made = quantize_graph(
        graph, {"input": Quantizer(0.5, 0), "c": Quantizer(0.5, 0)}, {"c": scale}, "portable"
    )
    (node,), (before,) = made.weighted(), graph.weighted()
    fake = torch.fake_quantize_per_channel_affine(
        torch.tensor(before.weight), torch.tensor(scale), torch.zeros(5, dtype=torch.int32), 1,
        -127, 127,
    )  # fmt: skip
    assert np.array_equal(node.weight * scale[None, :, None, None], fake.numpy())
    assert node.bias_q.shape == (5,)


def test_zero_points_follow_the_profile() -> None:
    for profile in PROFILES:
        graph = make_program(profile=profile).graph()
        others = {
            q.zero_point for name, q in graph.activations().items() if not name.endswith("gate")
        }
        assert (others == {0}) == (profile == "portable")
        gates = [n.name for n in graph.nodes if isinstance(n, Sigmoid)]
        found = {(graph.quantizer(g).scale, graph.quantizer(g).zero_point) for g in gates}
        assert found == {(1 / 256, -128)}


GATE = "stages.0.blocks.0.se.gate"


@pytest.mark.parametrize(
    ("name", "quantizer", "message"),
    [
        ("stem.act1", None, "stem.act1: no activation quantizer was given"),
        ("stem.act9", Quantizer(0.5, 0), "stem.act9: a activation quantizer|stem.act9: .* no such"),
        ("flatten", Quantizer(0.5, 0), "flatten: a activation quantizer was given"),
        ("stem.act1", Quantizer(0.1, 0), "stem.act1: scale 0.1 is not float16-exact"),
        ("stem.act1", Quantizer(0.5, 3), "stem.act1: zero-point 3; the portable profile"),
        ("stem.act1", Quantizer(0.5, 0, -127, 127), "stem.act1: activations use all of int8"),
        (GATE, Quantizer(1 / 128, -128), f"{GATE}: a sigmoid's output is fixed"),
        (GATE, Quantizer(1 / 256, 0), f"{GATE}: a sigmoid's output is fixed"),
    ],
)
def test_a_wrong_activation_quantizer_is_named(
    float_graph: Graph,
    parts: tuple,
    name: str,
    quantizer: Quantizer | None,
    message: str,
) -> None:
    activations = dict(parts[0])
    activations.pop(name, None)
    if quantizer is not None:
        activations[name] = quantizer
    with pytest.raises(InputError, match=message):
        quantize_graph(float_graph, activations, parts[1], "portable")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: None, "head: no weight scale quantizer"),
        (lambda s: s[:-1], r"head: its weight scale is float32 \(9,\)"),
        (lambda s: s.astype(np.float64), "head: its weight scale is float64"),
        (lambda s: s * np.float32(1.0001), "head: a weight scale is not float16-exact"),
        (lambda s: s * 0, "head: a weight scale is not float16-exact"),
        (lambda s: -s, "head: a weight scale is not float16-exact"),
    ],
)
def test_a_wrong_weight_scale_is_named(
    float_graph: Graph, parts: tuple, change, message: str
) -> None:
    scales = dict(parts[1])
    changed = change(scales.pop("head"))
    if changed is not None:
        scales["head"] = changed
    with pytest.raises(InputError, match=message):
        quantize_graph(float_graph, parts[0], scales, "portable")


def test_an_unknown_profile_is_named(float_graph: Graph, parts: tuple) -> None:
    with pytest.raises(InputError, match="profile 'fast' is not one of portable, asymmetric"):
        quantize_graph(float_graph, *parts, "fast")


def with_bias(value: float) -> Graph:
    """The seeded net's graph with another bias in channel 3 of stem.conv2."""
    net = seeded_net()
    with torch.no_grad():
        net.get_submodule("stem.conv2").bias[3] = value
    return trace(net, SHAPE)


def test_a_bias_over_int32_names_its_convolution(parts: tuple) -> None:
    with pytest.raises(InputError, match=r"stem\.conv2: the bias of channel 3 is 1e\+06"):
        quantize_graph(with_bias(1e6), parts[0], parts[1], "portable")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_no_number_names_its_convolution(parts: tuple, value: float) -> None:
    with pytest.raises(InputError, match=r"stem\.conv2: a weight or bias is not a finite number"):
        quantize_graph(with_bias(value), parts[0], parts[1], "portable")


def test_a_large_bias_survives_its_float32_value(parts: tuple) -> None:
    """Above 2**24 steps float32 is coarser than the grid; reading it back gives the same int32."""
    node = quantize_graph(with_bias(9876.54321), parts[0], parts[1], "portable").node("stem.conv2")
    assert isinstance(node, Conv2d)
    step = parts[0]["stem.act1"].scale
    assert node.bias_q[3] > 2**24
    assert np.array_equal(bias_on_grid("", node.bias, step, node.weight_scale), node.bias_q)
    assert np.array_equal(bias_value(node.bias_q, step, node.weight_scale), node.bias)


def test_a_convolution_without_bias_gets_one_of_zeros() -> None:
    net = Net(lambda n, x: n.c(x), c=torch.nn.Conv2d(3, 4, 1, bias=False))
    (node,) = trace(net, SHAPE).weighted()
    assert node.bias.shape == (4,) and not node.bias.any()


def test_building_from_a_net_gives_the_same_program(parts: tuple) -> None:
    info = make_info(SMALL, 64, "portable")
    logits = np.zeros((1, 10), np.float32)
    reference = Reference(logits, ("a/0.jpg",), "0" * 64)
    graph = trace(seeded_net(), SHAPE)
    program = build_program(graph, *parts, info, weight_how="calibrated", reference=reference)
    assert tensor_table(program.graph()) == tensor_table(make_program().graph())
    images = seeded_images(2, 64)
    assert torch.equal(program.run(images), make_program().run(images))
