"""Building the integer kernels: once, whole or not at all, and never in a program's way."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from edgevit.graph.execute import Executor
from edgevit.kernels import build
from edgevit.kernels.exact import SOURCE, CompiledKernels, TorchKernels, kernels_for
from tests.programs import make_program, seeded_images


@pytest.fixture
def anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache of compiled libraries, and nothing remembered of the real one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    build.library.cache_clear()
    kernels_for.cache_clear()
    yield tmp_path / "edgevit"
    build.library.cache_clear()
    kernels_for.cache_clear()


def test_a_library_is_built_once(anew: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert build.library(SOURCE) is not None
    (made,) = anew.iterdir()
    build.library.cache_clear()
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert build.library(SOURCE) is not None
    assert list(anew.iterdir()) == [made]


@pytest.mark.parametrize("has_int8", [True, False])
def test_without_a_compiler_programs_run_all_the_same(
    has_int8: bool, anew: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr("edgevit.kernels.exact.multiplies_int8", lambda device: has_int8)
    with caplog.at_level(logging.WARNING, "edgevit"):
        kernels = kernels_for(torch.device("cpu"))
    assert (kernels is not None) == has_int8 and not isinstance(kernels, CompiledKernels)
    assert "no-such-compiler" in caplog.text and "apt-get install g++" in caplog.text
    assert not list(anew.iterdir())
    program, images = make_program(), seeded_images(3, 64)
    expected = Executor(program.graph(), by_definition=True)(images)["head"]
    assert torch.equal(program.run(images), expected)


def test_a_source_that_does_not_compile_leaves_nothing(
    anew: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "wrong.cpp").write_text("this is no C++\n")
    with caplog.at_level(logging.WARNING, "edgevit"):
        assert build.library(tmp_path / "wrong.cpp") is None
    assert "wrong.cpp" in caplog.text
    assert not list(anew.iterdir())


def test_a_compiler_without_openmp_will_do(
    anew: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = tmp_path / "compiler"
    compiler.write_text(
        "#!/bin/sh\n"
        'case " $* " in *" -fopenmp "*) echo unsupported >&2; exit 1;; esac\n'
        'exec g++ "$@"\n'
    )
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    assert isinstance(kernels_for(torch.device("cpu")), CompiledKernels)
    (made,) = anew.iterdir()
    build.library.cache_clear()
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert build.library(SOURCE) is not None and list(anew.iterdir()) == [made]
    program, images = make_program(), seeded_images(3, 64)
    expected = Executor(program.graph(), by_definition=True)(images)["head"]
    assert torch.equal(Executor(program.graph())(images)["head"], expected)


def test_the_environment_keeps_them_out(anew: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(build.NO_KERNEL, "1")
    assert not isinstance(kernels_for(torch.device("cpu")), CompiledKernels)
    assert not anew.exists()


@pytest.mark.parametrize("activation", ["gelu", "quick-gelu", "hard-swish"])
@pytest.mark.parametrize("profile", ["portable", "asymmetric"])
def test_the_code_for_a_gpu_gives_the_same(profile: str, activation: str) -> None:
    """Run here by torch's operations on the CPU: every tensor of the program."""
    program, images = (
        make_program(profile=profile, activation=activation), seeded_images(5, 64, seed=3)
    )  # fmt: skip
    by_torch = Executor(program.graph(), TorchKernels("cpu"))
    definition = dict(Executor(program.graph(), by_definition=True).tensors(images))
    for other in (dict(by_torch.tensors(images)), dict(program.tensors(images))):
        assert list(other) == list(definition)
        assert all(torch.equal(other[name], value) for name, value in definition.items())


def test_a_program_touches_no_other_device_than_its_images() -> None:
    """Tensors of the meta device hold no values: one that meets the CPU's is an error."""
    program = make_program()
    images = torch.empty(5, 3, 64, 64, device="meta")
    assert program.run(images).device.type == "meta"
    assert all(value.device.type == "meta" for _, value in program.tensors(images))
    assert program.run(images[:0]).device.type == "meta"


@pytest.mark.parametrize(
    ("name", "value", "by_integers"),
    [
        ("ATEN_CPU_CAPABILITY", "avx2", True),
        ("ATEN_CPU_CAPABILITY", "default", True),
        ("ONEDNN_MAX_CPU_ISA", "AVX2", False),
        ("ONEDNN_MAX_CPU_ISA", "SSE41", False),
    ],
)
def test_another_processor_gives_the_same(name: str, value: str, by_integers: bool) -> None:
    """As far as this one can do with less: other kernels of ours, other products of oneDNN's, whose
    saturation is found where its int8 instructions of before VNNI have it.
    """
    code = (
        "import torch\n"
        "from edgevit.graph.execute import Executor\n"
        "from edgevit.kernels import exact\n"
        "from tests.programs import make_program, seeded_images\n"
        "count, multiply = [], exact._int_mm\n"
        "exact._int_mm = lambda a, b: (count.append(1), multiply(a, b))[1]\n"
        "program, images = make_program(), seeded_images(5, 64)\n"
        "expected = dict(Executor(program.graph(), by_definition=True).tensors(images))\n"
        "list(program.tensors(images))\n"
        "count.clear()\n"
        "found = dict(program.tensors(images))\n"
        "assert all(torch.equal(found[name], value) for name, value in expected.items())\n"
        "layers = [n for n in program.graph().weighted() if not getattr(n, 'depthwise', False)]\n"
        "print(len(count) / len(layers), torch.cpu.get_capabilities().get('avx512_vnni'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, name: value},
    )
    assert done.returncode == 0, done.stderr
    share, has_vnni = done.stdout.split()
    if has_vnni == "True":
        assert float(share) == 1 if by_integers else float(share) < 0.5
