"""What outputs are called: by the net that returns them, by the caller, in files."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import edgevit
from edgevit.errors import InputError
from edgevit.graph import trace
from edgevit.graph.naming import named_leaves
from edgevit.program import Program
from tests.nets import SHAPE, Net, seeded
from tests.test_families import pictures


class Found(NamedTuple):
    boxes: Any
    scores: Any


def two(form: Any) -> nn.Module:
    """A net of two outputs, returned as `form` has it."""
    layers = {"c": nn.Conv2d(4, 4, 1), "d": nn.Conv2d(4, 2, 1), "e": nn.Conv2d(4, 3, 1)}

    def forward(n: Any, x: Tensor) -> Any:
        x = n.c(x)
        return form(n.d(x), n.e(x.relu()))

    return seeded(Net(forward, **layers))


@pytest.mark.parametrize(
    ("form", "names"),
    [
        (lambda a, b: {"boxes": a, "scores": b}, ("boxes", "scores")),
        (lambda a, b: {"scores": b, "boxes": a}, ("scores", "boxes")),
        (lambda a, b: Found(a, b), ("boxes", "scores")),
        (lambda a, b: {"maps": [a, b]}, ("maps.0", "maps.1")),
        (lambda a, b: Found([a], {"all": b}), ("boxes.0", "scores.all")),
        (lambda a, b: {0: a, 1: b}, ()),
        (lambda a, b: (a, b), ()),
        (lambda a, b: [a, b], ()),
    ],
)
def test_a_net_names_its_own_outputs(form: Any, names: tuple[str, ...]) -> None:
    net = two(form)
    graph = trace(net, SHAPE)
    assert graph.given_names == names
    assert graph.public_names == (names or graph.outputs)
    leaves = [tuple(value.shape) for _, value in named_leaves(net(torch.zeros(1, *SHAPE)))]
    assert [graph.shape(output) for output in graph.outputs] == leaves


def test_the_caller_and_an_attribute_name_them_too() -> None:
    net = two(lambda a, b: {"boxes": a, "scores": b})
    assert trace(net, SHAPE, ["x", "y-2.z"]).public_names == ("x", "y-2.z")
    plain = two(lambda a, b: (a, b))
    plain.__dict__["output_names"] = ("left", "right")
    assert trace(plain, SHAPE).public_names == ("left", "right")
    plain.__dict__["output_names"] = ("of another count",)
    assert trace(plain, SHAPE).given_names == ()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a"], "2 outputs, each with a name of its own; the names given are a$"),
        (["a", "a"], "each with a name of its own"),
        (["a", "b c"], "'b c' cannot be an output's name"),
        (["a", ""], "'' cannot be an output's name"),
        (["a", "../b"], "cannot be an output's name"),
        (["a", "input"], "and not 'input'"),
    ],
)
def test_names_that_cannot_be_are_refused(names: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        trace(two(lambda a, b: (a, b)), SHAPE, names)


def test_a_layer_of_an_outputs_name_gets_another() -> None:
    """ONNX and Core ML know one name for one thing."""
    graph = trace(two(lambda a, b: {"d": a, "c": b}), SHAPE)
    assert graph.public_names == ("d", "c") and graph.outputs == ("d.inner", "e")
    assert {node.module for node in graph.weighted()} == {"c.inner", "d.inner", "e"}
    with pytest.raises(InputError, match="cannot have the name of a tensor or layer"):
        type(graph)(graph.input_shape, graph.nodes, graph.outputs, given_names=("d", "e"))


class Detector(nn.Module):
    """As torchvision's and mmdet's: lists of maps in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=4, padding=1)
        self.boxes = nn.Conv2d(8, 4, 1)
        self.scores = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> dict[str, list[Tensor]]:
        x = torch.relu(self.stem(x))
        return {"boxes": [self.boxes(x)], "scores": [self.scores(x)]}


@pytest.fixture(scope="module")
def program() -> Program:
    torch.manual_seed(0)
    images = edgevit.from_sequence(list(pictures(24, 1)), size=64, classes=())
    return edgevit.quantize(
        Detector().eval(), images, task="features", epochs=1, batch_size=8, calibration_images=8,
        min_sqnr=-10, min_cosine=0,
    ).program  # fmt: skip


def test_the_names_go_with_the_program_and_its_file(program: Program, tmp_path: Any) -> None:
    names = ["boxes.0", "scores.0"]
    loaded = Program.load(program.save(tmp_path / "m.evq"))
    for each in (program, loaded):
        assert list(each.outputs(torch.zeros(1, 3, 64, 64))) == names
        assert list(each.outputs(torch.zeros(0, 3, 64, 64))) == names
    measured = {metric.name for metric in loaded.info.metrics}
    assert {f"program_{name}_sqnr_db" for name in names} <= measured
    assert loaded.to_bytes() == program.to_bytes()


@pytest.mark.parametrize("target", ["tflite", "onnx", "coreml", "tensorrt"])
def test_and_with_every_artifact(target: str, program: Program, tmp_path: Any) -> None:
    """As the runtime itself calls them, not only the manifest."""
    artifact = program.compile(target, tmp_path / target)
    wanted = ["boxes.0", "scores.0"] if target != "coreml" else ["boxes_0", "scores_0"]
    assert [output.name for output in artifact.manifest.outputs] == wanted
    path = tmp_path / target / artifact.manifest.artifact.file
    if target == "tflite":
        from ai_edge_litert.interpreter import Interpreter

        runner = Interpreter(str(path)).get_signature_runner()
        assert list(runner.get_output_details()) == wanted
    elif target == "coreml":
        import coremltools

        spec: Any = coremltools.utils.load_spec(str(path))
        assert [output.name for output in spec.description.output] == wanted
    else:
        import onnx

        assert [output.name for output in onnx.load(path).graph.output] == wanted
