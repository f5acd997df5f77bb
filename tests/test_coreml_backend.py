"""The Core ML back-end where there is no Core ML: its Objective-C++ against stand-in headers.

tests/apple_stubs declares the few things of Apple's that targets/coreml uses. Clang's check against
it finds misspelt selectors, wrong types and calls that an older macOS or iOS does not have. It does
not show that the back-end works: nothing here has run on an Apple device.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from edgevit.errors import InputError, ToolMissing
from edgevit.files import sha256_tree
from edgevit.measure.harness import run_harness
from edgevit.measure.request import HarnessRequest
from tests.test_harness import LABELS, edit_manifest, picture, write_artifact

REPOSITORY = Path(__file__).resolve().parent.parent
BACKEND = REPOSITORY / "targets" / "coreml"
SOURCES = sorted(path.name for path in BACKEND.glob("*.mm"))
STUBS = REPOSITORY / "tests" / "apple_stubs"

# The project's own warnings (CMakeLists.txt), as a Mac's build of the back-end has them.
WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror"]
OLDEST = {"macos": "macos14.0", "ios": "ios17.0-simulator"}


def apple_flags(system: str) -> list[str]:
    """Flags that make clang read for the oldest macOS or iOS there is an artifact for.

    C and C++ headers are this machine's: Apple's triple comes without any.
    """
    asked = ["c++", "-E", "-x", "c++", "-v", "/dev/null"]
    english = os.environ | {"LC_ALL": "C"}
    done = subprocess.run(asked, capture_output=True, text=True, check=True, env=english)
    listed = re.search(r"search starts here:\n((?: /.*\n)+)End of search", done.stderr)
    assert listed, done.stderr
    folders = [line.strip() for line in listed[1].splitlines()]
    flags = ["-target", f"{platform.machine()}-apple-{OLDEST[system]}", "-nostdinc++"]
    # glibc defines __nonnull, which is a word of the compiler's for Apple; g++ defines the other.
    flags += ["-U__nonnull", "-D_GNU_SOURCE"]
    for folder in folders:
        if not re.search(r"/gcc/.*/include", folder):  # g++'s own intrinsics; clang has its own
            flags += ["-isystem", folder]
    return flags


def complaints(source: Path, flags: list[str]) -> str:
    """What clang says about a file of the back-end; empty when it says nothing."""
    clang = shutil.which("clang++")
    if clang is None:
        pytest.skip("there is no clang++ to read Objective-C++: apt-get install -y clang")
    if platform.system() == "Darwin":
        pytest.skip("on a Mac CMake builds the back-end against Apple's own headers")
    done = subprocess.run(
        [
            *[clang, "-x", "objective-c++", "-std=c++17", "-fsyntax-only", "-fobjc-arc"],
            *["-fblocks", *WARNINGS, "-isystem", str(STUBS), "-I", str(BACKEND)],
            *["-I", str(REPOSITORY / "targets")],
            *["-I", str(REPOSITORY / "targets" / "libedgevit"), *flags, str(source)],
        ],
        capture_output=True,
        text=True,
    )
    assert (done.returncode == 0) == (done.stderr == "")
    return done.stderr


@pytest.mark.parametrize("system", ["macos", "ios"])
@pytest.mark.parametrize("name", SOURCES)
def test_clang_accepts_the_back_end(name: str, system: str) -> None:
    assert complaints(BACKEND / name, apple_flags(system)) == ""
    assert complaints(BACKEND / name, ["-fobjc-runtime=macosx-14.0"]) == ""


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("backend.mm", "predictionFromFeatures:features_", "predictionFromFeature:features_"),
        ("backend.mm", "compileModelAtURL:", "compileModelAtUrl:"),
        ("backend.mm", ".inputDescriptionsByName.allValues", ".inputDescriptions.allValues"),
        ("backend.mm", '"-Wdeprecated-declarations"', '"-Wunused"'),
        ("backend.mm", "MLComputeUnitsCPUAndGPU", "MLComputeUnitsCPUAndGpu"),
        ("buffers.mm", "getMutableBytesWithHandler:", "getBytesWithHandler:"),
        ("buffers.mm", "(__bridge CFDictionaryRef)attributes", "attributes"),
        ("buffers.mm", "__block bool copied", "bool copied"),
        ("compute_plan.mm", "preferredComputeDevice", "prefferedComputeDevice"),
        ("compute_plan.mm", "if (@available(macOS 14.4, iOS 17.4, *))", "if (true)"),
        ("compute_plan.mm", "@available(macOS 14.4, iOS 17.4", "@available(macOS 14.4, iOS 17.0"),
    ],
)
def test_clang_refuses_the_back_end_with_a_slip(
    name: str, right: str, wrong: str, tmp_path: Path
) -> None:
    text = (BACKEND / name).read_text(encoding="utf-8")
    assert right in text
    (tmp_path / name).write_text(text.replace(right, wrong), encoding="utf-8")
    assert "error: " in complaints(tmp_path / name, apple_flags("ios"))


def test_every_availability_check_names_both_systems() -> None:
    for source in SOURCES:
        text = (BACKEND / source).read_text(encoding="utf-8")
        for check in re.findall(r"@available\(.*?\)", text):
            assert re.fullmatch(r"@available\(macOS [\d.]+, iOS [\d.]+, \*\)", check)


def test_every_stub_says_that_it_is_one() -> None:
    headers = sorted(STUBS.rglob("*.h"))
    assert headers
    for header in headers:
        first = header.read_text(encoding="utf-8").split("\n", 1)[0]
        assert first.startswith("// A stand-in, not Apple's SDK: "), header


# -- what the harness does with a Core ML artifact elsewhere --------------------------------------


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    for i, label in enumerate(LABELS):
        (folder / label).mkdir(parents=True)
        picture(i).save(folder / label / "a.png")
    return folder


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """An artifact folder whose artifact is a folder. A stand-in: there is no model in it."""
    artifact = write_artifact(tmp_path / "artifact")
    (artifact / "model.bin").unlink()
    model = artifact / "model.mlpackage"
    (model / "Data" / "weights").mkdir(parents=True)
    (model / "Manifest.json").write_text("{}")
    (model / "Data" / "model.mlmodel").write_bytes(b"no model")
    (model / "Data" / "weights" / "weight.bin").write_bytes(bytes(range(256)))
    edit_manifest(
        artifact,
        artifact={"file": model.name, "sha256": listing_digest(model), "size_bytes": 266},
    )
    return artifact


def listing_digest(folder: Path) -> str:
    """The sha256 of what `sha256sum` prints for the folder's files, sorted by path."""
    files = sorted(
        (path for path in folder.rglob("*") if path.is_file()),
        key=lambda path: path.relative_to(folder).as_posix().encode(),
    )
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder).as_posix()}\n"
        for path in files
    ]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def test_python_and_cpp_name_a_folder_alike(package: Path, images: Path) -> None:
    model = package / "model.mlpackage"
    result = run_harness(HarnessRequest(package, images))
    assert result["artifact"] == {"file": "model.mlpackage", "sha256": sha256_tree(model)}
    assert result["ops"]["devices"] is None
    (model / "Data" / ".DS_Store").write_bytes(b"\0")
    with pytest.raises(InputError, match=f"its sha256 is {sha256_tree(model)}"):
        run_harness(HarnessRequest(package, images))


def test_a_link_in_a_folder_artifact_is_named(package: Path, images: Path) -> None:
    (package / "model.mlpackage" / "Data" / "link").symlink_to("/etc/passwd")
    with pytest.raises(InputError, match="Data/link: a link or special file"):
        run_harness(HarnessRequest(package, images))


@pytest.mark.skipif(platform.system() == "Darwin", reason="a Mac's harness has the back-end")
def test_without_core_ml_the_way_out_is_named(package: Path, images: Path) -> None:
    edit_manifest(package, target="coreml", options={"input": "image", "output": "logits"})
    with pytest.raises(ToolMissing, match="macOS and iOS only; here `edgevit parity`"):
        run_harness(HarnessRequest(package, images))
    with pytest.raises(ToolMissing, match="macOS and iOS only"):
        run_harness(HarnessRequest(package, images, runtime_options={"compute_units": "cpu-ane"}))
    assert run_harness(HarnessRequest(package, images, backend="null"))["backend"] == "null"


def test_compute_units_are_core_mls_alone(package: Path, images: Path) -> None:
    with pytest.raises(InputError, match="null back-end takes no runtime option 'compute_units'"):
        run_harness(HarnessRequest(package, images, runtime_options={"compute_units": "cpu"}))
    with pytest.raises(InputError, match="compute_units"):
        run_harness(HarnessRequest(package, images, runtime_options={"compute_units": "tpu"}))


def test_options_are_read_with_the_manifest(package: Path, images: Path) -> None:
    edit_manifest(package, options={"precision": 8})
    with pytest.raises(InputError, match=r"options\.precision must be a string"):
        run_harness(HarnessRequest(package, images))
    manifest = json.loads((package / "manifest.json").read_text())
    del manifest["options"]
    (package / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="options is missing"):
        run_harness(HarnessRequest(package, images))
