"""Compiles the portable C++ for macOS (ARM64) and Windows (x86-64), where nothing is run:

    .venv/bin/python -m tools.cross_check

zig carries both systems' headers (the extra `zig`). Of libjpeg, libpng, nlohmann/json and CLI11 the
headers of this machine are taken. Ends with 1 after the messages of the files that do not compile.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGETS = ("aarch64-macos", "x86_64-windows-gnu")
FOLDERS = ("core", "coreml", "harness", "libedgevit", "null", "onnx", "onnxruntime", "tflite")
POSIX = ("harness/listing.cpp",)  # follows links by inode: Windows has none, nor a harness yet
MORE = ("tensorrt/layer_report.cpp", "tensorrt/plan_cache.cpp")  # the rest needs NVIDIA's headers
WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror")
HEADERS = (
    "nlohmann", "CLI", "jpeglib.h", "jmorecfg.h", "jerror.h", "jconfig.h", "png.h", "pngconf.h",
    "pnglibconf.h", "zlib.h", "zconf.h",
)  # fmt: skip


def sources() -> list[Path]:
    """Every C++ file that needs no vendor's headers."""
    found = [path for folder in FOLDERS for path in (ROOT / "targets" / folder).glob("*.cpp")]
    return sorted([*found, *(ROOT / "targets" / path for path in MORE)])


def link_headers(folder: Path) -> None:
    """Links to the named headers alone: the system's own would hide zig's.

    Raises SystemExit naming one that is not installed.
    """
    multiarch = sysconfig.get_config_var("MULTIARCH") or ""
    places = (Path("/usr/include"), Path("/usr/include") / multiarch)
    for name in HEADERS:
        place = next((place / name for place in places if (place / name).exists()), None)
        if place is None:
            raise SystemExit(f"{name} is not installed; `sh tools/check-system.sh` names packages")
        (folder / name).symlink_to(place)


def complaints(source: Path, target: str, headers: Path) -> str:
    """What the compiler says about a file; empty when it says nothing."""
    folders = ("", "/libedgevit", "/libedgevit/include", "/harness", "/onnxruntime")
    command = [
        *[sys.executable, "-m", "ziglang", "c++", "-target", target, "-std=c++17", "-c"],
        *WARNINGS,
        *[f"-I{ROOT}/targets{each}" for each in folders],
        *["-isystem", str(headers)],
        *['-DEDGEVIT_VERSION="0"', '-DEDGEVIT_COMPILER="zig"', str(source)],
        # A link would have zig build both systems' libraries first.
        *["-o", str(headers / f"{source.stem}-{target}.o")],
    ]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    return done.stderr if done.returncode != 0 else ""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        headers = Path(folder)
        link_headers(headers)
        jobs = [
            (source, target)
            for target in TARGETS
            for source in sources()
            if "windows" not in target
            or source.relative_to(ROOT / "targets").as_posix() not in POSIX
        ]
        failed = 0
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for job, text in zip(jobs, pool.map(lambda job: complaints(*job, headers), jobs)):
                failed += bool(text)
                source, target = job
                print(f"{target}: {source.relative_to(ROOT)}: {text or 'compiles'}", flush=True)
    print(f"{len(jobs) - failed} of {len(jobs)} compile for {' and '.join(TARGETS)}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
