"""The activations that may take GELU's place: the swap itself, and what every target makes of them.

Exactness is that of the tests for GELU: the executor against float64, the artifact against the
executor op by op, each audit against a file that was changed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgevit.choices import ACTIVATIONS
from edgevit.commands.quantize import quantize_command
from edgevit.errors import EdgevitError, InputError
from edgevit.graph import Graph, trace
from edgevit.graph.float_run import GraphNet
from edgevit.graph.passes import GAIN, swap_gelus
from edgevit.ops import Gelu, Sigmoid
from edgevit.program import Program
from edgevit.quantize.net import QuantizedNet
from edgevit.quantize.options import QuantizeOptions
from edgevit.quantize.place import place
from edgevit.targets import load_target
from edgevit.targets.artifact import load_artifact
from edgevit.targets.tensorrt.options import TensorrtOptions
from edgevit.targets.tensorrt.place import BEFORE_ACTIVATION, GATE, dropped
from tests.programs import (
    make_program,
    seeded_images,
    seeded_net,
    seeded_pixels,
)

SWAPPED = tuple(name for name in ACTIVATIONS if name != "gelu")


def swapped(net: nn.Module, name: str, size: int = 64) -> Graph:
    """The float graph of a net for square images, with another activation."""
    return swap_gelus(trace(net, (3, size, size)), name)


# -- the swap ---------------------------------------------------------------------------------


class Between(nn.Module):
    """GELU between two convolutions, the second of them padded."""

    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.a, self.act, self.b = nn.Conv2d(3, 5, 1), act, nn.Conv2d(5, 2, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.act(self.a(x)))


class QuickGelu(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(1.702 * x)


class HardSwish(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * nn.functional.relu6(1.702 * x + 3) / 6


@pytest.mark.parametrize(("name", "act"), [("quick-gelu", QuickGelu), ("hard-swish", HardSwish)])
@torch.no_grad()
def test_the_factor_in_the_weights_makes_the_very_function(name: str, act: type) -> None:
    net, wanted = Between(nn.GELU()), Between(act())
    wanted.load_state_dict(net.state_dict())
    x = 3 * torch.randn(2, 3, 8, 8)
    found = GraphNet(swapped(net, name, 8))
    # The factors are rounded to the weights' float32 once; the rest is computed in float64.
    expected = wanted.double()(x.double())
    assert torch.allclose(found.double()(x.double()), expected, rtol=1e-6, atol=1e-6)
    assert (found(x.double()) - net.double()(x.double())).abs().max() > 1e-4


@pytest.mark.parametrize("name", SWAPPED)
@torch.no_grad()
def test_every_gelu_is_swapped_and_the_net_left_alone(name: str) -> None:
    net = seeded_net()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    graph, found = trace(net, (3, 64, 64)), swapped(net, name)
    assert not any(isinstance(node, Gelu) for node in found.nodes)
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert any(isinstance(node, Gelu) for node in graph.nodes)
    weights, original = ({n.module: n.weight for n in g.weighted()} for g in (found, graph))
    ratio = weights["stem.conv1"] / original["stem.conv1"]
    assert np.allclose(ratio, GAIN)
    # The squeeze-excite's convolutions are between other activations.
    gate = "stages.0.blocks.0.se.fc1"
    assert np.array_equal(weights[gate], original[gate])


def test_quick_gelu_stays_closer_to_gelu_than_hard_swish() -> None:
    net, images = seeded_net(), seeded_images(16, 64)
    with torch.no_grad():
        errors = [
            float((GraphNet(swapped(net, name))(images) - net(images)).abs().mean())
            for name in ("gelu", "quick-gelu", "hard-swish")
        ]
    assert errors[0] < 1e-5 < errors[1] < errors[2]


def test_a_gelu_with_nowhere_for_the_factor_is_refused() -> None:
    class Net(Between):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.a(x)
            return self.b(x + self.act(x))

    with pytest.raises(InputError, match="act: this GELU .*--activation gelu"):
        swapped(Net(nn.GELU()), "quick-gelu", 8)


def test_the_command_offers_what_there_is() -> None:
    (option,) = [p for p in quantize_command.params if p.name == "activation"]
    assert set(option.type.choices) == set(ACTIVATIONS) and option.default == "gelu"
    for name in ACTIVATIONS:
        assert swapped(seeded_net(), name).outputs == ("head",)
    with pytest.raises(InputError, match="--activation 'swish' is not one of gelu"):
        QuantizeOptions(activation="swish")


# -- training ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SWAPPED)
def test_nncf_and_the_completion_pass_leave_no_tensor_out(name: str) -> None:
    graph, images = swapped(seeded_net(), name), seeded_images(8, 64)
    activations, scales, completed = place(graph, list(images.split(4)), "portable")
    quantized = QuantizedNet(graph, activations, scales).eval()
    with torch.no_grad():
        cosine = nn.functional.cosine_similarity(
            quantized(images).flatten(), GraphNet(graph)(images).flatten(), dim=0
        )
    assert float(cosine) > 0.95 and "stem.conv1" in completed
    gates = [q for name, q in activations.items() if name.endswith("gate")]
    assert all((q.scale, q.zero_point, q.how) == (1 / 256, -128, "fixed") for q in gates)


@pytest.mark.parametrize("name", SWAPPED)
def test_gradients_reach_every_weight_and_scale(name: str) -> None:
    graph, images = swapped(seeded_net(), name), seeded_images(4, 64)
    quantized = QuantizedNet(graph, *place(graph, [images], "portable")[:2]).train()
    quantized(images).square().sum().backward()
    for path, parameter in quantized.named_parameters():
        if path != "zero_point":
            assert torch.isfinite(parameter.grad).all() and parameter.grad.any(), path
    fixed = quantized.log_scale.grad[quantized.fixed]
    assert (quantized.log_scale.grad != 0).sum() > 0.8 * (~quantized.fixed).sum()
    assert not fixed.any()


# -- the program ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SWAPPED)
def test_a_program_survives_its_file(name: str, tmp_path: Path) -> None:
    program = make_program(activation=name)
    loaded = Program.load(program.save(tmp_path / "m.evq"))
    images = seeded_images(4, 64)
    assert torch.equal(loaded.run(images), program.run(images))
    kinds = [type(node) for node in loaded.graph().nodes]
    assert kinds == [type(node) for node in program.graph().nodes] and Gelu not in kinds


# -- every target -----------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["tflite", "coreml", "tensorrt"])
@pytest.mark.parametrize("name", SWAPPED)
def test_every_target_audits_and_runs_it(name: str, target: str, tmp_path: Path) -> None:
    program, module, pixels = make_program(activation=name), load_target(target), seeded_pixels(4)
    manifest = module.compile(program, tmp_path / "out")
    assert manifest.audit.activations + len(manifest.drops) == len(program.graph().activations())
    found = module.open_runner(load_artifact(tmp_path / "out")).scores(pixels)
    expected = program.run(program.info.preprocessing.normalise(pixels)).numpy()
    step = program.graph().quantizer("head").scale
    # TensorRT's lowering drops pairs, so it rounds elsewhere: 7 to 14 steps in the mean on nets of
    # random weights. Logits that have nothing to do with these are 30 steps and more away.
    assert np.abs(found - expected).mean() <= 20 * step
    assert np.abs(found - expected[::-1]).mean() > 20 * step
    with pytest.raises(EdgevitError):
        module.check_artifact(tmp_path / "out", make_program(activation="gelu"))


def test_tensorrt_never_writes_a_sigmoids_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its zero-point is -128, and TensorRT's is 0: a pair of it would be another function."""
    program = make_program(activation="quick-gelu")
    (gate,) = [n.name for n in program.graph().nodes if n.name == "stem.act1.gate"]
    kept = {name: why for name, why in dropped(program.graph()).items() if name != gate}
    monkeypatch.setattr(type(load_target("tensorrt")), "drops", lambda _, graph: kept)
    with pytest.raises(InputError, match="stem.act1.gate: zero-point -128"):
        load_target("tensorrt").write(program, TensorrtOptions())


def test_tensorrt_leaves_a_silu_whole() -> None:
    """No pair between convolution, sigmoid and product, nor between the two of the last."""
    graph = make_program(activation="quick-gelu").graph()
    found = dropped(graph)
    gates = [n for n in graph.nodes if isinstance(n, Sigmoid) and ".se." not in n.name]
    assert len(gates) == 12
    for gate in gates:
        assert found[gate.inputs[0]] == BEFORE_ACTIVATION and found[gate.name] == GATE
        (product,) = [n for n in graph.nodes if gate.name in n.inputs]
        assert product.name not in found
    before = dropped(make_program().graph())
    assert {n for n in found if ".se." in n} == {n for n in before if ".se." in n}
