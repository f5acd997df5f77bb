"""int8 weights alone: what is stored of a float net, what LiteRT computes of it, and the command.

LiteRT 2.3.0 quantizes what a convolution reads while it runs: to int8 with the scale and zero-point
of the least and the largest value, of the whole map, or of each pixel where the convolution is 1x1
with stride 1. That rule (`dynamic`), and sums of integers, give its results to the last bits of
float32 for every form of a convolution.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from click.testing import CliRunner

import edgevit
from edgevit.commands.compile import compile_command
from edgevit.data.images import ImageSet, Preprocessing
from edgevit.errors import InputError
from edgevit.files import read_tree
from edgevit.graph.weights import weights_form
from edgevit.ops import Conv2d, FloatWeights, Weighted
from edgevit.program import Program, WeightsProgram
from edgevit.project import EMBEDDED
from edgevit.quantize.weights_only import weights_program
from edgevit.targets import load_target
from edgevit.targets.artifact import load_artifact
from edgevit.targets.pixels import same_pixels
from edgevit.targets.tflite import TARGET
from edgevit.targets.tflite.options import REFUSED, TfliteOptions
from tests.conftest import ROOT
from tests.operation_programs import LABELS, operation_graph
from tests.programs import make_program, seeded_graph, seeded_net, seeded_pixels
from tests.shared_data import shared_checkpoint, shared_data
from tests.targets.tflite_files import Model, read_model, with_outputs
from tests.test_families import SIZE
from tests.test_several_outputs import WithFeatures

ON = TfliteOptions(weights_only="on")
CHECKPOINT = EMBEDDED / "repvit_m0_9_eurosat64.safetensors"
ROUNDING = 2e-6
"""Of the largest value: sums in another order."""


def weights_of(label: str, seed: int) -> WeightsProgram:
    """The program of one operation's float graph, past the check for a classifier."""
    program = WeightsProgram.of(make_program(16))
    program._graph = weights_form(operation_graph(label, seed))
    return program


def dynamic(values: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """What float32 values are as int8, with a scale and zero-point for each range over `axes`."""
    low = np.minimum(values.min(axes, keepdims=True), np.float32(0))
    high = np.maximum(values.max(axes, keepdims=True), np.float32(0))
    scale = np.float32(255) / np.where(low == high, np.float32(255), high - low)
    below, above = -128 - low * scale, 127 - high * scale
    # The zero-point that the nearer end asks for.
    point = np.where((-128 + low * scale) + (127 + high * scale) > 0, below, above)
    point = np.rint(np.clip(point, -128, 127))
    steps = np.clip(np.rint(values * scale) + point, -128, 127) - point
    return (steps * (np.float32(1) / scale)).astype(np.float32)


def as_litert(node: Weighted, source: torch.Tensor) -> torch.Tensor:
    """What LiteRT makes of a convolution's input, real numbers again."""
    by_pixel = (
        isinstance(node, Conv2d)
        and node.weight.shape[2:] == (1, 1)
        and node.stride == (1, 1)
        and node.groups == 1
    )
    values = source.numpy()
    return torch.from_numpy(dynamic(values, (1,) if by_pixel else tuple(range(values.ndim))))


@pytest.mark.parametrize("label", LABELS)
def test_litert_computes_every_operation_as_it_says(label: str) -> None:
    for seed in (1, 2):
        program = weights_of(label, seed)
        graph, data = program.graph(), TARGET.write(program, ON)
        reading, compared = TARGET.audit(data, program)
        assert not reading.quantizers and compared.activations == 0
        held = [name for name in reading.tensors if name in graph.tensors()]
        model = Model(with_outputs(data, [name for name in held if name != graph.input_name]))
        image = np.random.default_rng(seed).normal(0, 1, (1, 16, 16, 3)).astype(np.float32)
        model(image)
        values = {graph.input_name: torch.tensor(image).permute(0, 3, 1, 2)}
        for node in graph.nodes:
            result = model.tensor(node.name if node.name in held else node.inputs[0])
            values[node.name] = result.reshape(graph.shape(node.name)).contiguous()
            inputs = [values[name] for name in node.inputs]
            weights = tuple(map(torch.tensor, node.real_weights()))
            if isinstance(node, Weighted):
                inputs = [as_litert(node, inputs[0])]
            expected = node.compute(inputs, weights)
            bound = ROUNDING * max(1.0, float(expected.abs().max()))
            assert float((values[node.name] - expected).abs().max()) <= bound, node.name


def test_a_wrong_scale_would_be_seen_in_what_litert_computes() -> None:
    """The test above can fail: one channel's scale a thousandth larger is far over its bound."""
    program = weights_of("conv", 1)
    node = program.graph().nodes[-1]
    assert isinstance(node, Weighted)
    wrong = node.int8.scale.copy()
    wrong[3] *= np.float32(1.001)
    inputs = [torch.randn(1, 8, 16, 16)]
    bias = torch.tensor(node.bias)
    right = node.compute(inputs, (torch.tensor(node.real_weight()), bias))
    other = replace(node, weights=replace(node.int8, scale=wrong))
    found = other.compute(inputs, (torch.tensor(other.real_weight()), bias))
    assert float((found - right).abs().max()) > 100 * ROUNDING * float(right.abs().max())


def test_the_file_holds_each_channel_by_its_largest_weight() -> None:
    """Computed anew of the float net, and compared with the file's own bytes."""
    net = seeded_net()
    program = weights_program(net, Preprocessing(64))
    model = read_model(TARGET.write(program, ON))
    tensors = {t.name.decode(): t for t in model.subgraphs[0].tensors}
    nodes = seeded_graph().weighted()
    assert len(nodes) == 47
    for node in nodes:
        assert isinstance(node.weights, FloatWeights)
        rows = np.moveaxis(node.weight, node.channel_axis, 0).reshape(node.channels, -1)
        scale = (np.abs(rows).max(1) / np.float32(127)).astype(np.float16).astype(np.float32)
        expected = np.rint(rows.astype(np.float64) / scale[:, None].astype(np.float64))
        weight, bias = (tensors[f"{node.module}.{part}"] for part in ("weight", "bias"))
        assert (weight.type, bias.type) == (schema.TensorType.INT8, schema.TensorType.FLOAT32)
        assert np.array_equal(np.asarray(weight.quantization.scale, np.float32), scale)
        assert not np.any(weight.quantization.zeroPoint) and bias.quantization is None
        held = np.frombuffer(bytes(model.buffers[weight.buffer].data), np.int8)
        depthwise = isinstance(node, Conv2d) and node.groups > 1
        held = held.reshape(-1, node.channels).T if depthwise else held.reshape(node.channels, -1)
        if not depthwise and node.rank == 4:  # OHWI
            size = node.weight.shape[2] * node.weight.shape[3]
            held = held.reshape(node.channels, size, -1).transpose(0, 2, 1)
        held = held.reshape(node.channels, -1)
        # Half a step may be rounded to either side: float32 there, float64 here.
        assert np.abs(held - np.clip(expected, -127, 127)).max() <= 1
        assert (held != np.clip(expected, -127, 127)).mean() < 1e-3
        assert np.abs(held).max(1).min() >= 126
        stored = np.frombuffer(bytes(model.buffers[bias.buffer].data), np.float32)
        assert np.array_equal(stored, node.bias)


def test_the_operators_have_the_versions_that_brought_int8_weights() -> None:
    model = read_model(TARGET.write(WeightsProgram.of(make_program()), ON))
    kinds = schema.BuiltinOperator
    versions = {max(c.builtinCode, c.deprecatedBuiltinCode): c.version for c in model.operatorCodes}
    assert versions[kinds.CONV_2D] == 5 and versions[kinds.DEPTHWISE_CONV_2D] == 6
    (runtime,) = [m for m in model.metadata if m.name == b"min_runtime_version"]
    assert bytes(model.buffers[runtime.buffer].data).rstrip(b"\0") == b"2.9.0"  # GELU's


@pytest.mark.parametrize(
    "options",
    [{"deployment_target": "iOS18", "input_type": "tensor"},
     {"output_type": "classifier"}, {"compute_precision": "float32"}],
    ids=lambda options: " ".join(options.values()),
)  # fmt: skip
def test_core_ml_holds_them_in_every_form(options: dict[str, str], tmp_path: Path) -> None:
    program = WeightsProgram.of(make_program())
    target = load_target("coreml")
    target.compile(program, tmp_path / "out", False, **options)
    assert target.check_artifact(tmp_path / "out", program).activations == 0
    runner, pixels = target.open_runner(load_artifact(tmp_path / "out")), seeded_pixels(4)
    expected = program.run(program.info.preprocessing.normalise(pixels))
    if runner.probabilities:
        expected = expected.softmax(1)
    bound = 1e-5 if "compute_precision" in options else 2e-2
    size = max(1.0, float(expected.abs().max()))
    assert np.abs(runner.scores(pixels) - expected.numpy()).max() <= bound * size


def test_real_pixels_are_told_from_wrong_ones() -> None:
    from edgevit.targets.coreml.write import normalisation

    random, pixels = np.random.default_rng(3), np.arange(256, dtype=np.float32)
    for _ in range(300):
        rules = Preprocessing(
            8, mean=tuple(random.uniform(0, 1, 3)), std=tuple(random.uniform(0.004, 1, 3))
        )
        gain, offset = normalisation(rules, None)
        made = pixels * gain[:, None] + offset[:, None]
        assert same_pixels(made, rules, None)
        made[1] *= np.float32(1.00001)
        assert not same_pixels(made, rules, None)
    assert not same_pixels(np.zeros((3, 256), np.int8), Preprocessing(8), None)


def test_core_ml_before_ios17_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="int8 weights for iOS17 and later: compile with"):
        WeightsProgram.of(make_program()).compile(
            "coreml", tmp_path / "out", deployment_target="iOS16"
        )
    assert list(tmp_path.iterdir()) == []


# -- a trained net ------------------------------------------------------------------------------


def _embedded(limit: int) -> tuple[ImageSet, np.ndarray]:
    images, rules = ImageSet.open(EMBEDDED / "train.tar"), Preprocessing(64)
    places = [place * len(images.entries) // limit for place in range(limit)]
    return images, np.stack([rules.crop(images.load_rgb(i)) for i in places])


@pytest.fixture(scope="module")
def trained() -> WeightsProgram:
    return weights_program(CHECKPOINT, Preprocessing(64))


@pytest.mark.parametrize(("target", "least"), [("tflite", 98.0), ("coreml", 99.0)])
def test_predictions_are_those_of_the_net_with_the_stored_weights(
    target: str, least: float, trained: WeightsProgram, tmp_path: Path
) -> None:
    _, pixels = _embedded(200)
    trained.compile(target, tmp_path / "out")
    runner = load_target(target).open_runner(load_artifact(tmp_path / "out"))
    inputs = trained.info.preprocessing.normalise(pixels)
    expected = trained.run(inputs).numpy()
    agreement = 100 * (runner.scores(pixels).argmax(1) == expected.argmax(1)).mean()
    assert agreement >= least
    net = edgevit.load(CHECKPOINT)
    with torch.no_grad():
        own = net(inputs).numpy()
    assert 100 * (expected.argmax(1) == own.argmax(1)).mean() >= 98.0
    assert np.abs(expected - own).max() > 1e-3  # the weights did become int8


def test_a_shared_checkpoint_keeps_its_accuracy(tmp_path: Path) -> None:
    """The harness, on 1,000 images that nothing was chosen by: top-1 is float's within a point."""
    from edgevit.measure.request import HarnessRequest, ValidateOptions
    from edgevit.measure.validate import measured

    checkpoint = shared_checkpoint("repvit_m0_9_eurosat64_thu.pth")
    data = shared_data("eurosat-val.tar")
    labels = ImageSet.open(data).classes
    program = weights_program(checkpoint, Preprocessing(64), labels)
    assert program.file_name == checkpoint.name
    program.compile("tflite", tmp_path / "out")
    request = HarnessRequest(tmp_path / "out", data, limit=1000)
    found = measured(request, ValidateOptions(gate=False))
    assert found.result["accuracy"]["count"] == 1000
    assert abs(found.result["accuracy"]["top1_percent"] - 94.0) < 1.0
    assert found.result["profile"] == "weights-only"


def test_any_net_with_several_outputs_goes_the_same_way(tmp_path: Path) -> None:
    torch.manual_seed(0)
    program = weights_program(WithFeatures(), Preprocessing(SIZE), name="with_features")
    assert program.info.model.variant == "with_features"
    program.compile("tflite", tmp_path / "out")
    runner, pixels = TARGET.open_runner(load_artifact(tmp_path / "out")), seeded_pixels(2, SIZE)
    outputs = runner.outputs(pixels)
    expected = program.outputs(program.info.preprocessing.normalise(pixels))
    assert list(expected) == list(program.graph().outputs) and len(outputs) == 3
    for found, own in zip(outputs.values(), expected.values(), strict=True):
        own = own.permute(0, 2, 3, 1) if own.dim() == 4 else own
        assert np.abs(found - own.numpy()).max() < 0.02 * float(own.abs().max())


# -- what a program of weights alone is ----------------------------------------------------------


def test_it_runs_and_is_no_file(tmp_path: Path) -> None:
    whole = make_program()
    program = WeightsProgram.of(whole)
    images = whole.info.preprocessing.normalise(seeded_pixels(3))
    outputs = program.run(images)
    assert torch.equal(outputs, program.run(images))
    tensors = dict(program.tensors(images))
    assert list(tensors) == program.graph().tensors()
    assert all(value.dtype == torch.float32 for value in tensors.values())
    assert torch.allclose(tensors[program.graph().output_name], outputs, atol=1e-5)
    assert program.sha256 == whole.sha256 and WeightsProgram.of(program) is program
    assert isinstance(program.with_info(program.info), WeightsProgram)
    with pytest.raises(InputError, match="not kept as a program file"):
        program.save(tmp_path / "m.evq")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="profile 'weights-only' is not one of portable"):
        Program(program.graph(), program.info)
    with pytest.raises(InputError, match="profile 'portable' is not weights-only"):
        WeightsProgram(program.graph(), whole.info, sha256="0" * 64)
    with pytest.raises(InputError, match="it has a quantizer"):
        WeightsProgram(whole.graph(), program.info, sha256="0" * 64)
    with pytest.raises(InputError, match="not int8"):
        WeightsProgram(seeded_graph(), program.info, sha256="0" * 64)


@pytest.mark.parametrize(
    ("value", "match"), [(np.inf, "not a finite number"), (1e9, "too large to be int8")]
)
def test_a_weight_that_no_scale_covers_is_named(value: float, match: str) -> None:
    graph = operation_graph("conv", 1)
    node = graph.nodes[0]
    assert isinstance(node, Weighted)
    node.weight[2, 1, 0, 0] = value
    with pytest.raises(InputError, match=f"{node.module}.*{match}"):
        weights_form(graph)


def test_a_dead_channel_is_zeros() -> None:
    graph = operation_graph("conv", 1)
    node = graph.nodes[0]
    assert isinstance(node, Weighted)
    node.weight[2] = 0
    held = weights_form(graph).nodes[0]
    assert isinstance(held, Weighted)
    assert not held.weight[2].any() and held.weight_scale[2] == np.float32(2.0**-14)


def test_labels_and_channels_must_be_the_nets() -> None:
    net = seeded_net()
    with pytest.raises(InputError, match="3 labels are given, and the net has 10 classes"):
        weights_program(net, Preprocessing(64), ["a", "b", "c"])
    with pytest.raises(InputError, match="takes images of 3 channels, and L has 1"):
        weights_program(net, Preprocessing(64, channels="L"))
    program = weights_program(net, Preprocessing(64))
    assert program.info.labels[:2] == ("class_0000", "class_0001")
    assert program.file_name is None and len(program.sha256) == 64


def test_parity_says_that_there_is_nothing_to_compare_with(
    trained: WeightsProgram, tmp_path: Path
) -> None:
    artifact = trained.compile("tflite", tmp_path / "out")
    images = edgevit.from_sequence(
        [(pixels, 0) for pixels in seeded_pixels(2)],
        like=trained.info.preprocessing,
        classes=trained.info.labels,
    )
    with pytest.raises(InputError, match="its weights alone are int8"):
        artifact.parity(images)


# -- the command ---------------------------------------------------------------------------------


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(compile_command, [str(a) for a in arguments])
    code = getattr(result.exception, "exit_code", result.exit_code)
    return code, result.stdout, f"{result.exception or ''} {result.stderr}"


def test_a_checkpoint_compiles_without_data(tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("".join(f"kind {index}\n" for index in range(10)))
    asked = ("--weights-only", "--target", "tflite", "--image-size", 64, "--resize", 72)
    code, out, error = run(
        CHECKPOINT, *asked, "--labels", labels, "-o", tmp_path / "build", "--json"
    )
    assert code == 0, error
    manifest = json.loads(out)["tflite"]
    assert manifest["profile"] == "weights-only" and manifest["audit"]["activations"] == 0
    assert manifest["labels"][3] == "kind 3" and manifest["preprocessing"]["resize_size"] == 72
    assert manifest["program"]["file"] == CHECKPOINT.name
    assert manifest["reference"] is None
    artifact = edgevit.open(tmp_path / "build" / "tflite")
    (found,) = [artifact.classify(seeded_pixels(1)[0], top_k=1)[0]]
    assert found.label.startswith("kind ")
    code, out, _ = run(CHECKPOINT, *asked, "-o", tmp_path / "build", "--force")
    assert code == 0 and "exact: 0 activations" in out
    # The same checkpoint gives the same bytes.
    first = read_tree(tmp_path / "build" / "tflite")["model.tflite"]
    run(CHECKPOINT, *asked, "-o", tmp_path / "build", "--force")
    assert read_tree(tmp_path / "build" / "tflite")["model.tflite"] == first


def test_what_does_not_go_together_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    program = make_program().save(tmp_path / "m.evq")
    damaged = tmp_path / "damaged.evq"
    damaged.write_bytes(program.read_bytes()[:-9])
    text = tmp_path / "notes.txt"
    text.write_text("no net")
    few = tmp_path / "few.txt"
    few.write_text("one\ntwo\n")
    kept = set(tmp_path.iterdir())
    to = ("--target", "tflite", "-o", tmp_path / "build")
    for arguments, message in (
        ((CHECKPOINT, *to), "compiled without data by --weights-only"),
        ((program, "--image-size", 64, *to), "--image-size is for a checkpoint"),
        ((program, "--weights-only", "--labels", few, *to), "--labels is for a checkpoint"),
        ((program, "--variant", "repvit_m0_9", *to), "--variant is for a checkpoint"),
        ((damaged, "--weights-only", *to), "is not a program this edgevit can read"),
        ((text, "--weights-only", *to), "notes.txt"),
        ((tmp_path / "none.pth", "--weights-only", *to), "none.pth"),
        ((CHECKPOINT, "--weights-only", "--labels", few, *to), "2 labels are given"),
        ((CHECKPOINT, "--weights-only", "--io", "uint8", *to), "--io uint8 needs"),
        ((CHECKPOINT, "--weights-only", "--precision", "float32", *to), "leave one of them out"),
        ((CHECKPOINT, "--weights-only", "--variant", "repvit_m1_5", *to), "repvit_m1_5"),
        ((CHECKPOINT, "--weights-only", "--target", "onnx", *to), "is not an option of onnx"),
    ):
        code, _, error = run(*arguments)
        assert code == 2 and message in error, (arguments, error)
        assert set(tmp_path.iterdir()) == kept


# -- modes that are refused ----------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["16x8", "int4"])
def test_slower_modes_are_refused_with_the_reason(precision: str, tmp_path: Path) -> None:
    match = f"--precision {precision} is refused: .* times the speed .*benchmarks/modes.py"
    with pytest.raises(InputError, match=match):
        load_target("tflite").compile(make_program(), tmp_path / "out", precision=precision)
    code, _, error = run("m.evq", "--target", "tflite", "--precision", precision)
    assert code == 2 and f"--precision {precision} is refused" in error
    # A target that never runs on such a CPU has no such choice at all.
    code, _, error = run("m.evq", "--target", "coreml", "--precision", precision)
    assert code == 2 and f"--precision '{precision}' is not one of int8, float16" in error
    assert list(tmp_path.iterdir()) == []


def test_the_reasons_are_what_was_measured() -> None:
    figures = json.loads((ROOT / "benchmarks" / "results" / "modes.json").read_text())
    speed = {
        mode: found["median"]
        for mode, found in figures["interpreter"]["speed_against_float32"].items()
    }
    said = {
        name: [float(number) for number in re.findall(r"\d\.\d+", reason.split("(")[0])]
        for name, reason in REFUSED.items()
    }
    for name, modes in (
        ("16x8", ["16x8"]), ("int4", ["weight-only int4", "dynamic int4", "dynamic int8"]),
    ):  # fmt: skip
        assert said[name] == pytest.approx([speed[mode] for mode in modes], rel=0.4)
    assert speed["16x8"] < 0.1 and speed["dynamic int4"] < speed["dynamic int8"]
    assert figures["npu"]["run_on_a_device"] is False
