"""GELU's stand-ins in a .tflite file: hard swish, and the quick GELU as sigmoid and product."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from edgevit.graph.execute import Executor
from edgevit.ops import Gelu, Mul, Sigmoid
from tests.programs import make_program, real_images, seeded_images, trained_program
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

SWAPPED = ("hard-swish", "quick-gelu")


def test_the_operators_are_the_promised_ones() -> None:
    gelus = sum(isinstance(node, Gelu) for node in make_program().graph().nodes)
    gates = sum(isinstance(node, Sigmoid) for node in make_program().graph().nodes)
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
    products = [n for n in graph.nodes if isinstance(n, Mul) and ".se." not in n.name]
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
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    for name in SWAPPED:
        program = make_program(activation=name)
        inputs = int8_input(program, seeded_images(16, 64, seed=5))
        theirs = (tmp_path / f"{name}.tflite").read_bytes()
        ours = tflite_bytes(program, activations="operator")
        for builtin in (False, True):
            assert np.array_equal(Model(ours, builtin)(inputs), Model(theirs, builtin)(inputs))
        same_versions(read_model(ours), read_model(theirs))
