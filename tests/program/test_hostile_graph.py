"""A graph.json that somebody made to do harm: refused, or harmless to run.

Each file is a good one with one thing changed, checksums set right again, so that the check meant
is the one that answers. No warning may come up either: a number that overflows is refused first.
"""

from __future__ import annotations

import json
import random
import resource
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgevit.errors import InputError
from edgevit.program import Program, evq
from edgevit.program.graph_file import MAX_NAME, MAX_NODES
from edgevit.program.tensors import read_tensors, tensor_bytes
from tests.program.hostile import opens, places, put, refused
from tests.program.version1 import Members, repacked, unpack
from tests.programs import make_program
from tests.random_graphs import random_program

pytestmark = pytest.mark.filterwarnings("error")
GRAPH = "graph.json"
GATE = "stages.0.blocks.0.se.gate"


@cache
def good() -> Members:
    return unpack(make_program().to_bytes())


@cache
def random_member(seed: int) -> Members:
    return unpack(random_program(seed, "asymmetric", operations=10).to_bytes())


def graph(change: Callable[[dict], Any], members: Members | None = None) -> bytes:
    """The file with graph.json changed."""
    members = members or good()
    value = json.loads(members[GRAPH])
    change(value)
    return repacked(members | {GRAPH: json.dumps(value).encode()})


def node(value: dict, name: str) -> dict:
    return next(row for row in value["nodes"] if row["name"] == name)


def test_the_helpers_themselves_change_nothing(tmp_path: Path) -> None:
    assert opens(tmp_path, graph(lambda value: None))
    assert all(opens(tmp_path, repacked(random_member(seed))) for seed in range(4))


# -- the structure ----------------------------------------------------------------------------


def edit(which: str, /, **changes: Any) -> Callable[[dict], Any]:
    return lambda value: node(value, which).update(changes)


def swap(value: dict, first: int, second: int) -> None:
    nodes = value["nodes"]
    nodes[first], nodes[second] = nodes[second], nodes[first]


STRUCTURE: dict[str, tuple[Callable[[dict], Any], str]] = {
    "an unknown key": (lambda v: v.update(extra=1), "expected the keys .*'extra'"),
    "no nodes": (lambda v: v.pop("nodes"), "expected the keys"),
    "nodes of another type": (lambda v: v.update(nodes={}), "nodes is not a list"),
    "a node of another type": (lambda v: v["nodes"].__setitem__(0, []), "a node is not an object"),
    "too many nodes": (
        lambda v: v.update(nodes=v["nodes"] * (MAX_NODES // len(v["nodes"]) + 1)),
        f"nodes is not a list of at most {MAX_NODES}",
    ),
    "an input without shape": (lambda v: v["input"].pop("shape"), "input: expected the keys"),
    "an input of another key": (lambda v: v["input"].update(dtype="x"), "input: expected the keys"),
    "an unknown operation": (edit(GATE, op="eval"), "operation 'eval' is not one a program may"),
    "an operation of the tracer alone": (edit(GATE, op="channel_affine"), "'channel_affine'"),
    "a base class": (edit(GATE, op="Node"), "'Node' is not one"),
    "a long operation": (edit(GATE, op="x" * 10_000), "operation 'xxxx"),
    "an operation of another type": (edit(GATE, op=["gelu"]), "a node is not an object with an op"),
    "an unknown attribute": (edit(GATE, alpha=1), f"{GATE}: expected the keys"),
    "a missing attribute": (lambda v: node(v, "head").pop("module"), "head: expected the keys"),
    "another operation's attributes": (edit("head", op="conv2d"), "head: expected the keys"),
    "one input too few": (edit("stages.0.blocks.0.add", inputs=["stem.conv2"]), "takes 2 inputs"),
    "one input too many": (edit(GATE, inputs=["stem.conv2"] * 2), "takes 1 inputs, not 2"),
    "no inputs": (edit(GATE, inputs=[]), "takes 1 inputs, not 0"),
    "inputs of another type": (edit(GATE, inputs="stem"), "is not a list"),
    "an input of another type": (edit(GATE, inputs=[7]), "7.* is not a name"),
    "a cycle": (edit("stem.conv1", inputs=["head"]), "stem.conv1: reads head, which nothing made"),
    "itself": (edit("stem.conv1", inputs=["stem.conv1"]), "stem.conv1: reads stem.conv1, which"),
    "another order": (lambda v: swap(v, 0, 1), "stem.act1: reads stem.conv1, which nothing made"),
    "no such tensor": (edit("stem.act1", inputs=["nothing"]), "stem.act1: reads nothing, which"),
    "a name twice": (edit("stem.act1", name="stem.conv1"), "stem.conv1: two tensors have"),
    "the input's name": (edit("stem.act1", name="input"), "input: two tensors have this name"),
    "a module twice": (edit("stem.conv2", module="stem.conv1"), "stem.conv1.weight: .*two"),
    "no outputs": (lambda v: v.update(outputs=[]), "one or more outputs"),
    "an output twice": (lambda v: v.update(outputs=["head", "head"]), "one or more outputs, each"),
    "no output names": (lambda v: v.update(output_names=[]), "output_names is empty"),
    "an output name too many": (lambda v: v.update(output_names=["a", "b"]), "of its own"),
    "a tensor's name for an output": (
        lambda v: v.update(output_names=["stem.conv1"]), "cannot have the name of a tensor"
    ),
    "an output name with a line break": (lambda v: v.update(output_names=["a\n"]), "is not a name"),
    "no real outputs": (lambda v: v.update(real_outputs=[]), "real_outputs is empty"),
    "a real output twice": (
        lambda v: v.update(real_outputs=["head", "head"], quantizers=v["quantizers"][:-1]),
        "each once",
    ),
    "a real output that is none": (
        lambda v: v.update(real_outputs=["stem.conv1"]), "stem.conv1: it is no output"
    ),
    "a real output with a quantizer": (
        lambda v: v.update(real_outputs=["head"]), "head: it has a quantizer, but"
    ),
    "real outputs that are no list": (lambda v: v.update(real_outputs="head"), "not a list"),
    "output names that are no list": (lambda v: v.update(output_names="a"), "not a list"),
    "an output that nothing makes": (lambda v: v.update(outputs=["nothing"]), "nothing: the"),
    "the input as output": (lambda v: v.update(outputs=["input"]), "input: the output must be"),
    "logits that are not first": (
        lambda v: v.update(outputs=["stem.conv2", "head"]), "its info says 10 classes"
    ),
    "another output": (lambda v: v.update(outputs=["flatten"]), "nothing reads|its info says"),
    "a tensor that nothing reads": (
        lambda v: v["nodes"].append({"op": "gelu", "name": "idle", "inputs": ["stem.conv2"]}),
        "idle: nothing reads this tensor",
    ),
    "an unknown activation": (edit("head", activation="eval"), "head: activation 'eval' is not"),
    "an activation that is none": (edit("head", activation="gelu"), "activation 'gelu' is not"),
    "an activation of another type": (edit("head", activation=["relu"]), "activation .* is not"),
    "an unknown how": (edit("head", weight_how="guessed"), "head: weight_how is not one of"),
    "a how of another type": (edit("head", weight_how=["learned"]), "head: weight_how is not"),
}  # fmt: skip


@pytest.mark.parametrize("name", STRUCTURE)
def test_another_structure_is_refused(tmp_path: Path, name: str) -> None:
    change, message = STRUCTURE[name]
    refused(tmp_path, graph(change), message)


@pytest.mark.parametrize(
    "name",
    ["", " ", "x" * (MAX_NAME + 1), "x" * 10_000, "a\0b", "a\nb", "\x1b[2J", "../../x", "/etc/x",
     "\\x", "\ud800", "a\udfffb", 7, None, True, ["a"], {"a": 1}],
)  # fmt: skip
@pytest.mark.parametrize("where", ["node", "input", "output", "module", "quantizer", "read"])
def test_what_is_no_name_is_refused(tmp_path: Path, where: str, name: Any) -> None:
    def change(value: dict) -> None:
        if where == "input":
            value["input"]["name"] = name
        elif where == "output":
            value["outputs"] = [name]
        elif where == "quantizer":
            value["quantizers"][3]["name"] = name
        elif where == "read":
            node(value, "stem.act1")["inputs"] = [name]
        else:
            node(value, "head")["name" if where == "node" else "module"] = name

    refused(tmp_path, graph(change))


# -- sizes ------------------------------------------------------------------------------------


def inserted(value: dict, row: dict[str, Any], reader: str = "stem.act1") -> None:
    """An operation behind stem.conv1, read by stem.act1 in its place."""
    places = [each["name"] for each in value["nodes"]]
    value["nodes"].insert(places.index(reader), {"name": "odd", "inputs": ["stem.conv1"], **row})
    node(value, reader)["inputs"] = ["odd"]


def pool(op: str, kernel: list[int], stride: list[int], padding: list[int]) -> dict[str, Any]:
    return {"op": op, "kernel": kernel, "stride": stride, "padding": padding}


BIG = 2**30
SIZES: dict[str, dict[str, Any]] = {
    "a resize to 2**30 x 2**30": {"op": "resize", "size": [BIG, BIG], "mode": "nearest"},
    "a bilinear resize to 2**30": {"op": "resize", "size": [32, BIG], "mode": "bilinear"},
    "a resize to nothing": {"op": "resize", "size": [0, 0], "mode": "nearest"},
    "a resize to less": {"op": "resize", "size": [16, 16], "mode": "nearest"},
    "a resize by a fraction": {"op": "resize", "size": [33, 48], "mode": "nearest"},
    "a resize of another mode": {"op": "resize", "size": [64, 64], "mode": "bicubic"},
    "a pad of 2**30": {"op": "pad", "before": [BIG, BIG], "after": [0, 0]},
    "a pad of 2**31 - 1 each": {"op": "pad", "before": [2**31 - 1] * 2, "after": [2**31 - 1] * 2},
    "a negative pad": {"op": "pad", "before": [-1, 0], "after": [0, 0]},
    "a pad of three": {"op": "pad", "before": [1, 0, 0], "after": [0, 0]},
    "a slice of the batch": {"op": "slice", "axis": 0, "start": 0, "stop": 1, "step": 1},
    "a slice of a negative axis": {"op": "slice", "axis": -1, "start": 0, "stop": 1, "step": 1},
    "a slice of a fifth axis": {"op": "slice", "axis": 4, "start": 0, "stop": 1, "step": 1},
    "a slice of nothing": {"op": "slice", "axis": 1, "start": 1, "stop": 1, "step": 1},
    "a slice from behind": {"op": "slice", "axis": 1, "start": -2, "stop": 4, "step": 1},
    "a slice too far": {"op": "slice", "axis": 1, "start": 0, "stop": 99, "step": 1},
    "a slice by 0": {"op": "slice", "axis": 1, "start": 0, "stop": 2, "step": 0},
    "a slice backwards": {"op": "slice", "axis": 1, "start": 0, "stop": 2, "step": -1},
    "a window of nothing": pool("max_pool2d", [0, 1], [1, 1], [0, 0]),
    "a window that stands": pool("max_pool2d", [1, 1], [0, 1], [0, 0]),
    "a window too large": pool("avg_pool2d", [BIG, 1], [1, 1], [0, 0]),
    "a window that is all padding": pool("max_pool2d", [2, 2], [1, 1], [2, 2]),
    "an average with padding": pool("avg_pool2d", [2, 2], [1, 1], [1, 1]),
    "a softmax of maps": {"op": "softmax"},
}  # fmt: skip


@pytest.mark.parametrize("name", SIZES)
def test_a_size_that_does_not_fit_is_refused_before_anything_is_made(
    tmp_path: Path, name: str
) -> None:
    data = graph(lambda value: inserted(value, SIZES[name]))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(tmp_path, data)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000, "KiB"


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ([1, 3, 2**31, 2**31], "is not a size"),
        ([1, 3, 2**31 - 1, 2**31 - 1], "values at once|cannot read"),
        ([1, 3, 2**14, 2**14], "values at once"),
        ([1, 3, 0, 64], "0 is not a size"), ([1, 3, -64, 64], "-64 is not a size"),
        ([1, 3, 64.0, 64], "64.0 is not a size"), ([1, 3, True, 64], "True is not a size"),
        ([1, 3, 64], "cannot read"), ([], "cannot read"), ([1] * 5000, "cannot read"),
        ([2, 3, 64, 64], "takes|images"), ([1, 3, 64, 65], "takes .* info says 64 px"),
        ("64", "is not a list"), (None, "is not a list"),
    ],
)  # fmt: skip
def test_another_input_shape_is_refused(tmp_path: Path, shape: Any, message: str) -> None:
    refused(tmp_path, graph(lambda value: value["input"].update(shape=shape)), message)


@pytest.mark.parametrize(
    "changes",
    [
        {"stride": [0, 2]}, {"stride": [-1, 2]}, {"stride": [2**31, 2]}, {"stride": [2]},
        {"stride": 2}, {"stride": [2.0, 2.0]}, {"stride": [True, True]}, {"stride": "22"},
        {"padding": [-1, 1]}, {"padding": [2**31 - 1, 1]}, {"padding": [BIG, BIG]},
        {"dilation": [0, 1]}, {"dilation": [-1, 1]}, {"dilation": [BIG, 1]}, {"groups": 0},
        {"groups": -1}, {"groups": 3}, {"groups": 2**31}, {"groups": -(2**40)}, {"groups": 1.0},
        {"groups": True}, {"groups": None}, {"module": 7},
    ],
)  # fmt: skip
def test_geometry_that_does_not_fit_is_refused(tmp_path: Path, changes: dict) -> None:
    refused(tmp_path, graph(edit("stem.conv1", **changes)))


@pytest.mark.parametrize("seed", range(4))
def test_no_attribute_at_any_edge_is_another_error(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers at every attribute of a random net: what opens must run."""
    monkeypatch.setattr(evq, "MAX_VALUES", 2**22)  # what opens is run in little time
    value = json.loads(random_member(seed)[GRAPH])
    edges = [0, 1, 2, 3, 7, 31, 1000, 2**20, 2**31 - 1, -1, -(2**31) + 1]
    chance = random.Random(seed)
    ran = 0
    for place in places(value["nodes"]):
        key = place[1] if len(place) > 1 else ""
        if key in ("op", "name", "inputs", "activation", "module", "weight_how", "mode", ""):
            continue
        for number in chance.sample(edges, 4):
            nodes = put(value["nodes"], place, number)
            changed = {GRAPH: json.dumps(value | {"nodes": nodes}).encode()}
            ran += opens(tmp_path, repacked(random_member(seed) | changed))
    assert ran > 0


def test_a_program_that_needs_too_much_memory_is_refused_when_it_runs(tmp_path: Path) -> None:
    """A kernel of 256 × 256 in float64: torch asks for 6 TB, though every tensor is small."""
    tensors, metadata = read_tensors(good()["weights.safetensors"], "weights")
    tensors["stem.conv1.weight"] = np.ones((4, 3, 256, 256), np.int8)
    tensors["stem.conv1.bias"] = np.full(4, 2**31 - 1, np.int32)

    def change(value: dict) -> None:
        node(value, "stem.conv1")["padding"] = [1119, 1119]
        node(value, "stem.conv1")["stride"] = [1, 1]
        row = pool("max_pool2d", [64, 64], [64, 64], [8, 8])
        inserted(value, row)

    members = unpack(graph(change)) | {"weights.safetensors": tensor_bytes(tensors, metadata)}
    path = tmp_path / "large.evq"
    path.write_bytes(repacked(members))
    program = Program.load(path)
    for run in (program.run, lambda images: list(program.tensors(images))):
        with pytest.raises(InputError, match="needs more memory than this machine has"):
            run(torch.zeros(1, 3, 64, 64))


def test_ten_thousand_operations_are_refused_or_read_in_seconds(tmp_path: Path) -> None:
    """Slices and concatenations share quantizers over all of them: no quadratic work."""

    def change(value: dict) -> None:
        last, rows = "stem.conv1", []
        for i in range(6000):
            name = f"odd{i}"
            rows.append({"op": "slice", "name": name, "inputs": [last], "axis": 1, "start": 0,
                         "stop": 4, "step": 1})  # fmt: skip
            rows.append({"op": "concat", "name": f"{name}.c", "inputs": [name]})
            last = f"{name}.c"
        value["nodes"][1:1] = rows
        node(value, "stem.act1")["inputs"] = [last]

    start = time.process_time()
    opens(tmp_path, graph(change))
    assert time.process_time() - start < 30
