"""The Android module of the qnn target: its layout, and how it falls back, on a desktop JVM.

Its Kotlin and C++ are those of tests/test_android.py; here they have NPU programs to choose from.
LiteRT is real. The NPU's library is a stand-in that answers with the first bytes of the input
(tests/npu_standin), its programs are stand-ins too, and so is the phone (tests/android_stubs). No
phone has run any of it.
"""

from __future__ import annotations

import json
import re
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file

from edgevit.apps import read_template, write_package
from edgevit.commands.package import package_command
from edgevit.errors import InputError
from edgevit.files import read_tree, sha256_bytes, write_tree
from edgevit.measure.harness import run_harness
from edgevit.measure.request import HarnessRequest
from edgevit.targets import load_target
from edgevit.targets.manifest import Manifest
from tests.npu_folders import SOCS, build_dispatch, seal, write_npu_artifact
from tests.programs import make_program
from tests.test_android import ROOT, STUBS, Jvm, build_jvm, build_library, needs_jvm, run
from tests.test_harness import edit_manifest, picture

PACK = "RepVitClassifier_npu/src/main/assets"
MODULE = "src/main/assets/edgevit"


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """build/qnn and the build/tflite that it is made of."""
    folder = tmp_path_factory.mktemp("npu") / "build"
    load_target("tflite").compile(make_program(), folder / "tflite")
    write_npu_artifact(folder / "tflite", folder / "qnn")
    return folder


@pytest.fixture(scope="module")
def packaged(build: Path) -> Path:
    out = build.parent / "package"
    write_package("qnn", build, out, unvalidated=True)
    return out


# -- the layout ---------------------------------------------------------------------------------


def exported(build: Path, name: str, folder: Path) -> Path:
    """What LiteRT's own exporter writes of the same programs."""
    aot_types = pytest.importorskip("ai_edge_litert.aot.core.aot_types")
    from ai_edge_litert.aot.ai_pack import export_lib
    from ai_edge_litert.aot.vendors import fallback_backend
    from ai_edge_litert.aot.vendors.qualcomm import qualcomm_backend

    files = read_tree(build / "qnn/model.litert")
    makers = {"portable": (fallback_backend.FallbackBackend, {"backend_id": "fallback"})} | {
        f"Qualcomm_{soc}": (
            qualcomm_backend.QualcommBackend,
            {"backend_id": "qualcomm", "soc_manufacturer": "Qualcomm", "soc_model": soc},
        )
        for soc in json.loads((build / "qnn/manifest.json").read_text())["options"]["soc"].split(
            ","
        )
    }
    models = [
        (maker.create(config), aot_types.Model.create_from_bytes(files[f"{each}.tflite"]))
        for each, (maker, config) in makers.items()
    ]
    result = aot_types.CompilationResult(models_with_backend=models)
    export_lib.export(result, folder, f"{name}_npu", name)
    return folder


@pytest.mark.parametrize("socs", [SOCS, ("SM8750",), ("SM8750", "SA8295")])
@pytest.mark.parametrize("name", ["RepVitClassifier", "Leaves"])
def test_the_layout_is_the_one_that_litert_exports(
    build: Path, tmp_path: Path, name: str, socs: tuple[str, ...]
) -> None:
    write_npu_artifact(build / "tflite", tmp_path / "build/qnn", socs)
    write_package("qnn", tmp_path / "build", tmp_path / "out", name=name, unvalidated=True)
    theirs = read_tree(exported(tmp_path / "build", name, tmp_path / "exported"))
    ours = read_tree(tmp_path / "out")
    targeting = "device_targeting_configuration.xml"
    canonical = [
        ElementTree.canonicalize(files.pop(targeting).decode(), strip_text=True)
        for files in (theirs, ours)
    ]
    assert canonical[0] == canonical[1] and canonical[0].count("<config:system-on-chip") >= 2

    pack = f"{name}_npu/src/main/assets/"
    groups = [{Path(n).parent.name for n in files if pack in n} for files in (theirs, ours)]
    assert groups[0] == groups[1] >= {"model#group_other", "model#group_Qualcomm_SM8750"}
    # Of phones in no group LiteRT's pack holds the portable file; in ours the module does.
    other = f"{pack}model#group_other/{name}.tflite"
    assert theirs.pop(other) == ours.pop(f"{MODULE}/model.tflite")
    assert {n: data for n, data in ours.items() if n in theirs} == theirs != {}
    more = sorted(n for n in ours if pack in n and n not in theirs)
    phones = [soc for soc in socs if soc.startswith("SM")]
    assert more == sorted(
        [f"{pack}model#group_Qualcomm_{soc}/{name}.json" for soc in phones]
        + [f"{pack}model#group_other/placeholder.txt"]
    )
    assert ours[f"{MODULE}/npu.txt"].decode().split() == [f"model/{name}", *phones]


def test_each_file_is_an_artifact_of_its_own(packaged: Path, build: Path) -> None:
    whole = Manifest.load(build / "qnn")
    files = read_tree(build / "qnn/model.litert")
    found = {
        "portable": packaged / MODULE / "manifest.json",
        **{
            f"Qualcomm_{soc}": packaged / PACK / f"model#group_Qualcomm_{soc}/RepVitClassifier.json"
            for soc in SOCS
        },
    }
    for name, path in found.items():
        manifest = Manifest.parse(path.read_bytes())
        data = files[f"{name}.tflite"]
        assert manifest.artifact.file == "model.tflite"
        assert manifest.artifact.sha256 == sha256_bytes(data)
        assert manifest.artifact.size_bytes == len(data)
        assert manifest.target == ("tflite" if name == "portable" else "qnn")
        assert manifest.options.get("soc") == (
            None if name == "portable" else name.removeprefix("Qualcomm_")
        )
        assert (manifest.labels, manifest.input, manifest.outputs, manifest.program) == (
            whole.labels,
            whole.input,
            whole.outputs,
            whole.program,
        )
    marker = json.loads((packaged / "edgevit-package.json").read_text())
    assert marker["note"] == "compiled, not run on a device"
    assert marker["artifact"]["sha256"] == whole.artifact.sha256
    assert Manifest.parse((packaged / "compiled.json").read_bytes()) == whole


def test_the_module_is_the_tflite_targets(packaged: Path, build: Path, tmp_path: Path) -> None:
    """Not a copy of it that may grow apart."""
    write_package("tflite", build, tmp_path / "plain", unvalidated=True)
    plain, ours = read_tree(tmp_path / "plain"), read_tree(packaged)
    manifest = "src/main/assets/edgevit/manifest.json"
    own = {"README.md", "edgevit-package.json", manifest}
    assert {name for name in plain if ours.get(name) != plain[name]} <= own
    # What each was compiled with is its own target's.
    theirs, mine = (json.loads(tree[manifest]) for tree in (plain, ours))
    assert {**theirs, "options": {}} == {**mine, "options": {}}
    assert mine["options"].items() >= {"io": "int8", "precision": "int8"}.items()
    assert f"{MODULE}/npu.txt" not in plain
    template = read_template("qnn")
    assert [path.parent.name for path in template.folders] == ["qnn", "tflite"]
    kotlin = [path for path in template.folder.rglob("*.kt") if "kotlin" in path.parts]
    assert kotlin == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Qualcomm_SM8550.tflite": b"x"}, "Qualcomm_SM8550.tflite is none of the artifact's"),
        ({"MediaTek_MT6991.tflite": b"x"}, "MediaTek_MT6991.tflite is none of the artifact's"),
        ({"Qualcomm_SM8650.tflite": None}, "Qualcomm_SM8650.tflite is missing"),
        ({"portable.tflite": None}, "portable.tflite is missing"),
        ({"options": {"soc": "SA8255"}, "Qualcomm_SM8750.tflite": None,
          "Qualcomm_SM8650.tflite": None, "Qualcomm_SA8255.tflite": b"x"}, "SA8255 is in no phone"),
        ({"options": {}}, "options.soc is ''"),
        ({"options": {"soc": "SM8750,SM8750"}}, "each once"),
        ({"options": {"soc": "../SM8750"}}, "options.soc is '../SM8750'"),
        ({"target": "tflite"}, "was compiled for tflite, not qnn"),
    ],
)  # fmt: skip
def test_a_folder_that_is_not_its_manifests_is_refused(
    build: Path, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    folder = tmp_path / "build/qnn"
    shutil.copytree(build / "qnn", folder)
    for name, data in change.items():
        if name.endswith(".tflite"):
            (folder / "model.litert" / name).unlink(missing_ok=True)
            if isinstance(data, bytes):
                (folder / "model.litert" / name).write_bytes(data)
    seal(folder, **{n: value for n, value in change.items() if not n.endswith(".tflite")})
    with pytest.raises(InputError, match=re.escape(message)):
        write_package("qnn", tmp_path / "build", unvalidated=True)
    assert [path.name for path in (tmp_path / "build").iterdir()] == ["qnn"]


def test_a_package_says_that_no_phone_has_run_it(build: Path, tmp_path: Path) -> None:
    arguments = ["--target", "qnn", "--build", str(build), "-o", str(tmp_path / "out")]
    refused = CliRunner().invoke(package_command, arguments)
    assert isinstance(refused.exception, InputError) and "not validated" in str(refused.exception)
    done = CliRunner().invoke(package_command, [*arguments, "--unvalidated"])
    assert done.exit_code == 0 and "compiled, not run on a device" in done.output
    readme = (tmp_path / "out/README.md").read_text()
    assert "Compiled, not run on a device" in readme
    for named in re.findall(r"`(src/[^`]*)`", readme):
        assert (tmp_path / "out" / named).is_file()


@needs_jvm
def test_the_ai_packs_build_script_is_kotlin(packaged: Path, tmp_path: Path) -> None:
    """Over a stand-in of the plugin's names: Gradle has not seen it."""
    script = (packaged / "RepVitClassifier_npu/build.gradle.kts").read_text()
    classes = tmp_path / "classes"
    for number, text in enumerate((script, script.replace("packName", "packname"))):
        wrapped = tmp_path / f"build{number}.kt"
        wrapped.write_text(f"fun script() {{\n{text}\n}}\n")
        done = run(["kotlinc", "-d", classes, wrapped, STUBS / "Gradle.kt"])
        assert (done.returncode == 0) == (number == 0), done.stderr
    assert f'packName = "{Path(PACK).parts[0]}"' in script


# -- the fall-back ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def jvm(packaged: Path, tmp_path_factory: pytest.TempPathFactory) -> Jvm:
    library = build_library(packaged, tmp_path_factory.mktemp("jni"))
    return build_jvm(packaged, library, tmp_path_factory.mktemp("classes"))


@pytest.fixture(scope="module")
def dispatch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_dispatch(tmp_path_factory.mktemp("dispatch"))


@dataclass(frozen=True)
class Phone:
    """An app on a phone: its assets as Google Play delivers them, and where files go."""

    jvm: Jvm
    folder: Path
    picture: Path

    def install(self, packaged: Path, group: str | None) -> None:
        """The module's assets and the AI pack's folder of this group; None: without the pack."""
        files = read_tree(packaged / "src/main/assets")
        if group is not None:
            pack = read_tree(packaged / PACK / f"model#group_{group}")
            files |= {f"model/{name}": data for name, data in pack.items()}
        write_tree(self.folder / "assets", files)

    def classify(self, compressed: bool = False, **phone: object) -> dict[str, list[str]]:
        """By what was asked for: what ran it, why not the NPU, the answer; or the failure."""
        given = [self.folder / each for each in ("assets", "storage")]
        lines = self.jvm.run("Npu", *given, self.picture, compressed=compressed, **phone)
        return {asked: found for asked, *found in lines}


@pytest.fixture
def phone(jvm: Jvm, tmp_path: Path) -> Phone:
    image = picture(3, 80, 70).convert("RGBA")
    path = tmp_path / "picture"
    path.write_bytes(struct.pack(">iii", 1, *image.size) + image.tobytes())
    return Phone(jvm, tmp_path, path)


def logits_of(found: list[str]) -> np.ndarray:
    pairs = [each.split(":") for each in found]
    bits = np.zeros(len(pairs), np.int32)
    for index, value in pairs:
        bits[int(index)] = int(value)
    return bits.view(np.float32)


@needs_jvm
@pytest.mark.parametrize("compressed", [False, True])
def test_the_npu_runs_its_program_alone_and_every_answer_says_so(
    phone: Phone, packaged: Path, build: Path, dispatch: Path, tmp_path: Path, compressed: bool
) -> None:
    phone.install(packaged, "Qualcomm_SM8650")
    found = phone.classify(compressed, soc="SM8650", libraries=dispatch)
    assert found["free"][:2] == found["npu"][:2] == ["npu", "null"]
    assert found["cpu"][:2] == ["cpu", "null"]
    assert found["free"] == found["again"] == found["npu"] != found["cpu"]
    # The harness's answers of the same picture, by both.
    data = tmp_path / "data" / json.loads((build / "qnn/manifest.json").read_text())["labels"][0]
    data.mkdir(parents=True)
    picture(3, 80, 70).save(data / "a.png")
    options = {"soc": "SM8650", "dispatch_dir": str(dispatch)}
    for asked, target, more in (("npu", "qnn", options), ("cpu", "tflite", {})):
        logits = tmp_path / f"{target}.safetensors"
        request = HarnessRequest(build / target, data.parent, logits=logits, runtime_options=more)
        result = run_harness(request)
        assert result["runtime"]["accelerator_requested"] == asked
        expected = load_file(logits)["logits"][0]
        np.testing.assert_array_equal(logits_of(found[asked][2:]), expected)


NO_PROGRAM = "there is no NPU program for this phone's SoC (SM8550), only for SM8750, SM8650"


@needs_jvm
@pytest.mark.parametrize(
    ("group", "told", "status", "why"),
    [
        ("other", {"soc": "SM8550"}, "TOOL_MISSING", NO_PROGRAM),
        ("Qualcomm_SM8750", {"soc": "SM8550"}, "TOOL_MISSING", NO_PROGRAM),
        ("other", {}, "TOOL_MISSING", "this phone's SoC (unknown)"),
        ("Qualcomm_SM8750", {"soc": "SM8750", "sdk": 30}, "TOOL_MISSING",
         "Android 30 does not tell the phone's SoC, 31 does"),
        ("other", {"soc": "SM8750"}, "TOOL_MISSING",
         "no assets/model/RepVitClassifier.json, the NPU program for SM8750: its AI pack is not"),
        (None, {"soc": "SM8750"}, "TOOL_MISSING", "its AI pack is not installed"),
        ("Qualcomm_SM8650", {"soc": "SM8750"}, "TOOL_MISSING",
         "has no program for the SoC SM8750; it has SM8650"),
        ("Qualcomm_SM8750", {"soc": "SM8750"}, "TOOL_MISSING",
         "/nowhere: holds no libLiteRtDispatch_Qualcomm.so"),
    ],
)  # fmt: skip
def test_without_the_npu_the_cpu_runs_the_portable_file_and_every_answer_says_why(
    phone: Phone,
    packaged: Path,
    group: str | None,
    told: dict[str, object],
    status: str,
    why: str,
) -> None:
    phone.install(packaged, group)
    found = phone.classify(**told)
    assert found["cpu"][:2] == ["cpu", "null"]
    assert found["free"][0] == "cpu" and why in found["free"][1]
    assert found["free"][2:] == found["cpu"][2:] and len(found["cpu"]) > 3
    # Who asks for the NPU alone gets no CPU.
    assert found["npu"] == [status, found["free"][1]]


@needs_jvm
@pytest.mark.parametrize("step", ["initialize", "program", "invoke"])
def test_an_npu_that_fails_is_told_and_the_cpu_runs(
    phone: Phone, packaged: Path, dispatch: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEVIT_STANDIN_FAILS", step)
    phone.install(packaged, "Qualcomm_SM8750")
    found = phone.classify(soc="SM8750", libraries=dispatch)
    assert found["free"][0] == "cpu" and found["free"][2:] == found["cpu"][2:]
    assert "LiteRT cannot run all of the model on the accelerator here" in found["free"][1]
    assert found["npu"] == ["TOOL_MISSING", found["free"][1]]


@needs_jvm
def test_an_npu_that_fails_later_is_left_and_the_answers_say_so(
    phone: Phone, packaged: Path, dispatch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEVIT_STANDIN_FAILS", "later")
    phone.install(packaged, "Qualcomm_SM8750")
    found = phone.classify(soc="SM8750", libraries=dispatch)
    assert found["free"][:2] == ["npu", "null"] != found["again"][:2]
    assert found["again"][0] == "cpu" and found["again"][2:] == found["cpu"][2:]
    assert "the NPU failed while it ran: LiteRT: running the model" in found["again"][1]
    assert found["npu"][0] == "TOOL_MISSING"


@needs_jvm
def test_a_damaged_program_is_not_run(phone: Phone, packaged: Path, dispatch: Path) -> None:
    phone.install(packaged, "Qualcomm_SM8750")
    program = phone.folder / "assets/model/RepVitClassifier.tflite"
    program.write_bytes(program.read_bytes()[:-1] + b"!")
    found = phone.classify(soc="SM8750", libraries=dispatch)
    assert found["free"][0] == "cpu" and "its sha256 is" in found["free"][1]
    assert found["npu"][0] == "BAD_INPUT"


@needs_jvm
def test_a_folder_with_two_socs_is_not_one_program(
    phone: Phone, packaged: Path, dispatch: Path
) -> None:
    phone.install(packaged, "Qualcomm_SM8750")
    (phone.folder / "assets/model/RepVitClassifier.json").rename(phone.folder / "manifest.json")
    manifest = json.loads((phone.folder / "manifest.json").read_text())
    edit_manifest(phone.folder, options=manifest["options"] | {"soc": "SM8750,SM8650"})
    (phone.folder / "manifest.json").rename(phone.folder / "assets/model/RepVitClassifier.json")
    found = phone.classify(soc="SM8750", libraries=dispatch)
    assert "one file is a program for one SoC" in found["free"][1]


def test_the_reserved_names_are_the_kotlins_types() -> None:
    """A library called like a type that the Kotlin names would hide it."""
    kotlin = (ROOT / "targets/tflite/deploy/src/main/kotlin").rglob("*.kt")
    imported = {
        name
        for path in kotlin
        for name in re.findall(r"^import [\w.]+\.(\w+)$", path.read_text(), re.M)
    }
    template = read_template("qnn")
    named = {path.stem for path in (template.folders[1]).rglob("*.kt")}
    assert imported <= {*template.reserved_names, *named}
