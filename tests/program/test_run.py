"""Running programs: exactly, whatever else runs beside an image."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgevit.errors import InputError
from edgevit.graph import quantize_graph
from edgevit.graph.execute import Executor
from edgevit.program import evq
from edgevit.program.torch_program import graph_module
from tests.ops import oracle
from tests.program.exported import check_exported
from tests.program.test_build import with_bias
from tests.programs import (
    make_program,
    quantizers,
    seeded_graph,
    seeded_images,
    seeded_net,
    weight_scales,
)

PROFILES = ("portable", "asymmetric")
ACTIVATIONS = ("gelu", "quick-gelu", "hard-swish")


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_run_is_the_integer_arithmetic_written_by_hand(activation: str, profile: str) -> None:
    """Bit for bit in every tensor, by numpy and without any code of the product."""
    program = make_program(profile=profile, activation=activation)
    images = seeded_images(8, 64, seed=5)
    expected = oracle.run(program.graph(), images.numpy())
    for name, found in program.tensors(images):
        assert np.array_equal(found.numpy(), expected[name]), name
    head = program.graph().quantizer("head")
    steps = expected["head"].astype(np.float32) - head.zero_point
    assert np.array_equal(program.run(images).numpy(), steps * np.float32(head.scale))


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_exported_program_is_the_one_that_runs(activation: str, profile: str) -> None:
    program = make_program(profile=profile, activation=activation)
    check_exported(program.graph(), seeded_images(16, 64, seed=5))


def test_an_images_logits_depend_on_nothing_else() -> None:
    program, images = make_program(), seeded_images(70, 64, seed=5)
    expected = program.run(images)
    assert torch.equal(torch.cat([program.run(image[None]) for image in images]), expected)
    assert torch.equal(torch.cat([program.run(part) for part in images.split(7)]), expected)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1 if threads > 1 else 2)
        assert torch.equal(program.run(images), expected)
    finally:
        torch.set_num_threads(threads)


def test_fewer_images_run_at_once_where_one_needs_much(monkeypatch: pytest.MonkeyPatch) -> None:
    program, images = make_program(), seeded_images(7, 64, seed=5)
    expected = program.run(images)
    sizes = []
    run = Executor.__call__

    def noted(self: Executor, chunk: torch.Tensor) -> dict[str, torch.Tensor]:
        sizes.append(len(chunk))
        return run(self, chunk)

    monkeypatch.setattr(Executor, "__call__", noted)
    monkeypatch.setattr(evq, "MAX_VALUES", 3 * program.graph().peak_values())
    assert torch.equal(program.run(images), expected)
    assert sizes == [3, 3, 1]


def test_torch_agrees_up_to_its_rounding() -> None:
    """In float32, torch may put a value on an edge one step away, and few images differ."""
    program, images = make_program(), seeded_images(64, 64, seed=5)
    with torch.no_grad():
        torchs = graph_module(program.graph())(images)
    ours = program.run(images)
    assert float((torchs.argmax(1) == ours.argmax(1)).float().mean()) >= 0.95
    assert float((torchs != ours).any(1).float().mean()) <= 0.5


def test_a_program_is_close_to_its_float_net() -> None:
    images = seeded_images(64, 64, seed=5)
    with torch.no_grad():
        expected = seeded_net()(images)
    error = make_program(profile="asymmetric").run(images) - expected
    assert float(error.std() / expected.std()) < 0.35


def test_sums_that_float32_cannot_hold_use_float64() -> None:
    float_graph = seeded_graph()
    scales = quantizers(float_graph, seeded_images(8, 64), "portable"), weight_scales(float_graph)
    graph = quantize_graph(with_bias(9876.54321), *scales, "portable")
    images = seeded_images(2, 64)
    values = dict(Executor(graph).tensors(images))
    assert int(values["stem.conv2"][:, 3].min()) == 127
    expected = oracle.run(graph, images.numpy())
    assert all(np.array_equal(v.numpy(), expected[name]) for name, v in values.items())


def test_every_tensor_can_be_had() -> None:
    program, images = make_program(), seeded_images(3, 64)
    graph = program.graph()
    seen = dict(program.tensors(images))
    assert list(seen) == list(graph.activations())
    for name, value in seen.items():
        assert value.dtype == torch.int8 and value.shape[1:] == graph.shape(name)[1:]
    head = graph.quantizer("head")
    logits = (seen["head"].float() - head.zero_point) * head.scale
    assert torch.equal(logits, program.run(images))
    quantize = torch.ops.quantized_decomposed.quantize_per_tensor
    expected = quantize(images, graph.quantizer("input").scale, 0, -128, 127, torch.int8)
    assert torch.equal(seen["input"], expected)


@pytest.mark.parametrize(
    "images",
    [torch.zeros(1, 3, 32, 32), torch.zeros(3, 64, 64), torch.zeros(1, 3, 64, 64).double(),
     torch.zeros(1, 1, 64, 64), torch.zeros(1, 3, 64, 64, dtype=torch.uint8)],
)  # fmt: skip
def test_other_inputs_are_refused(images: torch.Tensor) -> None:
    program = make_program()
    for run in (program.run, program.outputs, lambda x: list(program.tensors(x))):
        with pytest.raises(InputError, match="the program takes float32"):
            run(images)


def test_no_images_give_no_logits_and_the_input_is_left_alone() -> None:
    program, images = make_program(), seeded_images(2, 64)
    assert program.run(images[:0]).shape == (0, 10)
    before = images.clone()
    program.run(images)
    assert torch.equal(images, before)


def test_outputs_are_had_by_name() -> None:
    program, images = make_program(), seeded_images(2, 64)
    found = program.outputs(images)
    assert list(found) == ["head"] and torch.equal(found["head"], program.run(images))
