"""The TFLite target: its contract, the runtime's answers, TensorFlow as an oracle, metadata."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from edgevit.program.executor import Executor

from edgevit.data.images import Preprocessing
from edgevit.errors import EdgevitError, InputError
from edgevit.ops import Quantizer
from edgevit.program import Program
from edgevit.schema import to_json
from edgevit.targets import load_target
from edgevit.targets.pixels import quantized_pixels
from edgevit.targets.tflite import tflite_bytes
from edgevit.targets.tflite.audit import audit
from edgevit.targets.tflite.baseline import float_tflite
from edgevit.targets.tflite.options import IO_TYPES
from edgevit.targets.tflite.pixels import pixel_input
from tests.programs import (
    SMALL,
    make_program,
    real_images,
    seeded_images,
    seeded_net,
    trained_program,
    with_graph,
)
from tests.target_contract import TargetContract

PROFILES = ("portable", "asymmetric")
IMAGES = 64


# -- running a model --------------------------------------------------------------------------


class Model:
    """A .tflite file in LiteRT's interpreter, one thread; XNNPACK, or the built-in kernels."""

    def __init__(self, data: bytes, builtin: bool = False, keep_all: bool = False) -> None:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        resolver = OpResolverType.AUTO
        if builtin:
            resolver = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        self.interpreter = Interpreter(
            model_content=data,
            num_threads=1,
            experimental_op_resolver_type=resolver,
            experimental_preserve_all_tensors=keep_all,
        )
        self.interpreter.allocate_tensors()
        (self.input,) = self.interpreter.get_input_details()
        self.output = self.interpreter.get_output_details()[-1]
        self.indices = {t["name"]: t["index"] for t in self.interpreter.get_tensor_details()}

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """(N, H, W, 3) to (N, classes), in the model's own element types."""
        results = []
        for image in images:
            self.interpreter.set_tensor(self.input["index"], image[None])
            self.interpreter.invoke()
            results.append(self.interpreter.get_tensor(self.output["index"])[0].copy())
        return np.array(results)

    def tensor(self, name: str) -> torch.Tensor:
        """An activation of the last run, int8 (1, C, H, W)."""
        return torch.tensor(self.interpreter.get_tensor(self.indices[name])).permute(0, 3, 1, 2)


def int8_input(program: Program, images: torch.Tensor) -> np.ndarray:
    """What the program holds for normalised images, as the model's NHWC input."""
    (values,) = (value for name, value in program.tensors(images) if name == "input")
    return values.permute(0, 2, 3, 1).contiguous().numpy()


def read_model(data: bytes) -> Any:
    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))


def operator_names(model: Any) -> list[str]:
    names = {v: k for k, v in vars(schema.BuiltinOperator).items() if k.isupper()}
    codes = [max(c.builtinCode, c.deprecatedBuiltinCode) for c in model.operatorCodes]
    return [names[codes[o.opcodeIndex]] for o in model.subgraphs[0].operators]


# -- the contract -----------------------------------------------------------------------------


class TestTflite(TargetContract):
    target = "tflite"
    profiles = PROFILES
    options = tuple({"io": io} for io in IO_TYPES)

    def tamper(self, data: bytes, program: Program) -> Iterator[tuple[str, bytes]]:
        places = _Places(data)
        activation = "stages.0.blocks.0.channel_mixer.act"
        for name in ("input", activation, "stem.conv1.pad", "logits"):
            yield name, _next_float(data, places.scale(name))
            yield name, _replaced(data, places.zero_point(name), struct.pack("<q", 5))
        for module in ("stem.conv1", "stages.1.downsample.spatial_downsample", "head"):
            for part, channel in (("weight", 0), ("weight", 3), ("bias", 1)):
                name = f"{module}.{part}"
                yield name, _next_float(data, places.scale(name) + 4 * channel)
                at = places.data(name) + 4 * channel
                yield name, _replaced(data, at, bytes([data[at] ^ 1]))
        renamed = data.replace(b"stages.1.blocks.0.se.mean", b"stages.1.blocks.0.se.xxxx")
        yield "stages.1.blocks.0.se", renamed
        yield "not a readable model", data[:1000]
        yield "not a readable model", b"\0" * 1000


class _Places:
    """Where a tensor's quantization and data lie in the file."""

    def __init__(self, data: bytes) -> None:
        self.model = schema.Model.GetRootAs(data, 0)
        graph = self.model.Subgraphs(0)
        found = (graph.Tensors(i) for i in range(graph.TensorsLength()))
        self.tensors = {tensor.Name().decode(): tensor for tensor in found}

    def _vector(self, table: Any, slot: int) -> int:
        offset = table._tab.Offset(4 + 2 * slot)
        return table._tab.Vector(offset)

    def scale(self, name: str) -> int:
        return self._vector(self.tensors[name].Quantization(), 2)

    def zero_point(self, name: str) -> int:
        return self._vector(self.tensors[name].Quantization(), 3)

    def data(self, name: str) -> int:
        return self._vector(self.model.Buffers(self.tensors[name].Buffer()), 0)


def _replaced(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def _next_float(data: bytes, at: int) -> bytes:
    """The float32 at a place, one step up: the smallest wrong scale there is."""
    (value,) = struct.unpack_from("<f", data, at)
    return _replaced(data, at, struct.pack("<f", np.nextafter(np.float32(value), np.float32(9))))


# -- the file ---------------------------------------------------------------------------------


def test_the_int8_model_is_int8_throughout() -> None:
    model = read_model(tflite_bytes(make_program()))
    kinds = {tensor.type for tensor in model.subgraphs[0].tensors}
    assert kinds == {schema.TensorType.INT8, schema.TensorType.INT32}
    names = operator_names(model)
    assert not {"QUANTIZE", "DEQUANTIZE", "CAST", "CUSTOM"} & set(names)
    graph = make_program().graph()
    count = {op: sum(n.op == op for n in graph.nodes) for op in ("gelu", "add", "sigmoid")}
    assert names.count("GELU") == count["gelu"] and names.count("ADD") == count["add"]
    assert names.count("LOGISTIC") == count["sigmoid"] and names.count("RESHAPE") == 1


@pytest.mark.parametrize(
    ("io", "first", "last"),
    [("uint8", ["QUANTIZE", "DEPTHWISE_CONV_2D"], "QUANTIZE"),
     ("float32", ["QUANTIZE"], "DEQUANTIZE")],
)  # fmt: skip
def test_other_inputs_and_outputs_are_converted_at_the_very_edge(
    io: str, first: list[str], last: str
) -> None:
    inner = operator_names(read_model(tflite_bytes(make_program())))
    assert operator_names(read_model(tflite_bytes(make_program(), io))) == [*first, *inner, last]


def test_buffers_are_aligned_as_the_schema_demands() -> None:
    data = tflite_bytes(make_program())
    model = schema.Model.GetRootAs(data, 0)
    for index in range(model.BuffersLength()):
        buffer = model.Buffers(index)
        if buffer.DataLength():
            assert buffer._tab.Vector(buffer._tab.Offset(4)) % 16 == 0


def test_small_constants_are_stored_once() -> None:
    tensors = read_model(tflite_bytes(make_program())).subgraphs[0].tensors
    names = [tensor.name.decode() for tensor in tensors]
    assert len(set(names)) == len(names)
    assert sum(name.endswith(("axes", "amounts", "shape")) for name in names) == 3


def test_both_apis_of_litert_find_the_signature(tmp_path: Path) -> None:
    from ai_edge_litert.compiled_model import CompiledModel

    data = tflite_bytes(make_program())
    expected = {"serving_default": {"inputs": ["input"], "outputs": ["logits"]}}
    assert Model(data).interpreter.get_signature_list() == expected
    path = tmp_path / "model.tflite"
    path.write_bytes(data)
    compiled = CompiledModel.from_file(str(path))
    assert compiled.get_signature_list() == expected
    inputs, outputs = compiled.create_input_buffers(0), compiled.create_output_buffers(0)
    images = int8_input(make_program(), seeded_images(1, 64))
    inputs[0].write(images)
    compiled.run_by_index(0, inputs, outputs)
    assert np.array_equal(outputs[0].read(10, np.int8), Model(data)(images)[0])


def test_an_unknown_io_type_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'int4' is not one of int8, uint8, float32"):
        load_target("tflite").compile_tflite(make_program(), tmp_path / "out", io="int4")


def test_a_flatten_that_moves_data_is_refused() -> None:
    program = make_program()
    graph = program.graph()
    nodes = [n for n in graph.nodes if n.name not in ("mean", "flatten", "head")]
    last = nodes[-1].shape
    flat = replace(
        graph.node("flatten"), inputs=(nodes[-1].name,), shape=(1, last[1] * last[2] * last[3])
    )
    head = graph.node("head")
    weight = np.zeros((10, flat.shape[1]), np.int8)
    broken = replace(graph, nodes=(*nodes, flat, replace(head, weight=weight)))
    with pytest.raises(InputError, match="flatten: only a"):
        tflite_bytes(with_graph(program, broken))


def _rewired(change: Callable[[dict[str, Any], dict[str, int]], Any]) -> bytes:
    """The small program's model with `change` made to its operators, by their result's name."""
    model = read_model(tflite_bytes(make_program()))
    graph = model.subgraphs[0]
    names = [tensor.name.decode() for tensor in graph.tensors]
    operators = {names[operator.outputs[0]]: operator for operator in graph.operators}
    change(operators, {name: index for index, name in enumerate(names)})
    builder = flatbuffers.Builder(2**20)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


STEM, ADD, RELU = "stem.conv2", "stages.0.blocks.0.add", "stages.0.blocks.0.se.act"
MIXER = "stages.0.blocks.0.token_mixer"


@pytest.mark.parametrize(
    ("name", "change"),
    [
        (STEM, lambda o, t: setattr(o[STEM].builtinOptions, "strideH", 1)),
        (STEM, lambda o, t: setattr(o[STEM].builtinOptions, "dilationWFactor", 2)),
        (STEM, lambda o, t: setattr(o[STEM].builtinOptions, "padding", schema.Padding.SAME)),
        (MIXER, lambda o, t: setattr(o[MIXER].builtinOptions, "padding", schema.Padding.VALID)),
        (RELU, lambda o, t: setattr(o[RELU].builtinOptions, "fusedActivationFunction", 0)),
        ("stem.act1", lambda o, t: setattr(o["stem.act1"].builtinOptions, "approximate", True)),
        ("stem.conv2", lambda o, t: setattr(o[ADD], "inputs", [t["stem.conv2"], t[MIXER]])),
        ("stem.act1", lambda o, t: setattr(o["stem.act1"], "opcodeIndex", 0)),
        ("stem.act1", lambda o, t: setattr(o[ADD], "outputs", [t["stem.act1"]])),
        ("mean", lambda o, t: setattr(o["logits"], "inputs", [t["mean"], t["logits.shape"]])),
    ],
)
def test_the_audit_sees_how_operators_are_wired(name: str, change: Any) -> None:
    program = make_program()
    with pytest.raises(EdgevitError, match=f"scale audit: {name}: "):
        audit(_rewired(change), program.graph(), program.info.preprocessing)
    audit(_rewired(lambda o, t: None), program.graph(), program.info.preprocessing)


def test_the_audit_recomputes_the_pixel_convolution() -> None:
    program = make_program()
    data = tflite_bytes(program, "uint8")
    at = _Places(data).data("input.bias")
    (bias,) = struct.unpack_from("<i", data, at)
    changed = _replaced(data, at, struct.pack("<i", bias + 200))
    with pytest.raises(EdgevitError, match="input: the model does not make"):
        audit(changed, program.graph(), program.info.preprocessing)


# -- the input --------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES)
def test_the_table_is_the_programs_own_quantization_of_every_pixel(profile: str) -> None:
    program = make_program(profile=profile)
    quantizer, rules = program.graph().input_quantizer, program.info.preprocessing
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
    found = pixel_input(rules, quantizer)
    assert found.gives(quantized_pixels(rules, quantizer), quantizer)
    assert found.weight.dtype == np.int8 and found.bias.dtype == np.int32


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
    compile_tflite = load_target("tflite").compile_tflite
    quantizer, rules = program.graph().input_quantizer, program.info.preprocessing
    expected = {
        "int8": (quantized_pixels(rules, quantizer).tolist(), quantizer.scale, 0),
        "uint8": ([list(range(256))] * 3, 1.0, 0),
        "float32": (rules.table().astype(float).tolist(), None, None),
    }
    for io, (table, scale, zero_point) in expected.items():
        manifest = compile_tflite(program, tmp_path / io, io)
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


# -- numbers ----------------------------------------------------------------------------------


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
    done = subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    for profile in PROFILES:
        program, images = _trained(embedded_checkpoint, embedded_val, profile)
        theirs, ours = (tmp_path / f"{profile}.tflite").read_bytes(), tflite_bytes(program)
        inputs = int8_input(program, images)
        for builtin in (False, True):
            expected, found = Model(theirs, builtin)(inputs), Model(ours, builtin)(inputs)
            assert np.array_equal(found, expected), (profile, builtin)
            assert len(np.unique(found, axis=0)) > IMAGES / 2  # the images tell something
        _same_versions(read_model(ours), read_model(theirs))


def _same_versions(ours: Any, theirs: Any) -> None:
    """Operator versions and the minimum runtime are TensorFlow's own."""
    versions = [
        {c.builtinCode or c.deprecatedBuiltinCode: c.version for c in model.operatorCodes}
        for model in (ours, theirs)
    ]
    assert versions[0].items() <= versions[1].items()
    runtimes = [
        bytes(model.buffers[entry.buffer].data)
        for model in (ours, theirs)
        for entry in model.metadata
        if entry.name == b"min_runtime_version"
    ]
    assert runtimes[0] == runtimes[1]


@pytest.mark.parametrize("profile", PROFILES)
def test_every_operator_is_within_one_step_of_the_program(
    embedded_checkpoint: Path, embedded_val: Path, profile: str
) -> None:
    """With TFLite's built-in kernels, the least accurate ones around."""
    program, images = _trained(embedded_checkpoint, embedded_val, profile)
    model = Model(tflite_bytes(program), builtin=True, keep_all=True)
    steps = _steps_by_operator(program, model, int8_input(program, images[::32]))
    assert max(largest for largest, _ in steps.values()) <= 1, steps
    differing = {kind: share for kind, (_, share) in steps.items()}
    for kind in ("gelu", "sigmoid", "linear", "add"):
        assert differing[kind] <= 1e-3, differing
    for kind in ("conv2d", "depthwise", "mul"):
        assert differing[kind] <= 1e-2, differing
    # TFLite's MEAN kernel rounds more than once: its results are up to 0.75 of a step off.
    assert differing["mean"] <= 0.5, differing


def _steps_by_operator(
    program: Program, model: Model, inputs: np.ndarray
) -> dict[str, tuple[int, float]]:
    """Largest difference in steps, and share of values that differ, by kind of operator.

    Each operator is given the inputs that the artifact itself gave it: errors do not add up.
    """
    executor, graph = Executor(program.graph()), program.graph()
    found: dict[str, list[torch.Tensor]] = defaultdict(list)
    for image in inputs:
        model(image[None])
        for node in graph.nodes:
            if node.op == "flatten":
                continue
            tensors = [
                model.tensor("mean").flatten(1) if name == "flatten" else model.tensor(name)
                for name in node.inputs
            ]
            expected = executor.step(node, tensors)
            difference = model.tensor(node.name).reshape(expected.shape).int() - expected.int()
            found["depthwise" if node.depthwise else node.op].append(difference.abs().flatten())
    joined = {kind: torch.cat(values) for kind, values in found.items()}
    return {
        kind: (int(values.max()), float((values > 0).float().mean()))
        for kind, values in joined.items()
    }


def _with_every_tensor_an_output(data: bytes, names: list[str]) -> bytes:
    """The model with these activations as outputs, so that a delegate has to write them."""
    model = read_model(data)
    graph = model.subgraphs[0]
    indices = {tensor.name.decode(): index for index, tensor in enumerate(graph.tensors)}
    graph.outputs, model.signatureDefs = [indices[name] for name in names], []
    builder = flatbuffers.Builder(len(data))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


@pytest.mark.parametrize("profile", PROFILES)
def test_xnnpack_computes_what_the_program_computes(
    embedded_checkpoint: Path, embedded_val: Path, profile: str
) -> None:
    """Bit for bit, but for values on a rounding edge (XNNPACK's ADD rounds half up)."""
    program, images = _trained(embedded_checkpoint, embedded_val, profile)
    names = [name for name in program.graph().activations() if name != "input"]
    model = Model(_with_every_tensor_an_output(tflite_bytes(program), names))
    assert len(model.interpreter.get_output_details()) == len(names)
    steps = _steps_by_operator(program, model, int8_input(program, images[::16]))
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


def test_the_float_model_is_the_float_net() -> None:
    data, operators = float_tflite(seeded_net(), 64)
    images = seeded_images(4, 64)
    with torch.no_grad():
        expected = seeded_net()(images).numpy()
    model = Model(data)
    assert model.input["dtype"] == model.output["dtype"] == np.float32
    found = model(images.permute(0, 2, 3, 1).contiguous().numpy())
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()
    ours = operator_names(read_model(tflite_bytes(make_program())))
    assert operator_names(read_model(data)) == ours
    assert sum(operators.values()) == len(ours)
    assert SMALL.num_classes == found.shape[1]


# -- metadata ---------------------------------------------------------------------------------


class Table:
    """A flatbuffer table read by field number alone, without any schema's classes."""

    def __init__(self, data: bytes, at: int) -> None:
        self.table = flatbuffers.table.Table(data, at)

    @classmethod
    def root(cls, data: bytes) -> Table:
        return cls(data, struct.unpack_from("<I", data, 0)[0])

    def _at(self, slot: int) -> int:
        offset = self.table.Offset(4 + 2 * slot)
        assert offset, f"field {slot} is not set"
        return offset

    def text(self, slot: int) -> str:
        return self.table.String(self.table.Pos + self._at(slot)).decode()

    def child(self, slot: int) -> Table:
        return Table(self.table.Bytes, self.table.Indirect(self.table.Pos + self._at(slot)))

    def children(self, slot: int) -> list[Table]:
        offset = self._at(slot)
        start = self.table.Vector(offset)
        count = self.table.VectorLen(offset)
        return [Table(self.table.Bytes, self.table.Indirect(start + 4 * i)) for i in range(count)]

    def floats(self, slot: int) -> list[float]:
        offset = self._at(slot)
        start, count = self.table.Vector(offset), self.table.VectorLen(offset)
        return list(struct.unpack_from(f"<{count}f", self.table.Bytes, start))

    def byte(self, slot: int) -> int:
        return self.table.Bytes[self.table.Pos + self._at(slot)]

    def uint(self, slot: int) -> int:
        return struct.unpack_from("<I", self.table.Bytes, self.table.Pos + self._at(slot))[0]


def metadata_of(data: bytes) -> Table:
    model = read_model(data)
    entries = {e.name.decode(): bytes(model.buffers[e.buffer].data) for e in model.metadata}
    assert entries["min_runtime_version"] == b"2.9.0".ljust(16, b"\0")
    assert entries["TFLITE_METADATA"][4:8] == b"M001"
    return Table.root(entries["TFLITE_METADATA"])


@pytest.mark.parametrize("io", IO_TYPES)
def test_androids_tools_find_labels_and_normalisation(io: str) -> None:
    """Field numbers of metadata_schema.fbs 1.1.0 (tensorflow/tflite-support)."""
    program = make_program()
    data = tflite_bytes(program, io)
    model = metadata_of(data)
    assert model.text(0) == "repvit_m0_9 (portable)" and "INT8 inside" in model.text(1)
    assert model.text(5) == "not stated" and model.text(7) == "1.0.0"
    (subgraph,) = model.children(3)
    (image,), (scores,) = subgraph.children(2), subgraph.children(3)
    content = image.child(3)
    assert content.byte(0) == 2  # ImageProperties
    assert content.child(1).byte(0) == 1  # RGB
    size = content.child(1).child(1)
    assert (size.uint(0), size.uint(1)) == (64, 64)
    (unit,) = image.children(4)
    assert unit.byte(0) == 1  # NormalizationOptions
    mean, std = unit.child(1).floats(0), unit.child(1).floats(1)
    if io == "uint8":
        assert (mean, std) == ([0.0], [1.0])
    else:
        assert mean == pytest.approx([123.675, 116.28, 103.53])
        assert std == pytest.approx([58.395, 57.12, 57.375])
    (labels,) = scores.children(6)
    assert labels.text(0) == "labels.txt" and labels.byte(2) == 2  # TENSOR_AXIS_LABELS


def test_the_labels_are_packed_behind_the_model() -> None:
    program = make_program()
    data = tflite_bytes(program)
    with zipfile.ZipFile(BytesIO(data)) as archive:
        assert archive.namelist() == ["labels.txt"]
        assert archive.read("labels.txt").decode().splitlines() == list(program.info.labels)


def test_author_and_licence_come_from_the_provenance() -> None:
    program = make_program()
    provenance = {"author": "A. Person", "license": "MIT"}
    program = program.with_info(replace(program.info, provenance=provenance))
    model = metadata_of(tflite_bytes(program))
    assert (model.text(4), model.text(5)) == ("A. Person", "MIT")


# -- the command ------------------------------------------------------------------------------


def test_the_command_takes_the_targets_options(tmp_path: Path) -> None:
    contract = TestTflite()
    program = make_program().save(tmp_path / "m.evq")
    out = tmp_path / "build"
    result = contract.run(program, "--target", "tflite", "--io", "uint8", "-o", out, "--json")
    assert json.loads(result.stdout)["tflite"]["input"]["dtype"] == "uint8"
    result = contract.run("--help")
    assert "Example" in result.stdout and "int8 for tflite" in result.stdout
    result = contract.run(program, "--target", "nothing", "-o", out)
    assert result.exit_code == 2
