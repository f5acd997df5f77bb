"""Building, running, saving and loading quantized programs."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from edgevit.program.build import quantize_graph, trace_graph
from edgevit.program.executor import Executor
from edgevit.program.reading import bias_on_grid, bias_value
from torch import fx

from edgevit.errors import InputError
from edgevit.graph import Graph
from edgevit.models.repvit import RepViT
from edgevit.ops import Quantizer
from edgevit.program import Metric, Program, ProgramInfo, Reference, build_program
from edgevit.program.evq import check_json, schema, tensor_table
from edgevit.program.torch_program import graph_module
from tests.programs import (
    SMALL,
    make_info,
    make_program,
    quantizers,
    seeded_images,
    seeded_net,
    weight_scales,
)

PROFILES = ("portable", "asymmetric")
SHA256 = "0" * 64


@pytest.fixture(scope="module")
def float_graph() -> Graph:
    return trace_graph(seeded_net(), 64)


@pytest.fixture(scope="module")
def parts(float_graph: Graph) -> tuple[dict[str, Quantizer], dict[str, np.ndarray]]:
    return quantizers(float_graph, seeded_images(8, 64), "portable"), weight_scales(float_graph)


# -- building ---------------------------------------------------------------------------------


def test_tensors_have_the_canonical_names(float_graph: Graph) -> None:
    names = [node.name for node in float_graph.nodes]
    assert names[:3] == ["stem.conv1", "stem.act1", "stem.conv2"]
    assert names[-3:] == ["mean", "flatten", "head"]
    block = "stages.0.blocks.0"
    assert {f"{block}.token_mixer", f"{block}.se.mean", f"{block}.se.gate", f"{block}.se.mul",
            f"{block}.channel_mixer.conv1", f"{block}.add"} <= set(names)  # fmt: skip
    relu = float_graph.node(f"{block}.se.act")
    assert relu.op == "conv2d" and relu.relu and relu.module == f"{block}.se.fc1"
    modules = dict(seeded_net().named_modules())
    for node in float_graph.nodes:
        path = node.name if node.op not in ("add", "mul", "mean", "flatten") else ""
        assert path in modules


@pytest.mark.parametrize("profile", PROFILES)
def test_a_program_holds_int8_weights_and_int32_biases(profile: str) -> None:
    graph = make_program(profile=profile).graph()
    net = dict(seeded_net().named_modules())
    for node in graph.weighted():
        step = np.float64(graph.quantizer(node.inputs[0]).scale) * node.weight_scale
        assert np.array_equal(node.bias, (node.bias_q * step).astype(np.float32))
        bias = net[node.module].bias.detach().numpy()
        assert np.all(np.abs(node.bias - bias) <= 0.501 * step)
        weight = net[node.module].weight.detach()
        scale = torch.tensor(node.weight_scale)
        fake = torch.fake_quantize_per_channel_affine(
            weight, scale, torch.zeros(len(scale), dtype=torch.int32), 0, -127, 127
        )
        per_channel = scale.view(-1, *[1] * (weight.ndim - 1))
        assert torch.equal(torch.tensor(node.weight).float() * per_channel, fake)


def test_zero_points_follow_the_profile() -> None:
    for profile in PROFILES:
        graph = make_program(profile=profile).graph()
        others = {
            q.zero_point for name, q in graph.activations().items() if not name.endswith("gate")
        }
        assert (others == {0}) == (profile == "portable")
        gates = [n for n in graph.nodes if n.op == "sigmoid"]
        assert gates and all(
            (g.quantizer.scale, g.quantizer.zero_point) == (1 / 256, -128) for g in gates
        )


GATE = "stages.0.blocks.0.se.gate"


@pytest.mark.parametrize(
    ("name", "quantizer", "message"),
    [
        ("stem.act1", None, "stem.act1: no activation quantizer was given"),
        ("stem.act9", Quantizer(0.5, 0), "stem.act9: a activation quantizer|stem.act9: .* no such"),
        ("stem.act1", Quantizer(0.1, 0), "stem.act1: scale 0.1 is not float16-exact"),
        ("stem.act1", Quantizer(0.5, 3), "stem.act1: zero-point 3; the portable profile"),
        ("stem.act1", Quantizer(0.5, 0, -127, 127), "stem.act1: activations use all of int8"),
        (GATE, Quantizer(1 / 128, -128), f"{GATE}: a sigmoid's output is fixed"),
    ],
)
def test_a_wrong_activation_quantizer_is_named(
    float_graph: Graph,
    parts: tuple,
    name: str,
    quantizer: Quantizer | None,
    message: str,
) -> None:
    activations = dict(parts[0])
    activations.pop(name, None)
    if quantizer is not None:
        activations[name] = quantizer
    with pytest.raises(InputError, match=message):
        quantize_graph(float_graph, activations, parts[1], "portable")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: None, "head: no weight scale quantizer"),
        (lambda s: s[:-1], r"head: its weight scale is float32 \(9,\)"),
        (lambda s: s.astype(np.float64), "head: its weight scale is float64"),
        (lambda s: s * np.float32(1.0001), "head: a weight scale is not float16-exact"),
        (lambda s: s * 0, "head: a weight scale is not float16-exact"),
    ],
)
def test_a_wrong_weight_scale_is_named(
    float_graph: Graph, parts: tuple, change, message: str
) -> None:
    scales = dict(parts[1])
    changed = change(scales.pop("head"))
    if changed is not None:
        scales["head"] = changed
    with pytest.raises(InputError, match=message):
        quantize_graph(float_graph, parts[0], scales, "portable")


def test_a_bias_over_int32_names_its_convolution(parts: tuple) -> None:
    net = seeded_net()
    with torch.no_grad():
        net.get_submodule("stem.conv2").bias[3] = 1e6
    graph = trace_graph(net, 64)
    with pytest.raises(InputError, match=r"stem\.conv2: the bias of channel 3 is 1e\+06"):
        quantize_graph(graph, parts[0], parts[1], "portable")


def test_a_large_bias_survives_its_float32_value(parts: tuple) -> None:
    """Above 2**24 steps float32 is coarser than the grid; reading it back gives the same int32."""
    net = seeded_net()
    with torch.no_grad():
        net.get_submodule("stem.conv2").bias[3] = 9876.54321
    node = quantize_graph(trace_graph(net, 64), parts[0], parts[1], "portable").node("stem.conv2")
    step = parts[0]["stem.act1"].scale
    assert node.bias_q[3] > 2**24
    assert np.array_equal(bias_on_grid("", node.bias, step, node.weight_scale), node.bias_q)
    assert np.array_equal(bias_value(node.bias_q, step, node.weight_scale), node.bias)


def test_an_unfused_net_is_refused_by_name() -> None:
    net = RepViT(SMALL).eval()
    with pytest.raises(InputError, match=r"stem\.conv1\.bn: operation aten\.batch_norm"):
        trace_graph(net, 64)


class Odd(torch.nn.Module):
    """One operation that a program does not know, between a convolution and the head."""

    def __init__(self, odd) -> None:
        super().__init__()
        self.conv, self.head, self.odd = torch.nn.Conv2d(3, 4, 1), torch.nn.Linear(4, 2), odd

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.odd(self.conv(x)).mean((2, 3), keepdim=True).flatten(1))


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        (torch.nn.Mish(), "odd: operation aten.mish"),
        (torch.nn.GELU(approximate="tanh"), "odd: aten.gelu.default with approximate=tanh"),
        (torch.nn.Conv2d(4, 4, 3, padding=2, dilation=2), "odd: aten.conv2d.default with"),
        (lambda x: x + 1.0, "aten.add.Tensor: other cannot be 1.0"),
        (torch.nn.Conv2d(4, 4, 1, groups=2), "odd: grouped convolutions must be depthwise"),
        (lambda x: x.mean((2, 3)).unsqueeze(-1).unsqueeze(-1), "keepdim=False"),
    ],
)
def test_an_operation_out_of_range_is_refused_by_name(odd, message: str) -> None:
    with pytest.raises(InputError, match=message):
        trace_graph(Odd(odd).eval(), 16)


def test_a_convolution_without_bias_gets_one_of_zeros() -> None:
    graph = trace_graph(Odd(torch.nn.Conv2d(4, 4, 1, bias=False)).eval(), 16)
    assert not graph.node("odd").bias.any()


def test_a_standalone_relu_is_an_operation() -> None:
    class Net(Odd):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.conv(x)
            return self.head((x + self.odd(x)).mean((2, 3), keepdim=True).flatten(1))

    graph = trace_graph(Net(torch.nn.ReLU()).eval(), 16)
    assert [node.op for node in graph.nodes][:3] == ["conv2d", "relu", "add"]
    assert not graph.node("conv").relu


# -- running ----------------------------------------------------------------------------------


class ExactReference(fx.Interpreter):
    """The stored program's calls one by one, each in float64 and rounded to float32 once."""

    def call_function(self, target, args, kwargs):
        if "quantize" in str(target):
            return super().call_function(target, args, kwargs)
        args = tuple(a.double() if isinstance(a, torch.Tensor) else a for a in args)
        return super().call_function(target, args, kwargs).float()


@pytest.mark.parametrize("profile", PROFILES)
def test_a_run_is_the_stored_program_computed_exactly(profile: str) -> None:
    program, images = make_program(profile=profile), seeded_images(16, 64, seed=5)
    with torch.no_grad():
        expected = ExactReference(graph_module(program.graph())).run(images)
    assert torch.equal(program.run(images), expected)


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


def test_sums_that_float32_cannot_hold_use_float64(parts: tuple) -> None:
    net = seeded_net()
    with torch.no_grad():
        net.get_submodule("stem.conv2").bias[3] = 9876.54321
    graph = quantize_graph(trace_graph(net, 64), parts[0], parts[1], "portable")
    values = dict(Executor(graph).tensors(seeded_images(2, 64)))
    assert int(values["stem.conv2"][:, 3].min()) == 127


def test_every_tensor_can_be_had() -> None:
    program, images = make_program(), seeded_images(3, 64)
    seen = dict(program.tensors(images))
    assert list(seen) == list(program.graph().activations())
    for name, value in seen.items():
        assert value.dtype == torch.int8 and value.shape[1:] == program.graph().shape(name)[1:]
    head = program.graph().quantizer("head")
    logits = (seen["head"].float() - head.zero_point) * head.scale
    assert torch.equal(logits, program.run(images))
    input_quantizer = program.graph().input_quantizer
    quantize = torch.ops.quantized_decomposed.quantize_per_tensor
    expected = quantize(images, input_quantizer.scale, 0, -128, 127, torch.int8)
    assert torch.equal(seen["input"], expected)


@pytest.mark.parametrize(
    "images",
    [torch.zeros(1, 3, 32, 32), torch.zeros(3, 64, 64), torch.zeros(1, 3, 64, 64).double()],
)
def test_other_inputs_are_refused(images: torch.Tensor) -> None:
    with pytest.raises(InputError, match="the program takes float32"):
        make_program().run(images)


def test_no_images_give_no_logits_and_the_input_is_left_alone() -> None:
    program, images = make_program(), seeded_images(2, 64)
    assert program.run(images[:0]).shape == (0, 10)
    before = images.clone()
    program.run(images)
    assert torch.equal(images, before)


# -- saving and loading -----------------------------------------------------------------------


def reference(count: int = 3) -> Reference:
    logits = np.arange(count * 10, dtype=np.float32).reshape(count, 10)
    return Reference(logits, tuple(f"a/{i}.jpg" for i in range(count)), SHA256, -logits)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_loaded_program_is_the_saved_one(tmp_path: Path, profile: str) -> None:
    program = make_program(profile=profile)
    metrics = (Metric("qat_top1", 0.94, 5400, SHA256), Metric("ptq_top1", 0.93, 5400))
    info = replace(program.info, metrics=metrics, provenance={"seed": 3, "nested": {"a": [1]}})
    program = program.with_info(info, reference())
    path = program.save(tmp_path / "m.evq")
    loaded = Program.load(path)
    assert loaded.sha256 == program.sha256 and loaded.file_name == "m.evq"
    assert loaded.info == program.info
    assert loaded.reference.paths == program.reference.paths
    assert np.array_equal(loaded.reference.float_logits, program.reference.float_logits)
    for before, after in zip(program.graph().nodes, loaded.graph().nodes, strict=True):
        for name, value in vars(before).items():
            other = getattr(after, name)
            same = np.array_equal(value, other) if isinstance(value, np.ndarray) else value == other
            assert same, (before.name, name)
    images = seeded_images(4, 64)
    assert torch.equal(loaded.run(images), program.run(images))
    assert loaded.to_bytes() == path.read_bytes()


def test_exporting_what_was_read_gives_the_same_bytes(tmp_path: Path) -> None:
    program = make_program()
    loaded = Program.load(program.save(tmp_path / "m.evq"))
    again = Program(loaded.graph(), loaded.info)
    assert again.to_bytes() == program.to_bytes()


def test_program_pt2_is_a_torch_export_archive(tmp_path: Path) -> None:
    program = make_program()
    with zipfile.ZipFile(program.save(tmp_path / "m.evq")) as archive:
        (tmp_path / "program.pt2").write_bytes(archive.read("program.pt2"))
    exported = torch.export.load(tmp_path / "program.pt2")
    image = seeded_images(1, 64)
    with torch.no_grad():
        theirs = exported.module()(image)
        ours = graph_module(program.graph())(image)
    assert torch.equal(theirs, ours)
    names = {node.name for node in exported.graph.nodes}
    assert {"stem_conv1", "stem_conv1_q", "stages_0_blocks_0_se_gate_dq"} <= names
    assert exported.state_dict["stem.conv1.weight"].dtype == torch.int8


def test_the_file_holds_no_pickle_and_no_path_of_this_machine(tmp_path: Path) -> None:
    data = make_program().save(tmp_path / "m.evq").read_bytes()
    for folder in (Path.cwd(), Path(torch.__file__).parent, Path.home()):
        assert str(folder).encode() not in data
    with zipfile.ZipFile(io.BytesIO(data)) as outer:
        assert outer.namelist() == ["evq.json", "program.pt2"]
        with zipfile.ZipFile(io.BytesIO(outer.read("program.pt2"))) as inner:
            sizes = {info.filename: info.file_size for info in inner.infolist()}
            assert b'"stack_trace"' not in inner.read("archive/models/model.json")
    assert sizes["archive/data/sample_inputs/model.pt"] == 0
    assert not [name for name in sizes if name.endswith((".pkl", ".so", ".py"))]


def test_the_readable_part_fits_its_schema_and_tells_every_scale(tmp_path: Path) -> None:
    program = make_program()
    with zipfile.ZipFile(program.save(tmp_path / "m.evq")) as archive:
        manifest = json.loads(archive.read("evq.json"))
    check_json(manifest, "evq.json", schema())
    rows = {row["name"]: row for row in manifest["tensors"]}
    graph = program.graph()
    assert rows["input"]["scale"] == graph.input_quantizer.scale
    assert rows["stem.conv1.weight"]["scales"] == graph.node("stem.conv1").weight_scale.tolist()
    assert rows[GATE] | {"shape": 0} == {
        "name": GATE, "kind": "activation", "shape": 0, "scale": 1 / 256, "zero_point": -128,
        "quant_min": -128, "quant_max": 127, "low": 0.0, "high": 255 / 256, "how": "fixed",
    }  # fmt: skip
    assert rows["head.weight"]["how"] == "calibrated"
    assert len(rows) == len(graph.activations()) + len(graph.weighted())


def test_loading_needs_no_torch(tmp_path: Path) -> None:
    path = make_program().save(tmp_path / "m.evq")
    code = (
        "import sys; from edgevit.program import Program; "
        f"Program.load({str(path)!r}).graph(); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_saving_does_not_overwrite_unless_told_to(tmp_path: Path) -> None:
    path = tmp_path / "m.evq"
    path.write_text("mine")
    with pytest.raises(InputError, match="exists"):
        make_program().save(path)
    assert path.read_text() == "mine" and list(tmp_path.iterdir()) == [path]
    make_program().save(path, force=True)
    assert Program.load(path).info == make_program().info


def test_building_from_a_net_gives_the_same_program(parts: tuple) -> None:
    info = make_info(SMALL, 64, "portable")
    scales = {path: torch.tensor(scale) for path, scale in parts[1].items()}
    program = build_program(
        seeded_net(), parts[0], scales, 64, info, weight_how="calibrated", reference=reference()
    )
    assert tensor_table(program.graph()) == tensor_table(make_program().graph())
    images = seeded_images(2, 64)
    assert torch.equal(program.run(images), make_program().run(images))


# -- info -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"profile": "fast"}, "profile 'fast'"),
        ({"labels": ("a",)}, "1 labels"),
        ({"labels": ("a",) * 10}, r"10 labels \(1 distinct\)"),
        ({"labels": (*"abcdefghi", "j\nk")}, "a label"),
        ({"provenance": {"a": object()}}, "provenance"),
        ({"provenance": {"a": float("nan")}}, "provenance"),
    ],
)
def test_info_that_does_not_hold_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(make_program().info, **changes)


def test_info_takes_plain_dicts() -> None:
    info = make_program().info
    row = info.to_json()
    del row["metrics"]
    assert ProgramInfo(**row) == info


def test_info_about_another_model_is_refused() -> None:
    program = make_program()
    other = make_info(replace(SMALL, num_classes=11), 64, "portable")
    with pytest.raises(InputError, match="11 classes"):
        program.with_info(other)
    with pytest.raises(InputError, match="32 px"):
        program.with_info(make_info(SMALL, 32, "portable"))
    asymmetric = make_program(profile="asymmetric")
    with pytest.raises(InputError, match="the portable profile is symmetric"):
        asymmetric.with_info(program.info)


def test_a_reference_of_another_shape_is_refused() -> None:
    with pytest.raises(InputError, match="number of images"):
        Reference(np.zeros((2, 10), np.float32), ("a",), SHA256)
    nine = Reference(np.zeros((1, 9), np.float32), ("a",), SHA256)
    with pytest.raises(InputError, match="9 classes"):
        make_program().with_info(make_program().info, nine)
    assert Reference.from_bytes(reference().to_bytes()).dataset_sha256 == SHA256
    with pytest.raises(InputError, match="damaged"):
        Reference.from_bytes(reference().to_bytes()[:-5])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_metric_is_a_number(value: float) -> None:
    with pytest.raises(InputError, match="top1"):
        Metric("top1", value, 3)
