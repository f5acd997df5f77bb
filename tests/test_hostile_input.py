"""What strangers and bad luck put in: every path, number, text and JSON value ends in a message."""

from __future__ import annotations

import copy
import importlib
import inspect
import json
import math
import os
import pkgutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import MISSING
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

import edgevit
from edgevit import console
from edgevit.cli import cli
from edgevit.errors import EdgevitError, InputError
from edgevit.measure.harness import _runtime_of
from edgevit.measure.report.page import write_report
from edgevit.measure.request import HarnessRequest
from edgevit.measure.validate import limits_of_target
from edgevit.options import OptionField, option_fields
from edgevit.program import Program, Reference
from edgevit.targets import load_target
from edgevit.targets.manifest import Manifest
from tests.programs import make_program

LIMIT_S = 300
"""Far over what any test here takes on a busy machine."""


class TooLong(BaseException):
    """A command that waits, past every handler of exceptions."""


@pytest.fixture(autouse=True)
def _deadline() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(LIMIT_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """m.evq and b/tflite."""
    folder = tmp_path_factory.mktemp("made")
    program = make_program()
    program.save(folder / "m.evq")
    load_target("tflite").compile(program, folder / "b" / "tflite")
    return folder


# -- paths ----------------------------------------------------------------------------------------


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _link_to_zero(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


def _folder(path: Path) -> None:
    path.mkdir()


def _empty(path: Path) -> None:
    path.touch()


ODD_INPUTS = {
    "fifo": _fifo, "zero": _link_to_zero, "dangling": _dangling, "loop": _loop, "folder": _folder,
    "empty": _empty,
}  # fmt: skip

READERS: dict[str, list[str]] = {
    "program": ["compile", "{}", "--target", "tflite", "-o", "out"],
    "artifact to run": ["run", "{}", "photo.png"],
    "artifact to compare": ["parity", "{}", "--data", "data"],
    "program to compare": ["parity", "{made}/b/tflite", "--data", "data", "--program", "{}"],
    "artifact to validate": ["validate", "{}", "--data", "data", "-o", "v.json"],
    "run folder": ["report", "{}"],
    "build folder": ["package", "--target", "tflite", "--build", "{}", "-o", "out"],
    "graph": ["lint", "{}"],
    "labels": ["quantize", "ckpt", "--data", "data", "--labels", "{}", "-o", "q.evq"],
}


@pytest.mark.parametrize("arguments", READERS.values(), ids=READERS)
@pytest.mark.parametrize("kind", [*ODD_INPUTS, "missing", "long", "nul"])
def test_no_command_waits_for_or_chokes_on_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Path, arguments: list[str], kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    name = {"long": "n" * 250, "nul": "a\0b"}.get(kind, "odd")
    if kind in ODD_INPUTS:
        ODD_INPUTS[kind](tmp_path / name)
    before = os.listdir(tmp_path)
    given = [word.replace("{}", name).replace("{made}", str(made)) for word in arguments]
    with pytest.raises((InputError, click.UsageError, OSError)) as caught:
        cli.main(given, standalone_mode=False)
    # `main` makes a message of the system's refusal of a name.
    assert kind == "long" or not isinstance(caught.value, OSError)
    assert os.listdir(tmp_path) == before


@pytest.mark.parametrize("name", ["manifest.json", "model.tflite"])
@pytest.mark.parametrize("kind", ["fifo", "zero", "dangling", "loop", "folder", "empty"])
def test_no_part_of_an_artifact_is_waited_for(
    tmp_path: Path, made: Path, name: str, kind: str
) -> None:
    folder = tmp_path / "tflite"
    folder.mkdir()
    for each in (made / "b" / "tflite").iterdir():
        if each.name != name:
            (folder / each.name).write_bytes(each.read_bytes())
    ODD_INPUTS[kind](folder / name)
    with pytest.raises(InputError):
        edgevit.open(folder)
    with pytest.raises(InputError):
        load_target("tflite").compile(make_program(), folder)
    with pytest.raises(InputError):
        cli.main(["package", "--target", "tflite", "--build", str(tmp_path)], standalone_mode=False)


WRITERS: dict[str, list[str]] = {
    "artifact": ["compile", "{made}/m.evq", "--target", "tflite", "-o", "{}/.."],
    "validation": ["validate", "{made}/b/tflite", "--data", "data", "-o", "{}"],
    "logits": ["validate", "{made}/b/tflite", "--data", "data", "-o", "v", "--logits", "{}"],
    "package": [
        "package", "--target", "tflite", "--build", "{made}/b", "--unvalidated", "-o", "{}",
    ],
    "demo": ["demo", "-o", "{}"],
    "program": ["quantize", "ckpt", "--data", "data", "-o", "{}"],
}  # fmt: skip


@pytest.mark.parametrize("arguments", WRITERS.values(), ids=WRITERS)
@pytest.mark.parametrize("force", [False, True], ids=["", "force"])
@pytest.mark.parametrize("kind", ["fifo", "zero", "dangling", "foreign", "too-long"])
def test_no_output_takes_the_place_of_what_is_not_edgevits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Path, arguments: list[str], force: bool,
    kind: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    path = tmp_path / ("n" * 256 if kind == "too-long" else "tflite")
    if kind == "foreign":
        path.mkdir()
        (path / "manifest.json").write_text('{"name": "my web app"}')
        (path / "edgevit-package.json").write_text("{}")
        (path / "demo.json").write_text("{}")
        (path / "thesis.tex").write_text("mine")
    elif kind != "too-long":
        ODD_INPUTS[kind](path)
    before = [(p.name, p.lstat().st_mode, p.lstat().st_ino) for p in tmp_path.rglob("*")]
    if "compile" in arguments and kind == "too-long":
        return  # the name of an artifact folder is its target's
    given = [w.replace("{}", path.name).replace("{made}", str(made)) for w in arguments]
    given = ["." if word.endswith("/..") else word for word in given]
    with pytest.raises(InputError):
        cli.main([*given, *(["--force"] if force else [])], standalone_mode=False)
    assert [(p.name, p.lstat().st_mode, p.lstat().st_ino) for p in tmp_path.rglob("*")] == before


@pytest.mark.parametrize("more", ["manifest.json", "notes.txt"])
def test_a_foreign_file_in_an_artifact_folder_keeps_it(
    tmp_path: Path, made: Path, more: str
) -> None:
    folder = tmp_path / "tflite"
    load_target("tflite").compile(make_program(), folder)
    (folder / "validation.json").write_text("{}")
    (folder / "parity.json").write_text("{}")
    load_target("tflite").compile(make_program(), folder, True)
    assert sorted(os.listdir(folder)) == ["manifest.json", "model.tflite"]
    (folder / more).write_text("mine")
    with pytest.raises(InputError, match="not written by edgevit"):
        load_target("tflite").compile(make_program(), folder, True)
    assert (folder / more).read_text() == "mine"


def test_a_file_in_a_package_of_an_artifact_keeps_it(tmp_path: Path) -> None:
    folder = tmp_path / "coreml"
    load_target("coreml").compile(make_program(), folder)
    load_target("coreml").compile(make_program(), folder, True)
    (package,) = [path for path in folder.iterdir() if path.is_dir()]
    (package / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="not written by edgevit"):
        load_target("coreml").compile(make_program(), folder, True)
    assert (package / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("kind", ["fifo", "zero", "dangling", "loop"])
def test_a_runtime_is_a_file(tmp_path: Path, kind: str) -> None:
    ODD_INPUTS[kind](tmp_path / "lib.so")
    with pytest.raises(InputError, match="--runtime"):
        _runtime_of(HarnessRequest(tmp_path, tmp_path, runtime=tmp_path / "lib.so"))


# -- JSON -----------------------------------------------------------------------------------------

HOSTILE = [
    "null", "true", "0", "-1", "1.5", "1e999", "NaN", "-Infinity", "1" + "0" * 400, str(2**63),
    str(2**31), '"\\ud800"', '"\\u0000"', '"a\\nb"', '""', "[]", "{}", '"x"', "[" * 70 + "]" * 70,
    "1e-320", "1e308", '"' + "n" * 5000 + '"', "[null]", '{"a":1}', "[" * 5000 + "]" * 5000,
]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every key of a JSON value, and the first items of its arrays."""
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], (*path, key))
    elif isinstance(value, list):
        for i in range(min(len(value), 2)):
            yield from places(value[i], (*path, i))


def with_hostile(value: Any, path: tuple[Any, ...], text: str) -> bytes:
    """The value as JSON with other text at a place."""
    changed = inner = {"": copy.deepcopy(value)}
    way = ("", *path)
    for key in way[:-1]:
        inner = inner[key]
    inner[way[-1]] = "@@here@@"
    return json.dumps(changed[""]).replace('"@@here@@"', text).encode()


def test_every_value_of_a_manifest_is_read_or_refused(made: Path) -> None:
    value = json.loads((made / "b" / "tflite" / "manifest.json").read_text())
    value["labels"], tried = value["labels"][:2], 0
    for path in places(value):
        for text in HOSTILE:
            tried += 1
            try:
                Manifest.parse(with_hostile(value, path, text)).text()
            except InputError as error:
                str(error).encode()  # a message can be shown
    assert tried > 1000


@pytest.mark.parametrize("labels", [9, 11, 0])
def test_labels_that_are_not_the_classes_are_refused(
    tmp_path: Path, made: Path, labels: int
) -> None:
    value = json.loads((made / "b" / "tflite" / "manifest.json").read_text())
    value["labels"] = [f"c{i}" for i in range(labels)]
    with pytest.raises(InputError, match=f"labels: {labels} of them"):
        Manifest.parse(json.dumps(value).encode())


@pytest.mark.parametrize("target", ["onnxruntime", "harness", "core", "abacus", "libedgevit"])
def test_what_is_no_target_has_no_budgets(target: str) -> None:
    with pytest.raises(InputError, match=target):
        limits_of_target(target)


# -- numbers --------------------------------------------------------------------------------------


def options() -> list[tuple[type, OptionField]]:
    """Every number that can be given, on the command line or in Python."""
    found: dict[tuple[type, str], OptionField] = {}
    for module in pkgutil.walk_packages(edgevit.__path__, "edgevit."):
        if module.name.endswith(("options", "request")) or ".targets." in module.name:
            for cls in vars(importlib.import_module(module.name)).values():
                own = getattr(cls, "__dataclass_fields__", {}) if inspect.isclass(cls) else {}
                if any("edgevit.option" in each.metadata for each in own.values()):
                    found |= {(cls, each.name): each for each in option_fields(cls)}
    return [(cls, each) for (cls, _), each in found.items() if each.kind in (int, float)]


@pytest.mark.parametrize(("cls", "each"), options(), ids=lambda x: getattr(x, "name", None) or "")
def test_no_option_takes_what_is_no_finite_number(cls: type, each: OptionField) -> None:
    given = {
        f.name: "x" for f in option_fields(cls) if f.default is MISSING and f.kind is not float
    }
    given |= {f.name: 1.0 for f in option_fields(cls) if f.default is MISSING and f.kind is float}
    for value in (math.nan, math.inf, -math.inf, 10**400, -(10**400), "1", None.__class__):
        whole = (value,) * each.length if each.form == "tuple" else value
        with pytest.raises(InputError, match=each.flag):
            cls(**{**given, each.name: whole})


BOUNDED = ("edgevit.quantize.options", "edgevit.measure.options", "edgevit.measure.request")


def test_every_number_of_a_run_has_a_range() -> None:
    for cls, each in options():
        o = each.option
        if cls.__module__ in BOUNDED:
            assert o.minimum is not None or o.above is not None, (cls, each.name)
            assert o.maximum is not None or o.below is not None, (cls, each.name)


@pytest.mark.parametrize(
    "given",
    [
        ["--epochs", "inf"], ["--epochs", "1e300"], ["--temperature", "1e-300"],
        ["--max-drop", "nan"], ["--max-drop", "inf"], ["--threads", "100000"], ["--lr", "1e300"],
        ["--holdout", "1"], ["--holdout", "nan"], ["--snapshot-interval", "inf"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_the_command_refuses_what_python_does(given: list[str], tmp_path: Path) -> None:
    out = str(tmp_path / "q.evq")
    with pytest.raises((InputError, click.UsageError)) as caught:
        cli.main(["quantize", "c", "--data", "d", "-o", out, *given], standalone_mode=False)
    error = caught.value
    text = error.format_message() if isinstance(error, click.UsageError) else str(error)
    assert given[0] in text and error.exit_code == 2


# -- text on a terminal ---------------------------------------------------------------------------

EVIL = "a[/x]b[bold]\x1b[31m\x07\r\u202e\udcff[link=x]"


def test_text_is_shown_and_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    shown = r"a[/x]b[bold]\x1b[31m\x07\x0d\u202e\udcff[link=x]"
    assert console.printable(EVIL) == shown
    assert console.printable("two\nlines, ünïcode 日本 🍃") == "two\nlines, ünïcode 日本 🍃"
    console.say(EVIL)
    console.print_table(EVIL, [("name", EVIL)])
    console.print_table("t", [(EVIL, EVIL)], (EVIL, EVIL))
    out = capsys.readouterr().out
    assert out.count(shown) >= 5 and "\x1b" not in out


@pytest.mark.parametrize("columns", ["1", "20", "80"])
def test_no_column_is_cut_away(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    console.print_table("t", [("a name of some length", "0123456789" * 9)])
    out = "".join(capsys.readouterr().out.split())
    assert "anameofsomelength" in out and sum(map(out.count, "0123456789")) == 90


def edgevit_command(*arguments: str | bytes, **more: Any) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "edgevit", *arguments]
    return subprocess.run(command, capture_output="stdout" not in more, timeout=LIMIT_S, **more)


def test_a_full_disk_behind_standard_output_is_a_message() -> None:
    for arguments in (["doctor"], ["doctor", "--json"], ["--help"]):
        with open("/dev/full", "wb") as full:
            done = edgevit_command(*arguments, stdout=full, stderr=subprocess.PIPE)
        assert done.returncode == 2
        assert b"No space left" in done.stderr and b"Traceback" not in done.stderr


def test_names_that_are_not_utf8_are_shown(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/\xff\xfe\x1b[31m"
    for arguments in (["report", name], ["compile", name, "--target", "tflite"]):
        done = edgevit_command(*arguments)
        assert done.returncode == 2, done.stderr
        assert b"Traceback" not in done.stderr and b"\x1b" not in done.stderr
        assert rb"\x1b[31m" in done.stderr


def test_a_terminal_that_goes_ends_a_command_cleanly(tmp_path: Path) -> None:
    # The tests themselves may run where signals are ignored: under nohup, or in the background.
    code = (
        "import time, tempfile, signal\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from edgevit import cli\n"
        "def wait(*_, **__):\n"
        "    with tempfile.TemporaryDirectory(dir='.'):\n"
        "        print('here', flush=True)\n"
        "        time.sleep(60)\n"
        "cli.cli.main = wait\n"
        "cli.main()\n"
    )
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
        process = subprocess.Popen(
            [sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None and process.stdout.readline() == "here\n"
        process.send_signal(number)
        _, errors = process.communicate(timeout=LIMIT_S)
        assert (process.returncode, errors.strip()) == (130, "edgevit: interrupted")
        assert os.listdir(tmp_path) == []


def test_a_run_under_nohup_goes_on(tmp_path: Path) -> None:
    code = (
        "import signal, time\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from edgevit import cli\n"
        "def wait(*_, **__):\n"
        "    print('here', flush=True)\n"
        "    time.sleep(1)\n"
        "cli.cli.main = wait\n"
        "cli.main()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "here\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0


@pytest.mark.parametrize("program", ["/bin/true", "/bin/false", "/dev/zero", "/etc/passwd", "/"])
def test_what_is_no_harness_is_said_to_be_none(tmp_path: Path, program: str) -> None:
    from edgevit.measure.harness import run_harness

    with pytest.raises(EdgevitError, match="harness"):
        run_harness(HarnessRequest(tmp_path, tmp_path), Path(program))


def test_a_program_is_read_whole_or_refused(tmp_path: Path, made: Path) -> None:
    data = (made / "m.evq").read_bytes()
    for count in (0, 1, 100, len(data) // 2, len(data) - 1):
        (tmp_path / "cut.evq").write_bytes(data[:count])
        with pytest.raises(InputError, match=r"cut\.evq"):
            Program.load(tmp_path / "cut.evq")


def test_names_that_are_not_utf8_go_all_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program, its answers, its artifact and the report, each of such a name."""
    odd = os.fsdecode(b"\xff\xfe")
    monkeypatch.chdir(tmp_path)
    names = (f"a/{odd}.jpg", "b/2.jpg")
    known = Reference(np.zeros((2, 10), np.float32), names, "1" * 64)
    program = make_program().with_info(make_program().info, known)
    program.save(f"{odd}/{odd}.evq")
    loaded = Program.load(f"{odd}/{odd}.evq")
    assert loaded.reference is not None and loaded.reference.paths == names
    manifest = load_target("tflite").compile(loaded, f"{odd}/{odd}")
    assert manifest.program.file is None and manifest.program.sha256 == loaded.sha256
    opened = edgevit.open(f"{odd}/{odd}")
    assert opened._artifact.reference().paths == names  # pyright: ignore[reportOptionalMemberAccess]
    write_report(Path(odd))
    page = (Path(odd) / "report.html").read_text()
    assert r"\udcff\udcfe: " in page
    assert console.storable({"a": [odd, ("b", 1)]}) == {"a": [r"\udcff\udcfe", ["b", 1]]}
