"""Reading and running .tflite files in tests, without any of edgevit's own code for it."""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Literal

import flatbuffers
import numpy as np
import torch
from ai_edge_litert import schema_py_generated as schema

from edgevit.graph.execute import Executor
from edgevit.ops import Conv2d, Flatten
from edgevit.program import Program
from edgevit.targets.tflite import TARGET
from edgevit.targets.tflite.options import IoType, TfliteOptions

Form = Literal["table", "operator"]
"""How a file holds GELU and hard-swish."""


def tflite_bytes(program: Program, io: IoType = "int8", activations: Form = "table") -> bytes:
    return TARGET.write(program, TfliteOptions(io, activations=activations))


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


def read_values(data: bytes, name: str) -> np.ndarray:
    """The bytes of a constant, as int32 or int8."""
    model = read_model(data)
    (tensor,) = [t for t in model.subgraphs[0].tensors if t.name.decode() == name]
    kinds = {schema.TensorType.INT8: np.int8, schema.TensorType.INT32: np.int32}
    return np.frombuffer(bytes(model.buffers[tensor.buffer].data), kinds[tensor.type])


def operator_names(model: Any) -> list[str]:
    names = {v: k for k, v in vars(schema.BuiltinOperator).items() if k.isupper()}
    codes = [max(c.builtinCode, c.deprecatedBuiltinCode) for c in model.operatorCodes]
    return [names[codes[o.opcodeIndex]] for o in model.subgraphs[0].operators]


def steps_by_operator(
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
            if isinstance(node, Flatten):
                continue
            tensors = [
                model.tensor("mean").flatten(1) if name == "flatten" else model.tensor(name)
                for name in node.inputs
            ]
            expected = executor.step(node, tensors)
            difference = model.tensor(node.name).reshape(expected.shape).int() - expected.int()
            depthwise = isinstance(node, Conv2d) and node.depthwise
            found["depthwise" if depthwise else node.kind].append(difference.abs().flatten())
    joined = {kind: torch.cat(values) for kind, values in found.items()}
    return {
        kind: (int(values.max()), float((values > 0).float().mean()))
        for kind, values in joined.items()
    }


def with_outputs(data: bytes, names: list[str]) -> bytes:
    """The model with these activations as outputs, so that a delegate has to write them."""
    model = read_model(data)
    graph = model.subgraphs[0]
    indices = {tensor.name.decode(): index for index, tensor in enumerate(graph.tensors)}
    graph.outputs, model.signatureDefs = [indices[name] for name in names], []
    builder = flatbuffers.Builder(len(data))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def same_versions(ours: Any, theirs: Any) -> None:
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


class Places:
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


def replaced(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def next_float(data: bytes, at: int) -> bytes:
    """The float32 at a place, one step up: the smallest wrong scale there is."""
    (value,) = struct.unpack_from("<f", data, at)
    return replaced(data, at, struct.pack("<f", np.nextafter(np.float32(value), np.float32(9))))


Change = Callable[[dict[str, Any], dict[str, int]], Any]


def rewired(change: Change, program: Program, activations: Form = "table") -> bytes:
    """A program's model with `change` made to its operators and tensors, by their results' names.

    change  is given the operators, and the tensors' indices; "" stands for the subgraph
    """
    model = read_model(tflite_bytes(program, activations=activations))
    graph = model.subgraphs[0]
    names = [tensor.name.decode() for tensor in graph.tensors]
    operators = {names[operator.outputs[0]]: operator for operator in graph.operators}
    operators[""] = graph
    change(operators, {name: index for index, name in enumerate(names)})
    builder = flatbuffers.Builder(2**20)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
