"""The C++ harness from Python: one whole run, every bad input, and decoding equal to Pillow's."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import os
import stat
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from edgevit.data.images import ImageSet, Preprocessing
from edgevit.errors import EdgevitError, InputError, ToolMissing
from edgevit.measure import harness
from edgevit.measure.harness import build_harness, check_result, find_runtime, run_harness
from edgevit.measure.request import GateLimits, HarnessRequest
from tests.manifests import null_manifest
from tests.shared_data import shared_data

LABELS = ("crop", "forest", "river")
REPOSITORY = Path(__file__).resolve().parent.parent


def write_artifact(folder: Path, labels: tuple[str, ...] = LABELS, **preprocessing: object) -> Path:
    """A folder for the null back-end whose input tensor holds the pixels themselves (uint8)."""
    settings = Preprocessing(**({"image_size": 16, "resize_size": 16} | preprocessing))
    folder.mkdir(exist_ok=True)
    artifact = b"the null back-end does not look at this"
    (folder / "model.bin").write_bytes(artifact)
    digest = hashlib.sha256(artifact).hexdigest()
    manifest = null_manifest(tuple(labels), settings, digest, len(artifact))
    (folder / "manifest.json").write_bytes(manifest.text())
    return folder


def edit_manifest(folder: Path, **changes: object) -> None:
    """Replace top-level values of an artifact's manifest."""
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def picture(seed: int, width: int = 21, height: int = 18) -> Image.Image:
    """Noise over a gradient, so that neither the decoder nor the filter has an easy time."""
    rng = np.random.default_rng(seed)
    x = np.linspace(0, 200, width)[None, :, None] + rng.integers(0, 56, (height, width, 3))
    return Image.fromarray(x.astype(np.uint8))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    for i, label in enumerate(LABELS):
        (folder / label).mkdir(parents=True)
        picture(i).save(folder / label / "a.jpg")
        picture(i + 10).save(folder / label / "b.png")
    return folder


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    return write_artifact(tmp_path / "artifact")


def packed(folder: Path, tar: Path) -> Path:
    """The folder as a tar, with the folder itself as the one top-level entry."""
    with tarfile.open(tar, "w") as archive:
        archive.add(folder, arcname=folder.name)
    return tar


def test_a_folder_and_its_tar_give_the_same_result(artifact, images, tmp_path):
    of_folder = run_harness(
        HarnessRequest(artifact, images, logits=tmp_path / "folder.safetensors")
    )
    of_tar = run_harness(HarnessRequest(artifact, packed(images, tmp_path / "images.tar")))
    assert of_folder["accuracy"] == of_tar["accuracy"]
    data = ImageSet.open(images)
    assert of_folder["dataset"]["sha256"] == of_tar["dataset"]["sha256"] == data.sha256
    assert of_folder["accuracy"]["count"] == 6
    assert of_folder["runtime"]["name"] == "null"
    written = load_file(tmp_path / "folder.safetensors")
    assert bytes(written["paths"]).decode().split("\n") == [p for p, _ in data.entries]
    assert written["labels"].tolist() == [0, 0, 1, 1, 2, 2]
    assert written["predictions"].tolist() == written["logits"].argmax(1).tolist()
    top1 = int((written["predictions"] == written["labels"]).sum())
    assert of_folder["accuracy"]["top1_count"] == top1


def test_agreement_is_measured_against_the_reference(artifact, images, tmp_path):
    run_harness(HarnessRequest(artifact, images, logits=tmp_path / "own.safetensors"))
    logits = load_file(tmp_path / "own.safetensors")["logits"]
    moved = logits.copy()
    moved[0, 1] += 2 * 0.25  # two output steps
    data = ImageSet.open(images)
    paths = np.frombuffer("\n".join(p for p, _ in data.entries).encode(), np.uint8)
    reference = tmp_path / "reference.safetensors"
    metadata = {"schema_version": "1", "dataset_sha256": data.sha256}
    save_file({"logits": moved, "float_logits": logits, "paths": paths}, reference, metadata)
    result = run_harness(HarnessRequest(artifact, images, reference=reference))
    agreement = result["agreement"]
    same = int((moved.argmax(1) == logits.argmax(1)).sum())
    assert (agreement["count"], agreement["top1_count"]) == (6, same)
    assert agreement["max_abs_step"] == 2
    assert {"step": -2, "logits": 1} in agreement["step_histogram"]
    assert agreement["mean_abs_logit"] == pytest.approx(0.5 / logits.size)
    assert result["agreement_float"]["top1_percent"] == 100.0
    edit_manifest(artifact, options={"output_type": "classifier"})
    classified = run_harness(HarnessRequest(artifact, images, reference=reference))
    for key in ("agreement", "agreement_float"):
        assert classified[key]["top1_count"] == result[key]["top1_count"]
        assert classified[key]["max_abs_logit"] is classified[key]["mean_abs_logit"] is None


def test_options_reach_the_harness(artifact, images):
    result = run_harness(HarnessRequest(artifact, images, threads=2, warmup=3, limit=4))
    assert (result["threads"], result["warmup"], result["limit"]) == (2, 3, 4)
    assert result["accuracy"]["count"] == 4
    with pytest.raises(InputError, match="--threads"):
        run_harness(HarnessRequest(artifact, images, threads=0))


def test_a_long_run_reports_latency_over_time(artifact, images):
    once = run_harness(HarnessRequest(artifact, images))
    assert once["long_run"] is None and once["early_stop"] is None
    result = run_harness(
        HarnessRequest(artifact, images, duration_s=0.5, bucket_s=0.1), harness=build_harness()
    )
    run = result["long_run"]
    assert result["accuracy"] == once["accuracy"]
    assert run["samples"] == result["latency_us"]["invoke"]["count"] > 6
    assert sum(b["invoke_us"]["count"] for b in run["buckets"]) == run["samples"]
    assert [b["start_s"] for b in run["buckets"]] == sorted(b["start_s"] for b in run["buckets"])
    assert run["first_invoke_us"]["count"] + run["last_invoke_us"]["count"] == run["samples"]
    for wrong in ({"duration_s": 3601}, {"duration_s": float("nan")}, {"bucket_s": 1}):
        with pytest.raises(InputError, match="--(duration|bucket)"):
            run_harness(HarnessRequest(artifact, images, **wrong))
    with pytest.raises(InputError, match="needs reference logits"):
        run_harness(HarnessRequest(artifact, images, early_stop=GateLimits(0.5, 99)))


@pytest.mark.parametrize(
    ("label", "spoil", "message"),
    [
        ("empty set", lambda images: [p.unlink() for p in images.rglob("*.*")], "no JPEG or PNG"),
        ("text", lambda images: (images / "crop/x.jpg").write_text("text"), "crop/x.jpg.*neither"),
        ("empty file", lambda images: (images / "crop/x.png").write_text(""), "crop/x.png.*empty"),
        ("cut", lambda images: os.truncate(images / "river/a.jpg", 300), "river/a.jpg.*damaged"),
        ("unknown class", lambda images: (images / "river").rename(images / "lake"), "'lake'"),
        ("loose image", lambda images: picture(0).save(images / "x.png"), "x.png is in no class"),
    ],
)
def test_a_bad_image_set_is_named(artifact, images, label, spoil, message):
    spoil(images)
    with pytest.raises(InputError, match=message):
        run_harness(HarnessRequest(artifact, images))


def test_a_bad_tar_is_named(artifact, images, tmp_path):
    tar = packed(images, tmp_path / "images.tar")
    whole = tar.read_bytes()
    tar.write_bytes(whole[: len(whole) // 2 + 100])
    with pytest.raises(InputError, match=r"images\.tar: not a readable, uncompressed tar"):
        run_harness(HarnessRequest(artifact, tar))
    tar.write_bytes(b"\x1f\x8b" + whole)
    with pytest.raises(InputError, match="is a gzip file, .*tar -xzf"):
        run_harness(HarnessRequest(artifact, tar))
    tar.write_bytes(b"\x1f\x8c" + whole)
    with pytest.raises(InputError, match="bad header checksum"):
        run_harness(HarnessRequest(artifact, tar))


def test_a_bad_artifact_is_named(artifact, images):
    (artifact / "model.bin").write_bytes(b"changed")
    with pytest.raises(InputError, match=r"model\.bin: its sha256 is .* the manifest says"):
        run_harness(HarnessRequest(artifact, images))
    write_artifact(artifact)
    edit_manifest(artifact, schema_version=4)
    with pytest.raises(InputError, match="schema_version is 4"):
        run_harness(HarnessRequest(artifact, images))
    (artifact / "manifest.json").write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        run_harness(HarnessRequest(artifact, images))
    with pytest.raises(InputError, match="no such artifact folder"):
        run_harness(HarnessRequest(artifact / "nowhere", images))


def test_usage_errors_end_with_exit_code_2(artifact, images, tmp_path):
    program = build_harness()
    given = ["--artifact", artifact, "--data", images, "--out", tmp_path / "r.json"]
    for extra in (["--no-such-option"], ["extra"], ["--backend", "nothing"], ["--limit", "0"]):
        done = subprocess.run([program, *given, *extra], capture_output=True, text=True)
        assert done.returncode == 2
        assert done.stderr.startswith("edgevit-harness: error: ")
        assert not (tmp_path / "r.json").exists()


def test_a_missing_runtime_is_exit_code_4(artifact, images, tmp_path, monkeypatch):
    monkeypatch.delenv("EDGEVIT_LITERT_LIB", raising=False)
    with pytest.raises(ToolMissing, match="no such LiteRT library"):
        run_harness(
            HarnessRequest(artifact, images, backend="tflite", runtime=tmp_path / "libNone.so")
        )
    library = tmp_path / "libText.so"
    library.write_text("no library")
    with pytest.raises(ToolMissing, match="cannot load LiteRT"):
        run_harness(HarnessRequest(artifact, images, backend="tflite", runtime=library))
    monkeypatch.setattr(harness, "find_runtime", lambda target: None)
    with pytest.raises(ToolMissing, match=r"not named.*EDGEVIT_LITERT_LIB"):
        run_harness(HarnessRequest(artifact, images, backend="tflite"))


def test_a_termination_leaves_nothing_half_written(artifact, images, tmp_path):
    # Seconds of decoding, so that the signal comes in the middle on a busy machine too.
    picture(0, 1500, 1500).save(images / "crop" / "large.jpg")
    for i in range(500):
        os.link(images / "crop" / "large.jpg", images / "crop" / f"{i}.jpg")
    out = tmp_path / "out"
    out.mkdir()
    command = [build_harness(), "--artifact", artifact, "--data", images, "--out", out / "r.json"]
    process = subprocess.Popen(
        [*command, "--logits", out / "l", "--dump-inputs", out / "i"], stderr=subprocess.PIPE
    )
    while process.poll() is None and not any(out.iterdir()):
        time.sleep(0.001)
    process.terminate()
    assert b"interrupted" in process.communicate()[1]
    assert process.returncode == 1
    assert not any(out.iterdir())


def test_a_crash_is_an_error_with_the_signal(artifact, images, tmp_path, monkeypatch):
    crashing = tmp_path / "crash"
    crashing.write_text("#!/bin/sh\necho last words >&2\nkill -SEGV $$\n")
    crashing.chmod(crashing.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(harness, "build_harness", lambda: crashing)
    with pytest.raises(EdgevitError, match=r"(?s)killed by SIGSEGV.*last words"):
        run_harness(HarnessRequest(artifact, images))


def test_a_harness_of_an_older_version_is_named(artifact, images, tmp_path):
    """Before 2026-11 the harness took flags alone."""
    old = tmp_path / "old"
    old.write_text(
        "#!/bin/sh\necho 'edgevit-harness: error: --artifact is required; see --help' >&2\nexit 2\n"
    )
    old.chmod(old.stat().st_mode | stat.S_IXUSR)
    with pytest.raises(ToolMissing, match="of an older edgevit.*build it again"):
        run_harness(HarnessRequest(artifact, images), harness=old)


def test_a_result_that_does_not_fit_the_schema_is_refused(artifact, images):
    result = run_harness(HarnessRequest(artifact, images))
    for spoil in (
        lambda r: r.update(more=1),
        lambda r: r["accuracy"].pop("top1_count"),
        lambda r: r["latency_us"]["invoke"].update(p50="fast"),
        lambda r: r.update(kind="edgevit-artifact"),
    ):
        changed = copy.deepcopy(result)
        spoil(changed)
        with pytest.raises(EdgevitError, match="does not fit its schema"):
            check_result(changed)


def test_building_is_skipped_when_nothing_changed(monkeypatch):
    program = build_harness()
    monkeypatch.setenv("PATH", "")
    assert build_harness() == program


def test_what_building_needs_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ToolMissing, match="apt-get install -y cmake"):
        build_harness(tmp_path / "build")
    monkeypatch.undo()
    monkeypatch.setattr(harness, "SOURCES", tmp_path)
    with pytest.raises(ToolMissing, match="install edgevit again"):
        build_harness(tmp_path / "build")


def test_a_missing_system_package_is_named(tmp_path):
    with pytest.raises(ToolMissing, match="apt-get install -y libpng-dev libcli11-dev"):
        harness._checked(
            ["cmake", "-S", str(REPOSITORY), "-B", str(tmp_path),
             "-DCMAKE_DISABLE_FIND_PACKAGE_PNG=ON", "-DCMAKE_DISABLE_FIND_PACKAGE_CLI11=ON"],
            "configuring the harness",
        )  # fmt: skip
    with pytest.raises(ToolMissing, match=r"apt-get install -y g\+\+ make"):
        harness._checked(
            ["cmake", "-S", str(REPOSITORY), "-B", str(tmp_path / "b"),
             "-DCMAKE_CXX_COMPILER=no-such-compiler"],
            "configuring the harness",
        )  # fmt: skip


def test_importing_and_looking_for_the_runtime_imports_no_toolkit():
    code = (
        "import sys; from edgevit.measure.harness import find_runtime; find_runtime('tflite');"
        "heavy = ('ai_edge_litert', 'torch', 'tensorflow', 'jsonschema');"
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_runtime_is_that_of_the_wheel_unless_the_user_names_one(monkeypatch):
    monkeypatch.delenv("EDGEVIT_LITERT_LIB", raising=False)
    library = find_runtime("tflite")
    assert library is not None and library.name == "libLiteRt.so"
    monkeypatch.setenv("EDGEVIT_LITERT_LIB", str(library))
    assert find_runtime("tflite") is None
    assert find_runtime("null") is None
    assert find_runtime("") is None


def test_litert_gives_the_interpreters_logits(images, tmp_path):
    interpreter_of = pytest.importorskip("ai_edge_litert.interpreter").Interpreter
    model = REPOSITORY / "tests" / "cpp" / "data" / "tiny.tflite"
    artifact = write_artifact(
        tmp_path / "tiny", ("crop", "forest", "lake", "river"), image_size=8, resize_size=8
    )
    (artifact / "model.bin").write_bytes(model.read_bytes())
    manifest = json.loads((artifact / "manifest.json").read_text())
    edit_manifest(
        artifact,
        target="tflite",
        artifact=manifest["artifact"] | {"sha256": hashlib.sha256(model.read_bytes()).hexdigest()},
        input=manifest["input"]
        | {"dtype": "int8", "scale": 0.0078125, "table": [list(range(-128, 128))] * 3},
        outputs=[manifest["outputs"][0] | {"scale": 0.00390625}],
    )
    files = {"logits": tmp_path / "l", "dump_inputs": tmp_path / "i", "profile": tmp_path / "p"}
    result = run_harness(HarnessRequest(artifact, images, **files))
    assert result["ops"] == {
        "total": 7, "delegated": 6, "partitions": 2, "devices": None, "precisions": None,
        "not_delegated": {"GELU": 1},
        "reason": None,
    }  # fmt: skip
    assert result["runtime"]["version"] == "2.3.0"
    profile = json.loads((tmp_path / "p").read_text())
    assert [op["name"] for op in profile["op_times"] if not op["delegated"]] == ["GELU"]
    interpreter = interpreter_of(str(model))
    interpreter.allocate_tensors()
    output = interpreter.get_output_details()[0]["index"]
    inputs, logits = load_file(tmp_path / "i")["inputs"], load_file(tmp_path / "l")["logits"]
    for x, row in zip(inputs, logits, strict=True):
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x[None])
        interpreter.invoke()
        expected = interpreter.get_tensor(output)[0].astype(np.float32) * np.float32(0.00390625)
        assert row.tolist() == expected.tolist()


def inputs_of(artifact: Path, data: Path, folder: Path, limit: int | None = None) -> dict:
    """{path: uint8 (H, W, 3)} as the C++ side preprocesses the images."""
    run_harness(
        HarnessRequest(artifact, data, dump_inputs=folder / "inputs", limit=limit, warmup=0)
    )
    file = load_file(folder / "inputs")
    return dict(zip(bytes(file["paths"]).decode().split("\n"), file["inputs"], strict=True))


def count_equal(artifact: Path, data: Path, folder: Path, limit: int | None = None) -> int:
    """Compare every input tensor with Python's pixels; returns how many images that were."""
    manifest = json.loads((artifact / "manifest.json").read_text())
    preprocessing = Preprocessing.from_json(manifest["preprocessing"])
    image_set = ImageSet.open(data)
    index = {path: i for i, (path, _) in enumerate(image_set.entries)}
    ours = inputs_of(artifact, data, folder, limit)
    for path, pixels in ours.items():
        expected = image_set.pixels([index[path]], preprocessing)[0]
        assert np.array_equal(pixels, expected), path
    return len(ours)


@pytest.mark.parametrize(
    ("size", "resize", "interpolation", "limit"),
    [(64, None, "bicubic", None), (224, 256, "bicubic", 100), (56, 61, "bilinear", 400)],
)
def test_pixels_equal_pillows_on_eurosat(tmp_path, size, resize, interpolation, limit):
    data = shared_data("eurosat-val.tar")
    artifact = write_artifact(
        tmp_path / "a", tuple(ImageSet.open(data).classes),
        image_size=size, resize_size=resize, interpolation=interpolation,
    )  # fmt: skip
    assert count_equal(artifact, data, tmp_path, limit) == (limit or 5400)


def encodings(image: Image.Image, seed: int) -> dict[str, bytes]:
    """The image as files of many kinds: {suffix: bytes}."""

    def saved(kind: str, converted: Image.Image = image, **options: object) -> bytes:
        out = io.BytesIO()
        converted.save(out, kind, **options)
        return out.getvalue()

    return {
        "444.jpg": saved("JPEG", quality=95, subsampling="4:4:4"),
        "422.jpg": saved("JPEG", quality=80, subsampling="4:2:2"),
        "420.jpg": saved("JPEG", quality=30 + seed, subsampling="4:2:0"),
        "progressive.jpg": saved("JPEG", quality=75, progressive=True),
        "grey.jpg": saved("JPEG", image.convert("L")),
        "cmyk.jpg": saved("JPEG", image.convert("CMYK")),
        "rgb.png": saved("PNG"),
        "rgba.png": saved("PNG", image.convert("RGBA")),
        "palette.png": saved("PNG", image.quantize(50)),
    }


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_pixels_equal_pillows_for_other_sizes_and_encodings(tmp_path, interpolation):
    folder = tmp_path / "images" / "crop"
    folder.mkdir(parents=True)
    sizes = ((1, 1), (2, 3), (17, 100), (100, 17), (37, 36), (36, 37), (333, 250), (511, 7))
    for seed, (width, height) in enumerate(sizes):
        for suffix, data in encodings(picture(seed, width, height), seed).items():
            (folder / f"{width}x{height}-{suffix}").write_bytes(data)
    artifact = write_artifact(
        tmp_path / "a", image_size=32, resize_size=36, interpolation=interpolation
    )
    assert count_equal(artifact, tmp_path / "images", tmp_path) == 9 * len(sizes)
