"""`edgevit package`: what goes into a package, what is refused, and that nothing stays behind."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edgevit import apps as package
from edgevit.apps import MARKER_FILE, read_template, template_names, write_package
from edgevit.commands.package import package_command
from edgevit.data.images import Preprocessing
from edgevit.errors import EdgevitError, GateFailed, InputError, ToolMissing
from edgevit.targets.manifest import ProgramFile
from tests.manifests import null_manifest
from tests.proofs import write_validation

ROOT = Path(__file__).resolve().parent.parent
MODEL = {
    # A stand-in: files of a Core ML package's layout, which no Core ML could load.
    "Manifest.json": b'{"fileFormatVersion": "1.0.0"}',
    "Data/com.apple.CoreML/model.mlmodel": b"stand-in for a model",
    "Data/com.apple.CoreML/weights/weight.bin": bytes(range(256)) * 16,
}
LABELS = ("crop", "forest", "river")


def tree_sha256(files: dict[str, bytes]) -> str:
    """Written down anew from the rule in the manifest's schema, not edgevit.files.sha256_tree."""
    names = sorted(files, key=lambda name: name.encode())
    text = "".join(f"{hashlib.sha256(files[n]).hexdigest()}  {n}\n" for n in names)
    return hashlib.sha256(text.encode()).hexdigest()


def write_standin_artifact(build: Path, **changes: Any) -> Path:
    """build/coreml as `edgevit compile --target coreml` writes it, but for MODEL."""
    folder = build / "coreml"
    for name, data in MODEL.items():
        path = folder / "model.mlpackage" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    manifest = null_manifest(
        LABELS,
        Preprocessing(64, 72),
        tree_sha256(MODEL),
        sum(map(len, MODEL.values())),
        target="coreml",
        program=ProgramFile("m.evq", "1" * 64),
        options={
            "deployment_target": "iOS17", "precision": "int8", "compute_precision": "float16",
            "input_type": "image", "output_type": "logits",
        },
    ).to_json()  # fmt: skip
    manifest["artifact"]["file"] = "model.mlpackage"
    (folder / "manifest.json").write_text(json.dumps(manifest | changes))
    write_validation(folder)
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def build(tmp_path: Path) -> Path:
    write_standin_artifact(tmp_path / "build")
    return tmp_path / "build"


def test_a_package_holds_the_template_the_sources_and_the_artifact(build: Path) -> None:
    marker = write_package("coreml", build)
    out = build / "coreml-package"
    found = files_of(out)
    assert json.loads(found.pop(MARKER_FILE)) == marker
    assert marker["artifact"] == {"file": "model.mlpackage", "sha256": tree_sha256(MODEL)}
    assert marker["program"] == {"sha256": "1" * 64}
    assert (marker["kind"], marker["target"]) == ("edgevit-package", "coreml")

    place = "Sources/RepViTClassifier/Model/"
    assert found.pop(f"{place}manifest.json") == (build / "coreml/manifest.json").read_bytes()
    for name, data in MODEL.items():
        assert found.pop(f"{place}model.mlpackage/{name}") == data
    template = files_of(ROOT / "targets/coreml/deploy")
    del template["deploy.toml"]
    for source, to in read_template("coreml").sources.items():
        template[to] = (ROOT / source).read_bytes()
    assert found == template
    assert sorted(os.listdir(build)) == ["coreml", "coreml-package"]


def test_a_name_is_the_librarys_everywhere(build: Path) -> None:
    out = build.parent / "out"
    marker = write_package("coreml", build, out, name="Leaves")
    found = files_of(out)
    assert marker["name"] == "Leaves"
    assert "Sources/Leaves/Model/model.mlpackage/Manifest.json" in found
    assert b"public final class Leaves:" in found["Sources/Leaves/Leaves.swift"]
    assert not [name for name, data in found.items() if "RepViTC" in name or b"RepViTC" in data]


@pytest.mark.parametrize(
    "name",
    ["", "1st", "a b", "../x", "a" * 65, "Ünder", "edgevitimage", "CoreML", "Model", "Scores"],
)
def test_a_name_that_is_none_or_taken_is_refused(build: Path, name: str) -> None:
    with pytest.raises(InputError, match="the name"):
        write_package("coreml", build, name=name)
    assert os.listdir(build) == ["coreml"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target": "tflite"}, "compiled for tflite, not coreml"),
        ({"task": "features"}, "task is 'features', the package needs 'classification'"),
        (
            {"options": {"input_type": "tensor"}},
            "options.input_type is 'tensor'.*inside the model.*--input-type",
        ),
        ({"options": {}}, "options.input_type is None"),
        (
            {"options": {"input_type": "image", "deployment_target": "iOS18"}},
            "options.deployment_target is 'iOS18', the package needs 'iOS16' or 'iOS17'",
        ),
        ({"schema_version": 4}, "schema_version"),
        ({"kind": "edgevit-report"}, "kind"),
        ({"labels": []}, "labels"),
        (
            {"artifact": {"file": "model.mlpackage", "sha256": "0" * 64, "size_bytes": 1}},
            "sha256.*compile it again",
        ),
        (
            {
                "artifact": {
                    "file": "manifest.json.bak",
                    "sha256": hashlib.sha256(b"x").hexdigest(),
                    "size_bytes": 1,
                }
            },
            "the artifact is manifest.json.bak, the template takes model.mlpackage",
        ),
    ],
)
def test_an_artifact_that_does_not_fit_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    folder = write_standin_artifact(tmp_path / "build", **changes)
    (folder / "manifest.json.bak").write_bytes(b"x")
    with pytest.raises(InputError, match=message):
        write_package("coreml", tmp_path / "build")
    assert os.listdir(tmp_path / "build") == ["coreml"]


def _damage(folder: Path) -> None:
    (folder / "model.mlpackage/Data/com.apple.CoreML/model.mlmodel").write_bytes(b"another")


def _add(folder: Path) -> None:
    (folder / "model.mlpackage/extra").write_bytes(b"")


def _link_inside(folder: Path) -> None:
    weights = folder / "model.mlpackage/Data/com.apple.CoreML/weights/weight.bin"
    weights.rename(folder / "weight.bin")
    weights.symlink_to(folder / "weight.bin")


def _link_the_artifact(folder: Path) -> None:
    (folder / "model.mlpackage").rename(folder / "moved")
    (folder / "model.mlpackage").symlink_to("moved")


def _link_the_manifest(folder: Path) -> None:
    (folder / "manifest.json").rename(folder / "moved.json")
    (folder / "manifest.json").symlink_to("moved.json")


def _remove_the_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (_damage, "sha256"),
        (_add, "sha256"),
        (_link_inside, "link"),
        (_link_the_artifact, "symbolic link"),
        (_link_the_manifest, "symbolic link"),
        (_remove_the_manifest, "no manifest.json"),
    ],
)
def test_a_damaged_artifact_folder_is_refused(
    build: Path, harm: Callable[[Path], None], message: str
) -> None:
    harm(build / "coreml")
    with pytest.raises(InputError, match=message):
        write_package("coreml", build)
    assert os.listdir(build) == ["coreml"]


def test_a_missing_artifact_folder_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"edgevit compile .*--input-type image -o {tmp_path}/b"):
        write_package("coreml", tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


def test_a_package_is_replaced_only_by_force_and_a_foreign_folder_never(build: Path) -> None:
    out = build.parent / "out"
    write_package("coreml", build, out)
    before = files_of(out)
    with pytest.raises(InputError, match="--force"):
        write_package("coreml", build, out)
    write_package("coreml", build, out, name="Leaves", force=True)
    assert files_of(out).keys() != before.keys()
    (out / "Sources" / "mine.swift").write_bytes(b"")
    with pytest.raises(InputError, match=r"holds Sources/mine.swift, which was not written"):
        write_package("coreml", build, out, force=True)
    assert (out / "Sources" / "mine.swift").exists()

    foreign = build.parent / "mine"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="not written by edgevit"):
        write_package("coreml", build, foreign, force=True)
    assert files_of(foreign) == {"thesis.txt": b"mine"}
    assert sorted(os.listdir(build.parent)) == ["build", "mine", "out"]


@pytest.mark.parametrize("inside", ["coreml/model.mlpackage/x", "coreml"])
def test_a_package_inside_its_artifact_is_refused(build: Path, inside: str) -> None:
    with pytest.raises(InputError, match="inside"):
        write_package("coreml", build, build / inside, force=True)
    write_package("coreml", build)


def test_a_target_without_a_template_is_named_with_those_that_have_one(build: Path) -> None:
    for target in ("abacus", "../coreml", "harness"):
        with pytest.raises(InputError, match="no app template; there is: .*coreml"):
            write_package(target, build)


def test_every_template_says_how_an_app_uses_it() -> None:
    assert "coreml" in template_names()
    for target in template_names():
        template = read_template(target)
        assert (template.folder / "README.md").is_file()
        assert all((ROOT / source).is_file() for source in template.sources)


DEPLOY = """
name = "Lib"
compile = "edgevit compile M.evq --target stone"
[artifact]
"model.bin" = "data/model.bin"
[sources]
"core.h" = "Lib/core.h"
"""


@pytest.fixture
def stone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A made-up target whose artifact is one file: nothing in the code knows its name."""
    sources = tmp_path / "sources"
    deploy = sources / "targets/stone/deploy"
    deploy.mkdir(parents=True)
    (deploy / "deploy.toml").write_text(DEPLOY)
    (deploy / "README.md").write_text("Lib is in Lib/")
    (deploy / "run").write_text("#!/bin/sh\n")
    (deploy / "run").chmod(0o755)
    (deploy / ".editor").mkdir()
    (deploy / ".editor/state").write_text("x")
    (sources / "core.h").write_text("// Lib")
    monkeypatch.setattr(package, "SOURCES", sources)
    folder = write_standin_artifact(tmp_path / "build", target="stone", artifact={
        "file": "model.bin", "sha256": hashlib.sha256(b"stone").hexdigest(), "size_bytes": 5,
    })  # fmt: skip
    (folder / "model.bin").write_bytes(b"stone")
    folder.rename(tmp_path / "build/stone")
    return deploy


def test_another_target_needs_only_its_folder(stone: Path, tmp_path: Path) -> None:
    write_package("stone", tmp_path / "build", tmp_path / "out", name="Pebble")
    found = files_of(tmp_path / "out")
    del found[MARKER_FILE]
    assert found == {
        "README.md": b"Pebble is in Pebble/",
        "run": b"#!/bin/sh\n",
        "data/model.bin": b"stone",
        "Pebble/core.h": b"// Lib",
    }
    assert os.access(tmp_path / "out/run", os.X_OK)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"Lib/core.h"', '"../core.h"', r"must be relative, inside"),
        ('"Lib/core.h"', '"/tmp/core.h"', r"must be relative, inside"),
        ('"Lib/core.h"', '"Lib/../../core.h"', r"must be relative, inside"),
        ('"core.h"', '"../core.h"', r"must be relative, inside"),
        ('"model.bin"', '"/etc/passwd"', r"must be relative, inside"),
        ('"Lib/core.h"', '"."', r"must be relative, inside"),
        ('"Lib/core.h"', '"README.md"', "two files in the same place"),
        ('"core.h"', '"gone.h"', "gone.h is missing"),
        ('"core.h"', '"core/"', "both or neither end in /"),
        ('"core.h" = "Lib/core.h"', '"empty/" = "Lib/"', "the folder empty/ holds no .h or .cpp"),
        ('"core.h" = "Lib/core.h"', '"../" = "Lib/"', r"must be relative, inside"),
        ("[sources]", "[other]", "deploy.toml: top level"),
        ('name = "Lib"', "name = 3", "deploy.toml: name"),
        ('name = "Lib"', "name = ", "cannot be read"),
    ],
)
def test_a_bad_description_is_refused(
    stone: Path, tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in DEPLOY
    (stone / "deploy.toml").write_text(DEPLOY.replace(old, new, 1))
    with pytest.raises(InputError, match=message):
        write_package("stone", tmp_path / "build")
    assert os.listdir(tmp_path / "build") == ["stone"]


def test_a_folder_of_sources_stands_for_its_cpp_files(stone: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sources/native"
    (folder / "below").mkdir(parents=True)
    for name in ("a.cpp", "a.h", "CMakeLists.txt", "made.cpp.in", "below/b.cpp"):
        (folder / name).write_text(name)
    text = DEPLOY.replace('"core.h" = "Lib/core.h"', '"native/" = "Lib/native/"')
    (stone / "deploy.toml").write_text(text)
    write_package("stone", tmp_path / "build", tmp_path / "out", name="Pebble")
    found = files_of(tmp_path / "out")
    assert {name for name in found if name.startswith("Pebble/")} == {
        "Pebble/native/a.cpp",
        "Pebble/native/a.h",
    }


def test_a_link_in_a_template_is_refused(stone: Path, tmp_path: Path) -> None:
    (stone / "link").symlink_to("/etc/passwd")
    with pytest.raises(InputError, match="symbolic link"):
        write_package("stone", tmp_path / "build")
    assert os.listdir(tmp_path / "build") == ["stone"]


def test_without_the_sources_the_advice_is_a_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(package, "SOURCES", tmp_path)
    with pytest.raises(ToolMissing, match="install edgevit again"):
        write_package("coreml", tmp_path)


def test_the_command_says_what_it_wrote(build: Path) -> None:
    run = CliRunner().invoke
    plain = run(package_command, ["--target", "coreml", "--build", str(build)])
    assert plain.exit_code == 0, plain.output
    assert f"wrote {build / 'coreml-package'}" in plain.output
    again = run(package_command, ["--target", "coreml", "--build", str(build)])
    assert isinstance(again.exception, InputError)
    arguments = ["--target", "coreml", "--build", str(build), "--force", "--json"]
    found = json.loads(run(package_command, arguments).output)
    assert found["path"] == str(build / "coreml-package")
    assert found["artifact"]["sha256"] == tree_sha256(MODEL)
    assert "edgevit package" in run(package_command, ["--help"]).output.split("Example:")[1]


@pytest.mark.parametrize(
    ("put", "error", "message"),
    [
        (lambda folder: (folder / "validation.json").unlink(), InputError, "not validated"),
        (lambda folder: write_validation(folder, passed=False), GateFailed, "it dropped"),
        (
            lambda folder: write_validation(folder, artifact={"sha256": "2" * 64}),
            InputError,
            "of another artifact",
        ),
        (
            lambda folder: (folder / "validation.json").write_text("{}"),
            InputError,
            r"validation\.json",
        ),
    ],
    ids=["missing", "failed", "other", "junk"],
)
def test_an_artifact_without_a_validation_that_passed_is_refused(
    build: Path, put: Callable[[Path], None], error: type[EdgevitError], message: str
) -> None:
    put(build / "coreml")
    with pytest.raises(error, match=message):
        write_package("coreml", build)
    assert os.listdir(build) == ["coreml"]
    if message.startswith("valid"):
        return
    for more in ("--force", "--unvalidated"):
        with pytest.raises(error, match="--unvalidated"):
            package_command.main(
                ["--target", "coreml", "--build", str(build)], standalone_mode=False
            )
        out = str(build / more)
        package_command.main(
            ["--target", "coreml", "--build", str(build), "-o", out, more], standalone_mode=False
        )
        assert json.loads((build / more / MARKER_FILE).read_text())["validated"] is False


PEBBLE = """
extends = "stone"
compile = "edgevit compile M.evq --target pebble"
note = "never thrown"
[artifact]
"pebble.bin" = "data/pebble.bin"
[sources]
"more.h" = "Lib/more.h"
"""


@pytest.fixture
def pebble(stone: Path, tmp_path: Path) -> Path:
    """A made-up target whose template stands on the stone's."""
    deploy = tmp_path / "sources/targets/pebble/deploy"
    deploy.mkdir(parents=True)
    (deploy / "deploy.toml").write_text(PEBBLE)
    (deploy / "README.md").write_text("Lib is smooth")
    (tmp_path / "sources/more.h").write_text("// more")
    folder = tmp_path / "build/pebble"
    (tmp_path / "build/stone").rename(folder)
    (folder / "model.bin").rename(folder / "pebble.bin")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["artifact"]["file"] = "pebble.bin"
    (folder / "manifest.json").write_text(json.dumps(manifest | {"target": "pebble"}))
    return deploy


def test_a_template_on_top_of_another_takes_what_it_has_not(pebble: Path, tmp_path: Path) -> None:
    marker = write_package("pebble", tmp_path / "build", tmp_path / "out", name="Leaf")
    assert marker["note"] == "never thrown"
    found = files_of(tmp_path / "out")
    del found[MARKER_FILE]
    assert found == {
        "README.md": b"Leaf is smooth",
        "run": b"#!/bin/sh\n",
        "data/pebble.bin": b"stone",
        "Leaf/core.h": b"// Lib",
        "Leaf/more.h": b"// more",
    }
    for taken in ("run", "Core", "more"):
        with pytest.raises(InputError, match="taken"):
            write_package("pebble", tmp_path / "build", tmp_path / "other", name=taken)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"stone"', '"pebble"', "extends leads from pebble back to pebble"),
        ('"stone"', '"abacus"', "'abacus' has no app template"),
        ('"stone"', '"../stone"', "deploy.toml: extends"),
        ('extends = "stone"', "", "name is missing, and it extends no template"),
        ("[sources]", '[device_groups]\nartifact = "x"\n[sources]', "deploy.toml: .*portable"),
    ],
)
def test_a_template_that_stands_on_nothing_is_refused(
    pebble: Path, tmp_path: Path, old: str, new: str, message: str
) -> None:
    (pebble / "deploy.toml").write_text(PEBBLE.replace(old, new, 1))
    with pytest.raises(InputError, match=message):
        write_package("pebble", tmp_path / "build")
    assert os.listdir(tmp_path / "build") == ["pebble"]
