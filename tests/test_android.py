"""The Android module of the tflite target, on a desktop JVM.

What `edgevit package --target tflite` wrote is built by its own CMakeLists.txt, with the host's
compiler, and its Kotlin by kotlinc against stand-ins of Android's classes (tests/android_stubs).
Then it runs: real images through RepVitClassifier, JNI, libedgevit and LiteRT, under -Xcheck:jni,
and the logits must be those that the harness gets of the same files. Neither Gradle, the NDK nor
a phone has seen the module: build.gradle.kts is only compiled as Kotlin against a stand-in.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import struct
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from edgevit import __version__
from edgevit.apps import write_package
from edgevit.data.images import ImageSet
from edgevit.errors import InputError, ToolMissing
from edgevit.measure.harness import find_runtime, run_harness
from edgevit.measure.request import HarnessRequest
from edgevit.targets import load_target
from tests.manifests import goldens
from tests.programs import make_program, real_images, trained_program
from tests.test_harness import edit_manifest

ROOT = Path(__file__).resolve().parent.parent
TEMPLATE = ROOT / "targets/tflite/deploy"
STUBS = ROOT / "tests/android_stubs"
DRIVERS = ROOT / "tests/android"
KOTLIN = "src/main/kotlin/edgevit/android"
ODD_LABELS = [
    "Ackerland", "🍃 Wald", "\u6cb3\u6d41", "e\u0301t\u00e9", "a\tb", "\U0001f468\u200d\U0001f33e",
    "\ud7ff\ue000", "\u0080", "\x01", "x" * 2000,
]  # fmt: skip
"""One label a class: characters of one to four bytes, which JNI's own strings would change."""


def jdk() -> Path | None:
    """The folder of the JDK whose javac is on the PATH."""
    javac = shutil.which("javac")
    home = Path(javac).resolve().parent.parent if javac else Path()
    return home if (home / "include/jni.h").is_file() and (home / "bin/java").exists() else None


def kotlin_library() -> Path | None:
    kotlinc = shutil.which("kotlinc")
    found = Path(kotlinc).resolve().parent.parent / "lib/kotlin-stdlib.jar" if kotlinc else Path()
    return found if found.is_file() else None


needs_jvm = pytest.mark.skipif(
    jdk() is None or kotlin_library() is None,
    reason="no JDK or kotlinc: apt-get install -y default-jdk-headless kotlin",
)


def run(command: Iterable[str | Path], **settings: object) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in command]
    return subprocess.run(words, capture_output=True, text=True, encoding="utf-8", **settings)


def checked(command: Iterable[str | Path], **settings: object) -> str:
    done = run(command, **settings)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def artifact(
    tmp_path_factory: pytest.TempPathFactory, embedded_checkpoint: Path, embedded_val: Path
) -> Path:
    """build/tflite of the trained net, whose pictures are resized, with the dataset's labels."""
    program = trained_program(embedded_checkpoint, real_images(embedded_val, 32, 64), "portable")
    folder = tmp_path_factory.mktemp("android") / "build/tflite"
    manifest = load_target("tflite").compile(program, folder)
    preprocessing = manifest.preprocessing.to_json() | {"resize_size": 72}
    labels = sorted({path.split("/")[0] for path, _ in ImageSet.open(embedded_val).entries})
    edit_manifest(folder, labels=labels, preprocessing=preprocessing)
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory, embedded_val: Path) -> Path:
    """Of each class three images as they are, and one of several side by side, of an odd size."""
    folder, data = tmp_path_factory.mktemp("images"), ImageSet.open(embedded_val)
    for start in range(0, len(data), 100):
        for i in (start, start + 33, start + 66):
            path = folder / data.entries[i][0]
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data.read_bytes(i))
        tiles = [np.asarray(data.load_rgb(start + i)) for i in (1, 2, 3, 4)]
        rows = [np.concatenate(tiles[:2], axis=1), np.concatenate(tiles[2:], axis=1)]
        mosaic = Image.fromarray(np.concatenate(rows)[: 128 - start // 100, : 90 + start // 50])
        mosaic.save(path.parent / "mosaic.png")
    return folder


@pytest.fixture(scope="module")
def pictures(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images as tests/android/Picture.java reads them, in the harness's order."""
    data = ImageSet.open(images)
    path = tmp_path_factory.mktemp("pictures") / "pictures"
    with path.open("wb") as file:
        file.write(struct.pack(">i", len(data)))
        for i in range(len(data)):
            rgba = data.load_rgb(i).convert("RGBA")
            # Alpha is not looked at, so it may be anything.
            rgba.putalpha(Image.linear_gradient("L").resize(rgba.size))
            file.write(struct.pack(">ii", *rgba.size) + rgba.tobytes())
    return path


@pytest.fixture(scope="module")
def packaged(artifact: Path) -> Path:
    out = artifact.parent.parent / "package"
    write_package("tflite", artifact.parent, out, unvalidated=True)
    return out


@pytest.fixture(scope="module")
def library(packaged: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_library(packaged, tmp_path_factory.mktemp("jni"))


def build_library(packaged: Path, build: Path) -> Path:
    """libedgevit_jni.so by the package's own CMakeLists.txt, with the project's warnings."""
    flags = "-Wpedantic -Wconversion -Wshadow -Werror"
    source = packaged / "src/main/cpp"
    checked(
        ["cmake", "-S", source, "-B", build, f"-DJAVA_HOME={jdk()}", f"-DCMAKE_CXX_FLAGS={flags}"]
    )
    checked(["cmake", "--build", build])
    return build / "libedgevit_jni.so"


def compile_kotlin(module: Path, script: str, out: Path) -> subprocess.CompletedProcess[str]:
    """The module's Kotlin, and its build script's text as the body of a function."""
    assert script.startswith("//") and "import " not in script
    wrapped = out.parent / f"{out.name}-build.kt"
    wrapped.write_text(f"fun script() {{\n{script}\n}}\n")
    stubs = sorted((STUBS / "android").rglob("*.java"))
    checked(["javac", "--release", "8", "-Xlint:-options", "-d", out, *stubs])
    sources = sorted(module.glob("src/main/kotlin/**/*.kt"))
    command = ["kotlinc", "-cp", out, "-d", out, wrapped, STUBS / "Gradle.kt", *sources]
    return run(command, env=os.environ | {"JAVA_HOME": str(jdk())})


@dataclass(frozen=True)
class Jvm:
    """A desktop JVM with the module's classes, its library, and LiteRT where the loader looks."""

    classes: Path
    library: Path

    def run(
        self, driver: str, *arguments: object, compressed: bool = False, **phone: object
    ) -> list[list[str]]:
        """What a driver of tests/android printed: its lines, split at tabs.

        compressed  the assets, so that they cannot be used where they lie
        phone       soc, sdk, libraries: what the stand-ins say of the phone
        """
        runtime = find_runtime("tflite")
        assert runtime is not None
        done = run(
            [
                *[jdk() / "bin/java", "-Xcheck:jni", "-Xmx512m"],
                *[f"-Djava.library.path={self.library.parent}", "-Dfile.encoding=UTF-8"],
                f"-Dedgevit.compressed={str(compressed).lower()}",
                *[f"-Dedgevit.{name}={value}" for name, value in phone.items()],
                # For the stand-in of ParcelFileDescriptor.
                "--add-opens=java.base/java.io=ALL-UNNAMED",
                *["-cp", f"{self.classes}:{kotlin_library()}", driver],
                *[str(argument) for argument in arguments],
            ],
            env=os.environ | {"LD_LIBRARY_PATH": str(runtime.parent), "LC_ALL": "C.UTF-8"},
            cwd=self.classes,
        )
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        complaints = [
            line
            for line in (done.stdout + done.stderr).splitlines()
            if re.match(r"WARNING|FATAL|\s*at .*Native Method", line)
        ]
        assert complaints == []  # of -Xcheck:jni
        return [line.split("\t") for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def jvm(packaged: Path, library: Path, tmp_path_factory: pytest.TempPathFactory) -> Jvm:
    return build_jvm(packaged, library, tmp_path_factory.mktemp("classes"))


def build_jvm(packaged: Path, library: Path, classes: Path) -> Jvm:
    """The package's Kotlin and the drivers, compiled without a warning of ours."""
    done = compile_kotlin(packaged, (packaged / "build.gradle.kts").read_text(), classes)
    assert done.returncode == 0, done.stderr
    assert "src/main" not in done.stderr  # no warnings of ours
    drivers = sorted(DRIVERS.glob("*.java"))
    class_path = f"{classes}:{kotlin_library()}"
    checked(["javac", "-encoding", "UTF-8", "-cp", class_path, "-d", classes, *drivers])
    return Jvm(classes, library)


def assets_of(packaged: Path) -> Path:
    return packaged / "src/main/assets"


@dataclass(frozen=True)
class Answers:
    """Of one picture: classes best first, with what each was given."""

    indices: np.ndarray
    logits: np.ndarray
    probabilities: np.ndarray
    labels: list[str]


def answers(lines: list[list[str]], way: str) -> list[Answers]:
    found = []
    for _, number, *results in (line for line in lines if line[0] == way):
        assert int(number) == len(found)
        parts = [result.split(":", 3) for result in results]
        bits = np.array([[int(each) for each in part[:3]] for part in parts], np.int32)
        floats = [np.ascontiguousarray(bits[:, i]).view(np.float32) for i in (1, 2)]
        found.append(Answers(bits[:, 0], *floats, [part[3] for part in parts]))
    return found


@needs_jvm
def test_the_logits_are_those_of_the_harness(
    jvm: Jvm, packaged: Path, artifact: Path, images: Path, pictures: Path, tmp_path: Path
) -> None:
    result = run_harness(HarnessRequest(artifact, images, logits=tmp_path / "logits.safetensors"))
    expected = load_file(tmp_path / "logits.safetensors")
    assert result["accuracy"]["count"] == len(expected["logits"]) == 40
    assert len(set(expected["predictions"].tolist())) >= 8, "a net that says little proves little"
    labels = json.loads((artifact / "manifest.json").read_text())["labels"]

    lines = jvm.run("Classify", assets_of(packaged), tmp_path / "storage", pictures, 1)
    for way in ("bitmap", "frame"):
        found = answers(lines, way)
        assert len(found) == len(expected["logits"])
        for each, logits, prediction in zip(found, expected["logits"], expected["predictions"]):
            assert each.indices.tolist() == np.argsort(-logits, kind="stable").tolist()
            assert each.indices[0] == prediction
            np.testing.assert_array_equal(each.logits, logits[each.indices])
            weights = np.exp(logits.astype(np.float64) - logits.max())
            softmax = (weights / weights.sum())[each.indices]
            np.testing.assert_allclose(each.probabilities, softmax, rtol=1e-6)
            assert each.labels == [labels[index] for index in each.indices]


@needs_jvm
def test_a_bitmap_of_another_configuration_is_converted(
    jvm: Jvm, packaged: Path, pictures: Path, tmp_path: Path
) -> None:
    """By Bitmap.copy, which is the stand-in's here."""
    lines = jvm.run("Classify", assets_of(packaged), tmp_path / "storage", pictures, 1)
    texts = {way: [line[1:] for line in lines if line[0] == way] for way in ("565", "as 8888")}
    assert len(texts["565"]) == 40 and texts["565"] == texts["as 8888"]
    assert texts["565"] != [line[1:] for line in lines if line[0] == "bitmap"]


@needs_jvm
def test_labels_of_any_script_arrive_whole(jvm: Jvm, packaged: Path, tmp_path: Path) -> None:
    assets = tmp_path / "assets"
    shutil.copytree(assets_of(packaged), assets)
    odd = [label.replace("\t", " ") for label in ODD_LABELS]  # the driver's lines are split at tabs
    edit_manifest(assets / "edgevit", labels=odd)
    picture = struct.pack(">iii", 1, 80, 80) + bytes(range(256)) * 100
    (tmp_path / "one").write_bytes(picture)
    lines = jvm.run("Classify", assets, tmp_path / "storage-🍃", tmp_path / "one", 1)
    for way in ("bitmap", "frame"):
        (found,) = answers(lines, way)
        assert found.labels == [odd[index] for index in found.indices]
        assert sorted(found.indices) == list(range(10))


@needs_jvm
def test_the_model_is_used_where_it_lies_in_the_apk(
    jvm: Jvm, packaged: Path, pictures: Path, tmp_path: Path
) -> None:
    assets, storage = assets_of(packaged), tmp_path / "storage"
    found = jvm.run("Classify", assets, storage, pictures, 1)
    assert not storage.exists()
    assert found == jvm.run("Classify", assets, storage, pictures, 1, compressed=True)
    assert storage.exists()


@needs_jvm
def test_a_yuv_frame_is_turned_mirrored_and_cut(
    jvm: Jvm, packaged: Path, pictures: Path, tmp_path: Path
) -> None:
    lines = jvm.run("Classify", assets_of(packaged), tmp_path / "storage", pictures, 1)
    texts = {way: [line[1:] for line in lines if line[0] == way] for way in ("yuv", "as rgb")}
    assert len(texts["yuv"]) == 40 and texts["yuv"] == texts["as rgb"]
    outputs = [line for line in lines if line[0] == "output"]
    assert len(outputs) == 40 and {line[2] for line in outputs} == {"logits"}
    for line, answer in zip(outputs, answers(lines, "as rgb")):
        values = np.array(json.loads(line[3]), np.float32)
        np.testing.assert_array_equal(values[answer.indices], answer.logits)


@needs_jvm
def test_every_answer_of_a_module_without_an_npu_says_what_ran(
    jvm: Jvm, packaged: Path, pictures: Path, tmp_path: Path
) -> None:
    """Nobody asks for an NPU there, so there is nothing to explain."""
    lines = jvm.run("Npu", assets_of(packaged), tmp_path / "storage", pictures, soc="SM8750")
    found = {asked: rest for asked, *rest in lines}
    assert found["free"] == found["cpu"] and found["cpu"][:2] == ["cpu", "null"]
    assert len(found["cpu"]) == 2 + 10
    assert found["npu"][0] == "TOOL_MISSING" and "LiteRT cannot run all of" in found["npu"][1]


@needs_jvm
def test_the_model_is_copied_once_and_whole(
    jvm: Jvm, packaged: Path, pictures: Path, tmp_path: Path
) -> None:
    assets, storage = assets_of(packaged), tmp_path / "storage"
    manifest = (assets / "edgevit/manifest.json").read_bytes()
    base = storage / "edgevit/assets-edgevit"
    copy = base / hashlib.sha256(manifest).hexdigest()

    def classify() -> list[list[str]]:
        found = jvm.run("Classify", assets, storage, pictures, 2, compressed=True)
        assert sorted(path.name for path in base.iterdir()) == sorted([copy.name, "lock"])
        assert sorted(path.name for path in copy.iterdir()) == ["manifest.json", "model.tflite"]
        assert (copy / "manifest.json").read_bytes() == manifest
        model = hashlib.sha256((copy / "model.tflite").read_bytes()).hexdigest()
        assert model == json.loads(manifest)["artifact"]["sha256"]
        return found

    first = classify()
    inode = (copy / "model.tflite").stat().st_ino
    # An earlier version's copy, and one that was broken off.
    (base / "0123/old").mkdir(parents=True)
    (base / "unfinished").mkdir()
    (base / "unfinished/model.tflite").write_bytes(b"half")
    assert classify() == first
    assert (copy / "model.tflite").stat().st_ino == inode
    (copy / "model.tflite").write_bytes(b"damaged")
    assert classify() == first
    (copy / "manifest.json").unlink()
    assert classify() == first


@pytest.fixture(scope="module")
def refusals(
    jvm: Jvm, packaged: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[str, str]]:
    empty = tmp_path_factory.mktemp("empty")
    storage = tmp_path_factory.mktemp("storage")
    folder = assets_of(packaged) / "edgevit"
    lines = jvm.run("Refusals", folder, empty, storage, pictures)
    return {name: (status, message) for name, status, message in lines}


@needs_jvm
def test_kotlin_takes_or_refuses_the_golden_manifests(jvm: Jvm, tmp_path: Path) -> None:
    """Its reader is the one in C++. No artifact lies beside a golden: a good one gets that far."""
    for golden in goldens():
        (tmp_path / golden.file).mkdir()
        (tmp_path / golden.file / "manifest.json").write_bytes(golden.read())
    found = {name: (status, message) for name, status, message in jvm.run("Manifests", tmp_path)}
    assert len(found) == len(goldens())
    for golden in goldens():
        status, message = found[golden.file]
        assert status == "BAD_INPUT", golden
        assert (golden.cpp or "cannot open") in message, (golden, message)
        assert ("manifest.json" in message) == bool(golden.cpp), (golden, message)


OF_KOTLIN = "IllegalArgumentException|NullPointerException"  # before 1.4, and since
ONE_OF_MANY = "handle -1", "label of 0", "size of -9223372036854775808", "classes of -1"


@needs_jvm
@pytest.mark.parametrize(
    ("names", "status", "message"),
    [
        (["no folder"], "BAD_INPUT", "/nowhere-🍃: no such artifact folder"),
        (["no manifest"], "BAD_INPUT", "manifest.json"),
        (["zero byte in folder"], "BAD_INPUT", "the folder holds a zero byte"),
        (["no threads", "negative threads"], "BAD_INPUT", "threads is .*; 1 to 256"),
        (["many threads"], "BAD_INPUT", "threads is 257; 1 to 256"),
        (["no runtime"], "TOOL_MISSING", "cannot load LiteRT: libNone.so: .*Android app.*:2.3.0"),
        (["no runtime file"], "TOOL_MISSING", "./libLiteRt.so: no such LiteRT library"),
        (["empty runtime"], "TOOL_MISSING", "LiteRT library is not named"),
        (["null folder"], "BAD_CALL", "the folder is null"),
        (["null runtime"], "BAD_CALL", "the runtime library is null"),
        (["not UTF-8"], "BAD_INPUT", "\ufffd\ufffd: no such artifact folder"),
        (["folder of the caller null"], OF_KOTLIN, "non-null"),
        (["heap buffer"], "BAD_CALL", "no direct ByteBuffer"),
        (["empty buffer", "limit", "position", "higher"], "BAD_CALL", "the buffer has .* are"),
        (["no width", "negative height", "no stride", "smallest"], "BAD_CALL", "must be 1 or more"),
        (["negative stride"], "BAD_CALL", "must be 1 or more"),
        (["narrow stride"], "BAD_CALL", "stride is .* bytes, a row"),
        (["huge width", "huge height", "all huge"], "BAD_CALL", "the buffer has .* are"),
        (["no results", "negative results"], "BAD_CALL", "topK must be 1 or more"),
        (["null pixels"], OF_KOTLIN, "non-null"),
        (["native null pixels"], "BAD_CALL", "the pixels are null"),
        (["native begin", "native end", "native order"], "BAD_CALL", "position and limit"),
        (["native null array", "native null floats"], "BAD_CALL", "results is null"),
        (["native short array", "native results"], "BAD_CALL", "shorter than topK"),
        (["label below"], "BAD_CALL", "the class index is negative"),
        (["label above"], "BAD_CALL", "not below the number of classes"),
        (ONE_OF_MANY, "BAD_CALL", "the session is closed"),
        (["closed", "closed classifier", "native closed"], "BAD_CALL", "the session is closed"),
        (["no assets"], "BAD_INPUT", "assets/gone/manifest.json cannot be read.*edgevit package"),
        (["no storage"], "FAILED", "/dev/null/.* cannot be written"),
        (["recycled bitmap"], "BAD_CALL", "the bitmap is recycled"),
        (["bitmap of no pixels of its own"], "BAD_INPUT", "configuration HARDWARE cannot"),
        (["no such accelerator"], "BAD_INPUT", "accelerator is 'tpu'"),
        (["image of another format"], "BAD_INPUT", "format 256 cannot be classified"),
        (["native null plane"], "BAD_CALL", "a plane's buffer is null"),
        (["native short geometry", "native null geometry"], "BAD_CALL", "numbers are not 21"),
        (["native empty frame", "native frame 12"], "BAD_CALL", "1 or more|a plane has"),
        (["native frame 1", "native frame 7", "native frame 9"], "BAD_CALL", "a plane has .* left"),
        (["native frame 0"], "BAD_CALL", "position and limit"),
        (["native frame 2", "native frame 3"], "BAD_CALL", "stride must be 1 or more"),
        (["native frame 6"], "BAD_CALL", "a plane has"),
        (["native frame 14"], "BAD_CALL", "rotation is 45"),
        (["native frame 16"], "BAD_CALL", "colour is 9"),
        (["native frame 17"], "BAD_CALL", "negative side"),
        (["native frame 19", "native frame 20"], "BAD_CALL", "does not lie in"),
        (["output above"], "BAD_CALL", "not below edgevit_output_count"),
        (["output below"], "BAD_CALL", "index is negative"),
        (["output null"], "BAD_CALL", "values is null"),
        (["output name", "output shape"], "BAD_CALL", "not below edgevit_output_count"),
        (["descriptor"], "BAD_INPUT", "cannot be used"),
        (["descriptor null manifest"], "BAD_CALL", "the manifest is null"),
        (["descriptor offset"], "BAD_CALL", "offset or length is negative"),
        (["options null"], "BAD_CALL", "the options are null"),
        (["option null"], "BAD_CALL", "an option is null"),
        (["option without value"], "BAD_CALL", "an option has no value"),
        (["option unknown"], "BAD_INPUT", "takes no runtime option 'soc'; it takes accelerator="),
        (["afterwards"], "the same", ""),
    ],
)
def test_bad_input_gets_a_status_and_a_reason(
    refusals: dict[str, tuple[str, str]], names: list[str], status: str, message: str
) -> None:
    for name in names:
        assert re.fullmatch(status, refusals[name][0]), refusals[name]
        assert re.search(message, refusals[name][1]), refusals[name]


@needs_jvm
def test_every_refusal_is_one_that_is_looked_at(refusals: dict[str, tuple[str, str]]) -> None:
    assert not [name for name, (status, _) in refusals.items() if status == "accepted"]
    handles = {name for name in refusals if re.match("(handle|label of|size of|classes of) ", name)}
    assert len(handles) == 20
    assert {refusals[name] for name in handles} == {("BAD_CALL", "the session is closed")}


@needs_jvm
def test_threads_take_turns_and_closing_under_them_is_an_error_of_theirs(
    jvm: Jvm, packaged: Path, pictures: Path
) -> None:
    rounds = 12
    lines = dict(jvm.run("Threads", assets_of(packaged) / "edgevit", pictures, rounds))
    assert int(lines["wrong"]) == 0
    assert int(lines["answered"]) > 0 and int(lines["closed"]) > 0
    assert int(lines["answered"]) + int(lines["closed"]) == rounds * 4 * 40
    assert lines["forgotten"] == "closed"
    # A list of five results, with the array inside it: nothing that grows with the picture.
    assert int(lines["bytes"]) <= 400


@needs_jvm
def test_the_library_shows_one_function_and_knows_its_version(library: Path) -> None:
    symbols = checked(["nm", "-D", "--defined-only", library])
    assert [line.split()[-1] for line in symbols.splitlines()] == ["JNI_OnLoad"]
    assert "libLiteRt" not in checked(["readelf", "-d", library])
    assert f"\0{__version__}\0".encode() in library.read_bytes()


@needs_jvm
@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("minSdk = 24", 'minSdk = "24"'),
        ("abiFilters +=", "abiFilter +="),
        ("runtimeOnly(", "runtimeonly("),
        ("isTransitive = false", "isTransitiv = false"),
        ("    }\n}\n\ndependencies", "}\n\ndependencies"),
    ],
)
def test_a_slip_in_the_build_script_is_seen(right: str, wrong: str, tmp_path: Path) -> None:
    script = (TEMPLATE / "build.gradle.kts").read_text()
    assert right in script
    (tmp_path / "classes").mkdir()
    done = compile_kotlin(tmp_path, script.replace(right, wrong), tmp_path / "classes")
    assert done.returncode != 0 and "error: " in done.stderr


def test_the_module_names_what_is_there(packaged: Path) -> None:
    script = (packaged / "build.gradle.kts").read_text()
    for path in (*re.findall(r'file\("(.+?)"\)', script), "consumer-rules.pro", "README.md"):
        assert (packaged / path).is_file()
    (litert,) = re.findall(r"com\.google\.ai\.edge\.litert:litert:([\d.]+)", script)
    assert f"ai-edge-litert=={litert}" in (ROOT / "constraints.txt").read_text().splitlines()
    rules = (packaged / "consumer-rules.pro").read_text()
    sources = "".join(path.read_text() for path in (packaged / KOTLIN).glob("*.kt"))
    native = (packaged / "src/main/cpp/edgevit_jni.cpp").read_text()
    for kept in re.findall(r"-keep class edgevit\.android\.(\w+)", rules):
        assert re.search(rf"\b(class|object) {kept}\b", sources)
        assert f'"edgevit/android/{kept}"' in native


def test_the_status_codes_are_the_headers() -> None:
    header = (ROOT / "targets/libedgevit/include/edgevit/edgevit.h").read_text()
    codes = dict(re.findall(r"\(edgevit_status, EDGEVIT_(\w+), (\d+)\)", header))
    assert codes.pop("OK") == "0"
    kotlin = (TEMPLATE / KOTLIN / "EdgevitException.kt").read_text()
    assert dict(re.findall(r"^ {8}(\w+)\((\d+)\)", kotlin, re.MULTILINE)) == codes


def test_a_name_is_the_classs_everywhere(packaged: Path, tmp_path: Path) -> None:
    build = tmp_path / "build"
    load_target("tflite").compile(make_program(), build / "tflite")
    write_package("tflite", build, tmp_path / "out", name="Leaves", unvalidated=True)
    found = {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert b"class Leaves @JvmOverloads" in found[tmp_path / "out" / KOTLIN / "Leaves.kt"]
    assert not [p for p, data in found.items() if "RepVitC" in p.name or b"RepVitC" in data]
    # What C++ and Gradle look up is not named after the class.
    for each in ("src/main/cpp/edgevit_jni.cpp", "build.gradle.kts", "consumer-rules.pro"):
        assert found[tmp_path / "out" / each] == (packaged / each).read_bytes()
    for taken in ("Bitmap", "context", "EdgevitSession", "Classification", "object"):
        with pytest.raises(InputError, match="taken"):
            write_package("tflite", build, tmp_path / "other", name=taken, unvalidated=True)


@needs_jvm
def test_without_the_json_headers_a_copy_of_them_is_taken(packaged: Path, tmp_path: Path) -> None:
    """The download itself is not run: a folder stands in for what it unpacks."""
    source = packaged / "src/main/cpp"
    configure = [
        *["cmake", "-S", source, f"-DJAVA_HOME={jdk()}"],
        "-DCMAKE_DISABLE_FIND_PACKAGE_nlohmann_json=ON",
    ]
    copy = tmp_path / "json"
    copy.mkdir()
    (copy / "CMakeLists.txt").write_text(
        "add_library(nlohmann_json INTERFACE)\n"
        "add_library(nlohmann_json::nlohmann_json ALIAS nlohmann_json)\n"
        "message(STATUS the-copy)\n"
    )
    given = f"-DFETCHCONTENT_SOURCE_DIR_NLOHMANN_JSON={copy}"
    assert "the-copy" in checked([*configure, "-B", tmp_path / "a", given])
    offline = run([*configure, "-B", tmp_path / "b", "-DFETCHCONTENT_FULLY_DISCONNECTED=ON"])
    assert offline.returncode != 0 and "nlohmann_json" in offline.stderr


def test_a_bare_runtime_name_is_left_to_the_systems_loader(
    artifact: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = find_runtime("tflite")
    assert runtime is not None
    monkeypatch.chdir(tmp_path)
    by_path = run_harness(HarnessRequest(artifact, images, limit=1))
    with pytest.raises(ToolMissing, match=r"cannot load LiteRT: libLiteRt\.so: "):
        run_harness(HarnessRequest(artifact, images, limit=1, runtime="libLiteRt.so"))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(runtime.parent))
    by_name = run_harness(HarnessRequest(artifact, images, limit=1, runtime="libLiteRt.so"))
    assert by_name["runtime"] == by_path["runtime"]
    assert by_name["runtime"]["library_sha256"] == hashlib.sha256(runtime.read_bytes()).hexdigest()
    monkeypatch.delenv("LD_LIBRARY_PATH")
    monkeypatch.setenv("EDGEVIT_LITERT_LIB", "libLiteRt.so")
    with pytest.raises(ToolMissing, match=r"cannot load LiteRT: libLiteRt\.so: "):
        run_harness(HarnessRequest(artifact, images, limit=1))
    # A file of that name in the working folder is named with a folder, as to the shell.
    (tmp_path / "libLiteRt.so").symlink_to(runtime)
    monkeypatch.setenv("EDGEVIT_LITERT_LIB", "./libLiteRt.so")
    assert run_harness(HarnessRequest(artifact, images, limit=1))["runtime"]["name"] == "LiteRT"
    # Python knows files from names.
    assert run_harness(HarnessRequest(artifact, images, limit=1, runtime="libLiteRt.so"))[
        "runtime"
    ]["name"]


def test_every_stand_in_says_that_it_is_one() -> None:
    files = sorted(path for path in STUBS.rglob("*") if path.is_file())
    assert len(files) >= 4
    for file in files:
        assert re.match(r"// A stand-in, not (Android|Gradle)'s: ", file.read_text()), file
