"""--config: the options of `edgevit quantize` from a file, exactly as from the command line."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

import pytest

from edgevit import cli
from edgevit.errors import InputError

WHOLE = """
ckpt = "net.pth"
data = "train.tar"
output = "m.evq"
image-size = [64, 96]
mean = [0.5, 0.5, 0.25]
epochs = 8
lr = 5e-5
batch_size = 16
profile = "asymmetric"
augment = "dihedral"
allow-poor-float = true
snapshot-interval = 5
output-type = { "stages.3.add" = "float32", all = "int8" }
author = "A \\"B\\" \\u007f ü"
"""


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What `quantize_files` is called with; nothing is computed."""
    found: list[dict[str, Any]] = []

    def noted(source: Any, out: Path, options: Any, machine: Any, **more: Any) -> Any:
        called = {"source": source, "out": out, "options": options, "machine": machine}
        found.append(called | more)
        raise KeyboardInterrupt

    monkeypatch.setattr("edgevit.quantize.from_files.quantize_files", noted)
    return found


def run(*words: object) -> None:
    with pytest.raises(BaseException) as ended:
        cli.cli.main(["quantize", *map(str, words)], standalone_mode=False)
    if not isinstance(ended.value, cli.click.Abort):
        raise ended.value


def written(folder: Path, text: str, name: str = "recipe.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_file_stands_for_the_command_line(tmp_path: Path, calls: list[dict[str, Any]]) -> None:
    run("--config", written(tmp_path, WHOLE))
    run(
        "net.pth", "--data", "train.tar", "-o", "m.evq", "--image-size", "64x96",
        "--mean", "0.5,0.5,0.25", "--epochs", "8", "--lr", "5e-5", "--batch-size", "16",
        "--profile", "asymmetric", "--augment", "dihedral", "--allow-poor-float",
        "--snapshot-interval", "5", "--author", 'A "B" \x7f ü',
        "--output-type", "stages.3.add=float32", "--output-type", "all=int8",
    )  # fmt: skip
    from_file, from_words = calls
    assert from_file == from_words
    assert from_file["options"].epochs == 8.0 and from_file["options"].lr == 5e-5
    assert from_file["source"].preprocessing.image_size == (64, 96)
    assert from_file["machine"].snapshot_interval_s == 5
    assert from_file["out"] == Path("m.evq") and from_file["curves"] == Path("m.evq.metrics.csv")


def test_the_command_line_goes_first(tmp_path: Path, calls: list[dict[str, Any]]) -> None:
    path = written(tmp_path, WHOLE)
    run("--config", path, "--epochs", "0", "other.pth", "--image-size", "32", "-o", "n.evq")
    (found,) = calls
    assert found["options"].epochs == 0 and found["options"].batch_size == 16
    assert found["source"].checkpoint == Path("other.pth") and found["out"] == Path("n.evq")
    assert found["source"].preprocessing.image_size == 32


def test_the_recipe_that_is_kept_makes_the_same_call(
    tmp_path: Path, calls: list[dict[str, Any]]
) -> None:
    run("--config", written(tmp_path, WHOLE), "--seed", "7", "--fresh", "--force", "--json")
    text = calls[0]["recipe"]
    kept = tomllib.loads(text)
    assert kept["seed"] == 7 and kept["epochs"] == 8.0 and kept["image-size"] == [64, 96]
    # Of one call alone; what a terminal must not obey is spelled out.
    assert not {"fresh", "force", "json", "config"} & set(kept)
    assert kept["author"] == 'A "B" \\x7f ü'
    run("--config", written(tmp_path, text.replace("\\\\x7f", "\\u007f")), "--fresh", "--force")
    assert calls[1] == calls[0]


def test_yaml_says_the_same(tmp_path: Path, calls: list[dict[str, Any]]) -> None:
    text = (
        "ckpt: net.pth\ndata: train.tar\noutput: m.evq\nimage-size: [64, 96]\n"
        "mean: [0.5, 0.5, 0.25]\nepochs: 8\nlr: 5e-5\nbatch_size: 16\nprofile: asymmetric\n"
        "augment: dihedral\nallow-poor-float: true\nsnapshot-interval: 5\n"
        "output-type: {stages.3.add: float32, all: int8}\n"
        'author: "A \\"B\\" \\x7f ü"\n'
    )
    run("--config", written(tmp_path, text, "recipe.yaml"))
    run("--config", written(tmp_path, WHOLE))
    assert calls[0] == calls[1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoks = 3", "edgevit quantize has no option 'epoks' for a file; is it 'epochs'?"),
        ("fresh = true", "has no option 'fresh' for a file"),
        ("[train]\nepochs = 3", "has no option 'train'"),
        ("epochs = 'three'", "'epochs': --epochs is 'three', it must be a number"),
        ("epochs = true", "'epochs': --epochs is True, it must be a number"),
        ("epochs = -1", "'epochs': --epochs is -1"),
        ("batch-size = 1.5", "'batch-size': --batch-size is 1.5, it must be an integer"),
        ("profile = 'odd'", "'profile': --profile 'odd' is not one of portable, asymmetric"),
        ("profile = []", "'profile'"),
        ("mean = 0.5", "'mean'"),
        ("image-size = 'big'", "'image-size'"),
        ("data = 3", "'data' is of type int, it must be a text"),
        ("allow-poor-float = 'yes'", "'allow-poor-float'"),
        ("batch-size = 3\nbatch_size = 4", "'batch_size' is given twice"),
        ("epochs = 3\nepochs = 4", "is no TOML: Cannot overwrite a value (at"),
        ("epochs = 3\n\nlr == 4", "is no TOML: Invalid value (at line 3"),
        ("threads = nan", "'threads'"),
    ],
)
def test_a_mistake_is_named(
    text: str, message: str, tmp_path: Path, calls: list[dict[str, Any]]
) -> None:
    path = written(tmp_path, text)
    with pytest.raises(InputError) as error:
        run("net.pth", "--data", "t", "-o", "m.evq", "--config", path)
    assert str(error.value).startswith(str(path)) and message in str(error.value)
    assert not calls


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs: 3\nlr: [", "is no YAML: "),
        ("epochs: 3\nlr: 1\nepochs: 4", "line 3: 'epochs' is on line 1 already"),
        ("- epochs", "must hold lines of 'option: value'"),
        ("", "must hold lines of 'option: value'"),
        ("a: &a [1]\nmean: *a", "aliases (*name) are not known here"),
        ("epochs: !!python/object/apply:os.system ['true']", "is no YAML: "),
        ("seed: 1e-4", "'seed': --seed is '1e-4', it must be an integer"),
        ("3: 4", "has no option '3'"),
        ("[" * 5000, "is no YAML"),
        ("lr: 2020-13-45", "is no YAML"),
    ],
)
def test_a_mistake_in_yaml_is_named(
    text: str, message: str, tmp_path: Path, calls: list[dict[str, Any]]
) -> None:
    path = written(tmp_path, text, "recipe.yml")
    with pytest.raises(InputError) as error:
        run("net.pth", "--data", "t", "-o", "m.evq", "--config", path)
    assert str(error.value).startswith(str(path)) and message in str(error.value)
    assert not calls


def test_what_is_no_such_file_is_refused(tmp_path: Path, calls: list[dict[str, Any]]) -> None:
    (tmp_path / "folder.toml").mkdir()
    os.mkfifo(tmp_path / "fifo.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff = 1")
    (tmp_path / "large.toml").write_bytes(b"#" * (2**20 + 1))
    for name, message in (
        ("missing.toml", "cannot be read"),
        ("folder.toml", "is a folder"),
        ("fifo.toml", "is a FIFO"),
        ("bytes.toml", "is no UTF-8 text"),
        ("large.toml", "is too large for a file of options"),
        ("recipe.json", "ends in .toml, .yaml or .yml"),
    ):
        if name == "recipe.json":
            (tmp_path / name).write_text("{}")
        with pytest.raises(InputError, match=message):
            run("net.pth", "--data", "t", "-o", "m.evq", "--config", tmp_path / name)
    assert not calls


def test_what_a_file_leaves_out_is_still_needed(
    tmp_path: Path, calls: list[dict[str, Any]]
) -> None:
    with pytest.raises(cli.click.UsageError, match="Missing parameter: data"):
        run("--config", written(tmp_path, 'ckpt = "net.pth"\noutput = "m.evq"'))
    assert not calls
