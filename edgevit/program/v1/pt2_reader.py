"""Reading program.pt2 without torch: nothing in the file is ever executed or unpickled.

torch.export.load is not safe for a file from elsewhere: it unpickles sample inputs and constants
(with a fall-back to weights_only=False), hands symbolic expressions to sympy, and imports
whatever operators and classes the file names. So the archive is read here, with the standard
library only: an exact list of members, JSON with exactly the known keys, raw little-endian
weights, and an allow-list of operations (`edgevit.program.v1.aten`). torch builds its own program
from the Graph that results; `exported_program` makes an equal ExportedProgram.
"""

from __future__ import annotations

import re
from math import prod
from typing import Any

import numpy as np

from edgevit.errors import InputError
from edgevit.graph import Graph
from edgevit.program.container import fields, read_zip
from edgevit.program.v1.aten import Call, Ref
from edgevit.program.v1.reading import graph_from_calls
from edgevit.schema import parse_json

SCHEMA_MAJOR = 8
"""torch.export's serialization schema this reader knows (torch 2.13 writes 8.20)."""

_ROOT, _WEIGHT = r"archive/", r"archive/data/weights/"
_CONFIG = "model_weights_config.json"
_CONSTANTS = "archive/data/constants/model_constants_config.json"
_MODEL, _SAMPLES = "archive/models/model.json", "archive/data/sample_inputs/model.pt"
_MARKS = {"archive/archive_format": b"pt2", "archive/archive_version": b"0",
          "archive/byteorder": b"little"}  # fmt: skip
_LIMITS = {
    _WEIGHT + r"weight_[0-9]{1,4}": 2**28,
    _WEIGHT + re.escape(_CONFIG): 2**24,
    re.escape(_CONSTANTS): 64,
    re.escape(_MODEL): 2**25,
    # Where torch keeps pickled sample inputs; an empty one is what it writes for "none".
    re.escape(_SAMPLES): 0,
    _ROOT + r"(archive_format|archive_version|byteorder|\.data/version)": 16,
    _ROOT + r"\.data/serialization_id": 64,
}

_TENSOR = '{"type": null, "context": null, "children_spec": []}'
_TUPLE = '{"type": "builtins.tuple", "context": "null", "children_spec": [%s]}'
_DICT = '{"type": "builtins.dict", "context": "[]", "children_spec": []}'
_CALL_GRAPH = [{
    "fqn": "",
    "signature": {
        "inputs": [],
        "outputs": [],
        "in_spec": f"[1, {_TUPLE % (_TUPLE % _TENSOR + ', ' + _DICT)}]",
        "out_spec": f"[1, {_TENSOR}]",
        "forward_arg_names": ["input"],
    },
}]  # fmt: skip
"""What torch writes for forward(input) -> tensor; it names classes, so nothing else is let in."""

_SCALAR_TYPES = {2: ("int8", np.dtype("int8")), 5: ("int64", np.dtype("<i8")),
                 7: ("float32", np.dtype("<f4"))}  # fmt: skip
_STRIDED, _MAX_RANK, _MAX_SIZE = 7, 8, 2**31
_PLAIN_ARGUMENTS = {"as_int": int, "as_float": float, "as_bool": bool, "as_string": str}
_PATH = re.compile(r"([A-Za-z_]\w*|\d+)(\.([A-Za-z_]\w*|\d+))*", re.ASCII)
_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)


def read_pt2(data: bytes) -> Graph:
    """The quantized Graph of a torch.export archive that edgevit wrote.

    Raises InputError, saying what and where, for any other archive.
    """
    members = read_zip(data, "program.pt2", _LIMITS)
    for name, expected in _MARKS.items():
        if members.get(name) != expected:
            raise InputError(f"program.pt2: {name} is not {expected!r}")
    for name in (_MODEL, _CONSTANTS, "archive/data/weights/" + _CONFIG):
        if name not in members:
            raise InputError(f"program.pt2 has no {name}")
    constants = parse_json(members[_CONSTANTS], _CONSTANTS)
    if constants != {"config": {}}:
        raise InputError("program.pt2 holds constants; a program has weights only")
    weights = _weights(members)
    model = parse_json(members[_MODEL], _MODEL)
    return _graph(model, weights)


# -- weights ----------------------------------------------------------------------------------


def _weights(members: dict[str, bytes]) -> dict[str, np.ndarray]:
    """Buffer path -> array, from raw bytes; each stored member must be used by one buffer."""
    folder = "archive/data/weights/"
    config = parse_json(members[folder + _CONFIG], _CONFIG)
    (entries,) = fields(config, _CONFIG, ("config",))
    unused = {name for name in members if re.fullmatch(_WEIGHT + r"weight_[0-9]{1,4}", name)}
    arrays: dict[str, np.ndarray] = {}
    for path, entry in _object(entries, _CONFIG).items():
        _check_path(path)
        member, is_parameter, use_pickle, meta = fields(
            entry, path, ("path_name", "is_param", "use_pickle", "tensor_meta")
        )
        if is_parameter is not False or use_pickle is not False:
            raise InputError(f"{path}: weights are plain buffers, never pickles")
        dtype, shape = _tensor_meta(meta, path)
        name = f"{folder}{member}"
        if name not in unused:
            raise InputError(f"{path}: its data {member!r} is missing or used twice")
        unused.remove(name)
        if len(members[name]) != prod(shape) * dtype.itemsize:
            raise InputError(f"{path}: {len(members[name])} bytes cannot be {dtype} {shape}")
        arrays[path] = np.frombuffer(members[name], dtype).reshape(shape)
        if dtype.kind == "f" and not np.isfinite(arrays[path]).all():
            raise InputError(f"{path}: a value is not a finite number")
    if unused:
        raise InputError(f"program.pt2: {sorted(unused)[0]} belongs to no weight")
    return arrays


def _tensor_meta(meta: Any, where: str) -> tuple[np.dtype, tuple[int, ...]]:
    """dtype and shape of one tensor description: contiguous, on the CPU, plain sizes only."""
    names = ("dtype", "sizes", "requires_grad", "device", "strides", "storage_offset", "layout")
    dtype, sizes, gradient, device, strides, offset, layout = fields(meta, where, names)
    if not isinstance(dtype, int) or dtype not in _SCALAR_TYPES:
        raise InputError(f"{where}: element type {dtype!r} is not int8, int64 or float32")
    shape = tuple(_plain_int(size, where) for size in _array(sizes, where))
    if len(shape) > _MAX_RANK or prod(shape) >= _MAX_SIZE:
        raise InputError(f"{where}: shape {shape} is too large")
    expected = tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))
    steps = tuple(_plain_int(step, where) for step in _array(strides, where))
    # A size of one has no stride that matters; torch writes what it likes there.
    contiguous = len(steps) == len(shape) and all(
        size == 1 or step == right for size, step, right in zip(shape, steps, expected, strict=True)
    )
    plain = (
        contiguous
        and device == {"type": "cpu", "index": None}
        and gradient is False
        and _plain_int(offset, where) == 0
        and layout == _STRIDED
    )
    if not plain:
        raise InputError(f"{where}: tensors must be contiguous, on the CPU and without gradient")
    return _SCALAR_TYPES[dtype][1], shape


def _plain_int(value: Any, where: str) -> int:
    """{"as_int": n}; a symbolic {"as_expr": …} would be code for sympy, and is refused."""
    (number,) = fields(value, where, ("as_int",))
    if type(number) is not int or not 0 <= number < _MAX_SIZE:
        raise InputError(f"{where}: {number!r} is not a size")
    return number


# -- the graph --------------------------------------------------------------------------------


def _graph(model: Any, weights: dict[str, np.ndarray]) -> Graph:
    names = ("graph_module", "opset_version", "range_constraints", "schema_version", "verifiers",
             "torch_version", "guards_code")  # fmt: skip
    module, opset, ranges, version, verifiers, torch_version, guards = fields(model, _MODEL, names)
    major, minor = fields(version, "schema_version", ("major", "minor"))
    if major != SCHEMA_MAJOR or type(minor) is not int:
        raise InputError(
            f"program.pt2 uses torch.export schema {major!r}, this edgevit reads {SCHEMA_MAJOR}"
        )
    if ranges != {} or guards != [] or verifiers != ["TRAINING"]:
        raise InputError("program.pt2 has symbolic sizes, guards or another dialect")
    if not isinstance(torch_version, str) or not isinstance(opset, dict):
        raise InputError("program.pt2: torch_version or opset_version is missing")
    names = ("graph", "signature", "module_call_graph", "metadata", "treespec_namedtuple_fields")
    graph, signature, call_graph, metadata, named_tuples = fields(module, "graph_module", names)
    if metadata != {} or named_tuples != {} or call_graph != _CALL_GRAPH:
        raise InputError("program.pt2 holds metadata, named tuples or submodule signatures")
    buffers, source, output = _signature(signature)
    if set(buffers.values()) != set(weights) or len(buffers) != len(weights):
        raise InputError("program.pt2: its weights are not those its graph reads")

    inputs, outputs, nodes, values, *empty = fields(graph, "graph", (
        "inputs", "outputs", "nodes", "tensor_values", "sym_int_values", "sym_bool_values",
        "sym_float_values", "custom_obj_values", "is_single_tensor_return",
    ))  # fmt: skip
    if empty != [{}, {}, {}, {}, False]:
        raise InputError("program.pt2 holds symbolic values or custom objects; a program has none")
    if [_tensor_name(item, "inputs") for item in _array(inputs, "inputs")] != [*buffers, source]:
        raise InputError("program.pt2: the graph's inputs are not its signature's")
    if [_tensor_name(item, "outputs") for item in _array(outputs, "outputs")] != [output]:
        raise InputError("program.pt2: the graph's output is not its signature's")
    calls = [_call(node) for node in _array(nodes, "nodes")]
    tensors = {name: weights[path] for name, path in buffers.items()}
    shapes = _shapes(values, [*buffers, source, *(call.output for call in calls)])
    for name, array in tensors.items():
        if shapes[name] != array.shape:
            raise InputError(f"{buffers[name]}: stored as {array.shape}, used as {shapes[name]}")
    read = {arg.name for call in calls for arg in call.args.values() if isinstance(arg, Ref)}
    if ignored := sorted(set(tensors) - read):
        raise InputError(f"{buffers[ignored[0]]}: no operation reads this weight")
    return graph_from_calls(calls, tensors, source, shapes[source], output)


def _signature(signature: Any) -> tuple[dict[str, str], str, str]:
    """Graph name -> buffer path, the input's graph name, the output's."""
    inputs, outputs = fields(signature, "signature", ("input_specs", "output_specs"))
    *buffer_specs, user = _array(inputs, "input_specs") or [None]
    (user,) = fields(user, "input_specs", ("user_input",))
    (argument,) = fields(user, "user_input", ("arg",))
    buffers: dict[str, str] = {}
    for spec in buffer_specs:
        (buffer,) = fields(spec, "input_specs", ("buffer",))
        arg, path, persistent = fields(buffer, "buffer", ("arg", "buffer_name", "persistent"))
        name = _check_name(fields(arg, "buffer", ("name",))[0])
        if name in buffers or persistent is not True:
            raise InputError(f"{name}: it is listed twice, or not stored")
        buffers[name] = _check_path(path)
    if len(_array(outputs, "output_specs")) != 1:
        raise InputError("program.pt2 has more than one output")
    (user_output,) = fields(outputs[0], "output_specs", ("user_output",))
    (result,) = fields(user_output, "user_output", ("arg",))
    return buffers, _tensor_name(argument, "user_input"), _tensor_name(result, "user_output")


def _call(node: Any) -> Call:
    target, inputs, outputs, metadata, hop, name = fields(
        node, "a node of the graph",
        ("target", "inputs", "outputs", "metadata", "is_hop_single_tensor_return", "name"),
    )  # fmt: skip
    where = _check_name(name)
    if not isinstance(target, str) or not target.startswith("torch.ops.") or hop is not None:
        raise InputError(f"{where}: operation {target!r} is not one a program may hold")
    if [_tensor_name(item, where) for item in _array(outputs, where)] != [name]:
        raise InputError(f"{where}: a call makes one tensor, of its own name")
    args: dict[str, Any] = {}
    for item in _array(inputs, where):
        key, arg, kind = fields(item, where, ("name", "arg", "kind"))
        if not isinstance(key, str) or key in args or kind not in (1, 2):
            raise InputError(f"{where}: argument {key!r} is given twice or in an unknown way")
        args[key] = _argument(arg, where)
    return Call(target.removeprefix("torch.ops."), args, name, _module_path(metadata, where))


def _argument(value: Any, where: str) -> Any:
    """One argument: a tensor's name, a plain number or string, a list of integers, or none."""
    if not isinstance(value, dict) or len(value) != 1:
        raise InputError(f"{where}: {value!r} is not an argument")
    ((kind, content),) = value.items()
    if kind == "as_tensor":
        return Ref(_tensor_name(value, where))
    if kind in _PLAIN_ARGUMENTS and type(content) is _PLAIN_ARGUMENTS[kind]:
        return content
    if kind == "as_ints" and all(type(item) is int for item in _array(content, where)):
        return tuple(content)
    if kind == "as_scalar_type" and type(content) is int and content in _SCALAR_TYPES:
        return _SCALAR_TYPES[content][0]
    if kind == "as_none" and content is True:
        return None
    raise InputError(f"{where}: arguments of kind {kind!r} do not belong in a program")


def _module_path(metadata: Any, where: str) -> str:
    """The last entry of nn_module_stack, "key,path,class;…": the module the call is in."""
    (stack,) = fields(metadata, where, ("nn_module_stack",))
    if not isinstance(stack, str):
        raise InputError(f"{where}: nn_module_stack is not text")
    last = stack.rpartition(";")[2].split(",")
    if len(last) != 3:
        raise InputError(f"{where}: nn_module_stack {stack[:80]!r} is not key,path,class")
    return _check_path(last[1]) if last[1] else ""


def _shapes(values: Any, names: list[str]) -> dict[str, tuple[int, ...]]:
    """Shape of every value of the graph; exactly `names` are described."""
    described = _object(values, "tensor_values")
    if set(described) != set(names):
        raise InputError("program.pt2: the values described are not those of the graph")
    return {name: _tensor_meta(meta, name)[1] for name, meta in described.items()}


def _tensor_name(value: Any, where: str) -> str:
    (tensor,) = fields(value, where, ("as_tensor",))
    (name,) = fields(tensor, where, ("name",))
    return _check_name(name)


def _check_name(name: Any) -> str:
    if not isinstance(name, str) or len(name) > 256 or not _NAME.fullmatch(name):
        raise InputError(f"program.pt2: {str(name)[:80]!r} is not a name")
    return name


def _check_path(path: Any) -> str:
    if not isinstance(path, str) or len(path) > 256 or not _PATH.fullmatch(path):
        raise InputError(f"program.pt2: {str(path)[:80]!r} is not a module path")
    return path


def _array(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise InputError(f"{where}: expected a list, found {type(value).__name__}")
    return value


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{where}: expected an object, found {type(value).__name__}")
    return value
