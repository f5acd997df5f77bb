"""Program files that somebody made to do harm, or that got damaged: refused, and nothing runs.

Each file is a good one with one thing changed, checksums set right again, so that the check meant
is the one that answers.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import pickle
import random
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgevit.errors import InputError
from edgevit.program import Program
from edgevit.program.container import read_zip
from tests.programs import make_program

Members = dict[str, bytes]
MODEL, ROOT = "archive/models/model.json", "archive/"
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


def unpack(data: bytes) -> Members:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pack(members: Members, compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def outer(members: Members, change: Callable[[dict], Any] | None = None) -> bytes:
    """The .evq file of its members, with evq.json changed and its checksums right."""
    manifest = json.loads(members["evq.json"])
    for name in set(manifest["members"]) & set(members):
        manifest["members"][name] = hashlib.sha256(members[name]).hexdigest()
    if change is not None:
        change(manifest)
    return pack(members | {"evq.json": json.dumps(manifest).encode()})


def inner(change: Callable[[Members], Any]) -> bytes:
    """The .evq file with members of program.pt2 changed."""
    members = unpack(make_program().to_bytes())
    archive = unpack(members["program.pt2"])
    change(archive)
    return outer(members | {"program.pt2": pack(archive)})


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


def refused(tmp_path: Path, data: bytes, message: str | None = None) -> str:
    path = tmp_path / "hostile.evq"
    path.write_bytes(data)
    with pytest.raises(InputError, match=message) as error:
        Program.load(path)
    assert str(path) in str(error.value)
    return str(error.value)


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


JUNK: list[Any] = [
    None, True, 0, -1, 2**40, -(2**70), 1.5, "", "__class__", "../x", [], {}, [1], {"as_int": 3},
    {"as_tensor": {"name": "input"}}, "\0", [[]], {"a": {}},
]  # fmt: skip


def _places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """The path of every value inside a JSON value, itself not."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner_value in items:
        yield (*path, key)
        if isinstance(inner_value, (dict, list)):
            yield from _places(inner_value, (*path, key))


@pytest.mark.parametrize("member", [MODEL, WEIGHTS, "evq.json"])
def test_no_change_of_the_json_gets_past_the_reader_as_another_error(
    tmp_path: Path, member: str
) -> None:
    """60 seeded mutations a file: refused as InputError, or without effect."""
    members = unpack(make_program().to_bytes())
    archive = unpack(members["program.pt2"])
    text = members[member] if member in members else archive[member]
    places = list(_places(json.loads(text)))
    chance = random.Random(member)
    refusals = 0
    for _ in range(60):
        value = json.loads(text)
        *path, key = chance.choice(places)
        found = value
        for step in path:
            found = found[step]
        if chance.random() < 0.7:
            found[key] = chance.choice(JUNK)
        else:
            del found[key]
        changed = json.dumps(value).encode()
        if member in members:
            data = pack(members | {member: changed})
        else:
            data = outer(members | {"program.pt2": pack(archive | {member: changed})})
        (tmp_path / "m.evq").write_bytes(data)
        try:
            Program.load(tmp_path / "m.evq")
        except InputError:
            refusals += 1
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


def test_a_newer_schema_version_is_called_newer(tmp_path: Path) -> None:
    data = outer(unpack(make_program().to_bytes()), lambda m: m.update(schema_version=2))
    refused(tmp_path, data, "schema version 2, newer than 1; upgrade edgevit")


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
    refused(tmp_path, outer(unpack(make_program().to_bytes()), change))


@pytest.mark.parametrize(
    "text",
    [
        b"", b"[]", b"{", b"null", b'{"a": 1, "a": 2}', b"[" * 100_000, b"\xff\xfe", b"NaN",
        b'{"schema_version": 1e999}', b"9" * 5000,
    ],
)  # fmt: skip
def test_text_that_is_no_manifest_is_refused(tmp_path: Path, text: bytes) -> None:
    members = unpack(make_program().to_bytes())
    refused(tmp_path, pack(members | {"evq.json": text}))


def test_a_profile_that_the_zero_points_contradict_is_refused(tmp_path: Path) -> None:
    members = unpack(make_program(profile="asymmetric").to_bytes())
    data = outer(members, lambda m: m.update(profile="portable"))
    refused(tmp_path, data, "the portable profile is symmetric")


# -- the zip ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["evq.json", "program.pt2"])
def test_a_missing_member_is_named(tmp_path: Path, name: str) -> None:
    members = unpack(make_program().to_bytes())
    del members[name]
    refused(tmp_path, pack(members), f"no {name}")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    "name", ["../evil.py", "/etc/passwd", "evil.py", "evq.json\0.py", "a\\b", "program.pt2/x"]
)
def test_members_of_other_names_are_refused(tmp_path: Path, name: str) -> None:
    members = unpack(make_program().to_bytes()) | {name: b""}
    refused(tmp_path, pack(members), "does not belong|twice")


def test_a_member_twice_is_refused(tmp_path: Path) -> None:
    members = unpack(make_program().to_bytes())
    buffer = io.BytesIO(pack(members))
    with (
        zipfile.ZipFile(buffer, "a") as archive,
        pytest.warns(UserWarning, match="Duplicate name"),
    ):
        archive.writestr("evq.json", members["evq.json"])
    refused(tmp_path, buffer.getvalue(), "holds 'evq.json' twice")


def test_compression_is_refused_so_nothing_can_expand(tmp_path: Path) -> None:
    members = unpack(make_program().to_bytes())
    refused(tmp_path, pack(members, zipfile.ZIP_DEFLATED), "compressed or encrypted")


def test_a_huge_declared_size_is_refused_before_it_is_believed(tmp_path: Path) -> None:
    data = bytearray(pack({"program.pt2": b"12345678", "evq.json": b"{}"}))
    entry = data.index(b"PK\x01\x02")
    struct.pack_into("<II", data, entry + 20, 2**31, 2**31)
    refused(tmp_path, bytes(data), "claims 2147483648 bytes")


def test_bytes_in_front_of_the_zip_are_refused(tmp_path: Path) -> None:
    refused(tmp_path, b"#!/bin/sh\n" + make_program().to_bytes(), "in front|damaged")


@pytest.mark.parametrize("part", [0.0, 0.001, 0.3, 0.7, 0.99, 0.9999])
def test_a_truncated_file_is_refused(tmp_path: Path, part: float) -> None:
    data = make_program().to_bytes()
    refused(tmp_path, data[: int(part * len(data))], "damaged")


def test_a_flipped_byte_never_changes_a_program(tmp_path: Path) -> None:
    """It is refused, or it lies where nothing is read (a date) and the program is whole."""
    data = make_program().to_bytes()
    good = make_program().graph()
    chance = random.Random(0)
    refusals = 0
    for _ in range(60):
        changed = bytearray(data)
        changed[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path = tmp_path / "flipped.evq"
        path.write_bytes(bytes(changed))
        try:
            graph = Program.load(path).graph()
        except InputError:
            refusals += 1
            continue
        for before, after in zip(good.nodes, graph.nodes, strict=True):
            assert before.quantizer == after.quantizer
            assert np.array_equal(before.weight, after.weight)
    assert refusals >= 50


def test_files_of_other_kinds_are_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(3)}, buffer)
    refused(tmp_path, buffer.getvalue(), "is not a program")
    with pytest.raises(InputError, match="cannot be read"):
        Program.load(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        Program.load(tmp_path / "missing.evq")


def test_too_many_members_are_refused() -> None:
    data = pack({f"weight_{i}": b"" for i in range(5000)})
    with pytest.raises(InputError, match="5000 members"):
        read_zip(data, "it", {r"weight_\d+": 10})
