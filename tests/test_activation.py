"""The activations that may take GELU's place: the swap itself, and what every target makes of them.

Exactness is that of the tests for GELU: the executor against float64, the artifact against the
executor op by op, each audit against a file that was changed.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from edgevit.program.executor import Executor
from edgevit.quantize.activation import _LAYERS, GAIN, with_activation
from torch import nn

from edgevit.choices import ACTIVATIONS
from edgevit.commands.quantize import quantize_command
from edgevit.errors import EdgevitError, InputError
from edgevit.program import Program
from edgevit.program.torch_program import graph_module
from edgevit.quantize.net import QuantizedNet
from edgevit.quantize.options import QuantizeOptions
from edgevit.quantize.place import place
from edgevit.targets import load_target
from edgevit.targets.artifact import load_artifact
from edgevit.targets.coreml import audit_bytes, coreml_files
from edgevit.targets.coreml.options import CoremlOptions
from edgevit.targets.tensorrt.options import TensorrtOptions
from edgevit.targets.tensorrt.place import BEFORE_ACTIVATION, GATE, dropped
from tests.programs import (
    make_program,
    real_images,
    seeded_images,
    seeded_net,
    seeded_pixels,
    trained_program,
)
from tests.targets.tflite_files import (
    Model,
    int8_input,
    operator_names,
    read_model,
    same_versions,
    steps_by_operator,
    tflite_bytes,
    with_outputs,
)
from tests.test_coreml import Editor
from tests.test_program import ExactReference

SWAPPED = ACTIVATIONS[1:]
PROFILES = ("portable", "asymmetric")


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
    net, wanted = Between(nn.GELU()).double(), Between(act()).double()
    wanted.load_state_dict(net.state_dict())
    x = 3 * torch.randn(2, 3, 8, 8, dtype=torch.float64)
    found = with_activation(net, name)
    assert torch.allclose(found(x), wanted(x), rtol=1e-12, atol=1e-12)
    assert (found(x) - net(x)).abs().max() > 1e-4


@pytest.mark.parametrize("name", SWAPPED)
@torch.no_grad()
def test_every_gelu_is_swapped_and_the_net_left_alone(name: str) -> None:
    net = seeded_net()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    found = with_activation(net, name)
    assert not any(isinstance(layer, nn.GELU) for layer in found.modules())
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert any(isinstance(layer, nn.GELU) for layer in net.modules())
    ratio = found.stem.conv1.weight / net.stem.conv1.weight
    assert torch.allclose(ratio, torch.tensor(GAIN))
    # The squeeze-excite's convolutions are between other activations.
    gate = "stages.0.blocks.0.se.fc1.weight"
    assert torch.equal(found.state_dict()[gate], before[gate])


def test_quick_gelu_stays_closer_to_gelu_than_hard_swish() -> None:
    net, images = seeded_net(), seeded_images(16, 64)
    with torch.no_grad():
        errors = [
            float((with_activation(net, name)(images) - net(images)).abs().mean())
            for name in ("gelu", "quick-gelu", "hard-swish")
        ]
    assert errors[0] == 0 < errors[1] < errors[2]


def test_a_gelu_with_nowhere_for_the_factor_is_refused() -> None:
    class Net(Between):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.a(x)
            return self.b(x + self.act(x))

    with pytest.raises(InputError, match="act: this GELU .*--activation gelu"):
        with_activation(Net(nn.GELU()), "quick-gelu")


def test_the_command_offers_what_there_is() -> None:
    (option,) = [p for p in quantize_command.params if p.name == "activation"]
    assert set(option.type.choices) == set(ACTIVATIONS) and option.default == "gelu"
    assert set(ACTIVATIONS) == {"gelu", *_LAYERS}
    with pytest.raises(InputError, match="--activation 'swish' is not one of gelu"):
        QuantizeOptions(activation="swish")


# -- training ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SWAPPED)
def test_nncf_and_the_completion_pass_leave_no_tensor_out(name: str) -> None:
    net, images = with_activation(seeded_net(), name), seeded_images(8, 64)
    activations, scales, completed = place(net, list(images.split(4)), "portable")
    quantized = QuantizedNet(net, activations, scales).eval()
    with torch.no_grad():
        cosine = nn.functional.cosine_similarity(
            quantized(images).flatten(), net(images).flatten(), dim=0
        )
    assert float(cosine) > 0.95 and "stem.conv1" in completed
    gates = [q for name, q in activations.items() if name.endswith("gate")]
    assert all((q.scale, q.zero_point, q.how) == (1 / 256, -128, "fixed") for q in gates)


@pytest.mark.parametrize("name", SWAPPED)
def test_gradients_reach_every_weight_and_scale(name: str) -> None:
    net, images = with_activation(seeded_net(), name), seeded_images(4, 64)
    quantized = QuantizedNet(net, *place(net, [images], "portable")[:2]).train()
    quantized(images).square().sum().backward()
    for path, parameter in quantized.named_parameters():
        if path != "zero_point":
            assert torch.isfinite(parameter.grad).all() and parameter.grad.any(), path
    fixed = quantized.log_scale.grad[quantized.fixed]
    assert (quantized.log_scale.grad != 0).sum() > 0.8 * (~quantized.fixed).sum()
    assert not fixed.any()


# -- the program ------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", SWAPPED)
def test_a_run_is_the_stored_program_computed_exactly(name: str, profile: str) -> None:
    program = make_program(profile=profile, activation=name)
    images = seeded_images(16, 64, seed=5)
    with torch.no_grad():
        expected = ExactReference(graph_module(program.graph())).run(images)
    assert torch.equal(program.run(images), expected)


@pytest.mark.parametrize("name", SWAPPED)
def test_a_program_survives_its_file(name: str, tmp_path: Path) -> None:
    program = make_program(activation=name)
    loaded = Program.load(program.save(tmp_path / "m.evq"))
    images = seeded_images(4, 64)
    assert torch.equal(loaded.run(images), program.run(images))
    ops = [node.op for node in loaded.graph().nodes]
    assert ops == [node.op for node in program.graph().nodes] and "gelu" not in ops


# -- TFLite -----------------------------------------------------------------------------------


def test_the_operators_are_the_promised_ones() -> None:
    gelus = sum(node.op == "gelu" for node in make_program().graph().nodes)
    gates = sum(node.op == "sigmoid" for node in make_program().graph().nodes)
    quick = operator_names(read_model(tflite_bytes(make_program(activation="quick-gelu"))))
    hard = operator_names(read_model(tflite_bytes(make_program(activation="hard-swish"))))
    assert "GELU" not in quick + hard and hard.count("HARD_SWISH") == gelus
    assert quick.count("LOGISTIC") == quick.count("MUL") == gelus + gates


@pytest.mark.parametrize("builtin", [False, True], ids=["xnnpack", "builtin"])
@pytest.mark.parametrize("name", SWAPPED)
def test_every_operator_computes_what_the_program_computes(
    name: str, builtin: bool, embedded_checkpoint: Path, embedded_val: Path
) -> None:
    images = real_images(embedded_val, 16, 64)
    program = trained_program(embedded_checkpoint, images, "portable", name)
    names = [n for n in program.graph().activations() if n != "input"]
    data = with_outputs(tflite_bytes(program), names)
    steps = steps_by_operator(
        program, Model(data, builtin, keep_all=builtin), int8_input(program, images[::8])
    )
    assert steps["sigmoid"] == (0, 0.0)
    largest, share = steps["mul" if name == "quick-gelu" else "hard_swish"]
    # TFLite's own MUL rounds twice; XNNPACK's does not, and leaves HARD_SWISH to TFLite.
    assert largest <= 1 and share <= (1e-2 if builtin else 1e-3), steps
    if name == "quick-gelu" and not builtin:
        assert (largest, share) == (0, 0.0)


def test_xnnpack_rounds_between_sigmoid_and_product(
    embedded_checkpoint: Path, embedded_val: Path
) -> None:
    """Also where nobody asks for the sigmoid's tensor: XNNPACK then makes one table of the two."""
    images = real_images(embedded_val, 16, 64)
    program = trained_program(embedded_checkpoint, images, "portable", "quick-gelu")
    graph, executor = program.graph(), Executor(program.graph())
    products = [n for n in graph.nodes if n.op == "mul" and ".se." not in n.name]
    names = [name for node in products for name in (node.inputs[0], node.name)]
    model = Model(with_outputs(tflite_bytes(program), names))
    for image in int8_input(program, images[::8]):
        model(image[None])
        for node in products:
            value = model.tensor(node.inputs[0])
            gate = executor.step(graph.node(node.inputs[1]), [value])
            assert torch.equal(model.tensor(node.name), executor.step(node, [value, gate]))
    # The artifact as it is, against the one whose sigmoids have to be written.
    data, inputs = tflite_bytes(program), int8_input(program, images)
    every = [name for name in graph.activations() if name != "input"]
    apart = Model(with_outputs(data, every))
    for image, logits in zip(inputs, Model(data)(inputs)):
        apart(image[None])
        assert np.array_equal(apart.tensor("head").flatten().numpy(), logits)


def test_tensorflows_converter_makes_the_same_model(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow", reason="tensorflow-cpu is in the test requirements")
    files = []
    for name in SWAPPED:
        program = make_program(activation=name)
        files += [program.save(tmp_path / f"{name}.evq"), tmp_path / f"{name}.tflite"]
    command = [sys.executable, "-m", "tests.tensorflow_oracle", *map(str, files)]
    done = subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    for name in SWAPPED:
        program = make_program(activation=name)
        inputs = int8_input(program, seeded_images(16, 64, seed=5))
        theirs, ours = (tmp_path / f"{name}.tflite").read_bytes(), tflite_bytes(program)
        for builtin in (False, True):
            assert np.array_equal(Model(ours, builtin)(inputs), Model(theirs, builtin)(inputs))
        same_versions(read_model(ours), read_model(theirs))


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
    gates = [n for n in graph.nodes if n.op == "sigmoid" and ".se." not in n.name]
    assert len(gates) == 12
    for gate in gates:
        assert found[gate.inputs[0]] == BEFORE_ACTIVATION and found[gate.name] == GATE
        (product,) = [n for n in graph.nodes if gate.name in n.inputs]
        assert product.name not in found
    before = dropped(make_program().graph())
    assert {n for n in found if ".se." in n} == {n for n in before if ".se." in n}


@pytest.mark.parametrize(
    "options",
    [CoremlOptions(), CoremlOptions(compute_precision="float32"),
     CoremlOptions(deployment_target="iOS16", precision="float16")],
    ids=["int8", "float32", "iOS16"],
)  # fmt: skip
@pytest.mark.parametrize(("kind", "argument"), [("thresholded_relu", "alpha"),
                                                ("sigmoid_hard", "alpha"),
                                                ("sigmoid_hard", "beta")])  # fmt: skip
def test_core_mls_hard_swish_is_audited(options: CoremlOptions, kind: str, argument: str) -> None:
    program = make_program(activation="hard-swish")
    files = coreml_files(program, options)
    audit_bytes(files, program)
    editor = Editor(files)
    value = editor.constant(editor.of_kind(kind)[0], argument).immediateValue.tensor
    if value.WhichOneof("value") == "floats":
        value.floats.values[0] += 0.25
    else:
        value.bytes.values = np.float16(0.25).tobytes()
    with pytest.raises(EdgevitError, match=f"stem.act1: {kind} has {argument}"):
        audit_bytes(editor.done(), program)
