"""A peer's artifact as it is found: what it answers, how long it takes, which operators are int8.

TFLite files run in LiteRT's Python interpreter and ONNX files in ONNX Runtime's CPU provider, all
of them in this process and on one thread, whoever made them.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np

RELATIVE = 1e-5
"""Two scales within this of each other are one: a converter may compute it once more in float."""
FAR = 0.01
CONVERSIONS = ("QUANTIZE", "DEQUANTIZE", "QuantizeLinear", "DequantizeLinear", "Cast")
MOVES = ("Shape", "Identity", "Constant", "ConstantOfShape", "Gather", "Concat", "Unsqueeze")
LAYOUT = ("Transpose", "Reshape", "Flatten", "ReorderInput", "ReorderOutput")
"""What ONNX Runtime puts between operators of other layouts."""


@dataclass(frozen=True)
class Operators:
    """Of a file: all but conversions, those that compute on floats by kind, conversions."""

    total: int
    floats: Mapping[str, int]
    conversions: int

    def to_json(self) -> dict[str, Any]:
        count = sum(self.floats.values())
        kinds = dict(sorted(self.floats.items()))
        return {
            "total": self.total, "float": count, "float_by_kind": kinds,
            "conversions": self.conversions,
        }  # fmt: skip


@dataclass(frozen=True, eq=False)
class Scales:
    """Of a file: (scale, zero-point) of its activations, and the scale vectors of its weights."""

    activations: list[tuple[float, int]]
    weights: list[np.ndarray]


class Opened(Protocol):
    """An artifact of a peer.

    runtime     what runs it
    """

    runtime: str

    def answer(self, image: np.ndarray) -> np.ndarray:
        """Logits float32 (classes,) of a normalised image, float32 (C, H, W)."""
        ...

    def operators(self) -> dict[str, Any]: ...
    def scales(self) -> Scales: ...


class Tflite:
    """Raises ValueError or RuntimeError for a file that LiteRT refuses."""

    def __init__(self, path: Path) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self.runtime = f"LiteRT {version('ai-edge-litert')}, XNNPACK"
        self._path = path
        self._made = Interpreter(model_path=str(path), num_threads=1)
        self._made.allocate_tensors()
        (self._source,), (self._out,) = (
            self._made.get_input_details(), self._made.get_output_details()
        )  # fmt: skip

    def answer(self, image: np.ndarray) -> np.ndarray:
        self._made.set_tensor(self._source["index"], self._input(image))
        self._made.invoke()
        found = self._made.get_tensor(self._out["index"])[0].reshape(-1).astype(np.float32)
        scale, zero_point = self._out["quantization"]
        return (found - np.float32(zero_point)) * np.float32(scale) if scale else found

    def invoke(self) -> None:
        """Once more, on the image that was answered last."""
        self._made.invoke()

    def _input(self, image: np.ndarray) -> np.ndarray:
        last = tuple(self._source["shape"][1:]) != image.shape or image.shape[0] > 4
        values = (image.transpose(1, 2, 0) if last else image)[None]
        scale, zero_point = self._source["quantization"]
        if scale:
            limits = np.iinfo(self._source["dtype"])
            values = np.clip(np.rint(values / scale) + zero_point, limits.min, limits.max)
        return values.astype(self._source["dtype"])

    def operators(self) -> dict[str, Any]:
        return tflite_operators(self._path.read_bytes()).to_json()

    def scales(self) -> Scales:
        return tflite_scales(self._path.read_bytes())


class Onnx:
    """Raises what ONNX Runtime does for a file that it refuses.

    settings  session configuration entries; a peer's file gets none
    """

    def __init__(self, path: Path, settings: Mapping[str, str] | None = None) -> None:
        import onnxruntime

        self.runtime = f"ONNX Runtime {onnxruntime.__version__}, CPU provider"
        self._path, self._settings = path, settings or {}
        self._session = self._open(None)
        self._last: dict[str, np.ndarray] = {}

    def _open(self, optimized: Path | None) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        if optimized is not None:
            options.optimized_model_filepath = str(optimized)
        for name, value in self._settings.items():
            options.add_session_config_entry(name, value)
        return onnxruntime.InferenceSession(
            str(self._path), options, providers=["CPUExecutionProvider"]
        )

    def answer(self, image: np.ndarray) -> np.ndarray:
        self._last = {self._session.get_inputs()[0].name: image[None]}
        return self._session.run(None, self._last)[0].reshape(-1).astype(np.float32)

    def invoke(self) -> None:
        """Once more, on the image that was answered last."""
        self._session.run(None, self._last)

    def operators(self) -> dict[str, Any]:
        """Of the file, and beside it of what ONNX Runtime made of it and runs."""
        import onnx

        with tempfile.TemporaryDirectory() as folder:
            optimized = Path(folder) / "optimized.onnx"
            self._open(optimized)
            run = onnx_run_operators(onnx.load(str(optimized)))
        found = onnx_operators(onnx.load(str(self._path))).to_json()
        return found | {"run": run.to_json()}

    def scales(self) -> Scales:
        import onnx

        return onnx_scales(onnx.load(str(self._path)))


def open_artifact(path: Path, settings: Mapping[str, str] | None = None) -> Any:
    """A file by the ending of its name."""
    return Tflite(path) if path.suffix == ".tflite" else Onnx(path, settings)


# -- TFLite -------------------------------------------------------------------------------------


def _tflite_model(data: bytes) -> tuple[Any, dict[int, str], dict[int, str]]:
    from edgevit.targets.tflite.schema import schema

    s = schema()
    model = s.ModelT.InitFromObj(s.Model.GetRootAs(data, 0))
    names = [
        {value: name for name, value in vars(kind).items() if isinstance(value, int)}
        for kind in (s.BuiltinOperator, s.TensorType)
    ]
    return model, names[0], names[1]


def _kind(model: Any, codes: Mapping[int, str], operator: Any) -> str:
    code = model.operatorCodes[operator.opcodeIndex]
    return codes[max(code.builtinCode, code.deprecatedBuiltinCode)]


def tflite_operators(data: bytes) -> Operators:
    """An operator is int8 where none of the tensors that it reads or makes is a float.

    So is one between a DEQUANTIZE and a QUANTIZE of its own, which XNNPACK makes a table of.
    """
    model, codes, types = _tflite_model(data)
    kinds: Counter[str] = Counter()
    floats: Counter[str] = Counter()
    for graph in model.subgraphs:
        named = [(_kind(model, codes, each), each) for each in graph.operators]
        makers = {int(each.outputs[0]): kind for kind, each in named}
        readers = {int(i): kind for kind, each in named for i in each.inputs}
        for kind, operator in named:
            kinds[kind] += 1
            around = makers.get(int(operator.inputs[0])), readers.get(int(operator.outputs[0]))
            if len(operator.inputs) == 1 and around == ("DEQUANTIZE", "QUANTIZE"):
                continue
            ends = [i for i in (*operator.inputs, *operator.outputs) if i >= 0]
            held = {types[graph.tensors[i].type] for i in ends}
            if kind not in CONVERSIONS and held & {"FLOAT32", "FLOAT16"}:
                floats[kind] += 1
    conversions = sum(kinds[kind] for kind in CONVERSIONS)
    return Operators(kinds.total() - conversions, floats, conversions)


def tflite_scales(data: bytes) -> Scales:
    model, _, types = _tflite_model(data)
    activations, weights = [], []
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            held = tensor.quantization
            if types[tensor.type] != "INT8" or held is None or held.scale is None:
                continue
            scale = np.asarray(held.scale, np.float32)
            if model.buffers[tensor.buffer].data is not None:
                weights.append(scale)
            elif len(scale) == 1:
                activations.append((float(scale[0]), int(held.zeroPoint[0])))
    return Scales(activations, weights)


# -- ONNX ---------------------------------------------------------------------------------------


def onnx_operators(model: Any) -> Operators:
    """Of a QDQ file: an operator is int8 where it reads and makes quantized tensors alone.

    A clamp behind a convolution is one operator with it, as every runtime takes the two.
    """
    graph = model.graph
    constants = {each.name for each in graph.initializer}
    makers = {out: node for node in graph.node for out in node.output}
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)

    def quantized(name: str) -> bool:
        maker = makers.get(name)
        while maker is not None and maker.op_type in ("Reshape", "Flatten", "Identity"):
            name = maker.input[0]
            maker = makers.get(name)
        if maker is None:
            return name in constants
        fused = maker.op_type == "Conv" and len(readers[name]) == 1
        behind = readers[name][0].op_type
        clamp = behind in ("Relu", "Clip")
        return maker.op_type in ("DequantizeLinear", "Constant") or (fused and clamp)

    def made_quantized(name: str) -> bool:
        ends = readers.get(name, [])
        moved = [n for n in ends if n.op_type in ("Relu", "Clip", "Reshape", "Flatten", "Identity")]
        return bool(ends) and all(
            node.op_type == "QuantizeLinear" or (node in moved and made_quantized(node.output[0]))
            for node in ends
        )

    kinds: Counter[str] = Counter(node.op_type for node in graph.node)
    floats: Counter[str] = Counter()
    for node in graph.node:
        if node.op_type in CONVERSIONS or node.op_type in MOVES:
            continue
        sources = [name for name in node.input if name]
        if not all(map(quantized, sources)) or not all(map(made_quantized, node.output)):
            floats[node.op_type] += 1
    aside = sum(kinds[kind] for kind in (*CONVERSIONS, *MOVES))
    return Operators(kinds.total() - aside, floats, sum(kinds[kind] for kind in CONVERSIONS))


def onnx_run_operators(model: Any) -> Operators:
    """Of what ONNX Runtime made of a file: QLinear and Integer operators compute on int8."""
    kinds: Counter[str] = Counter(node.op_type for node in model.graph.node)
    conversions = sum(kinds[kind] for kind in CONVERSIONS)
    computing = {
        kind: count for kind, count in kinds.items() if kind not in (*CONVERSIONS, *MOVES, *LAYOUT)
    }
    floats = {
        kind: count
        for kind, count in computing.items()
        if not kind.startswith(("QLinear", "QGemm")) and "Integer" not in kind
    }
    return Operators(sum(computing.values()), floats, conversions)


def onnx_scales(model: Any) -> Scales:
    from onnx import numpy_helper

    held = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    activations: dict[str, tuple[float, int]] = {}
    weights = []
    for node in model.graph.node:
        if node.op_type != "DequantizeLinear" or node.input[1] not in held:
            continue
        scale = np.asarray(held[node.input[1]], np.float32)
        if node.input[0] in held:
            weights.append(scale.reshape(-1))
            continue
        zero_point = held[node.input[2]]
        shift = 128 if zero_point.dtype == np.uint8 else 0
        activations[node.input[0]] = (float(scale.reshape(-1)[0]), int(zero_point) - shift)
    return Scales(list(activations.values()), weights)


# -- given scales -------------------------------------------------------------------------------


def other_scales(graph: Any, found: Scales) -> dict[str, int]:
    """How many of a program's scales are nowhere in a file: activations and weight vectors.

    Names differ between converters, so that a scale counts as kept where one of the file's, which
    no other took, is the same. `far_weights` counts vectors with a channel off by over 1 %.
    """
    given = [(graph.quantizer(name).scale, graph.quantizer(name).zero_point)
             for name in graph.owners()]  # fmt: skip
    vectors = [node.weight_scale for node in graph.weighted()]

    def same_activation(one: tuple[float, int], other: tuple[float, int]) -> bool:
        return one[1] == other[1] and abs(one[0] - other[0]) <= RELATIVE * one[0]

    def same_vector(one: np.ndarray, other: np.ndarray, within: float) -> bool:
        return one.shape == other.shape and np.allclose(other, one, rtol=within, atol=0)

    return {
        "activations": len(given),
        "other_activations": _missing(given, found.activations, same_activation),
        "weights": len(vectors),
        "other_weights": _missing(vectors, found.weights, partial(same_vector, within=RELATIVE)),
        "far_weights": _missing(vectors, found.weights, partial(same_vector, within=FAR)),
    }


def _missing(given: list[Any], found: list[Any], same: Callable[[Any, Any], bool]) -> int:
    """How many of the given ones have no partner among the found ones."""
    left, missing = list(found), 0
    for each in given:
        place = next((i for i, other in enumerate(left) if same(each, other)), None)
        if place is None:
            missing += 1
        else:
            del left[place]
    return missing
