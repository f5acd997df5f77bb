"""timm:NAME, from Python and the command line: whose weights, which file, and what is refused."""

from __future__ import annotations

import importlib
import json
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import save_file
from torch import nn

import edgevit
from edgevit.cli import cli
from edgevit.errors import InputError, ToolMissing
from edgevit.models import timm_package
from edgevit.models.timm_nets import load_timm, preset_of, timm_info
from edgevit.program import Program
from tests.image_sets import subset
from tests.timm_compat import import_timm

timm = import_timm()
NAME, SMALL = "timm:mobilenetv3_small_050", "mobilenetv3_small_050"
MERGEABLE = "repghostnet_050"
CLASSES = 10


def made(name: str = SMALL, seed: int = 0, **counts: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return timm.create_model(name, **{"num_classes": CLASSES, **counts}).eval()


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def saved(value: Any, path: Path) -> Path:
    torch.save(value, path)
    return path


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(each) for each in arguments])


def refused(*arguments: str | Path) -> str:
    """What a command says that ends in an InputError."""
    error = run(*arguments).exception
    assert isinstance(error, InputError), error
    return str(error)


def same_weights(net: nn.Module, other: nn.Module) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(t, theirs[n]) for n, t in net.state_dict().items() if t.dim())


# -- the file -------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "module.model.", "_orig_mod."])
def test_a_state_dict_is_found_behind_keys_and_prefixes(prefix: str, tmp_path: Path) -> None:
    net = made()
    state = {prefix + name: tensor for name, tensor in net.state_dict().items()}
    for value in (state, {"epoch": 3, "state_dict": state, "optimizer": {"lr": 0.1}}):
        found = edgevit.load(NAME, weights=saved(value, tmp_path / "w.pth"))
        assert same_weights(found, net) and not found.training
        assert timm_info(found).num_classes == CLASSES


def test_a_file_says_how_many_classes_and_channels_there_are(tmp_path: Path) -> None:
    net = made(num_classes=7, in_chans=1)
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    found = edgevit.load(NAME, weights=tmp_path / "w.safetensors")
    info = timm_info(found)
    assert (info.num_classes, info.in_channels) == (7, 1) and same_weights(found, net)
    assert found(torch.zeros(1, 1, 32, 32)).shape == (1, 7)


def test_averaged_weights_are_taken_and_others_by_their_key(tmp_path: Path) -> None:
    plain, averaged = made(seed=1), made(seed=2)
    value = {"state_dict": plain.state_dict(), "state_dict_ema": averaged.state_dict()}
    path = saved(value, tmp_path / "w.pth")
    found = edgevit.load(NAME, weights=path)
    assert same_weights(found, averaged)
    assert f"--weights {path}#state_dict takes them" in " ".join(timm_info(found).notes)
    assert same_weights(edgevit.load(NAME, weights=f"{path}#state_dict"), plain)
    with pytest.raises(InputError, match="no weights under the key 'best'; found state_dict, "):
        edgevit.load(NAME, weights=f"{path}#best")


def test_what_timm_merged_already_is_taken_too(tmp_path: Path) -> None:
    from timm.utils.model import reparameterize_model

    net = made(MERGEABLE)
    merged = reparameterize_model(net)
    path = saved(merged.state_dict(), tmp_path / "w.pth")
    found = edgevit.load(f"timm:{MERGEABLE}", weights=path)
    assert timm_info(found).fused and same_weights(found, merged)


def test_half_precision_becomes_float32(tmp_path: Path) -> None:
    path = saved(made().half().state_dict(), tmp_path / "w.pth")
    found = edgevit.load(NAME, weights=path)
    assert timm_info(found).dtype == "float16"
    assert {t.dtype for t in found.parameters()} == {torch.float32}


def test_loading_leaves_torchs_random_state_alone(tmp_path: Path) -> None:
    path = saved(made().state_dict(), tmp_path / "w.pth")
    before = torch.random.get_rng_state()
    edgevit.load(NAME, weights=path)
    assert torch.equal(before, torch.random.get_rng_state())


def _without(state: dict[str, Any], name: str) -> dict[str, Any]:
    return {n: t for n, t in state.items() if n != name}


CHANGES: dict[str, tuple[Any, str]] = {
    "missing": (lambda s: _without(s, "conv_head.weight"), r"1 missing \(conv_head.weight\)"),
    "another shape": (
        lambda s: s | {"conv_head.bias": torch.zeros(5)},
        r"1 of another shape \(conv_head.bias \(5,\) for \(1024,\)\)",
    ),
    "unexpected": (lambda s: s | {"extra.weight": torch.ones(2)}, r"1 unexpected \(extra.weight\)"),
    "no classifier": (lambda s: _without(s, "classifier.weight"), "'classifier.weight' is missing"),
    "not finite": (
        lambda s: s | {"conv_head.bias": torch.full((1024,), torch.nan)},
        "'conv_head.bias' holds values that are not finite",
    ),
    "integers": (
        lambda s: s | {"conv_head.bias": torch.zeros(1024, dtype=torch.int32)},
        "'conv_head.bias' is int32",
    ),
    "two channels": (
        lambda s: s | {"conv_stem.weight": torch.zeros(16, 2, 3, 3)}, "takes 2 channels"),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_tensors_that_are_not_the_nets_are_named(change: str, tmp_path: Path) -> None:
    changed, message = CHANGES[change]
    path = saved(changed(made().state_dict()), tmp_path / "w.pth")
    with pytest.raises(InputError, match=message) as error:
        edgevit.load(NAME, weights=path)
    assert str(error.value).startswith(f"{path}: ")


def test_a_file_of_another_net_is_told_what_it_looks_like(tmp_path: Path) -> None:
    path = saved(made("resnet10t").state_dict(), tmp_path / "w.pth")
    with pytest.raises(InputError, match=f"not {NAME}: this looks like a ResNet; it has 4 of"):
        edgevit.load(NAME, weights=path)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("run",)


def test_code_in_a_file_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = saved({"state_dict": made().state_dict(), "x": Evil()}, tmp_path / "w.pth")
    try:
        edgevit.load(NAME, weights=path)
    except InputError as error:
        assert "code" in str(error)
    assert "run" not in capsys.readouterr().out


# -- names, and what timm says of them ------------------------------------------------------------


def test_an_unknown_name_is_told_the_nearest() -> None:
    text = refused("inspect", "timm:mobilenetv3_large_10")
    assert "has no net of this name; the nearest are mobilenetv3_large_100" in text
    assert "timm.list_models() lists them" in refused("inspect", "timm:zzzzzzzzzzzz")
    assert "knows no tag 'nope'" in refused("inspect", "timm:resnet18.nope")
    assert "has no net of this name" in refused("inspect", "timm:hf_hub:timm/resnet18.a1_in1k")


def test_the_preprocessing_is_that_of_the_name_and_tag() -> None:
    values = preset_of("timm:resnet18.a1_in1k").values
    assert values["image_size"] == 224 and values["crop_pct"] == 0.95
    assert preset_of("timm:mobilenetv3_large_100.miil_in21k").values["mean"] == (0, 0, 0)
    assert preset_of("timm:efficientnet_b3").values["image_size"] == 288


def test_without_weights_nothing_is_quantized_or_compiled(tmp_path: Path) -> None:
    out = tmp_path / "m.evq"
    for command in (
        ["quantize", NAME, "--data", tmp_path, "-o", out],
        ["compile", NAME, "--weights-only", "--target", "tflite", "-o", tmp_path / "build"],
    ):
        assert "is a net without weights, and edgevit downloads none" in refused(*command)
    with pytest.raises(InputError, match="without weights"):
        edgevit.quantize(
            NAME, edgevit.from_sequence([(np.zeros((32, 32, 3), np.uint8), 0)], size=32)
        )
    assert not list(tmp_path.iterdir())


def test_other_commands_say_what_to_use(tmp_path: Path) -> None:
    text = refused("fuse", NAME, "-o", tmp_path / "f.safetensors")
    assert "is for RepViT's checkpoints; `edgevit quantize" in text
    text = refused("compile", NAME, "--target", "tflite", "-o", tmp_path / "build")
    assert "is quantized first (edgevit quantize), or compiled without data" in text
    path = saved(made().state_dict(), tmp_path / "w.pth")
    options = ["--weights", path, "--data", tmp_path, "-o", tmp_path / "m.evq"]
    assert "--task features takes the stages" in refused(
        "quantize", NAME, *options, "--task", "features"
    )
    assert "is not repvit_m0_9" in refused("quantize", NAME, *options, "--variant", "repvit_m0_9")


def test_without_timm_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.import_module

    def missing(name: str, *more: Any) -> Any:
        if name.partition(".")[0] == "timm":
            raise ImportError(f"No module named {name!r}")
        return found(name, *more)

    monkeypatch.setattr(timm_package.importlib, "import_module", missing)
    error = run("inspect", NAME).exception
    assert isinstance(error, ToolMissing) and error.exit_code == 4
    assert "pip install 'edgevit[train]'" in str(error)


def test_a_net_of_one_size_takes_no_other() -> None:
    text = refused("inspect", "timm:efficientformer_l1", "--image-size", "64")
    assert "made for images of 224 px, not 64; leave --image-size out" in text


def test_inspect_says_why_a_net_cannot_be_quantized() -> None:
    done = run("inspect", "timm:poolformer_s12", "--image-size", "64", "--json")
    found = json.loads(done.stdout)
    assert "norm1: operation aten.group_norm.default is not one" in found["refused"]
    assert "no target of edgevit takes it" in found["refused"]
    assert found["num_classes"] == 1000 and found["path"] == "" and found["notes"]


# -- all the way ----------------------------------------------------------------------------------


def test_a_net_of_timm_goes_from_its_file_to_an_artifact(
    tmp_path: Path, embedded_train: Path, embedded_val: Path
) -> None:
    train = subset(embedded_train, tmp_path / "train.tar", 8)
    val = subset(embedded_val, tmp_path / "val.tar", 4)
    path = saved({"model_ema": made().state_dict()}, tmp_path / "mine.pth")
    out = tmp_path / "m.evq"
    done = run(
        "quantize", f"{NAME}.lamb_in1k", "--weights", path, "--data", train, "--eval-data", val,
        "--image-size", "64", "--epochs", "0", "--calibration-images", "16", "--max-drop", "100",
        "--allow-poor-float", "--threads", "1", "-o", out,
    )  # fmt: skip
    assert done.exit_code == 0, done.exception
    program = Program.load(out)
    info = program.info
    assert info.model.variant == SMALL and info.preprocessing.image_size == 64
    assert info.preprocessing.resize_size == 73  # timm's crop_pct of 0.875
    recorded = info.provenance["checkpoint"]
    assert recorded["file"] == "mine.pth" and recorded["timm"] == f"{SMALL}.lamb_in1k"
    assert recorded["timm_version"] == timm.__version__
    assert recorded["sha256"] == timm_info(load_timm(NAME, path)).sha256
    assert info.provenance["trace_proof"]["max_abs_output"] > 0
    artifact = program.compile("tflite", tmp_path / "tflite")
    assert artifact.manifest.audit is not None and artifact.manifest.audit.exact


def test_weights_alone_are_compiled_without_data(tmp_path: Path) -> None:
    path = saved(made().state_dict(), tmp_path / "mine.pth")
    done = run(
        "compile", NAME, "--weights", path, "--weights-only", "--target", "tflite",
        "--image-size", "64", "-o", tmp_path / "build", "--json",
    )  # fmt: skip
    assert done.exit_code == 0, done.exception
    manifest = json.loads(done.stdout)["tflite"]
    assert manifest["profile"] == "weights-only"
    assert json.loads((tmp_path / "build/tflite/manifest.json").read_text()) == manifest
