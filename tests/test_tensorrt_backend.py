"""The TensorRT back-end and its sample where there is no NVIDIA GPU.

tests/nv_stubs declares the part of TensorRT's and CUDA's API that they use, once as TensorRT 10 has
it and once as 11 has it, and fake_runtime.cpp stands in for the libraries. g++ against the headers
finds misspelt names and wrong types; the stand-in shows the order of calls, what is kept and how
errors are told (tests/cpp/test_tensorrt.cpp). Neither shows that NVIDIA's own accept any of it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from edgevit.apps import write_package
from edgevit.data.images import Preprocessing
from edgevit.errors import InputError, ToolMissing
from edgevit.measure.harness import check_result, run_harness
from edgevit.measure.request import HarnessRequest
from tests.test_harness import LABELS, edit_manifest, picture, write_artifact

REPOSITORY = Path(__file__).resolve().parent.parent
BACKEND = REPOSITORY / "targets" / "tensorrt"
STUBS = REPOSITORY / "tests" / "nv_stubs"
SOURCES = ["backend.cpp", "trt_builder.cpp", "trt_logger.cpp", "trt_session.cpp"]
REAL_CUDA = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "include"

# The project's own warnings (CMakeLists.txt), as a build on a Jetson has them.
WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror"]
SIDE = 8


def complaints(source: Path, major: int, cuda: Path = STUBS / "cuda") -> str:
    """What g++ says about a file of the back-end; empty when it says nothing."""
    done = subprocess.run(
        [
            *["g++", "-std=c++17", "-fsyntax-only", *WARNINGS, f"-DNV_TENSORRT_MAJOR={major}"],
            *["-isystem", str(STUBS), "-isystem", str(cuda), "-I", str(BACKEND)],
            *["-I", str(REPOSITORY / "targets")],
            *["-I", str(REPOSITORY / "targets" / "libedgevit"), str(source)],
        ],
        capture_output=True,
        text=True,
        env=os.environ | {"LC_ALL": "C"},
    )
    assert (done.returncode == 0) == (done.stderr == "")
    return done.stderr


@pytest.mark.parametrize("major", [10, 11])
@pytest.mark.parametrize("name", SOURCES)
def test_the_compiler_accepts_the_back_end(name: str, major: int) -> None:
    assert complaints(BACKEND / name, major) == ""


@pytest.mark.skipif(
    not (REAL_CUDA / "cuda_runtime_api.h").is_file(), reason="no CUDA toolkit is installed"
)
@pytest.mark.parametrize("name", ["trt_builder.cpp", "trt_session.cpp"])
def test_the_compiler_accepts_it_with_cudas_own_header(name: str) -> None:
    assert complaints(BACKEND / name, 10, REAL_CUDA) == ""


@pytest.mark.parametrize(
    ("name", "right", "wrong", "majors"),
    [
        ("trt_builder.cpp", "#if NV_TENSORRT_MAJOR < 11", "#if 1", {11}),
        ("trt_builder.cpp", "buildSerializedNetwork", "buildEngineWithConfig", {10, 11}),
        ("trt_builder.cpp", "createNetworkV2(network_flags())", "createNetwork()", {10, 11}),
        ("trt_builder.cpp", "parser->parse(onnx.data(), onnx.size())", "parser->parse(onnx)", {10}),
        ("trt_session.cpp", "enqueueV3(stream_.get())", "enqueueV2(stream_.get())", {10, 11}),
        ("trt_session.cpp", "getNbIOTensors", "getNbBindings", {10, 11}),
        ("trt_session.cpp", "cudaMemcpyHostToDevice", "cudaMemcpyHostToGpu", {10}),
        ("trt_logger.cpp", "Severity::kWARNING", "Severity::kWARN", {10}),
    ],
)
def test_the_compiler_refuses_the_back_end_with_a_slip(
    name: str, right: str, wrong: str, majors: set[int], tmp_path: Path
) -> None:
    text = (BACKEND / name).read_text(encoding="utf-8")
    assert right in text
    (tmp_path / name).write_text(text.replace(right, wrong), encoding="utf-8")
    for major in majors:
        assert "error: " in complaints(tmp_path / name, major)


def test_every_stand_in_says_that_it_is_one() -> None:
    files = sorted(path for path in STUBS.rglob("*") if path.suffix in {".h", ".cpp"})
    assert len(files) >= 5
    for file in files:
        first = file.read_text(encoding="utf-8").split("\n", 1)[0]
        assert first.startswith("// A stand-in, not NVIDIA's: "), file


# -- the harness as it is built here, and with the stand-in ---------------------------------------


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """build/tensorrt, but for the model: the stand-in runtime's text in its place."""
    return write_standin_artifact(tmp_path / "build" / "tensorrt")


def write_standin_artifact(folder: Path) -> Path:
    settings = Preprocessing(image_size=SIDE, resize_size=SIDE)
    folder.parent.mkdir(parents=True)
    write_artifact(folder, image_size=SIDE, resize_size=SIDE)
    (folder / "model.bin").unlink()
    model = f"fake-onnx float32 {len(LABELS)}".encode()
    (folder / "model.onnx").write_bytes(model)
    plain = {"dtype": "float32", "scale": None, "zero_point": None}
    edit_manifest(
        folder,
        target="tensorrt",
        artifact={
            "file": "model.onnx",
            "sha256": hashlib.sha256(model).hexdigest(),
            "size_bytes": len(model),
        },
        options={"io": "float32", "compute_precision": "float32"},
        input={
            "name": "input", "shape": [1, 3, SIDE, SIDE], "layout": "NCHW",
            "table": settings.table().astype(np.float64).tolist(), **plain,
        },
        outputs=[{"name": "logits", "shape": [1, len(LABELS)], **plain}],
        audit=None,
    )  # fmt: skip
    return folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for i, label in enumerate(LABELS):
        (tmp_path / "images" / label).mkdir(parents=True)
        picture(i).save(tmp_path / "images" / label / "a.png")
    return tmp_path / "images"


def test_where_it_is_not_built_the_way_out_is_named(artifact: Path, images: Path) -> None:
    with pytest.raises(ToolMissing, match=r"-DEDGEVIT_WITH_TENSORRT=ON.*--backend onnxruntime"):
        run_harness(HarnessRequest(artifact, images))
    with pytest.raises(InputError, match="the null back-end takes no runtime option 'plan_cache'"):
        run_harness(
            HarnessRequest(
                artifact, images, backend="null", runtime_options={"plan_cache": str(images)}
            )
        )


FIND_CUDA = """
add_library(CUDA::cudart INTERFACE IMPORTED)
target_include_directories(CUDA::cudart INTERFACE {stubs}/cuda)
set(CUDAToolkit_FOUND TRUE)
"""


@pytest.fixture(scope="module")
def nvidia(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """CMake options that put the stand-in in the place of TensorRT 10 and CUDA."""
    root = tmp_path_factory.mktemp("nvidia")
    for folder in ("include", "lib", "cmake"):
        (root / folder).mkdir()
    for header in ("NvInfer.h", "NvOnnxParser.h"):
        shutil.copy(STUBS / header, root / "include")
    for name, sources in {"nvinfer": [STUBS / "fake_runtime.cpp"], "nvonnxparser": []}.items():
        subprocess.run(
            [
                *["g++", "-std=c++17", "-shared", "-fPIC", "-DNV_TENSORRT_MAJOR=10", "-x", "c++"],
                *["-I", STUBS, "-I", STUBS / "cuda", *(sources or ["/dev/null"])],
                *["-o", root / "lib" / f"lib{name}.so"],
            ],
            check=True,
        )
    (root / "cmake" / "FindCUDAToolkit.cmake").write_text(FIND_CUDA.format(stubs=STUBS))
    return [
        f"-DTENSORRT_ROOT={root}",
        f"-DCMAKE_MODULE_PATH={root / 'cmake'}",
        "-DCMAKE_CXX_FLAGS=-DNV_TENSORRT_MAJOR=10",
        "-DCMAKE_BUILD_TYPE=Debug",
    ]


def cmake_build(source: Path, build: Path, options: list[str], target: str) -> None:
    subprocess.run(["cmake", "-S", source, "-B", build, *options], check=True, capture_output=True)
    done = subprocess.run(
        ["cmake", "--build", build, "--target", target, "--parallel", "2"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning: " not in done.stderr


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory, nvidia: list[str]) -> Path:
    """The package of the stand-in artifact, built by its own CMakeLists.txt."""
    build = tmp_path_factory.mktemp("sample") / "build"
    write_standin_artifact(build / "tensorrt")
    write_package("tensorrt", build, name="Leaves", unvalidated=True)
    package = build / "tensorrt-package"
    cmake_build(package, package / "build", nvidia, "Leaves")
    (package / "plans").mkdir()
    return package


def run_sample(package: Path, *images: Path) -> subprocess.CompletedProcess[str]:
    command = [package / "build/Leaves", package / "model", package / "plans", *images]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_sample_is_built_and_preprocesses_as_python_does(sample: Path, tmp_path: Path) -> None:
    photo = picture(3, 40, 30)
    photo.save(tmp_path / "photo.ppm")
    done = run_sample(sample, tmp_path / "photo.ppm")
    assert (done.returncode, done.stderr) == (0, "")

    # The stand-in answers with the first values of its input: the upper left pixels' red.
    settings = Preprocessing(image_size=SIDE, resize_size=SIDE)
    red = settings.crop(photo)[0, : len(LABELS), 0]
    logits = settings.table()[0][red].astype(float)
    weights = np.exp(logits - logits.max())
    expected = sorted(
        ((100 * w / weights.sum(), label) for w, label in zip(weights, LABELS, strict=True)),
        reverse=True,
    )
    lines = [line.split(" %  ") for line in done.stdout.splitlines() if " %  " in line]
    assert [label for _, label in lines] == [label for _, label in expected]
    for (printed, _), (percent, _) in zip(lines, expected, strict=True):
        assert math.isclose(float(printed), percent, abs_tol=0.0051)
    assert "250 us on the GPU" in done.stdout
    kept = sorted(path.suffix for path in (sample / "plans").iterdir())
    assert kept == [".cache", ".json", ".plan"]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("empty", b""),
        ("ascii", b"P3\n1 1\n255\n0 0 0\n"),
        ("no width", b"P6\n"),
        ("16 bits", b"P6\n1 1\n65535\n" + bytes(6)),
        ("negative", b"P6\n-1 1\n255\n" + bytes(3)),
        ("wide", b"P6\n99999999999999999999 1\n255\n" + bytes(3)),
        ("cut", b"P6\n2 2\n255\n" + bytes(11)),
        ("no pixels", b"P6\n2 2\n255"),
    ],
)
def test_the_sample_refuses_a_bad_picture(
    sample: Path, tmp_path: Path, name: str, data: bytes
) -> None:
    (tmp_path / "bad.ppm").write_bytes(data)
    done = run_sample(sample, tmp_path / "bad.ppm")
    assert done.returncode == 2, name
    assert done.stderr.startswith(f"error: {tmp_path / 'bad.ppm'}: ")


def test_the_sample_reads_comments_and_refuses_bad_folders(sample: Path, tmp_path: Path) -> None:
    good = tmp_path / "good.ppm"
    good.write_bytes(b"P6 # made by hand\n8\n# height\n 8 255\n" + bytes(8 * 8 * 3))
    assert run_sample(sample, good).returncode == 0
    program = sample / "build/Leaves"
    for arguments, code, message in (
        ([], 2, "usage"),
        ([tmp_path, sample / "plans", good], 2, "manifest.json"),
        ([sample / "model", tmp_path / "none", good], 2, "no such folder for plans"),
    ):
        done = subprocess.run([program, *arguments], capture_output=True, text=True)
        assert done.returncode == code
        assert message in done.stderr


def test_the_packages_readme_says_what_was_not_run(sample: Path) -> None:
    readme = (sample / "README.md").read_text(encoding="utf-8")
    assert "edgevit has not run this on a Jetson" in readme
    assert "build/Leaves model plans photo.ppm" in readme
    assert len(readme.splitlines()) <= 20


@pytest.mark.full
def test_the_harness_is_built_with_it(
    nvidia: list[str], artifact: Path, images: Path, tmp_path: Path
) -> None:
    build = tmp_path / "harness"
    options = [*nvidia, "-DEDGEVIT_WITH_TENSORRT=ON", "-DBUILD_TESTING=OFF"]
    cmake_build(REPOSITORY, build, options, "edgevit-harness")
    command = [build / "targets/harness/edgevit-harness", "--artifact", artifact]
    command += ["--data", images, "--out", tmp_path / "r.json", "--quiet"]
    subprocess.run(command, check=True)
    result = json.loads((tmp_path / "r.json").read_text())
    check_result(result)
    assert result["backend"] == "tensorrt"
    assert result["latency_us"]["device"]["p50"] == 250.0
    assert result["ops"]["precisions"] == {"int8": 1, "float16": 1}
