"""Outputs given out as real numbers: in the program, in training, in every target's artifact."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import edgevit
from edgevit.errors import EdgevitError, InputError
from edgevit.graph import Graph
from edgevit.graph.execute import Executor
from edgevit.ops import Weighted
from edgevit.program import Program
from edgevit.targets import load_target
from edgevit.targets.artifact import load_artifact
from tests.npu import OWN_FORMAT
from tests.programs import seeded_net, with_real_outputs
from tests.test_families import pictures
from tests.test_several_outputs import WithFeatures as Classifier
from tests.test_several_outputs import images


class WithFeatures(Classifier):
    """Logits, a map that is read as well ("relu"), and an embedding that is not: a mean, moved."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(8)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        features = torch.relu(self.stem(x))
        body = nn.functional.gelu(self.body(features))
        return self.head(self.pool(body).flatten(1)), features, body.mean((2, 3))


def quantized(**options: object) -> Program:
    torch.manual_seed(0)
    return edgevit.quantize(
        WithFeatures().eval(), images(40, 1), images(20, 2), batch_size=8,
        calibration_images=16, max_drop=100, allow_poor_float=True, **options,
    ).program  # fmt: skip


@pytest.fixture(scope="module")
def program() -> Program:
    return quantized(epochs=1, output_type={"all": "float32"})


@pytest.fixture(scope="module")
def rounded() -> Program:
    return quantized(epochs=0)


def inputs(program: Program, count: int = 8) -> torch.Tensor:
    return program.info.preprocessing.normalise(pictures(count, 3))


def test_a_real_output_has_no_quantizer_unless_it_is_read(program: Program) -> None:
    graph = program.graph()
    assert graph.real_outputs == set(graph.outputs)
    (read,) = graph.real_outputs - graph.unquantized
    assert graph.readers(read) and read in graph.owners()
    assert not graph.unquantized & set(graph.owners())
    for name in graph.unquantized:
        with pytest.raises(InputError, match=name):
            graph.quantizer(name)


def test_real_values_are_those_of_the_integers(rounded: Program) -> None:
    """Rounded to the quantizer that it had, a real output is the int8 one."""
    graph = rounded.graph()
    found = Executor(with_real_outputs(rounded).graph())(inputs(rounded))
    counted = 0
    for name, wanted in Executor(graph)(inputs(rounded)).items():
        q = graph.quantizer(name)
        steps = (found[name] / q.scale).round().clamp(-128 - q.zero_point, 127 - q.zero_point)
        assert torch.equal(steps * q.scale, wanted), name
        assert not torch.equal(found[name], wanted)
        counted += wanted.numel()
    assert counted > 1000


def test_a_batch_does_not_change_real_values(program: Program) -> None:
    given = inputs(program)
    together = program.outputs(given)
    for row in range(len(given)):
        for name, value in program.outputs(given[row : row + 1]).items():
            assert torch.equal(value[0], together[name][row]), name


def test_a_program_file_keeps_real_outputs(program: Program, tmp_path: Path) -> None:
    path = program.save(tmp_path / "m.evq")
    again = Program.load(path)
    assert again.graph().real_outputs == program.graph().real_outputs
    assert again.to_bytes() == path.read_bytes()
    for name, value in again.outputs(inputs(program)).items():
        assert torch.equal(value, program.outputs(inputs(program))[name])


def test_exported_it_computes_the_same(program: Program) -> None:
    module = program.exported_program().module()
    for image in inputs(program, 4).split(1):
        expected = program.outputs(image)
        for found, wanted in zip(module(image), expected.values(), strict=True):
            assert float((found - wanted).square().mean() / wanted.square().mean()) < 1e-3


@pytest.mark.parametrize("target", OWN_FORMAT)
def test_every_target_gives_real_outputs(target: str, program: Program, tmp_path: Path) -> None:
    artifact = program.compile(target, tmp_path / target)
    for output in artifact.manifest.outputs:
        kind = "float16" if target == "tensorrt" else "float32"  # the model's edges are, there
        assert (output.dtype, output.scale) == (kind, None)
    found = load_target(target).open_runner(load_artifact(tmp_path / target))
    expected = program.outputs(inputs(program))
    for mine, theirs in zip(found.outputs(pictures(8, 3)).values(), expected.values(), strict=True):
        wanted = theirs.numpy()
        if mine.shape != wanted.shape:
            mine = mine.transpose(0, 3, 1, 2)
        limit = 1e-12 if target in ("tflite", "onnx") else 1e-2
        assert ((mine - wanted) ** 2).sum() <= limit * (wanted**2).sum()


def test_int8_edges_are_asked_of_the_other_outputs_only(tmp_path: Path) -> None:
    mixed = quantized(epochs=0, output_type={"head": "float32"})
    for target in ("tflite", "onnx"):
        artifact = mixed.compile(target, tmp_path / target, io="int8")
        assert [output.dtype for output in artifact.manifest.outputs] == ["float32", "int8", "int8"]
        found = load_target(target).open_runner(load_artifact(tmp_path / target))
        values = found.outputs(pictures(8, 3))
        logits = mixed.outputs(inputs(mixed))["head"].numpy()
        np.testing.assert_allclose(next(iter(values.values())), logits, rtol=1e-5, atol=1e-5)


def test_the_harness_measures_a_program_with_real_logits(tmp_path: Path) -> None:
    mixed = quantized(epochs=0, output_type={"head": "float32"})
    artifact = mixed.compile("tflite", tmp_path / "tflite", io="uint8")
    validation = edgevit.validate(artifact, images(20, 2))
    assert validation.passed and validation.agreement.agreement == 100


@pytest.mark.parametrize("target", OWN_FORMAT)
def test_an_artifact_that_rounds_a_real_output_is_refused(
    target: str, program: Program, rounded: Program, tmp_path: Path
) -> None:
    """And one that does not round what the program does."""
    for made, claimed in ((rounded, program), (program, rounded)):
        compiled = load_artifact(made.compile(target, tmp_path / target, force=True).folder)
        graph = made.graph()
        other = replace(graph, real_outputs=claimed.graph().real_outputs, quantizers={})
        q = {n: graph.quantizers.get(n, rounded.graph().quantizers[n]) for n in other.owners()}
        impostor = Program(replace(other, quantizers=q), made.info)
        with pytest.raises(EdgevitError, match=r"int8 values|real numbers|quantize"):
            load_target(target).audit(compiled.data, impostor)


def test_what_is_no_output_cannot_be_real(program: Program) -> None:
    with pytest.raises(InputError, match=r"no such output; its outputs are head"):
        quantized(epochs=0, output_type={"nose": "float32"})
    with pytest.raises(InputError, match="float16"):
        quantized(epochs=0, output_type={"head": "float16"})
    graph = program.graph()
    inner = next(node.name for node in graph.nodes if node.name not in graph.outputs)
    with pytest.raises(InputError, match="no output"):
        replace(graph, real_outputs=frozenset({inner}))


def test_moved_int8_values_cannot_be_real() -> None:
    """A mean that the head reads and that is given out: its flatten moves int8 values."""
    torch.manual_seed(0)
    given = {"batch_size": 8, "calibration_images": 16, "max_drop": 100, "allow_poor_float": True}
    net = Classifier().eval()
    sets = images(40, 1), images(20, 2)
    made = edgevit.quantize(net, *sets, epochs=0, output_type={"all": "float32"}, **given).program
    assert made.graph().real_outputs == {"head", "relu"}
    with pytest.raises(InputError, match=r"mean: this flatten moves int8 values"):
        edgevit.quantize(net, *sets, epochs=0, output_type={"mean": "float32"}, **given)


def test_weights_of_a_real_output_are_audited(program: Program, tmp_path: Path) -> None:
    """A real operator of TFLite has float32 weights: each must be what its int8 one means."""
    graph: Graph = program.graph()
    compiled = load_artifact(program.compile("tflite", tmp_path / "tflite").folder)
    head = graph.node("head")
    assert isinstance(head, Weighted)
    weights = head.int8
    changed = weights.weight.copy()
    changed[0, 0] += 1 if changed[0, 0] < 127 else -1
    other = replace(head, weights=replace(weights, weight=changed))
    nodes = [other if node is head else node for node in graph.nodes]
    with pytest.raises(EdgevitError, match=r"head\.weight"):
        load_target("tflite").audit(compiled.data, Program(graph.with_nodes(nodes), program.info))


def test_the_maps_of_an_encoder_are_given_out_as_real_numbers() -> None:
    """Equalized: the factors of what is never rounded are 1."""
    made = edgevit.quantize(
        seeded_net().features((1, 3)), images(24, 1), images(8, 2), task="features",
        epochs=0, calibration_images=16, output_type={"all": "float32"}, min_cosine=0, min_sqnr=-99,
    )  # fmt: skip
    graph = made.program.graph()
    assert made.program.info.provenance["equalization"] is not None
    assert graph.real_outputs == set(graph.outputs)
    first, last = graph.outputs
    assert graph.unquantized == {last} and first in graph.owners()
    shapes = [value.shape[1:] for value in made.program.outputs(inputs(made.program)).values()]
    assert shapes == [graph.shape(name)[1:] for name in graph.outputs]


def test_an_output_is_asked_for_by_the_name_that_users_see() -> None:
    given = {
        "task": "features", "epochs": 0, "calibration_images": 8, "min_cosine": 0, "min_sqnr": -99,
    }  # fmt: skip
    net, sets = seeded_net().features((1, 3)), (images(16, 1), images(8, 2))
    made = edgevit.quantize(net, *sets, output_type={"stage4": "float32"}, **given).program.graph()
    real = [made.public_names[made.outputs.index(name)] for name in made.real_outputs]
    assert real == ["stage4"]
    with pytest.raises(InputError, match="its outputs are stage2, stage4"):
        edgevit.quantize(net, *sets, output_type={"stage1": "float32"}, **given)
