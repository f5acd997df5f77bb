"""The TFLite target's input and numbers: against the program, the runtime, and TensorFlow."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from edgevit.data.images import Preprocessing
from edgevit.graph import float_graph
from edgevit.graph.float_run import GraphNet
from edgevit.ops import INT8_MIN, Quantizer
from edgevit.program import Program
from edgevit.schema import to_json
from edgevit.targets import load_target
from edgevit.targets.artifact import load_artifact
from edgevit.targets.pixel_input import pixel_input
from edgevit.targets.pixels import quantized_pixels
from edgevit.targets.tflite import TARGET
from edgevit.targets.tflite.options import IO_TYPES
from tests.programs import (
    make_program,
    real_images,
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

PROFILES = ("portable", "asymmetric")
IMAGES = 64


@pytest.mark.parametrize("profile", PROFILES)
def test_the_table_is_the_programs_own_quantization_of_every_pixel(profile: str) -> None:
    import torch.ao.quantization.fx._decomposed  # registers quantized_decomposed

    program = make_program(profile=profile)
    quantizer, rules = program.graph().quantizer("input"), program.info.preprocessing
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    normalised = rules.normalise(pixels)
    expected = torch.ops.quantized_decomposed.quantize_per_tensor(
        normalised, quantizer.scale, quantizer.zero_point, -128, 127, torch.int8
    )
    table = quantized_pixels(rules, quantizer)
    assert np.array_equal(table, expected.numpy().reshape(3, 256))
    square = torch.zeros(1, 3, 64, 64)
    square[:, :, :16, :16] = normalised
    held = int8_input(program, square)[0, :16, :16].reshape(256, 3)
    assert np.array_equal(table, held.T)


@pytest.mark.parametrize(("scale", "zero_point"), [(0.02099609375, 0), (0.0186767578125, -14),
                                                   (0.01763916015625, 0), (0.125, 3)])  # fmt: skip
def test_raw_pixels_become_the_programs_input_exactly(scale: float, zero_point: int) -> None:
    quantizer, rules = Quantizer(scale, zero_point), Preprocessing(64)
    found, wanted = pixel_input(rules, quantizer), quantized_pixels(rules, quantizer)
    assert found.weight.dtype == np.int8 and found.bias.dtype == np.int32
    totals = found.weight[:, None].astype(np.int64) * np.arange(256) + found.bias[:, None]
    products = totals * (found.weight_scale.astype(np.float64) / scale)[:, None]
    assert np.abs(products - np.floor(products) - 0.5).min() >= 1e-4  # no rounding edge is near
    steps = np.rint(products) + zero_point
    assert np.array_equal(np.clip(steps, INT8_MIN, 127), wanted)


@pytest.mark.parametrize("profile", PROFILES)
def test_all_three_inputs_give_the_same_logits(profile: str) -> None:
    program = make_program(profile=profile)
    rules, head = program.info.preprocessing, program.graph().quantizer("head")
    chance = np.random.default_rng(0)
    pixels = chance.integers(0, 256, (8, 64, 64, 3), np.uint8)
    images = rules.normalise(pixels)
    models = {io: Model(tflite_bytes(program, io)) for io in IO_TYPES}
    int8 = models["int8"](int8_input(program, images))
    assert np.array_equal(models["uint8"](pixels), (int8.astype(int) + 128).astype(np.uint8))
    floats = models["float32"](images.permute(0, 2, 3, 1).contiguous().numpy())
    dequantized = (int8.astype(np.float32) - head.zero_point) * np.float32(head.scale)
    assert np.array_equal(floats, dequantized)


def test_the_manifest_table_is_what_the_input_holds(tmp_path: Path) -> None:
    program = make_program()
    quantizer, rules = program.graph().quantizer("input"), program.info.preprocessing
    expected = {
        "int8": (quantized_pixels(rules, quantizer).tolist(), quantizer.scale, 0),
        "uint8": ([list(range(256))] * 3, 1.0, 0),
        "float32": (rules.table().astype(float).tolist(), None, None),
    }
    for io, (table, scale, zero_point) in expected.items():
        manifest = load_target("tflite").compile(program, tmp_path / io, io=io)
        found = manifest.input
        assert to_json(found.table) == table and found.dtype == io and found.layout == "NHWC"
        assert (found.scale, found.zero_point) == (scale, zero_point)
        model = Model((tmp_path / io / "model.tflite").read_bytes())
        assert model.input["name"].split(".")[0] == found.name == "input"
        assert model.input["shape"].tolist() == list(found.shape)
        assert model.input["dtype"] == np.dtype(io) == model.output["dtype"]
        if io != "float32":
            assert model.input["quantization"] == (np.float32(scale), zero_point)
            assert model.output["quantization"] == (
                np.float32(manifest.outputs[0].scale), manifest.outputs[0].zero_point
            )  # fmt: skip


@cache
def _trained(checkpoint: Path, images_path: Path, profile: str) -> tuple[Program, torch.Tensor]:
    images = real_images(images_path, IMAGES, 64)
    return trained_program(checkpoint, images, profile), images


def test_tensorflows_converter_makes_the_same_model(
    tmp_path: Path, embedded_checkpoint: Path, embedded_val: Path
) -> None:
    """Bit-identical outputs on 64 real images, with XNNPACK and with the built-in kernels."""
    pytest.importorskip("tensorflow", reason="tensorflow-cpu is in the test requirements")
    files = []
    for profile in PROFILES:
        program, _ = _trained(embedded_checkpoint, embedded_val, profile)
        files += [program.save(tmp_path / f"{profile}.evq"), tmp_path / f"{profile}.tflite"]
    command = [sys.executable, "-m", "tests.tensorflow_oracle", *map(str, files)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    for profile in PROFILES:
        program, images = _trained(embedded_checkpoint, embedded_val, profile)
        theirs = (tmp_path / f"{profile}.tflite").read_bytes()
        ours = tflite_bytes(program, activations="operator")
        inputs = int8_input(program, images)
        for builtin in (False, True):
            expected, found = Model(theirs, builtin)(inputs), Model(ours, builtin)(inputs)
            assert np.array_equal(found, expected), (profile, builtin)
            assert len(np.unique(found, axis=0)) > IMAGES / 2  # the images tell something
            tables = Model(tflite_bytes(program), builtin)(inputs)
            assert np.array_equal(tables, expected), (profile, builtin)
        same_versions(read_model(ours), read_model(theirs))


@pytest.mark.parametrize("profile", PROFILES)
def test_every_operator_is_within_one_step_of_the_program(
    embedded_checkpoint: Path, embedded_val: Path, profile: str
) -> None:
    """With TFLite's built-in kernels, the least accurate ones around."""
    program, images = _trained(embedded_checkpoint, embedded_val, profile)
    model = Model(tflite_bytes(program), builtin=True, keep_all=True)
    steps = steps_by_operator(program, model, int8_input(program, images[::32]))
    assert max(largest for largest, _ in steps.values()) <= 1, steps
    differing = {kind: share for kind, (_, share) in steps.items()}
    for kind in ("gelu", "sigmoid", "linear", "add"):
        assert differing[kind] <= 1e-3, differing
    for kind in ("conv2d", "depthwise", "mul"):
        assert differing[kind] <= 1e-2, differing
    # TFLite's MEAN kernel rounds more than once: its results are up to 0.75 of a step off.
    assert differing["mean"] <= 0.5, differing


@pytest.mark.parametrize("profile", PROFILES)
def test_xnnpack_computes_what_the_program_computes(
    embedded_checkpoint: Path, embedded_val: Path, profile: str
) -> None:
    """Bit for bit, but for values on a rounding edge (XNNPACK's ADD rounds half up)."""
    program, images = _trained(embedded_checkpoint, embedded_val, profile)
    names = [name for name in program.graph().activations() if name != "input"]
    model = Model(with_outputs(tflite_bytes(program), names))
    assert len(model.interpreter.get_output_details()) == len(names)
    steps = steps_by_operator(program, model, int8_input(program, images[::16]))
    for kind, (largest, differing) in steps.items():
        assert largest <= 1 and differing <= 1e-3, (kind, largest, differing)
    exact = [kind for kind, (largest, _) in steps.items() if largest == 0]
    assert {"gelu", "sigmoid", "depthwise", "linear", "add", "mul"} <= set(exact), steps


def test_the_artifact_predicts_what_the_program_does(
    embedded_checkpoint: Path, embedded_val: Path
) -> None:
    program, images = _trained(embedded_checkpoint, embedded_val, "portable")
    found = Model(tflite_bytes(program))(int8_input(program, images))
    expected = program.run(images).numpy()
    assert float((found.argmax(1) == expected.argmax(1)).mean()) >= 0.95


def test_the_float_model_is_the_programs_own_weights(tmp_path: Path) -> None:
    program, pixels = make_program(), seeded_pixels(4)
    manifest = load_target("tflite").compile(program, tmp_path / "out", precision="float32")
    assert manifest.profile == "float32" and manifest.audit is None
    assert manifest.drops == tuple(program.graph().owners())
    assert manifest.input.dtype == manifest.outputs[0].dtype == "float32"
    net, images = (
        GraphNet(float_graph(program.graph())),
        program.info.preprocessing.normalise(pixels),
    )
    with torch.no_grad():
        expected = net(images).numpy()
    runner = TARGET.open_runner(load_artifact(tmp_path / "out"))
    assert np.abs(runner.scores(pixels) - expected).max() <= 1e-4 * np.abs(expected).max()
    data = (tmp_path / "out" / "model.tflite").read_bytes()
    int8 = tflite_bytes(program, activations="operator")
    assert operator_names(read_model(data)) == operator_names(read_model(int8))
    TARGET.check_artifact(tmp_path / "out", program)
    found = dict(runner.tensors(pixels, program))
    assert set(found) == set(program.graph().owners())
    with torch.no_grad():
        layers = dict(net.run(images))
    for name in ("stem.act1", "head"):
        assert np.allclose(found[name], layers[name].numpy(), rtol=1e-4, atol=1e-4), name
