"""The cross-compiled harness with the aarch64 LiteRT gives this machine's answers, under qemu."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from edgevit.data.images import ImageSet
from edgevit.errors import ToolMissing
from edgevit.measure.harness import find_runtime, run_harness
from edgevit.measure.request import HarnessRequest
from edgevit.targets import load_target
from tests.arm64.check import SYSROOT, Comparison, compare, emulated_harness
from tests.programs import real_images, trained_program

IMAGES = 200
MAX_STEPS = 2


@pytest.fixture(scope="module", autouse=True)
def harness() -> Path:
    try:
        return emulated_harness()[0]
    except ToolMissing as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def artifact_of(
    tmp_path_factory: pytest.TempPathFactory,
    embedded_checkpoint: Path,
    embedded_train: Path,
    embedded_val: Path,
) -> Callable[[str, str], Path]:
    """The trained net with scales of 16 images, compiled for TFLite: (profile, activation)."""

    @cache
    def make(profile: str, activation: str) -> Path:
        images = real_images(embedded_train, 16, 64)
        program = trained_program(embedded_checkpoint, images, profile, activation)
        info = replace(program.info, labels=tuple(ImageSet.open(embedded_val).classes))
        folder = tmp_path_factory.mktemp("artifact") / "tflite"
        load_target("tflite").compile(program.with_info(info), folder)
        return folder

    return make


@pytest.mark.parametrize(
    ("profile", "activation", "allowed"),
    [("portable", "gelu", 0), ("asymmetric", "gelu", 0), ("portable", "quick-gelu", 4)],
)
def test_200_images_get_the_answers_that_they_get_on_x86(
    profile: str,
    activation: str,
    allowed: int,
    artifact_of: Callable[[str, str], Path],
    embedded_val: Path,
    tmp_path: Path,
) -> None:
    found = compare(artifact_of(profile, activation), embedded_val, tmp_path, IMAGES)
    for each in found.differences:
        print(each)
    assert found.images == IMAGES
    assert found.inputs_equal, "decoding or preprocessing differs on ARM64"
    assert found.predictions_that_differ <= allowed, found.differences
    if not allowed:  # one ADD in a million rounds the other way
        assert len(found.differences) <= IMAGES // 20, found.differences
        assert all(each.steps <= MAX_STEPS for each in found.differences), found.differences
    _ran_on_arm64(found)
    assert (
        found.top1_percent["arm64"] > 80
    )  # scales of 16 images, not tuned: far above chance all the same


def _ran_on_arm64(found: Comparison) -> None:
    assert found.machine["architecture"] == "aarch64"
    assert "emulated" in found.machine["cpu"]  # no result may pass for a board's
    assert found.ops["delegated"] > found.ops["total"] / 2  # XNNPACK's ARM kernels


def test_the_library_of_another_architecture_is_a_clear_error(
    harness: Path, artifact_of: Callable[[str, str], Path], embedded_val: Path
) -> None:
    x86_runtime = find_runtime("tflite")
    with pytest.raises(ToolMissing, match="cannot load LiteRT.*--runtime"):
        run_harness(
            HarnessRequest(
                artifact_of("portable", "gelu"), embedded_val, limit=1, runtime=x86_runtime
            ),
            harness=harness,
        )


def test_the_sysroot_is_made_once() -> None:
    ready = SYSROOT / ".ready"
    before = ready.stat().st_mtime_ns
    root = Path(__file__).resolve().parents[2]
    command = ["sh", str(root / "tools" / "arm64" / "sysroot.sh"), "/bin/false", str(SYSROOT)]
    subprocess.run(command, check=True, timeout=60)
    assert ready.stat().st_mtime_ns == before
