"""Damaged .tflite files whose sha256 fits: bits turned and files cut.

LiteRT reads a model without looking, and dies of one in ten. Nothing that the checks let through
may end the harness by a signal, and what does (a runtime's own fault) must be told.
"""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest

from edgevit.measure.harness import build_harness, find_runtime
from edgevit.targets import load_target
from edgevit.targets.tflite.schema import schema
from tests.operation_programs import norm_program
from tests.programs import make_program
from tests.test_harness import picture

FLIPS, CUTS = 220, 40


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("damaged") / "tflite"
    load_target("tflite").compile(make_program(), folder)
    return folder


@pytest.fixture(scope="module")
def weights_only(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights") / "tflite"
    load_target("tflite").compile(make_program(), folder, weights_only="on")
    return folder


@pytest.fixture(scope="module")
def island(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a layer norm's real operators among int8 ones."""
    folder = tmp_path_factory.mktemp("island") / "tflite"
    load_target("tflite").compile(norm_program(), folder)
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory, compiled: Path) -> Path:
    folder = tmp_path_factory.mktemp("images")
    labels = json.loads((compiled / "manifest.json").read_text())["labels"]
    (folder / labels[0]).mkdir()
    picture(0, 64, 64).save(folder / labels[0] / "a.png")
    return folder


def structure(model: bytes) -> np.ndarray:
    """The places of all bytes that are no large constant's, where damage is most dangerous."""
    is_structure = np.ones(len(model), bool)
    file = schema().Model.GetRootAs(model, 0)
    for i in range(file.BuffersLength()):
        buffer = file.Buffers(i)
        if buffer.DataLength() > 256:
            table = buffer._tab
            start = table.Vector(table.Offset(4))
            is_structure[start : start + buffer.DataLength()] = False
    return np.flatnonzero(is_structure)


def run(
    folder: Path, compiled: Path, images: Path, model: bytes, runtime: Path | None = None
) -> tuple[int, str]:
    """The harness's exit code and messages for these bytes in the compiled model's place."""
    folder.mkdir(exist_ok=True)
    manifest = json.loads((compiled / "manifest.json").read_text())
    manifest["artifact"]["sha256"] = hashlib.sha256(model).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / manifest["artifact"]["file"]).write_bytes(model)
    done = subprocess.run(
        [
            *[build_harness(), "--artifact", folder, "--data", images, "--warmup", "0", "--quiet"],
            *["--out", folder.parent / "r.json", "--logits", folder.parent / "logits"],
            *["--runtime", runtime or find_runtime("tflite")],
        ],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=120,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("form", "flips"), [("compiled", FLIPS), ("weights_only", FLIPS // 2), ("island", FLIPS // 2)]
)
def test_no_turned_bit_ends_the_harness_by_a_signal(
    form: str, flips: int, images: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    compiled: Path = request.getfixturevalue(form)
    model = (compiled / "model.tflite").read_bytes()
    places, seed = structure(model), random.Random(11)
    ends: Counter[int] = Counter()
    for _ in range(flips):
        damaged = bytearray(model)
        place, bit = int(places[seed.randrange(len(places))]), seed.randrange(8)
        damaged[place] ^= 1 << bit
        code, messages = run(tmp_path / "a", compiled, images, bytes(damaged))
        assert code in (0, 1, 2) and "died by signal" not in messages, (place, bit, messages)
        ends[code] += 1
    assert ends[2] > flips // 4 and ends[0] > flips // 4


def _change(model: bytes, change: Callable[[Any, dict[str, Any]], None]) -> bytes:
    classes = schema()
    opened = classes.ModelT.InitFromObj(classes.Model.GetRootAs(model, 0))
    change(opened, {tensor.name.decode(): tensor for tensor in opened.subgraphs[0].tensors})
    builder = flatbuffers.Builder(len(model))
    builder.Finish(opened.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _one_scale(model: Any, tensors: dict[str, Any]) -> None:
    quantization = tensors["stem.conv2.weight"].quantization
    quantization.scale, quantization.zeroPoint = quantization.scale[:1], quantization.zeroPoint[:1]


def _scales_missing(model: Any, tensors: dict[str, Any]) -> None:
    tensors["stem.conv2.weight"].quantization = None


def _other_axis(model: Any, tensors: dict[str, Any]) -> None:
    tensors["stem.conv2.weight"].quantization.quantizedDimension = 3


def _integer_bias(model: Any, tensors: dict[str, Any]) -> None:
    tensors["stem.conv2.bias"].type = schema().TensorType.INT32


@pytest.mark.parametrize("change", [_one_scale, _scales_missing, _other_axis, _integer_bias])
def test_int8_weights_that_do_not_fit_real_inputs_are_refused(
    change: Callable[[Any, dict[str, Any]], None],
    weights_only: Path,
    images: Path,
    tmp_path: Path,
) -> None:
    model = (weights_only / "model.tflite").read_bytes()
    code, messages = run(tmp_path / "a", weights_only, images, _change(model, lambda *_: None))
    assert code == 0, messages
    code, messages = run(tmp_path / "b", weights_only, images, _change(model, change))
    assert code == 2 and "is a damaged .tflite model" in messages


def _other_type(model: Any, tensors: dict[str, Any]) -> None:
    tensors["n1.layer_norm.normal"].type = schema().TensorType.INT32


def _other_shape(model: Any, tensors: dict[str, Any]) -> None:
    tensors["n1.layer_norm.deviation"].shape = [1, 16, 16, 12]


def _other_sides(model: Any, tensors: dict[str, Any]) -> None:
    tensors["n1.layer_norm.mean"].shape = [1, 16, 8, 1]


@pytest.mark.parametrize("change", [_other_type, _other_shape, _other_sides])
def test_parts_of_a_norm_that_do_not_fit_are_refused(
    change: Callable[[Any, dict[str, Any]], None], island: Path, images: Path, tmp_path: Path
) -> None:
    model = (island / "model.tflite").read_bytes()
    code, messages = run(tmp_path / "a", island, images, _change(model, lambda *_: None))
    assert code == 0, messages
    code, messages = run(tmp_path / "b", island, images, _change(model, change))
    assert code == 2 and "is a damaged .tflite model" in messages


def _too_large_a_scale(model: Any, tensors: dict[str, Any]) -> None:
    quantization = tensors["stem.conv2.weight"].quantization
    quantization.scale = quantization.scale * np.float32(2.0**64)


def test_a_convolution_that_xnnpack_cannot_make_is_refused(
    compiled: Path, images: Path, tmp_path: Path
) -> None:
    """LiteRT gives up on it, and then frees the tables of activations twice."""
    model = (compiled / "model.tflite").read_bytes()
    code, messages = run(tmp_path / "a", compiled, images, _change(model, _too_large_a_scale))
    assert code == 2 and "is a damaged .tflite model" in messages


def test_a_file_that_was_cut_is_refused(compiled: Path, images: Path, tmp_path: Path) -> None:
    model = (compiled / "model.tflite").read_bytes()
    seed, end = random.Random(12), max(structure(model))
    sizes = [0, 1, 7, 8, 100, 5000, *(seed.randrange(int(end)) for _ in range(CUTS))]
    for size in sizes:
        code, messages = run(tmp_path / "a", compiled, images, model[:size])
        assert code == 2 and ("damaged" in messages or "is empty" in messages), (size, messages)


def test_a_runtime_that_dies_is_told_and_leaves_nothing(
    compiled: Path, images: Path, tmp_path: Path
) -> None:
    """A library that raises SIGSEGV while it is loaded stands for any fault of a runtime."""
    source, library = tmp_path / "die.c", tmp_path / "libDie.so"
    source.write_text(
        "#include <signal.h>\n__attribute__((constructor)) static void die(void) "
        "{ signal(SIGSEGV, SIG_DFL); raise(SIGSEGV); }\n"
    )
    subprocess.run(["cc", "-shared", "-fPIC", source, "-o", library], check=True)
    before = set(tmp_path.iterdir()) | {tmp_path / "a"}
    model = (compiled / "model.tflite").read_bytes()
    code, messages = run(tmp_path / "a", compiled, images, model, library)
    assert code == 1
    assert "the run died by signal 11" in messages and "compile it again" in messages
    assert set(tmp_path.iterdir()) == before
