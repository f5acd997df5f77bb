"""The layer norm over channels: what it refuses, how it is trained, what a program file holds."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from edgevit.errors import InputError
from edgevit.graph import Graph
from edgevit.graph.quantized import quantize_graph
from edgevit.ops import FloatWeights, LayerNorm
from edgevit.program.graph_file import GRAPH, WEIGHTS, graph_members, read_graph
from edgevit.program.tensors import read_tensors, tensor_bytes
from edgevit.quantize.net import QuantizedNet
from edgevit.quantize.place import place
from tests.operation_programs import Net, operation_graph, operation_program
from tests.programs import seeded_images

ONE, NONE = np.ones(4, np.float32), np.zeros(4, np.float32)


def norm(eps: Any = 2.0**-20, weight: np.ndarray = ONE, bias: np.ndarray = NONE) -> LayerNorm:
    return LayerNorm(name="n", inputs=("x",), eps=eps, weights=FloatWeights(weight, bias))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"eps": 0.0}, "eps 0.0 is not a positive float32"),
        ({"eps": -1.0}, "eps -1.0"),
        ({"eps": float("nan")}, "eps nan"),
        ({"eps": float("inf")}, "eps inf"),
        ({"eps": 1e-6}, "eps 1e-06"),  # no float32 is
        ({"bias": NONE[:3]}, "do not fit"),
        ({"weight": ONE[:0], "bias": NONE[:0]}, "do not fit"),
        ({"weight": ONE.reshape(2, 2)}, "do not fit"),
        ({"weight": ONE.astype(np.float64)}, "float32"),
        ({"weight": ONE * np.float32(np.nan)}, "not a finite number"),
        ({"bias": ONE * np.float32(np.inf)}, "not a finite number"),
    ],
)
def test_what_is_no_layer_norm_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"n: .*{message}"):
        norm(**given)


@pytest.mark.parametrize("shape", [(1, 5, 2, 2), (1, 4), (1, 4, 2, 2, 2)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="n: "):
        norm().output_shape([shape])


def test_it_is_torchs_layer_norm_of_the_channels() -> None:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(2, 48, 5, 3, generator=random)
    node = norm(weight=torch.randn(48, generator=random).numpy(), bias=np.arange(48, dtype="f4"))
    found = node.compute([x], [torch.from_numpy(v) for v in node.real_weights()])
    weight, bias = (torch.from_numpy(v) for v in (node.weights.weight, node.weights.bias))
    turned = torch.nn.functional.layer_norm(x.permute(0, 2, 3, 1), (48,), weight, bias, node.eps)
    assert torch.allclose(found, turned.permute(0, 3, 1, 2), atol=1e-5)


def test_a_constant_position_gives_the_bias() -> None:
    """Its variance is 0, and eps keeps the quotient finite."""
    from edgevit.ops import Quantizer

    node = norm(bias=np.array([0.5, -0.5, 1.0, 0.0], np.float32))
    step = node.exact([Quantizer(0.25, 3)], Quantizer(0.125, -2))
    found = step(torch.full((1, 4, 2, 2), 17.0))
    assert found[0, :, 0, 0].tolist() == [4, -4, 8, 0]


def test_gradients_flow_to_its_weights_and_through_it() -> None:
    graph = operation_graph("layer_norm of 48", 0)
    images = seeded_images(4, 16)
    activations, scales, completed = place(graph, [images], "portable")
    assert "n1.layer_norm" in activations and "n1.layer_norm" in completed
    assert set(scales) == {"n0.conv2d", "n2.conv2d"}
    net = QuantizedNet(graph, activations, scales)
    out = net(images)
    assert isinstance(out, torch.Tensor)
    out.square().sum().backward()
    first, island, _ = net.net.nodes()
    assert island.weight is not None and island.bias is not None and first.weight is not None
    for parameter in (island.weight, island.bias, first.weight):
        assert parameter.grad is not None and float(parameter.grad.abs().max()) > 0
    with torch.no_grad():
        island.weight.mul_(2)
    trained = net.float_graph().node("n1.layer_norm")
    assert isinstance(trained, LayerNorm)
    before = graph.node("n1.layer_norm")
    assert isinstance(before, LayerNorm)
    assert np.array_equal(trained.weights.weight, 2 * before.weights.weight)


def test_a_program_file_holds_it_exactly() -> None:
    graph = operation_program("layer_norm of 48", 1).graph()
    members = graph_members(graph)
    again = read_graph(members)
    assert graph_members(again) == members
    for node, found in zip(graph.nodes, again.nodes, strict=True):
        if isinstance(node, LayerNorm) and isinstance(found, LayerNorm):
            assert found.eps == node.eps
            assert np.array_equal(found.weights.weight, node.weights.weight)
            assert np.array_equal(found.weights.bias, node.weights.bias)


@pytest.mark.parametrize("eps", [0.0, -1.0, 1, "1", None, True, [1.0], 1e-6, 1e300])
def test_a_program_file_with_another_eps_is_refused(eps: Any) -> None:
    members = graph_members(operation_program("layer_norm", 0).graph())
    value = json.loads(members[GRAPH])
    value["nodes"][1]["eps"] = eps
    with pytest.raises(InputError, match=r"n1\.layer_norm"):
        read_graph({**members, GRAPH: json.dumps(value).encode()})


@pytest.mark.parametrize("change", ["missing", "float64", "short", "nan", "unread"])
def test_a_program_file_with_other_weights_is_refused(change: str) -> None:
    members = graph_members(operation_program("layer_norm", 0).graph())
    tensors, metadata = read_tensors(members[WEIGHTS], WEIGHTS)
    name = "n1.layer_norm.weight"
    values = tensors[name]
    changed = {
        "missing": None, "float64": values.astype(np.float64), "short": values[:-1],
        "nan": np.full_like(values, np.nan), "unread": values,
    }[change]  # fmt: skip
    if changed is None:
        del tensors[name]
    else:
        tensors[name] = changed
    if change == "unread":
        tensors["n1.layer_norm.more"] = values
    with pytest.raises(InputError, match=r"n1\.layer_norm"):
        read_graph({**members, WEIGHTS: tensor_bytes(tensors, metadata)})


def test_two_operations_cannot_have_one_names_weights() -> None:
    """A convolution's module may be called as it likes, but not as a norm is."""
    net = Net(0)
    net.conv(shape=(4, 3, 1, 1))
    net(LayerNorm, eps=1.0, weights=FloatWeights(ONE, NONE))
    from dataclasses import replace

    nodes = [replace(net.nodes[0], module="n1.layer_norm"), net.nodes[1]]
    with pytest.raises(InputError, match="n1.layer_norm: two operations have the weights"):
        Graph(net.shapes["input"], tuple(nodes), (net.last,))


def test_it_needs_no_weight_scale() -> None:
    graph = operation_graph("layer_norm", 0)
    images = [seeded_images(2, 16)]
    activations, scales, _ = place(graph, images, "asymmetric")
    assert quantize_graph(graph, _halves(activations), _snapped(scales), "asymmetric").quantized


def _halves(activations: dict[str, Any]) -> dict[str, Any]:
    from dataclasses import replace

    return {n: replace(q, scale=float(np.float16(q.scale))) for n, q in activations.items()}


def _snapped(scales: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {n: s.astype(np.float16).astype(np.float32) for n, s in scales.items()}
