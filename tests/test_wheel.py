"""What pip installs from the wheel and from the sources works outside of a checkout.

The new environments see this one's packages behind their own, so that torch is not installed again;
edgevit itself comes from `make wheel`'s files alone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.wheel
KINDS = {"wheel": "*.whl", "sources": "*.tar.gz"}


class Installed:
    """An environment with edgevit in it, and an empty folder to work in."""

    def __init__(self, package: Path, folder: Path) -> None:
        self.bin, self.work = folder / "env/bin", folder / "work"
        self.work.mkdir()
        self.environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        # A cache of its own: what is compiled at first use is compiled for this test.
        self.environment["XDG_CACHE_HOME"] = str(folder / "cache")
        self.run(sys.executable, "-m", "venv", folder / "env")
        self.run(self.bin / "pip", "install", "--quiet", "--no-deps", package)
        (own,) = (folder / "env/lib").glob("python*/site-packages")
        # Behind the environment's own packages, and without the hooks of an editable install.
        (own / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def run(self, *command: str | Path) -> str:
        done = subprocess.run(
            [str(part) for part in command], cwd=self.work, env=self.environment,
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def python(self, code: str) -> str:
        return self.run(self.bin / "python", "-c", code).strip()

    def edgevit(self, *arguments: str | Path) -> str:
        return self.run(self.bin / "edgevit", *arguments)


@pytest.fixture(scope="module", params=KINDS)
def installed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Installed:
    (package,) = Path(os.environ["EDGEVIT_DIST"]).glob(KINDS[request.param])
    return Installed(package, tmp_path_factory.mktemp(request.param))


def test_everything_comes_from_the_installed_package(installed: Installed) -> None:
    code = (
        "import edgevit, json; from edgevit.measure.harness import build_harness; "
        "from edgevit.project import EMBEDDED, SOURCES; "
        "print(json.dumps([edgevit.__file__, str(SOURCES), str(EMBEDDED), str(build_harness())]))"
    )
    found = json.loads(installed.python(code))
    assert all(path.startswith(str(installed.bin.parent)) for path in found), found
    library = Path(found[3]).with_name("libedgevit.so.0.1")
    loaded = f"import ctypes; print(ctypes.CDLL({str(library)!r}).edgevit_open)"
    assert "_FuncPtr" in installed.python(loaded)


def test_the_harness_needs_no_library_of_this_machine_but_the_systems(installed: Installed) -> None:
    code = "from edgevit.measure.harness import build_harness; print(build_harness())"
    program = installed.python(code)
    needed = installed.run("ldd", program)
    if "edgevit.libs" not in needed:  # compiled here, from the sources
        pytest.skip("the sources' harness uses this machine's libraries, as it should")
    for name in ("libjpeg", "libpng", "libwebp"):
        (line,) = [line for line in needed.splitlines() if name in line.split("=>")[0]]
        assert "edgevit.libs" in line


def test_doctor_names_the_targets(installed: Installed) -> None:
    found = json.loads(installed.edgevit("doctor", "--json"))
    assert {"tflite", "coreml", "tensorrt", "onnx", "qnn"} <= {t["name"] for t in found["targets"]}


def test_an_artifact_is_compiled_and_validated(installed: Installed) -> None:
    embedded = Path(installed.python("from edgevit.project import EMBEDDED; print(EMBEDDED)"))
    checkpoint, labels = embedded / "repvit_m0_9_eurosat64.safetensors", "labels.txt"
    with tarfile.open(embedded / "val.tar") as archive:
        classes = sorted({name.split("/")[0] for name in archive.getnames()})
    (installed.work / labels).write_text("\n".join(classes) + "\n")
    installed.edgevit(
        "compile", checkpoint, "--weights-only", "--target", "tflite", "--image-size", "64",
        "--labels", labels, "-o", "build",
    )  # fmt: skip
    found = json.loads(
        installed.edgevit(
            "validate", "build/tflite", "--data", embedded / "val.tar", "--limit", "50",
            "--no-gate", "--json",
        )
    )  # fmt: skip
    assert found["result"]["accuracy"]["count"] == 50


@pytest.mark.parametrize("installed", ["wheel"], indirect=True)
def test_the_demo_runs_and_what_it_made_is_packed(installed: Installed) -> None:
    installed.edgevit("demo", "-o", "demo")
    assert json.loads((installed.work / "demo/report.json").read_text())
    installed.edgevit("package", "--target", "tflite", "--build", "demo", "-o", "app", "--force")
    assert (installed.work / "app/README.md").is_file()
