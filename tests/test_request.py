"""The request of a run: what it holds, what it refuses, and that every route takes all of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from edgevit.errors import InputError
from edgevit.measure.harness import build_harness, run_harness
from edgevit.measure.request import (
    GateLimits,
    HarnessRequest,
    ValidateOptions,
    request_schema,
)
from tests.test_harness import artifact, edit_manifest, images  # noqa: F401

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = ROOT / "edgevit" / "schemas" / "request.schema.json"
FULL = HarnessRequest(
    Path("A"), Path("D"), out=Path("O"), leave_out=Path("V"), reference=Path("R"), logits=Path("L"),
    dump_inputs=Path("I"), profile=Path("P"), backend="coreml", runtime=Path("lib.so"),
    runtime_options={"compute_units": "cpu"}, threads=4, warmup=0, limit=7, duration_s=90.0,
    bucket_s=2.5, mlperf=True, early_stop=GateLimits(0.5, 99.8),
)  # fmt: skip


def test_the_schema_beside_the_others_is_the_dataclasss() -> None:
    """`json.dumps(request_schema(), indent=2)` and a line break."""
    assert SCHEMA.read_text() == json.dumps(request_schema(), indent=2) + "\n"
    Draft202012Validator.check_schema(request_schema())


def test_every_field_is_in_the_document_and_fits_the_schema() -> None:
    validator = Draft202012Validator(request_schema())
    least = replace(HarnessRequest(Path("A"), Path("D")), out=Path("O"))
    for request in (FULL, least):
        document = json.loads(json.dumps(request.to_json()))
        validator.validate(document)
        assert set(document) == {f.name for f in fields(request)} | {"schema_version", "kind"}
    assert least.to_json()["bucket_s"] is None
    assert replace(least, mlperf=True).to_json()["bucket_s"] == 10.0
    for wrong in ({"threads": 0}, {"more": 1}, {"runtime_options": {"k": 1}}, {"out": None},
                  {"early_stop": {"max_drop": 1}}, {"backend": "a b"}):  # fmt: skip
        assert not validator.is_valid(FULL.to_json() | wrong), wrong


def test_text_is_taken_for_a_path() -> None:
    request = HarnessRequest("A", "D", runtime="libLiteRt.so")  # type: ignore[arg-type]
    assert (request.artifact, request.runtime) == (Path("A"), Path("libLiteRt.so"))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"threads": 0}, "--threads is 0"),
        ({"threads": 257}, "--threads is 257"),
        ({"threads": True}, "--threads is True"),
        ({"threads": "2"}, "--threads is"),
        ({"warmup": -1}, "--warmup is -1"),
        ({"warmup": 100_001}, "--warmup"),
        ({"limit": 0}, "--limit"),
        ({"limit": 1.5}, "--limit"),
        ({"duration_s": 0.0}, "--duration"),
        ({"duration_s": 3600.5}, "--duration"),
        ({"duration_s": float("nan")}, "--duration"),
        ({"bucket_s": 5.0}, "--bucket needs --duration or --mlperf"),
        ({"bucket_s": 0.001, "mlperf": True}, "--bucket is 0.001"),
        ({"mlperf": 1}, "--mlperf"),
        ({"backend": ""}, "not the name of a back-end"),
        ({"backend": "null\n"}, "not the name of a back-end"),
        ({"runtime_options": {"compute_units": 1}}, "--runtime-option"),
        ({"runtime_options": {"$x": "1"}}, "--runtime-option"),
        ({"runtime_options": ["a=b"]}, "--runtime-option"),
        ({"data": "a\0b"}, "--data"),
        ({"data": None}, "--data"),
    ],
)
def test_a_wrong_value_is_named_by_its_option(wrong: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"artifact": Path("A"), "data": Path("D"), **wrong}
    with pytest.raises(InputError, match=message):
        HarnessRequest(**given)


def test_limits_are_numbers() -> None:
    for wrong in ((float("nan"), 99.0), (0.5, float("inf")), (0.5, True), (101.0, 99.0)):
        with pytest.raises(InputError, match="--(max-drop|min-agreement) is"):
            GateLimits(*wrong)
    with pytest.raises(InputError, match="--max-drop"):
        ValidateOptions(max_drop=float("nan"))
    with pytest.raises(InputError, match="--no-gate has none"):
        ValidateOptions(early_stop=True, gate=False)


def test_a_path_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    request = replace(FULL, data=Path(os.fsdecode(b"caf\xe9")))
    with pytest.raises(InputError, match=r"--data 'caf\\udce9' is not UTF-8.*rename it"):
        request.write(tmp_path / "request.json")
    assert not (tmp_path / "request.json").exists()
    replace(FULL, data=Path('ü"\\\n')).write(tmp_path / "request.json")
    assert json.loads((tmp_path / "request.json").read_text("utf-8"))["data"] == 'ü"\\\n'


def test_the_harness_reads_what_the_schema_allows(tmp_path: Path) -> None:
    """Every key of a full request is known to C++: what is wrong is the folder alone."""
    FULL.write(tmp_path / "request.json")
    done = ask(tmp_path / "request.json", tmp_path)
    assert (done.returncode, "A: no such artifact folder" in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"\xff", "not valid JSON"),
        (b"[]", "the document must be an object"),
        (b'{"kind": "edgevit-request", "kind": "x"}', "the key 'kind' occurs twice"),
        (b" " * (2**20 + 1), "over the limit of 1048576"),
        ({"thread": 2}, "thread is no key of a request"),
        ({"threads": 300}, "threads must be an integer from 1 to 256"),
        ({"warmup": "many"}, "warmup must be an integer"),
        ({"schema_version": 2}, "schema_version is 2, this program reads up to 1"),
        ({"early_stop": {"max_drop": 0}}, "early_stop.min_agreement is missing"),
    ],
)
def test_a_hostile_request_is_exit_code_2(tmp_path: Path, text: Any, message: str) -> None:
    path = tmp_path / "request.json"
    document = json.dumps(FULL.to_json() | text).encode() if isinstance(text, dict) else text
    path.write_bytes(document)
    done = ask(path, tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("edgevit-harness: error: ") and "request.json" in done.stderr
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == [path]


def test_no_default_of_the_flags_is_another(artifact, images, tmp_path) -> None:  # noqa: F811
    """The program's own flags, for people, and the request of Python: one run."""
    asked = run_harness(HarnessRequest(artifact, images, duration_s=0.05))
    command = [build_harness(), "--artifact", artifact, "--data", images, "--quiet"]
    command += ["--duration", "0.05", "--out", tmp_path / "r.json"]
    subprocess.run(command, check=True)
    by_flags = json.loads((tmp_path / "r.json").read_text())
    for key in ("threads", "warmup", "limit", "early_stop", "accuracy", "backend", "agreement"):
        assert asked[key] == by_flags[key], key
    assert asked["long_run"]["bucket_s"] == by_flags["long_run"]["bucket_s"]


def test_the_result_goes_where_the_request_says(artifact, images, tmp_path) -> None:  # noqa: F811
    result = run_harness(HarnessRequest(artifact, images, out=tmp_path / "r.json"))
    assert json.loads((tmp_path / "r.json").read_text()) == result


def test_runtime_options_of_the_command_line_arrive(artifact, images) -> None:  # noqa: F811
    """What no back-end takes here is refused by the harness, by the name that was given."""
    edit_manifest(artifact, target="tflite")
    command = [sys.executable, "-m", "edgevit", "validate", artifact, "--data", images]
    command += ["--no-gate", "--backend", "null"]
    refused = "the null back-end takes no runtime option "
    for words, message in (
        (["--runtime-option", "compute_units=cpu"], refused + "'compute_units'"),
        (["-O", "strides=4"], refused + "'strides'; it takes none"),
        (["--plan-cache", "plans"], refused + "'plan_cache'"),
        (["--plan-cache", "plans", "-O", "plan_cache=p"], "are the same; give one"),
        (["-O", "compute_units"], "KEY=VALUE"),
        (["--device", "adb:X", "-O", "plan_cache=p"], "--plan-cache names a folder of this"),
    ):
        done = subprocess.run([*command, *words], capture_output=True, text=True)
        assert (done.returncode, message in done.stderr) == (2, True), done.stderr
    assert not (artifact / "validation.json").exists()


def test_files_that_validate_would_replace_are_kept(artifact, images, tmp_path) -> None:  # noqa: F811
    edit_manifest(artifact, target="tflite")
    profile = tmp_path / "profile.json"
    command = [sys.executable, "-m", "edgevit", "validate", artifact, "--data", images]
    command += ["--no-gate", "--backend", "null", "--profile", profile]
    profile.write_text("mine")
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, "--force" in done.stderr) == (2, True), done.stderr
    assert profile.read_text() == "mine"
    subprocess.run([*command, "--force"], check=True)
    assert json.loads(profile.read_text())["kind"] == "edgevit-profile"


def ask(path: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [build_harness(), "--request", path], capture_output=True, text=True, errors="replace",
        cwd=folder,
    )  # fmt: skip
