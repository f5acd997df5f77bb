"""The HTP's rules against its emulator, bit for bit: each operation on the inputs it had there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgevit.errors import InputError
from edgevit.graph import Graph, quantize_graph
from edgevit.graph.execute import Executor
from edgevit.graph.passes import fuse_activations
from edgevit.ops import (
    Add,
    Conv2d,
    Flatten,
    FloatWeights,
    Gelu,
    HardSwish,
    Linear,
    Mean,
    Mul,
    Node,
    Pad,
    Quantizer,
    Relu,
    Relu6,
    Sigmoid,
    Slice,
    Tanh,
)
from edgevit.program import Program
from edgevit.project import EMBEDDED
from edgevit.targets.qnn.emulator import ARCHS, HtpArch, HtpSettings
from edgevit.targets.qnn.reference import HtpReference, htp_step, missing_rule
from tests.operation_programs import FORMS, LABELS, Net, any_program, operation_graph
from tests.programs import make_program, real_images, seeded_images, trained_program, with_graph
from tests.random_graphs import random_program
from tests.targets.qnn_emulated import emulated, int8_input

pytest.importorskip("onnxruntime_qnn", reason="needs the extra: pip install onnxruntime-qnn")

CHECKPOINT = "repvit_m0_9_eurosat64.safetensors"
PROFILES = ("portable", "asymmetric")
REFUSED = ("hard_sigmoid",)
"""Of LABELS: what the HTP does not take with int8 activations."""
UNKNOWN = ("conv depthwise, dilated", "conv and relu6", "softmax", "relu6",
           "avg_pool2d", "avg_pool2d 3/2", "resize bilinear", "resize bilinear, fourfold",
           "resize bilinear, uneven", "layer_norm", "layer_norm of 48",
           "layer_norm, given out")  # fmt: skip
"""Of LABELS: those of which no rule was found."""
EXACT = tuple(label for label in LABELS if label not in (*REFUSED, *UNKNOWN))


def differing(program: Program, values: np.ndarray, arch: HtpArch) -> dict[str, tuple[int, int]]:
    """Node -> how many of its values the emulator has otherwise than the reference, of how many.

    Each is given the inputs that the emulator has.
    """
    graph = program.graph()
    found = emulated(program, values, HtpSettings(arch))
    reference = HtpReference(graph, arch)
    result = {}
    for node, step in reference.steps:
        own = step(*(found[name] for name in node.inputs))
        result[node.name] = (int((own != found[node.name]).sum()), own.size)
    return result


def assert_exact(program: Program, values: np.ndarray, arch: HtpArch, least: int = 0) -> None:
    off = differing(program, values, arch)
    assert not {name: counts for name, counts in off.items() if counts[0]}
    assert sum(count for _, count in off.values()) >= least


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("label", EXACT)
def test_an_operation_is_computed_as_the_emulator_does(label: str, profile: str) -> None:
    program = any_program(fuse_activations(operation_graph(label, 1)), 1, profile)
    assert_exact(program, int8_input(program, seeded_images(2, 16, 1)), "75")


SPREAD = {
    "dense": {"shape": (64, 16, 1, 1)},
    "dense 3x3": {"shape": (32, 16, 3, 3), "padding": (1, 1)},
    "grouped": {"shape": (32, 4, 1, 1), "groups": 4},
    "strided": {"shape": (32, 16, 3, 3), "padding": (1, 1), "stride": (2, 2)},
    "depthwise": {"shape": (16, 1, 3, 3), "padding": (1, 1), "groups": 16},
    "depthwise, strided": {"shape": (16, 1, 3, 3), "padding": (1, 1), "groups": 16,
                           "stride": (2, 2)},
    "depthwise 7x7, strided": {"shape": (16, 1, 7, 7), "padding": (3, 3), "groups": 16,
                               "stride": (2, 2)},
    "depthwise, strided one way": {"shape": (16, 1, 3, 3), "padding": (1, 1), "groups": 16,
                                   "stride": (2, 1)},
}  # fmt: skip
"""Convolutions of 16 channels whose weight scales differ by e**4."""


def _spread_program(form: str, profile: str, activation: type[Any] | None) -> Program:
    net = Net(5)
    net.conv(shape=(16, 3, 3, 3), padding=(1, 1))
    name = net.conv(**SPREAD[form], activation=activation)
    last = net.nodes[-1]
    assert isinstance(last, Conv2d)
    factors = np.exp(net.random.uniform(-2, 2, last.channels)).astype(np.float32)
    weights = replace(
        last.weights, weight=last.weight * factors.reshape(-1, 1, 1, 1), bias=last.bias * 4
    )
    nodes = (*net.nodes[:-1], replace(last, weights=weights))
    return any_program(Graph(net.shapes["input"], nodes, (name,)), 5, profile)


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("activation", [None, Relu])
@pytest.mark.parametrize("form", SPREAD)
def test_channels_of_far_scales_on_every_version(
    form: str, activation: type[Any] | None, arch: HtpArch
) -> None:
    for profile in PROFILES:
        program = _spread_program(form, profile, activation)
        assert_exact(program, int8_input(program, seeded_images(4, 16, 5)), arch)


@pytest.mark.parametrize("arch", ["68", "75"])
@pytest.mark.parametrize("activation", [None, Relu])
def test_a_linear(activation: type[Any] | None, arch: HtpArch) -> None:
    net = Net(3)
    net.conv(stride=(2, 2), padding=(1, 1))
    net(Mean)
    net(Flatten)
    net.conv(Linear, (300, 8), activation=activation)
    graph = Graph(net.shapes["input"], tuple(net.nodes), (net.last,))
    for profile in PROFILES:
        program = any_program(graph, 3, profile)
        values = int8_input(program, seeded_images(8, 16, 3))
        assert_exact(program, values, arch, least=8 * 300)


def _pairs_program(kind: type[Node], random: np.random.Generator, zeros: list[int]) -> Program:
    """An operation on every pair of int8, which identities bring to quantizers of their own."""
    source = Quantizer(2.0**-6, 0)
    scales = [float(np.float16(scale)) for scale in np.exp(random.uniform(-5, -3, 2))]
    top = scales[0] * scales[1] * 128 if kind is Mul else sum(scales)
    scales.append(float(np.float16(top * np.exp(random.uniform(-1.5, 1.5)))))
    nodes: list[Any] = []
    quantizers, weight_scales = {"input": source}, {}
    for place, name in enumerate(("a", "b")):
        part = f"{name}.part"
        nodes.append(Slice(name=part, inputs=("input",), axis=1, start=place, stop=place + 1))
        ratio = np.float32(scales[place] / source.scale)
        weights = _one(ratio)
        nodes.append(Conv2d(name=name, inputs=(part,), module=name, weights=weights))
        weight_scales[name] = np.array([ratio / 64], np.float32)
        quantizers[name] = Quantizer(scales[place], zeros[place])
    nodes.append(kind(name="result", inputs=("a", "b")))
    quantizers["result"] = Quantizer(scales[2], zeros[2])
    graph = Graph((1, 2, 256, 256), tuple(nodes), ("result",))
    profile = "asymmetric" if any(zeros) else "portable"
    quantized = quantize_graph(graph, quantizers, weight_scales, profile)
    return with_graph(make_program(16, profile), quantized)


def _one(value: np.float32) -> FloatWeights:
    return FloatWeights(np.full((1, 1, 1, 1), value, np.float32), np.zeros(1, np.float32))


def every_pair() -> np.ndarray:
    """int8 (1, 2, 256, 256)"""
    held = np.arange(-128, 128).astype(np.int8)
    return np.stack(np.meshgrid(held, held, indexing="ij"))[None]


@pytest.mark.parametrize("arch", ["68", "75"])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", [Add, Mul])
def test_every_pair_of_values(kind: type[Node], seed: int, arch: HtpArch) -> None:
    random = np.random.default_rng([seed, 3])
    zeros = [0, 0, 0] if seed < 2 else [int(z) for z in random.integers(-128, 128, 3)]
    program = _pairs_program(kind, random, zeros)
    found = emulated(program, every_pair(), HtpSettings(arch))
    assert len(np.unique(found["a"])) >= 128 and len(np.unique(found["b"])) >= 128
    assert (found["a"] == every_pair()[:, :1]).all() or any(zeros)
    assert_exact(program, every_pair(), arch, least=3 * 2**16)


@pytest.mark.parametrize("kind", [Gelu, HardSwish, Sigmoid, Tanh])
def test_every_value_of_a_function(kind: type[Node]) -> None:
    random = np.random.default_rng(7)
    for _ in range(6):
        scale = float(np.float16(np.exp(random.uniform(-5, -2.5))))
        zeros = [0, 0] if random.random() < 0.5 else [int(z) for z in random.integers(-100, 100, 2)]
        graph = Graph((1, 1, 16, 16), (kind(name="f", inputs=("input",)),), ("f",))
        fixed = graph.fixed("f")
        output = fixed or Quantizer(float(np.float16(scale * random.uniform(0.4, 0.9))), zeros[1])
        quantizers = {"input": Quantizer(scale, zeros[0]), "f": output}
        profile = "asymmetric" if any(zeros) else "portable"
        quantized = quantize_graph(graph, quantizers, {}, profile)
        program = with_graph(make_program(16, profile), quantized)
        values = np.arange(-128, 128).astype(np.int8).reshape(1, 1, 16, 16)
        assert_exact(program, values, "75", least=256)


@pytest.mark.parametrize("seed", [3, 4, 10, 13, 16])  # no layer norm: it is float
def test_random_nets(seed: int) -> None:
    program = random_program(seed)
    size = program.graph().input_shape[2]
    assert_exact(program, int8_input(program, seeded_images(2, size, seed)), "75", least=10_000)


@pytest.mark.parametrize("arch", ["68", "75", "81"])
@pytest.mark.parametrize("activation", ["gelu", "quick-gelu"])
def test_a_whole_net_has_the_emulators_logits(activation: str, arch: HtpArch) -> None:
    images = real_images(EMBEDDED / "val.tar", 3, 64)
    program = trained_program(EMBEDDED / CHECKPOINT, images, "portable", activation)
    graph, values = program.graph(), int8_input(program, images)
    found = emulated(program, values, HtpSettings(arch), all_tensors=False)
    own = dict(HtpReference(graph, arch).tensors(values))
    for name in graph.outputs:
        assert (own[name] == found[name]).all()
    # A reference that were the program itself would not be the HTP.
    program_has = {name: value.numpy() for name, value in Executor(graph).tensors(images)}
    assert any((own[name] != value).any() for name, value in program_has.items())


@pytest.mark.parametrize("label", UNKNOWN)
def test_an_operation_without_a_rule_is_refused_by_name(label: str) -> None:
    graph = any_program(fuse_activations(operation_graph(label, 0)), 0, "portable").graph()
    with pytest.raises(InputError, match=r"how the HTP computes .* is not known"):
        HtpReference(graph)


def test_every_form_is_either_exact_or_named() -> None:
    assert set(EXACT) | set(REFUSED) | set(UNKNOWN) == set(FORMS)


def test_what_an_input_was_made_by_matters() -> None:
    for before in ([], [Pad(name="p", inputs=("input",), before=(1, 0), after=(0, 2))]):
        nodes = (*before, Mean(name="m", inputs=("p" if before else "input",)))
        graph = Graph((1, 3, 16, 16), nodes, ("m",))
        with pytest.raises(InputError, match="m: how the HTP computes a mean of"):
            HtpReference(any_program(graph).graph())


def test_missing_rules_of_quantizers() -> None:
    one, unit = Quantizer(1.0, 0), Quantizer(1 / 256, -128)
    pad = Pad(name="p", inputs=("a",), before=(1, 1), after=(1, 1))
    assert "least value" in missing_rule(pad, [unit], unit)
    product = Mul(name="m", inputs=("a", "b"))
    assert "more than one" in missing_rule(product, [one, one], one)
    with pytest.raises(InputError, match="m: how the HTP computes a product"):
        htp_step(product, [one, one], one, "75")
    conv = Conv2d(
        name="c", inputs=("a",), module="c", activation=Relu6, weights=_one(np.float32(1))
    )
    assert missing_rule(conv, [one], one) == "'relu6' behind 'conv2d'"
