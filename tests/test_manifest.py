"""The manifest's dataclass and the golden manifests (tests/manifests)."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tree_sitter
import tree_sitter_swift

from edgevit.choices import CHANNELS, INTERPOLATIONS, PAD_POSITIONS, RESIZE_MODES
from edgevit.data.images import Preprocessing
from edgevit.errors import InputError
from edgevit.limits import MANIFEST_SCHEMA_VERSION, MAX_LABEL_BYTES, MAX_MANIFEST_BYTES
from edgevit.schema import check_json, json_schema
from edgevit.targets import load_target
from edgevit.targets.manifest import Manifest, OutputTensor
from tests.manifests import FOLDER, Golden, goldens, null_manifest
from tests.programs import make_program

ROOT = Path(__file__).resolve().parent.parent
GOLDENS = goldens()
SWIFT_READER = ROOT / "targets/coreml/deploy/Sources/RepViTClassifier/Manifest.swift"


def named(golden: Golden) -> str:
    return golden.file.removesuffix(".json")


def small(**more: Any) -> Manifest:
    return null_manifest(("a", "b"), Preprocessing(8, 8), "0" * 64, 8, **more)


def test_the_table_lists_every_golden_and_their_names_say_what_they_are() -> None:
    files = {path.name for path in FOLDER.glob("*.json")} - {"table.json"}
    assert {golden.file for golden in GOLDENS} == files
    for golden in GOLDENS:
        readers = (golden.python, golden.cpp, golden.swift)
        assert golden.file.startswith("bad-" if any(readers) else "good-")
        # Python is the strictest: what it takes, every other reader takes.
        assert golden.python is not None or readers == (None, None, None)


@pytest.mark.parametrize("golden", GOLDENS, ids=named)
def test_python_takes_or_refuses_a_golden(golden: Golden, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_bytes(golden.read())
    if golden.python is None:
        found = Manifest.load(tmp_path)
        assert Manifest.parse(found.text()) == found
    else:
        with pytest.raises(InputError, match=re.escape(golden.python)) as error:
            Manifest.load(tmp_path)
        assert str(error.value).startswith(f"{tmp_path}/manifest.json")


@pytest.mark.parametrize("golden", GOLDENS, ids=named)
def test_the_schema_takes_every_good_golden_of_this_version(golden: Golden) -> None:
    schema = json_schema(Manifest, "manifest.json")
    value = json.loads(golden.read())
    if golden.python is None and value["schema_version"] >= 2:
        check_json(value, golden.file, schema)
        assert Manifest.parse(golden.read()).to_json() == value


def test_version_1_becomes_a_classification_with_one_output() -> None:
    for name in ("tflite-int8", "tensorrt"):
        first = Manifest.parse((FOLDER / f"good-version-1-{name}.json").read_bytes())
        second = Manifest.parse((FOLDER / f"good-{name}.json").read_bytes())
        assert first.task == "classification" and len(first.outputs) == 1
        assert first.options.items() <= second.options.items()
        newer = {
            "program": second.program,
            "tools": second.tools,
            "options": second.options,
            "ops": second.ops,
        }
        assert replace(first, **newer) == second


@pytest.mark.parametrize("io", ["int8", "uint8", "float32"])
def test_todays_artifact_has_the_goldens_text(io: str, tmp_path: Path) -> None:
    """But for what names the program and the versions of the tools."""
    program = make_program().with_info(make_program().info)  # never saved: it has no file name
    load_target("tflite").compile(program, tmp_path / "out", io=io)
    texts = [
        re.sub(r'("sha256"|"size_bytes"|"numpy"|"flatbuffers"|"ai-edge-litert"): .*', r"\1", text)
        for text in (
            (tmp_path / "out/manifest.json").read_text("utf-8"),
            (FOLDER / f"good-tflite-{io}.json").read_text("utf-8"),
        )
    ]
    assert texts[0] == texts[1]


def test_what_is_written_has_the_oldest_version_that_can_say_it() -> None:
    """So that apps of before go on to read what needs nothing new."""
    assert small().schema_version == 2 == small().preprocessing.schema_version
    newer = Preprocessing(8, resize="exact")
    assert newer.schema_version == MANIFEST_SCHEMA_VERSION
    with pytest.raises(InputError, match="says what schema_version 3 brought"):
        replace(small(), preprocessing=newer)
    written = replace(small(), preprocessing=newer, schema_version=3)
    assert Manifest.parse(written.text()) == written


def test_keys_without_contents_are_left_out() -> None:
    assert not {"commands", "files"} & set(small().to_json())
    assert small(files={"a": "1" * 64}).to_json()["files"] == {"a": "1" * 64}


def test_the_table_is_an_array() -> None:
    table = small().table()
    assert table.dtype == np.float32 and table.tolist() == [list(range(256))] * 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": ("a",)}, "labels: 1 of them, expected 2"),
        ({"labels": ("a", "b\0")}, "the label .* holds a zero byte"),
        ({"labels": ("a", "b" * (MAX_LABEL_BYTES + 1))}, "the label .* has over 4096 bytes"),
        ({"outputs": (OutputTensor("x", (1, 3), "float32", None, None),)}, r"\[1, 2\]"),
        ({"preprocessing": Preprocessing(9, 9)}, r"input/shape: \[1, 8, 8, 3\] must be"),
    ],
)
def test_a_contradiction_is_refused_when_it_is_made(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(small(), **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target": "Big"}, "manifest.json: target: 'Big' does not match"),
        ({"tools": {"a": 1}}, "manifest.json: tools/a: 1 is not of type 'string'"),
        ({"commands": {"a": "x" * MAX_MANIFEST_BYTES}}, "too large for a manifest"),
    ],
)
def test_what_could_not_be_read_back_is_not_written(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        small(**changes).text()


SWIFT_ENUMS: dict[str, tuple[str, ...]] = {
    "Interpolation": INTERPOLATIONS,
    "Resize": RESIZE_MODES,
    "Channels": CHANNELS,
    "PadPosition": PAD_POSITIONS,
}

# -- Swift, which cannot be compiled here --------------------------------------------------------


def swift_structs() -> dict[str, dict[str, str]]:
    """Struct of Manifest.swift, with the outer one's name in front -> its stored `let`s."""
    parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_swift.language()))
    found: dict[str, dict[str, str]] = {}

    def walk(node: tree_sitter.Node, path: str) -> None:
        for child in node.children:
            if child.type == "class_declaration":
                name = child.child_by_field_name("name")
                assert name is not None and name.text is not None
                inner = f"{path}.{name.text.decode()}".lstrip(".")
                found[inner] = {}
                walk(child, inner)
            elif child.type == "property_declaration" and path in found:
                match = re.fullmatch(r"let (\w+): ([\w\[\]?.]+)", (child.text or b"").decode())
                if match:
                    found[path][match[1]] = match[2]
            elif child.type not in ("function_declaration", "property_declaration"):
                walk(child, path)

    walk(parser.parse(SWIFT_READER.read_bytes()).root_node, "")
    return found


def swift_decodes(value: Any, kind: str, structs: dict[str, dict[str, str]], within: str) -> str:
    """The DecodingError that Swift's JSONDecoder would throw for the declared types, or ""."""
    if kind.endswith("?"):
        return "" if value is None else swift_decodes(value, kind[:-1], structs, within)
    if kind.startswith("["):
        if not isinstance(value, list):
            return "typeMismatch"
        errors = (swift_decodes(each, kind[1:-1], structs, within) for each in value)
        return next((error for error in errors if error), "")
    if kind in ("Int", "String"):
        wanted = int if kind == "Int" else str
        return "" if type(value) is wanted else "typeMismatch"
    if kind == "Bool":
        return "" if type(value) is bool else "typeMismatch"
    if kind in SWIFT_ENUMS:
        return "" if value in SWIFT_ENUMS[kind] else "dataCorrupted"
    if kind == "Sides":
        both = value if isinstance(value, list) else [value, value]
        fits = len(both) == 2 and all(type(side) is int for side in both)
        return "" if fits else "typeMismatch"
    name = f"{within}.{kind}".lstrip(".")
    if not isinstance(value, dict):
        return "typeMismatch"
    for field, inner in structs[name].items():
        key = re.sub(r"[A-Z]", lambda match: "_" + match[0].lower(), field)
        if key not in value and not inner.endswith("?"):
            return "keyNotFound"
        if error := swift_decodes(value.get(key), inner, structs, name):
            return error
    return ""


def test_the_keys_that_the_swift_reader_declares_are_found() -> None:
    assert swift_structs() == {
        "Manifest": {
            "schemaVersion": "Int", "artifact": "Artifact", "preprocessing": "Preprocessing",
            "labels": "[String]",
        },
        "Manifest.Artifact": {"file": "String", "sha256": "String"},
        "Manifest.Preprocessing": {
            "imageSize": "Sides", "resizeSize": "Sides?", "interpolation": "Interpolation",
            "resize": "Resize?", "antialias": "Bool?", "channels": "Channels?",
            "padColor": "[Int]?", "padPosition": "PadPosition?",
        },
        "Manifest.Sides": {"height": "Int", "width": "Int"},
        **{f"Manifest.Preprocessing.{name}": {} for name in SWIFT_ENUMS},
    }  # fmt: skip
    text = SWIFT_READER.read_text(encoding="utf-8")
    for name, values in SWIFT_ENUMS.items():
        (body,) = re.findall(rf"enum {name}: String, Decodable {{(.*?)}}", text, re.DOTALL)
        cases = re.findall(r'"([^"]+)"|(?:case |, )(\w+)(?! =)\b', body)
        assert sorted(quoted or plain for quoted, plain in cases) == sorted(values)


@pytest.mark.parametrize("golden", GOLDENS, ids=named)
def test_swifts_declared_types_take_or_refuse_a_golden(golden: Golden) -> None:
    """The types only: of its guards just the text is looked at, nothing of the Swift runs here."""
    text = SWIFT_READER.read_text(encoding="utf-8")
    try:
        value = json.loads(golden.read())
    except ValueError:
        return
    found = swift_decodes(value, "Manifest", swift_structs(), "")
    if golden.swift is not None and golden.swift.endswith((" is", " is not")):
        assert found == "" and f"manifest.json: {golden.swift} " in text
    else:
        assert found == (golden.swift or ""), golden.file
