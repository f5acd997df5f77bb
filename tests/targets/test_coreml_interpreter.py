"""The reference interpreter of Core ML packages against the program."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgevit.errors import InputError
from edgevit.ops import INT8_MIN
from edgevit.targets.coreml import TARGET
from edgevit.targets.coreml.interpreter import Interpreter
from edgevit.targets.coreml.options import CoremlOptions
from edgevit.targets.coreml.package import Feature, MilProgram, Operation, Ref, read_package
from tests.programs import make_program, real_images, seeded_images, seeded_pixels, trained_program
from tests.targets.coreml_editor import converted, files_of
from tests.targets.coreml_steps import differences

EXACT = CoremlOptions(compute_precision="float32", input_type="tensor")


@pytest.mark.parametrize("profile", ["portable", "asymmetric"])
@pytest.mark.parametrize("input_type", ["tensor", "image"])
def test_float32_fused_is_the_program_bit_for_bit(profile: str, input_type: str) -> None:
    program, pixels = make_program(profile=profile), seeded_pixels(8)
    images = program.info.preprocessing.normalise(pixels)
    files = files_of(profile, CoremlOptions(compute_precision="float32", input_type=input_type))
    package, (reading, _) = read_package(files), TARGET.audit(files, program)
    spelled = TARGET.spelling(program.graph())
    source = images
    if input_type == "image":
        source = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
    found = dict(Interpreter(package, "float32", "fused").values(source))
    dtypes = {op.name: op.dtype for op in package.operations}
    for name, expected in program.tensors(images):
        variable = reading.tensors[spelled(name)]
        values = found[variable]
        if dtypes[variable] == "uint8":
            values = values + INT8_MIN
        assert torch.equal(values, expected.float()), name
    assert torch.equal(found["logits"], program.run(images))


def test_real_images_through_the_trained_net(embedded_checkpoint: Path, embedded_val: Path) -> None:
    """Fused, the package is the program; with a rounding more, values of its convolutions differ.

    Measured: of 59.8 million values, each operation on the program's own inputs, 15 differ
    (reciprocal) or 10 (division), all of convolutions and by one step; carried on through the net
    they change the logits of 4 of the 64 images, and no prediction.
    """
    images = real_images(embedded_val, 64, 64)
    program = trained_program(embedded_checkpoint, images, "portable")
    files = converted(program, EXACT)
    package = read_package(files)
    expected = program.run(images)
    assert torch.equal(Interpreter(package, "float32", "fused")(images)["logits"], expected)
    for rounding in ("reciprocal", "division"):
        found = Interpreter(package, "float32", rounding)(images)["logits"]
        assert torch.equal(found.argmax(1), expected.argmax(1))
        assert int((found != expected).any(1).sum()) <= 8
        off = differences(files, program, images, "float32", rounding).values()
        assert max(each.max_steps for each in off) <= 1
        assert sum(each.differing for each in off) <= 30
    rounded = Interpreter(package, "float16", "division")(images)["logits"]
    assert not torch.equal(rounded, expected)
    assert float((rounded.argmax(1) == expected.argmax(1)).float().mean()) >= 0.9


def test_fused_needs_float32() -> None:
    with pytest.raises(InputError, match="--arithmetic float32"):
        Interpreter(_one("relu", {}, "fp16"), "float16", "fused")


def test_division_and_reciprocal_differ_where_a_step_is_at_stake() -> None:
    """0.5 steps and a half: one scale for which x / s and x * (1 / s) fall on two sides."""
    rng = np.random.default_rng(0)
    scales = np.float32(rng.uniform(0.01, 1, 20_000).astype(np.float16))
    x = scales * np.float32(2.5)
    divided, times = np.rint(x / scales), np.rint(x * (np.float32(1) / scales))
    scale, value = next((s, v) for s, v, d, t in zip(scales, x, divided, times) if d != t)
    results = {}
    for rounding in ("division", "reciprocal"):
        run = Interpreter(_one("quantize", {"scale": scale}, "int8"), "float32", rounding)
        results[rounding] = float(run(torch.full((1, 1), float(value)))["y"])
    assert results == {"division": float(divided[x == value][0]),
                       "reciprocal": float(times[x == value][0])}  # fmt: skip


def _one(kind: str, arguments: dict[str, Any], dtype: str, argument: str = "x") -> MilProgram:
    argument = "input" if kind in ("quantize", "dequantize") else argument
    op = Operation(kind, {argument: Ref("image"), **arguments}, (("y", dtype, (1, 1)),))
    feature = Feature("image", "multiArray float32", (1, 1))
    return MilProgram((op,), feature, "fp32", (feature,), ("y",), 8)


def test_float16_storage_rounds_every_result_to_its_declared_type() -> None:
    value = torch.tensor([[1.0 + 2**-12]])
    package = _one("relu", {}, "fp16")
    assert Interpreter(package, "float16", "division")(value)["y"].item() == 1.0
    assert Interpreter(package, "float32", "division")(value)["y"].item() == value.item()
    exact = _one("relu", {}, "fp32")
    assert Interpreter(exact, "float16", "division")(value)["y"].item() == value.item()


def test_an_unknown_operation_is_named() -> None:
    with pytest.raises(InputError, match="does not know the operation einsum"):
        Interpreter(_one("einsum", {}, "fp16"), "float16", "division")


@pytest.mark.parametrize(
    ("kind", "arguments", "match"),
    [
        ("gelu", {"mode": "SIGMOID_APPROXIMATION"}, "SIGMOID_APPROXIMATION"),
        ("conv", {"weight": np.ones((1, 1, 1, 1)), "pad_type": "same"}, "'same'"),
        ("conv", {"weight": np.ones((1, 1, 1, 1)), "pad_type": "custom", "pad": (0, 1, 0, 0)},
         "differently on two sides"),
    ],
)  # fmt: skip
def test_a_variant_it_does_not_know_is_refused(
    kind: str, arguments: dict[str, Any], match: str
) -> None:
    run = Interpreter(_one(kind, arguments, "fp32"), "float32", "division")
    with pytest.raises(InputError, match=match):
        run(torch.zeros(1, 1, 2, 2))


def test_the_batch_does_not_matter() -> None:
    package = read_package(files_of())
    images = seeded_images(5, 64).mul(50).add(120).clamp(0, 255).round()
    run = Interpreter(package, "float32", "reciprocal")
    together = run(images)["logits"]
    apart = torch.cat([run(image[None])["logits"] for image in images])
    assert torch.equal(together, apart)
