"""Program files that somebody made to do harm, or that got damaged: the zip, and evq.json.

Of both versions. Each file is a good one with one thing changed, checksums set right again, so
that the check meant is the one that answers.
"""

from __future__ import annotations

import io
import json
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgevit.errors import InputError
from edgevit.ops import Weighted
from edgevit.program import Program, evq
from edgevit.program.container import read_zip
from edgevit.schema import MAX_DEPTH
from tests.program.hostile import FILES, JUNK, opens, places, put, refused, without
from tests.program.version1 import Members, pack, repacked, unpack
from tests.programs import make_program

both = pytest.mark.parametrize("version", FILES)


def members_of(version: str) -> Members:
    return unpack(FILES[version]())


@both
def test_the_helpers_themselves_change_nothing(tmp_path: Path, version: str) -> None:
    path = tmp_path / "good.evq"
    path.write_bytes(repacked(members_of(version)))
    assert Program.load(path).info == make_program().info
    assert opens(tmp_path, path.read_bytes())


# -- the zip ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "name"),
    [("version 1", "evq.json"), ("version 1", "program.pt2"), ("version 2", "evq.json"),
     ("version 2", "graph.json"), ("version 2", "weights.safetensors")],
)  # fmt: skip
def test_a_missing_member_is_named(tmp_path: Path, version: str, name: str) -> None:
    members = members_of(version)
    del members[name]
    refused(tmp_path, pack(members), name)
    if name != "evq.json":
        unlisted = repacked(members, lambda manifest: manifest["members"].pop(name))
        refused(tmp_path, unlisted, name)


@both
@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    "name",
    ["../evil.py", "/etc/passwd", "evil.py", "evq.json\0.py", "a\\b", "program.pt2/x",
     "weights.safetensors ", "GRAPH.JSON", "graph.json\n"],
)  # fmt: skip
def test_members_of_other_names_are_refused(tmp_path: Path, version: str, name: str) -> None:
    members = members_of(version) | {name: b""}
    refused(tmp_path, pack(members), "does not belong|twice")


@pytest.mark.parametrize(
    ("version", "name"),
    [("version 1", "graph.json"), ("version 1", "weights.safetensors"),
     ("version 1", "reference.safetensors"), ("version 2", "reference.safetensors")],
)  # fmt: skip
def test_a_member_that_is_not_listed_or_of_the_other_version_is_refused(
    tmp_path: Path, version: str, name: str
) -> None:
    other = members_of("version 2" if version == "version 1" else version)
    members = members_of(version) | {name: other.get(name, b"")}
    refused(tmp_path, repacked(members), "lists")
    listed = repacked(members, lambda manifest: manifest["members"].update({name: "0" * 64}))
    refused(tmp_path, listed, name)


@both
@pytest.mark.parametrize("name", ["evq.json", "graph.json", "program.pt2"])
def test_a_member_twice_is_refused(tmp_path: Path, version: str, name: str) -> None:
    members = members_of(version)
    if name not in members:
        return
    buffer = io.BytesIO(pack(members))
    with (
        zipfile.ZipFile(buffer, "a") as archive,
        pytest.warns(UserWarning, match="Duplicate name"),
    ):
        archive.writestr(name, members[name])
    refused(tmp_path, buffer.getvalue(), f"holds '{name}' twice")


@both
def test_compression_is_refused_so_nothing_can_expand(tmp_path: Path, version: str) -> None:
    for compression in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        data = pack(members_of(version), compression)
        refused(tmp_path, data, "compressed or encrypted")


def test_an_encrypted_member_is_refused(tmp_path: Path) -> None:
    data = bytearray(FILES["version 2"]())
    for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        struct.pack_into("<H", data, data.index(mark) + flags, 1)
    refused(tmp_path, bytes(data), "encrypted")


@pytest.mark.parametrize("name", ["program.pt2", "graph.json", "weights.safetensors"])
def test_a_huge_declared_size_is_refused_before_it_is_believed(tmp_path: Path, name: str) -> None:
    data = bytearray(pack({name: b"12345678", "evq.json": b"{}"}))
    entry = data.index(b"PK\x01\x02")
    struct.pack_into("<II", data, entry + 20, 2**31, 2**31)
    refused(tmp_path, bytes(data), "claims 2147483648 bytes")


def test_a_member_over_its_limit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = FILES["version 2"]()
    for name in ("evq.json", "graph.json", "weights.safetensors"):
        with monkeypatch.context() as patch:
            patch.setitem(evq._LIMITS, name.replace(".", r"\."), 100)
            refused(tmp_path, data, rf"{name} claims \d+ bytes \(limit 100\)")


@both
def test_bytes_in_front_of_the_zip_are_refused(tmp_path: Path, version: str) -> None:
    refused(tmp_path, b"#!/bin/sh\n" + FILES[version](), "in front|damaged")


@both
@pytest.mark.parametrize("part", [0.0, 0.001, 0.3, 0.7, 0.99, 0.9999])
def test_a_truncated_file_is_refused(tmp_path: Path, version: str, part: float) -> None:
    data = FILES[version]()
    refused(tmp_path, data[: int(part * len(data))], "damaged")


@both
def test_a_flipped_byte_never_changes_a_program(tmp_path: Path, version: str) -> None:
    """It is refused, or it lies where nothing is read (a date) and the program is whole."""
    data = FILES[version]()
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
        assert graph.quantizers == good.quantizers
        for before, after in zip(good.nodes, graph.nodes, strict=True):
            assert before.same_operation(after)
            if isinstance(before, Weighted) and isinstance(after, Weighted):
                assert np.array_equal(before.weight, after.weight)
                assert np.array_equal(before.bias_q, after.bias_q)
                assert np.array_equal(before.weight_scale, after.weight_scale)
    assert refusals >= 50


def test_files_of_other_kinds_are_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(3)}, buffer)
    refused(tmp_path, buffer.getvalue(), "is not a program")
    with pytest.raises(InputError, match="is a folder; a plain file is needed"):
        Program.load(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        Program.load(tmp_path / "missing.evq")


def test_too_many_members_are_refused() -> None:
    data = pack({f"weight_{i}": b"" for i in range(5000)})
    with pytest.raises(InputError, match="5000 members"):
        read_zip(data, "it", {r"weight_\d+": 10})


# -- evq.json ---------------------------------------------------------------------------------


def test_a_newer_schema_version_is_called_newer(tmp_path: Path) -> None:
    for version in FILES:
        data = repacked(members_of(version), lambda m: m.update(schema_version=3))
        refused(tmp_path, data, "schema version 3, newer than 2; upgrade edgevit")
        data = repacked(members_of(version), lambda m: m.update(schema_version=2**62))
        refused(tmp_path, data, "newer than 2; upgrade edgevit")


@both
@pytest.mark.parametrize("number", [0, -1, True, False, 1.0, 2.0, "1", "2", None, [], 1.5])
def test_a_version_of_another_type_is_refused(tmp_path: Path, version: str, number: Any) -> None:
    data = repacked(members_of(version), lambda m: m.update(schema_version=number))
    refused(tmp_path, data, r"evq\.json")


def test_a_file_of_one_version_is_none_of_the_other(tmp_path: Path) -> None:
    first = repacked(members_of("version 1"), lambda m: m.update(schema_version=2))
    refused(tmp_path, first, r"evq\.json")
    second = repacked(members_of("version 2"), lambda m: m.update(schema_version=1))
    refused(tmp_path, second, r"evq\.json")
    with_table = repacked(members_of("version 2"), lambda m: m.update(schema_version=1, tensors=[]))
    refused(tmp_path, with_table, "'graph.json' is no member of a version 1 file")


@both
@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(extra=1),
        lambda m: m.pop("labels"),
        lambda m: m.update(format="other"),
        lambda m: m["model"].update(extra=1),
        lambda m: m["model"].update(classes=9),
        lambda m: m["model"].update(classes=10**300),
        lambda m: m["model"].update(image_size=32),
        lambda m: m["model"].update(classes=10.0),
        lambda m: m["model"].update(image_size=64.0),
        lambda m: m["preprocessing"].update(image_size=64.0),
        lambda m: m["model"].update(variant=7),
        lambda m: m["preprocessing"].update(std=[0, 1, 1]),
        lambda m: m["preprocessing"].update(std=[10**400, 1, 1]),
        lambda m: m["preprocessing"].update(mean=[10**400, 1, 1]),
        lambda m: m["labels"].pop(),
        lambda m: m["labels"].__setitem__(0, "\ud800"),
        lambda m: m["labels"].__setitem__(0, 7),
        lambda m: m["members"].update({"program.pt2": "0" * 64, "graph.json": "0" * 64}),
        lambda m: m["members"].update({"other": "0" * 64}),
        lambda m: m["members"].clear(),
        lambda m: m.update(members=[]),
        lambda m: m.update(members=dict.fromkeys(m["members"], 7)),
        lambda m: m.update(members=dict.fromkeys(m["members"])),
        lambda m: m.update(metrics=[{"name": "a"}]),
        lambda m: m.update(metrics=[metric(value=10**400)]),
        lambda m: m.update(metrics=[metric(count=-1)]),
        lambda m: m.update(metrics=[metric(count=3.0)]),
        lambda m: m.update(metrics=[metric(value=True)]),
        lambda m: m.update(metrics=[metric(dataset_sha256="x")]),
        lambda m: m.update(profile="asymmetrical"),
        lambda m: m.update(provenance=[]),
        lambda m: m.update(provenance={"a": "\udfff"}),
        lambda m: m.update(provenance={"\udfff": 1}),
    ],
)  # fmt: skip
def test_another_manifest_is_refused(
    tmp_path: Path, version: str, change: Callable[[dict], Any]
) -> None:
    refused(tmp_path, repacked(members_of(version), change))


def metric(**changes: Any) -> dict[str, Any]:
    return {"name": "a", "value": 0.5, "count": 3, "dataset_sha256": None} | changes


@both
@pytest.mark.parametrize(
    "text",
    [
        b"", b"[]", b"{", b"null", b'{"a": 1, "a": 2}', b"[" * 100_000, b"\xff\xfe", b"NaN",
        b'{"schema_version": 1e999}', b"9" * 5000, b'{"schema_version": NaN}',
        b"\xef\xbb\xbf{}", b"{}x", b'{"a": ' * 500 + b"1" + b"}" * 500, b'"\\ud800"',
    ],
)  # fmt: skip
def test_text_that_is_no_manifest_is_refused(tmp_path: Path, version: str, text: bytes) -> None:
    members = members_of(version)
    refused(tmp_path, pack(members | {"evq.json": text}))


@both
def test_nesting_is_refused_before_any_limit_of_python(tmp_path: Path, version: str) -> None:
    """At every depth around Python's recursion limit, where only some of the work would fit."""
    text = json.dumps(json.loads(members_of(version)["evq.json"]) | {"provenance": 7})
    for depth in (MAX_DEPTH, 200, 500, *range(880, 1001, 4), 1500, 20_000):
        for opening, closing in (("[", "]"), ('{"a":', "}")):
            nested = '{"x": ' + opening * depth + "1" + closing * depth + "}"
            members = members_of(version)
            members["evq.json"] = text.replace(
                '"provenance": 7', f'"provenance": {nested}'
            ).encode()
            refused(tmp_path, pack(members), "nested|recursion")


def test_a_depth_that_is_allowed_can_be_written_again(tmp_path: Path) -> None:
    value: Any = 1
    for _ in range(MAX_DEPTH - 4):
        value = [value]
    data = repacked(members_of("version 2"), lambda m: m.update(provenance={"x": value}))
    path = tmp_path / "deep.evq"
    path.write_bytes(data)
    program = Program.load(path)
    again = Program.load(program.save(tmp_path / "again.evq"))
    assert again.info.provenance == {"x": value}


def test_a_profile_that_the_zero_points_contradict_is_refused(tmp_path: Path) -> None:
    members = unpack(make_program(profile="asymmetric").to_bytes())
    data = repacked(members, lambda m: m.update(profile="portable"))
    refused(tmp_path, data, "the portable profile is symmetric")


def test_no_junk_at_any_place_of_the_manifest_is_another_error(tmp_path: Path) -> None:
    """Every place of a version 2 evq.json, with 8 kinds of junk drawn for it, and without it."""
    members = members_of("version 2")
    value = json.loads(members["evq.json"])
    chance = random.Random(1)
    for place in places(value):
        for junk in chance.sample(JUNK, 8):
            opens(
                tmp_path, pack(members | {"evq.json": json.dumps(put(value, place, junk)).encode()})
            )
        opens(tmp_path, pack(members | {"evq.json": json.dumps(without(value, place)).encode()}))
