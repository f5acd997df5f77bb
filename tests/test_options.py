"""Option classes: what they refuse, and the command-line options made from them."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import click
import numpy as np
import pytest
from click.testing import CliRunner

from edgevit.cli import COMMANDS, cli
from edgevit.commands.generate import collect, collect_given, options_of, options_of_several
from edgevit.errors import InputError
from edgevit.options import check, option, option_fields
from edgevit.targets import option_classes


@dataclass(frozen=True)
class Sample:
    """One option of every form."""

    size: int = option(224, "Side in pixels.", minimum=1, maximum=4096, metavar="PX")
    share: float = option(0.1, "Share of the images.", minimum=0, below=1)
    rate: float = option(1e-4, "Learning rate.", above=0)
    count: int = option(8, "How many.")
    kind: Literal["flip", "none"] = option("flip", "Kind.")
    mode: str = option("slow", "Mode.", choices=("slow", "fast"))
    resize_size: int | None = option(
        None, "Shorter side.", minimum=1, cli_name="resize", default_text="the image size"
    )
    mean: tuple[float, float, float] = option((0.5, 0.25, 0.125), "Mean.")
    names: tuple[str, ...] = option((), "Names.")
    runtime: dict[str, str] = option(factory=dict, help="Of the runtime.", short="-O")
    output: Path = option(Path("build"), "Folder.", short="-o")
    keep: bool = option(True, "Keep it.")
    force: bool = option(False, "Replace it.")
    plain: int = 3

    def __post_init__(self) -> None:
        check(self)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("size", 0, "--size is 0, it must be an integer from 1 to 4096"),
        ("size", 4097, "--size is 4097, it must be an integer from 1 to 4096"),
        ("size", True, "--size is True, it must be an integer"),
        ("size", 2.0, "--size is 2.0, it must be an integer"),
        ("size", "2", "--size is '2', it must be an integer"),
        ("size", None, "--size is None, it must be an integer"),
        ("count", 2**63, "--count is an integer of 64 bits, it must be an integer"),
        ("count", -(2**63) - 1, "--count is an integer of 64 bits"),
        pytest.param("count", 10**5000, "--count is an integer of 16610 bits", id="huge"),
        ("share", 1.0, "--share is 1.0, it must be a number from 0 to below 1"),
        ("share", -0.1, "--share is -0.1"),
        ("share", float("nan"), "--share is nan"),
        ("share", False, "--share is False"),
        ("rate", 0, "--rate is 0, it must be a number above 0"),
        ("rate", float("inf"), "--rate is inf"),
        ("rate", 10**400, "--rate is an integer of 1329 bits, it must be a number"),
        ("kind", "rotate", "--kind 'rotate' is not one of flip, none"),
        ("kind", None, "--kind None is not one of flip, none"),
        ("kind", ["flip"], r"--kind \['flip'\] is not one of"),
        ("mode", "", "--mode '' is not one of slow, fast"),
        ("mode", "x" * 500, "--mode 'x{79}[.]{3} is not one of slow, fast"),
        ("resize_size", 0, "--resize is 0, it must be an integer of 1 or more, or None"),
        ("mean", (1, 2), r"--mean is \(1, 2\), it must be 3 values, each a number"),
        ("mean", (1, 2, float("nan")), "--mean is .*nan"),
        ("mean", (1, 2, True), "--mean is .*True"),
        pytest.param("mean", (1, 2, 10**5000), "--mean is a tuple of huge numbers", id="huge2"),
        ("mean", 0.5, "--mean is 0.5"),
        ("names", "abc", "--names is 'abc', it must be a list, each a text"),
        ("names", (1,), "--names is"),
        ("runtime", {"a": 1}, "--runtime is .* it must be names with texts: key=value"),
        ("runtime", {"": "x"}, "--runtime is"),
        ("runtime", {"a=b": "x"}, "--runtime is"),
        ("runtime", [("a", "b")], "--runtime is"),
        ("output", 3, "--output is 3, it must be a path"),
        ("output", "a\0b", "--output is 'a\\\\x00b', it must be a path"),
        ("keep", 1, "--keep is 1, it must be true or false"),
        ("keep", None, "--keep is None"),
    ],
)
def test_a_bad_value_is_named_with_the_rule(field: str, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Sample(**{field: value})


def test_values_take_the_type_of_their_field() -> None:
    made = Sample(
        size=np.int64(64), share=0, mean=[1, 2, 3], names=["a"], output="x/y",  # type: ignore
        rate=np.float32(0.5), plain="left alone",  # type: ignore
    )  # fmt: skip
    assert type(made.size) is int and made.size == 64
    assert type(made.share) is float and type(made.rate) is float
    assert made.mean == (1.0, 2.0, 3.0) and all(type(v) is float for v in made.mean)
    assert made.names == ("a",) and made.output == Path("x/y")
    assert made.plain == "left alone"
    assert Sample.share == 0.1, "a default can be read from the class"


def test_the_bounds_of_a_range_belong_to_it() -> None:
    assert (Sample(size=1).size, Sample(size=4096).size, Sample(share=0).share) == (1, 4096, 0.0)
    assert Sample(count=2**63 - 1).count == 2**63 - 1 and Sample(count=-(2**63)).count == -(2**63)


@pytest.mark.parametrize(
    ("bounds", "rule"),
    [
        ({}, "an integer"),
        ({"minimum": 2}, "an integer of 2 or more"),
        ({"above": 2}, "an integer above 2"),
        ({"maximum": 9}, "an integer of at most 9"),
        ({"below": 2**32}, "an integer below 4294967296"),
        ({"minimum": 2, "maximum": 9}, "an integer from 2 to 9"),
        ({"minimum": 0, "below": 2**32}, "an integer from 0 to below 4294967296"),
        ({"above": 0, "maximum": 9}, "an integer above 0 to 9"),
    ],
)
def test_a_range_in_words(bounds: dict[str, float], rule: str) -> None:
    @dataclass
    class Ranged:
        value: int = option(5, "Value.", **bounds)  # type: ignore

    assert option_fields(Ranged)[0].rule == rule


def test_a_type_that_no_option_can_have_is_an_error_of_the_class() -> None:
    @dataclass
    class Wrong:
        value: set[str] = option(None, "No.")

    with pytest.raises(TypeError, match="value: no option can be of type"):
        option_fields(Wrong)


def run(*words: str) -> tuple[Any, Any]:
    """What a command with Sample's options makes of the words, and click's result."""
    made: list[Sample] = []

    @click.command()
    @options_of(Sample)
    def command(**given: Any) -> None:
        made.append(collect(Sample, given))

    result = CliRunner().invoke(command, list(words))
    return (made or [None])[0], result


def test_the_command_line_has_the_defaults_of_the_class() -> None:
    made, result = run()
    assert result.exit_code == 0, result.output
    assert made == Sample()


def test_every_form_can_be_given() -> None:
    made, result = run(
        "--size", "64", "--share", "0", "--kind", "none", "--mode", "fast", "--resize", "70",
        "--mean", "1", "2", "3", "--names", "a", "--names", "b", "-O", "units=cpu",
        "--runtime", "path=a=b", "-o", "out", "--no-keep", "--force",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert made == Sample(
        size=64, share=0.0, kind="none", mode="fast", resize_size=70, mean=(1.0, 2.0, 3.0),
        names=("a", "b"), runtime={"units": "cpu", "path": "a=b"}, output=Path("out"), keep=False,
        force=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    "words",
    [["--size", "0"], ["--share", "1"], ["--rate", "0"], ["--kind", "rotate"], ["--count", "1.5"],
     ["-O", "units"], ["-O", "=cpu"], ["-O", "a=1", "-O", "a=2"], ["--mean", "1", "2"],
     ["--resize", "0"]],
)  # fmt: skip
def test_a_bad_word_ends_with_2_and_names_the_option(words: list[str]) -> None:
    made, result = run(*words)
    assert made is None and result.exit_code == 2
    assert words[0] in result.output


@pytest.mark.parametrize("words", [["--rate", "inf"], ["--share", "nan"], ["--count", "9" * 30]])
def test_what_click_lets_through_the_class_refuses(words: list[str]) -> None:
    made, result = run(*words)
    assert made is None and isinstance(result.exception, InputError)
    assert words[0] in str(result.exception)


def test_help_shows_text_default_and_range() -> None:
    _, result = run("--help")
    text = " ".join(result.output.split())
    assert "--size PX Side in pixels. [default: 224; 1<=x<=4096]" in text
    assert "Shorter side. [default: the image size; x>=1]" in text
    assert "--share FLOAT RANGE Share of the images. [default: 0.1; 0<=x<1]" in text
    assert "Learning rate. [default: 0.0001; x>0]" in text
    assert "-O, --runtime KEY=VALUE" in text
    assert "--keep / --no-keep" in text and "[default: keep]" in text


def test_a_part_of_a_class_and_fields_that_are_no_option() -> None:
    @click.command()
    @options_of(Sample, only=("size", "share"), without=("share",))
    def command(**given: Any) -> None:
        assert list(given) == ["size"]
        assert collect(Sample, given, plain=9) == Sample(size=5, plain=9)

    result = CliRunner().invoke(command, ["--size", "5"], catch_exceptions=False)
    assert result.exit_code == 0


def test_an_option_without_default_must_be_given() -> None:
    @dataclass(frozen=True)
    class Needed:
        data: Path = option(help="Images.")

    @click.command()
    @options_of(Needed)
    def command(**given: Any) -> None:
        assert collect(Needed, given) == Needed(data=Path("x"))

    assert "--data" in CliRunner().invoke(command, []).output
    assert CliRunner().invoke(command, ["--data", "x"], catch_exceptions=False).exit_code == 0


@dataclass(frozen=True)
class Left:
    io: str = option("int8", "Element type.", choices=("int8", "uint8"))
    engine: str = option("off", "Build one.", choices=("off", "on"))


@dataclass(frozen=True)
class Right:
    io: str = option("float16", "Element type.", choices=("float16", "int8"))
    depth: int = option(3, "Depth.", minimum=1)


def test_options_of_several_owners_are_joined() -> None:
    owners = {"left": Left, "right": Right}
    given: dict[str, Any] = {}

    @click.command()
    @options_of_several(owners)
    def command(**words: Any) -> None:
        given.update(collect_given(owners, words))

    runner = CliRunner()
    text = " ".join(runner.invoke(command, ["--help"]).output.split())
    assert "--io [int8|uint8|float16]" in text
    assert "Element type. For left, right. [default: int8 for left, float16 for right]" in text
    assert "Depth. For right. [default: 3; x>=1]" in text
    assert runner.invoke(command, []).exit_code == 0 and given == {}
    assert runner.invoke(command, ["--io", "uint8", "--engine", "--depth", "2"]).exit_code == 0
    assert given == {"io": "uint8", "engine": "on", "depth": 2}
    assert runner.invoke(command, ["--depth", "0"]).exit_code == 2


def test_option_classes_need_neither_torch_nor_click() -> None:
    code = "import sys, edgevit.options; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "click", "numpy"} & set(done.stdout.split())


# -- the commands ------------------------------------------------------------------------------

COMMAND_FILES = Path(__file__).resolve().parent.parent / "edgevit" / "commands"


def options(name: str) -> Iterator[click.Option]:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    yield from (each for each in command.params if isinstance(each, click.Option))


def help_of(each: click.Option) -> str:
    record = each.get_help_record(click.Context(click.Command("any")))
    assert record is not None, f"{each.opts} is hidden"
    return record[1]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_a_help_text(name: str) -> None:
    for each in options(name):
        assert each.help and not each.help.startswith("["), each.opts


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_every_default(name: str) -> None:
    for each in options(name):
        unset = each.default is None or each.default is False or each.default in ((), [])
        if unset or each.required or "UNSET" in str(each.default):
            continue
        value = each.default
        if isinstance(value, bool):
            value = each.opts[0].removeprefix("--")
        shown = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
        assert f"[default: {shown}" in help_of(each), each.opts


@pytest.mark.parametrize("path", sorted(COMMAND_FILES.glob("*.py")), ids=lambda path: path.stem)
def test_no_default_is_written_in_a_command(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        for keyword in node.keywords:
            if keyword.arg == "default":
                written = any(
                    isinstance(part, ast.Constant) and part.value is not None
                    for part in ast.walk(keyword.value)
                )
                assert not written or path.stem == "generate", f"{path.name}:{node.lineno}"
            if keyword.arg == "type":
                listed = any(
                    isinstance(part, ast.List | ast.Tuple) for part in ast.walk(keyword.value)
                )
                assert not listed or path.stem == "generate", f"{path.name}:{node.lineno}"


def test_the_options_of_a_command_are_its_classes() -> None:
    from edgevit.data.options import PreprocessingOptions
    from edgevit.models.options import CheckpointOptions, FuseOptions
    from edgevit.quantize.options import QuantizeOptions
    from edgevit.runs.options import MachineOptions

    made = {
        "quantize": (PreprocessingOptions, CheckpointOptions, QuantizeOptions, MachineOptions),
        "fuse": (PreprocessingOptions, CheckpointOptions, FuseOptions),
    }
    for name, classes in made.items():
        known = {each.name: each for each in options(name)}
        for cls in classes:
            for field in option_fields(cls):
                found = known[field.name]
                assert found.opts[-1] == field.flag and found.help == field.option.help
                default = field.default
                if field.form == "mapping":  # repeated on the command line, KEY=VALUE each
                    default = [f"{key}={value}" for key, value in default.items()]
                assert found.default == default and type(found.default) is type(default)
                if field.option.choices:
                    assert tuple(found.type.choices) == field.option.choices


def test_help_loads_no_torch() -> None:
    code = (
        "import sys, edgevit.cli\n"
        "for arguments in (['--help'], ['quantize', '--help'], ['compile', '--help']):\n"
        "    try: edgevit.cli.main(arguments)\n"
        "    except SystemExit: pass\n"
        "print('', *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--snapped-share" in done.stdout
    assert not {"torch", "nncf", "coremltools", "onnx"} & set(done.stdout.split("\n")[-2].split())


def test_resize_has_one_meaning() -> None:
    from edgevit.data.images import Preprocessing
    from edgevit.data.options import PreprocessingOptions

    assert Preprocessing.from_options(PreprocessingOptions(64)) == Preprocessing(64, 64)
    assert Preprocessing.from_options(PreprocessingOptions(64, 72)) == Preprocessing(64, 72)
    assert PreprocessingOptions.interpolation == Preprocessing.interpolation
    with pytest.raises(InputError, match="--resize 63 is below --image-size 64"):
        PreprocessingOptions(64, 63)


HAVE_IO = [name for name, cls in option_classes().items() if hasattr(cls, "io")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compile", "m.evq", "--target", "coreml", "--io", "int8"],
         f"--io is not an option of coreml; it is one of {', '.join(HAVE_IO)}"),
        (["compile", "m.evq", "--target", "tflite", "--io", "float16"],
         "--io 'float16' is not one of int8, uint8, float32"),
        (["compile", "m.evq", "--target", "coreml", "--deployment-target", "iOS16"],
         "iOS16 has no int8 activations"),
        (["quantize", "c.pth", "--data", "d", "-o", "m.evq", "--lr", "nan"], "--lr is nan"),
        (["quantize", "c.pth", "--data", "d", "-o", "m.evq", "--resize", "3"],
         "--resize 3 is below --image-size 224"),
        (["fuse", "c.pth", "-o", "f.safetensors", "--bound", "nan"], "--bound is nan"),
    ],
)  # fmt: skip
def test_options_are_checked_before_any_file_is_read(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(cli, arguments)
    assert isinstance(result.exception, InputError) and message in str(result.exception)


@dataclass(frozen=True)
class Refusing:
    kind: Literal["flip", "none"] = option("flip", "Kind.", refused={"turn": "it is slow"})

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class Other:
    kind: Literal["none", "mirror"] = option("none", "Kind.")

    def __post_init__(self) -> None:
        check(self)


def test_a_value_that_is_refused_is_told_why_and_no_choice() -> None:
    with pytest.raises(InputError, match="--kind turn is refused: it is slow"):
        Refusing(kind="turn")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="--kind 'spin' is not one of flip, none"):
        Refusing(kind="spin")  # type: ignore[arg-type]

    @click.command()
    @options_of(Refusing)
    def alone(**given: Any) -> None:
        collect(Refusing, given)

    @click.command()
    @options_of_several({"a": Refusing, "b": Other})
    def shared(**given: Any) -> None:
        Other(**collect_given({"b": Other}, given))

    result = CliRunner().invoke(alone, ["--kind", "turn"])
    assert str(result.exception) == "--kind turn is refused: it is slow"
    # Who shares the option has reasons of its own.
    result = CliRunner().invoke(shared, ["--kind", "turn"])
    assert str(result.exception) == "--kind 'turn' is not one of none, mirror"
    for command in (alone, shared):
        assert CliRunner().invoke(command, ["--kind", "spin"]).exit_code == 2
        assert "turn" not in CliRunner().invoke(command, ["--help"]).output
