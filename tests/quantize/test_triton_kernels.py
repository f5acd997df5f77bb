"""The kernels that run on a GPU, without one: Triton interprets them on the CPU."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


def test_the_interpreted_kernels_are_torchs_definition() -> None:
    """Each of `interpreted.py`, in a process of their own."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider",
         "tests/quantize/interpreted.py"],
        capture_output=True, text=True, cwd=ROOT,
        env=os.environ | {"TRITON_INTERPRET": "1", "EDGEVIT_NO_KERNEL": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout and "skipped" not in done.stdout


@pytest.mark.parametrize("architecture", [80, 90])
def test_the_kernels_compile_for_a_gpu(
    architecture: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To machine code, by Triton's own assembler; products and sums are rounded one by one."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from edgevit.quantize import triton_kernels

    bytes_, words = {"codes", "values"}, {"index", "before", "after", "count"}
    constants = {"KEEP": True, "PROGRAMS": triton_kernels.PROGRAMS, "BLOCK": triton_kernels.BLOCK}
    kernels = [name for name in vars(triton_kernels) if re.match("_(forward|backward)", name)]
    assert len(kernels) == 6
    for name in kernels:
        kernel = getattr(triton_kernels, name)
        signature = {
            argument: "constexpr" if argument in constants
            else "*i8" if argument in bytes_
            else "*i32" if argument == "starts"
            else "fp32" if argument == "limit"
            else "i32" if argument in words or argument.startswith("quant_")
            else "*fp32"
            for argument in kernel.arg_names
        }  # fmt: skip
        compiled = triton.compile(
            ASTSource(kernel, signature, {k: v for k, v in constants.items() if k in signature}),
            target=GPUTarget("cuda", architecture, 32),
            options={"enable_fp_fusion": False},
        )
        assert len(compiled.asm["cubin"]) > 1000
        # Those of the error function are its own.
        assert "gelu" in name or "fma.rn.f32" not in compiled.asm["ptx"], name
