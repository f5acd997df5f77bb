"""Version 1 program files that somebody made to do harm: refused, and nothing runs.

Each file is one that edgevit wrote with one thing changed, checksums set right again, so that the
check meant is the one that answers. What both versions share stands in test_hostile_file.py.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgevit.program import Program
from tests.program.hostile import JUNK, opens, places, put, refused, without
from tests.program.version1 import Members, pack, real, repacked, unpack
from tests.programs import make_program

MODEL = "archive/models/model.json"
SAMPLES = "archive/data/sample_inputs/model.pt"
CONSTANTS = "archive/data/constants/model_constants_config.json"
WEIGHTS = "archive/data/weights/model_weights_config.json"


class Payload:
    """Unpickled, it creates a marker file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.marker),)


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "marker"


def inner(change: Callable[[Members], Any]) -> bytes:
    """The .evq file with members of program.pt2 changed."""
    members = unpack(real())
    archive = unpack(members["program.pt2"])
    change(archive)
    return repacked(members | {"program.pt2": pack(archive)})


def model(change: Callable[[dict], Any]) -> bytes:
    """The .evq file with the program's graph (models/model.json) changed."""

    def edit(members: Members) -> None:
        value = json.loads(members[MODEL])
        change(value)
        members[MODEL] = json.dumps(value).encode()

    return inner(edit)


def weights(change: Callable[[dict, Members], Any]) -> bytes:
    """The .evq file with the weights' description, and perhaps their bytes, changed."""

    def edit(members: Members) -> None:
        value = json.loads(members[WEIGHTS])
        change(value["config"], members)
        members[WEIGHTS] = json.dumps(value).encode()

    return inner(edit)


def test_the_helpers_themselves_change_nothing(tmp_path: Path) -> None:
    path = tmp_path / "good.evq"
    path.write_bytes(model(lambda value: None))
    assert Program.load(path).info == make_program().info


# -- code in the file -------------------------------------------------------------------------


def test_a_pickle_as_sample_inputs_is_not_opened(tmp_path: Path, marker: Path) -> None:
    buffer = io.BytesIO()
    torch.save(Payload(marker), buffer)
    data = inner(lambda members: members.update({SAMPLES: buffer.getvalue()}))
    refused(tmp_path, data, "sample_inputs/model.pt claims")
    assert not marker.exists()
    # The file is armed: torch's own loader runs it.
    (tmp_path / "program.pt2").write_bytes(unpack(data)["program.pt2"])
    with contextlib.suppress(Exception):
        torch.export.load(tmp_path / "program.pt2")
    assert marker.exists()


def test_pickled_weights_and_constants_are_not_opened(tmp_path: Path, marker: Path) -> None:
    payload = pickle.dumps(Payload(marker))

    def pickled_weight(config: dict, members: Members) -> None:
        entry = config["head.bias"]
        entry["use_pickle"] = True
        members[f"archive/data/weights/{entry['path_name']}"] = payload

    refused(tmp_path, weights(pickled_weight), "head.bias: .* never pickles")

    constant = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True,
                "tensor_meta": None}  # fmt: skip
    with_constant = json.dumps({"config": {"x": constant}}).encode()
    refused(
        tmp_path,
        inner(
            lambda members: members.update(
                {CONSTANTS: with_constant, "archive/data/constants/opaque_obj_0": payload}
            )
        ),
        "constants_config.json claims|opaque_obj_0.* does not belong",
    )
    refused(tmp_path, inner(lambda m: m.update({CONSTANTS: with_constant})), "claims|constants")
    legacy = {"archive/data/weights/model.pt": payload}
    refused(tmp_path, inner(lambda members: members.update(legacy)), "does not belong")
    assert not marker.exists()


def test_symbolic_expressions_are_not_evaluated(tmp_path: Path, marker: Path) -> None:
    expression = f"__import__('os').mkdir({str(marker)!r})"
    symbol = {"as_expr": {"expr_str": expression, "hint": None}}

    def size(value: dict) -> None:
        value["graph_module"]["graph"]["tensor_values"]["input"]["sizes"][0] = symbol

    def argument(value: dict) -> None:
        value["graph_module"]["graph"]["nodes"][0]["inputs"][1]["arg"] = {
            "as_sym_float": {"as_name": expression}
        }

    def ranges(value: dict) -> None:
        value["range_constraints"] = {expression: {"min_val": 0, "max_val": 9}}

    def guards(value: dict) -> None:
        value["guards_code"] = [expression]

    def symbols(value: dict) -> None:
        value["graph_module"]["graph"]["sym_int_values"] = {"s0": symbol}

    for change in (size, argument, ranges, guards, symbols):
        refused(tmp_path, model(change))
    weight = weights(lambda c, _: c["head.bias"]["tensor_meta"]["sizes"].__setitem__(0, symbol))
    refused(tmp_path, weight, "head.bias: expected the keys")
    assert not marker.exists()


@pytest.mark.parametrize(
    "target",
    [
        "torch.ops.aten.from_file.default", "torch.ops.aten.mul_.Tensor", "os.system",
        "torch.ops.higher_order.cond", "_operator.add", "torch.ops.fb.evil.default", 7, None,
        "torch.ops.aten.gelu.default.__class__",
    ],
)  # fmt: skip
def test_operations_off_the_list_are_refused(tmp_path: Path, target: Any) -> None:
    def change(value: dict) -> None:
        value["graph_module"]["graph"]["nodes"][4]["target"] = target

    refused(tmp_path, model(change), "is not one a program may hold|lacks the argument|argument")


@pytest.mark.parametrize(
    "argument",
    [
        {"as_operator": "os.system"}, {"as_graph": {"name": "g", "graph": {}}},
        {"as_custom_obj": {"name": "x", "class_fqn": "os.system"}}, {"as_ints": [1, "2"]},
        {"as_tensor": {"name": "__class__"}}, {"as_tensor": {"name": "x", "extra": 1}},
        {"as_int": True}, {"as_float": 1, "as_int": 1}, {"as_scalar_type": 99}, {}, None, "input",
        {"as_tensor": {"name": "head"}}, {"as_float": 1e400},
    ],
)  # fmt: skip
def test_other_kinds_of_arguments_are_refused(tmp_path: Path, argument: Any) -> None:
    def change(value: dict) -> None:
        value["graph_module"]["graph"]["nodes"][0]["inputs"][0]["arg"] = argument

    refused(tmp_path, model(change))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("graph_module", "metadata"), {"a": "b"}),
        (("graph_module", "treespec_namedtuple_fields"), {"os.system": {"fields": []}}),
        (("graph_module", "module_call_graph"), []),
        (("graph_module", "module_call_graph", 0, "signature", "in_spec"), "[1, {}]"),
        (("graph_module", "graph", "custom_obj_values"), {"x": {}}),
        (("graph_module", "graph", "is_single_tensor_return"), True),
        (("graph_module", "graph", "nodes", 0, "is_hop_single_tensor_return"), True),
        (("graph_module", "graph", "nodes", 0, "metadata"), {"source_fn_stack": "os,system"}),
        (("graph_module", "graph", "nodes", 0, "metadata", "nn_module_stack"), "a,../../x,b"),
        (("graph_module", "graph", "nodes", 0, "name"), "__import__('os')"),
        (("graph_module", "signature", "input_specs"), []),
        (("graph_module", "signature", "output_specs"), []),
        (("graph_module", "signature", "input_specs", 0), {"custom_obj": {}}),
        (("verifiers",), ["EDGE"]),
        (("schema_version", "major"), 9),
        (("schema_version",), {}),
        (("new_key",), 1),
    ],
)
def test_anything_else_in_the_graph_is_refused(tmp_path: Path, path: tuple, value: Any) -> None:
    def change(found: Any) -> None:
        for step in path[:-1]:
            found = found[step]
        found[path[-1]] = value

    refused(tmp_path, model(change))


@pytest.mark.parametrize("member", [MODEL, WEIGHTS, "evq.json"])
def test_no_change_of_the_json_gets_past_the_reader_as_another_error(
    tmp_path: Path, member: str
) -> None:
    """60 seeded mutations a file: refused as InputError, or without effect."""
    members = unpack(real())
    archive = unpack(members["program.pt2"])
    value = json.loads(members[member] if member in members else archive[member])
    every = list(places(value))
    chance = random.Random(member)
    refusals = 0
    for _ in range(60):
        place = chance.choice(every)
        kept = chance.random() < 0.7
        changed = put(value, place, chance.choice(JUNK)) if kept else without(value, place)
        text = json.dumps(changed).encode()
        if member in members:
            data = pack(members | {member: text})
        else:
            data = repacked(members | {"program.pt2": pack(archive | {member: text})})
        refusals += not opens(tmp_path, data)
    assert refusals >= 50


# -- weights and scales -----------------------------------------------------------------------


def edited_weight(name: str, edit: Callable[[np.ndarray], Any], dtype: Any) -> bytes:
    def change(config: dict, members: Members) -> None:
        member = f"archive/data/weights/{config[name]['path_name']}"
        values = np.frombuffer(members[member], dtype).copy()
        edit(values)
        members[member] = values.tobytes()

    return weights(change)


@pytest.mark.parametrize(
    ("name", "dtype", "value", "message"),
    [
        ("head.weight", np.int8, -128, "head: weights must be int8 in -127..127"),
        ("head.weight_scale", np.float32, 0.1, "head: "),
        ("head.weight_scale", np.float32, float("nan"), "head.weight_scale: .* finite"),
        ("head.weight_zero_point", np.int64, 1, "head_weight_dq: weights must be"),
        ("head.bias", np.float32, float("inf"), "head.bias: .* finite"),
        ("head.bias", np.float32, 0.0123456, "head: a bias is not a multiple"),
        ("stem.conv1.weight_scale", np.float32, 2.0**-24, "stem.conv1"),
    ],
)
def test_weights_that_break_a_rule_are_named(
    tmp_path: Path, name: str, dtype: Any, value: float, message: str
) -> None:
    refused(tmp_path, edited_weight(name, lambda v: v.__setitem__(0, value), dtype), message)


def test_weights_must_be_all_there_and_no_more(tmp_path: Path) -> None:
    def remove(config: dict, members: Members) -> None:
        del members[f"archive/data/weights/{config.pop('head.bias')['path_name']}"]

    def twice(config: dict, members: Members) -> None:
        config["head.bias"]["path_name"] = config["stem.conv1.bias"]["path_name"]

    def outside(config: dict, members: Members) -> None:
        config["head.bias"]["path_name"] = "../../../evq.json"

    def huge(config: dict, members: Members) -> None:
        config["head.bias"]["tensor_meta"]["sizes"] = [{"as_int": 2**30}, {"as_int": 2**30}]

    def longer(config: dict, members: Members) -> None:
        members[f"archive/data/weights/{config['head.bias']['path_name']}"] += b"\0\0\0\0"

    def strided(config: dict, members: Members) -> None:
        config["head.weight"]["tensor_meta"]["strides"] = [{"as_int": 0}, {"as_int": 0}]

    def offset(config: dict, members: Members) -> None:
        config["head.bias"]["tensor_meta"]["storage_offset"] = {"as_int": 4}

    for change in (remove, twice, outside, huge, longer, strided, offset):
        refused(tmp_path, weights(change), "head|weights are not those")


def test_a_scale_in_the_graph_must_be_the_tables(tmp_path: Path) -> None:
    def change(value: dict) -> None:
        for node in value["graph_module"]["graph"]["nodes"]:
            for item in node["inputs"]:
                if node["name"] in ("stem_act1_q", "stem_act1_dq") and item["name"] == "scale":
                    item["arg"] = {"as_float": 0.5}

    refused(tmp_path, model(change))


@pytest.mark.parametrize("node", ["stem_act1_q", "stem_act1_dq"])
def test_a_pair_that_disagrees_is_refused(tmp_path: Path, node: str) -> None:
    def change(value: dict) -> None:
        nodes = {n["name"]: n for n in value["graph_module"]["graph"]["nodes"]}
        nodes[node]["inputs"][2]["arg"] = {"as_int": 3}

    refused(tmp_path, model(change), "stem_act1_dq: dequantize does not match")


def test_a_tensor_without_its_quantizer_is_refused(tmp_path: Path) -> None:
    def change(value: dict) -> None:
        for node in value["graph_module"]["graph"]["nodes"]:
            for item in node["inputs"]:
                if item["arg"] == {"as_tensor": {"name": "stem_act1_dq"}}:
                    item["arg"] = {"as_tensor": {"name": "stem_act1"}}

    refused(tmp_path, model(change), "quantizer")


# -- evq.json ---------------------------------------------------------------------------------


def test_a_version_that_is_not_the_files_is_refused(tmp_path: Path) -> None:
    data = repacked(unpack(real()), lambda m: m.update(schema_version=3))
    refused(tmp_path, data, "schema version 3, newer than 2; upgrade edgevit")
    for version in (2, 0, -1, True, 1.0, "1", None):
        changed = repacked(unpack(real()), lambda m, v=version: m.update(schema_version=v))
        refused(tmp_path, changed, "evq.json: top level|evq.json: schema_version|evq.json: members")


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(extra=1),
        lambda m: m.pop("labels"),
        lambda m: m.update(schema_version=0),
        lambda m: m.update(schema_version=True),
        lambda m: m.update(format="other"),
        lambda m: m["model"].update(extra=1),
        lambda m: m["model"].update(classes=9),
        lambda m: m["model"].update(image_size=32),
        lambda m: m["preprocessing"].update(std=[0, 1, 1]),
        lambda m: m["labels"].pop(),
        lambda m: m["tensors"].pop(),
        lambda m: m.update(tensors=None),
        lambda m: m["tensors"].__setitem__(0, None),
        lambda m: m["tensors"][0].update(scale=0.5),
        lambda m: m["tensors"][0].update(extra=1),
        lambda m: m["tensors"][0].update(how=["learned"]),
        lambda m: m["tensors"][0].update(how="guessed"),
        lambda m: m["members"].update({"program.pt2": "0" * 64}),
        lambda m: m["members"].update({"other": "0" * 64}),
        lambda m: m["members"].clear(),
        lambda m: m.update(metrics=[{"name": "a"}]),
        lambda m: m.update(profile="asymmetrical"),
    ],
)
def test_another_manifest_is_refused(tmp_path: Path, change: Callable[[dict], Any]) -> None:
    refused(tmp_path, repacked(unpack(real()), change))


@pytest.mark.parametrize(
    "text",
    [
        b"", b"[]", b"{", b"null", b'{"a": 1, "a": 2}', b"[" * 100_000, b"\xff\xfe", b"NaN",
        b'{"schema_version": 1e999}', b"9" * 5000,
    ],
)  # fmt: skip
def test_text_that_is_no_manifest_is_refused(tmp_path: Path, text: bytes) -> None:
    members = unpack(real())
    refused(tmp_path, pack(members | {"evq.json": text}))


def test_a_profile_that_the_zero_points_contradict_is_refused(tmp_path: Path) -> None:
    members = unpack(real("asymmetric", "hard-swish"))
    data = repacked(members, lambda m: m.update(profile="portable"))
    refused(tmp_path, data, "the portable profile is symmetric")
