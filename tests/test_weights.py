"""The RepViT of a checkpoint is found under any keys and prefixes, and the right one of several."""

from __future__ import annotations

import json
import time
import warnings
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from edgevit.errors import InputError
from edgevit.models.checkpoint import load
from edgevit.models.repvit import RepViTConfig, skeleton
from edgevit.models.tensorfile import read
from edgevit.models.weights import Chosen, choose
from tests.official_names import official_state_dict
from tests.random_nets import random_net
from tests.saved_nets import NET, STATE, refusal, same_logits, saved

OTHER = random_net(num_classes=3, seed=5).state_dict()
BODY = {name: tensor for name, tensor in STATE.items() if not name.startswith("head.")}


def chosen(folder: Path, value: object, weights: str | None = None) -> Chosen:
    return choose(read(saved(folder, value)), weights)


def behind(prefix: str, state: dict = STATE) -> dict:
    return {prefix + name: tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    "key",
    ["model", "state_dict", "model_state_dict", "net", "network", "weights", "student", "teacher",
     "ema", "params", "params_ema", "state_dict_ema", "model_ema", "module", "generator", "my net",
     "0"],
)  # fmt: skip
def test_any_key_is_opened(tmp_path, key):
    found = chosen(tmp_path, {"epoch": 3, key: STATE, "optimizer": {"state": {}}})
    assert found.candidate.wrappers == (key,)
    assert found.match.score == 1.0 and found.notes == ()


@pytest.mark.parametrize(
    ("value", "wrappers"),
    [
        ({"checkpoint": {"model": STATE}}, ("checkpoint", "model")),
        ({"a": {"b": {"c": {"d": {"e": {"f": {"g": STATE}}}}}}}, tuple("abcdefg")),
        ({"state_dict": behind("model.")}, ("state_dict", "model.")),
        ({"state_dict": behind("net.backbone.")}, ("state_dict", "net.", "backbone.")),
        (behind("_fsdp_wrapped_module."), ("_fsdp_wrapped_module.",)),
        (behind("module._orig_mod."), ("module.", "_orig_mod.")),
        ({"n_averaged": torch.tensor(3), **behind("module.")}, ("module.",)),
        (behind("0."), ("0.",)),
        ([STATE], ("0",)),
        (("step", STATE), ("1",)),
        (OrderedDict(model=OrderedDict(STATE)), ("model",)),
        ({"model": official_state_dict(NET)}, ("model",)),
        ({"x": behind("net.", official_state_dict(NET))}, ("x", "net.")),
    ],
)
def test_keys_and_prefixes_are_listed(tmp_path, value, wrappers):
    found = chosen(tmp_path, value)
    assert found.candidate.wrappers == wrappers and found.match.score == 1.0


def test_wrappers_within_names_are_taken_out(tmp_path):
    inner = {
        "_fsdp_wrapped_module."
        + name.replace("blocks.0.", "blocks.0._checkpoint_wrapped_module.").replace(
            "stages.1.", "stages.1._fsdp_wrapped_module.")
        : tensor
        for name, tensor in STATE.items()
    }  # fmt: skip
    assert same_logits(load(saved(tmp_path, inner)).model)


RIDERS = {
    "criterion.weight": torch.ones(7),
    "loss_fn.centers": torch.ones(7, 320),
    "train_acc.tp": torch.zeros(7),
    "confmat": torch.zeros(7, 7),
    "n_averaged": torch.tensor(1),
    "total_ops": torch.zeros(1),
    "stem.conv1.total_ops": torch.zeros(1),
    "stages.0.blocks.0.token_mixer.conv.c.total_params": torch.zeros(1),
}


@pytest.mark.parametrize("prefix", ["", "model."])
def test_what_rides_beside_a_net_is_left_aside_and_named(tmp_path, prefix):
    loaded = load(saved(tmp_path, {**behind(prefix), **RIDERS}))
    assert same_logits(loaded.model)
    riders = ("criterion.weight", "loss_fn.centers", "train_acc.tp", "confmat")
    assert loaded.info.riders == riders
    assert any("left aside" in note and "and 1 more" in note for note in loaded.info.notes)


# --- several nets ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "taken"),
    [
        (("state_dict", "state_dict_ema"), "state_dict_ema"),
        (("model", "model_ema"), "model_ema"),
        (("model_ema", "state_dict_ema"), "state_dict_ema"),
        (("model", "ema"), "ema"),
        (("params", "params_ema"), "params_ema"),
        (("net", "ema_state_dict"), "ema_state_dict"),
        (("teacher", "student"), "student"),
        (("something", "model"), "model"),
        (("first", "second"), "first"),
        (("schema", "cinema"), "schema"),
    ],
)
def test_the_averaged_weights_come_first(tmp_path, keys, taken):
    nets = dict(zip(keys, (STATE, OTHER), strict=True))
    found = chosen(tmp_path, nets)
    left = next(key for key in keys if key != taken)
    assert found.candidate.keys == (taken,)
    assert [(w.key, w.taken) for w in found.weights] == [(key, key == taken) for key in keys]
    (note,) = found.notes
    assert f"under {taken!r}" in note and f"--weights {left}" in note
    assert ("EMA" in note) == ("ema" in taken.split("_"))
    assert chosen(tmp_path, nets, weights=left).candidate.keys == (left,)
    assert chosen(tmp_path, nets, weights=left).notes == ()


def test_nets_behind_prefixes_of_one_dictionary_are_told_apart(tmp_path):
    value = {"state_dict": {**behind("model."), **behind("model_ema.module.", OTHER)}}
    found = chosen(tmp_path, value)
    assert found.candidate.prefix == "model_ema.module."
    assert [w.key for w in found.weights] == ["model", "model_ema"]
    assert [w.num_classes for w in found.weights] == [7, 3]
    assert chosen(tmp_path, value, weights="model").candidate.prefix == "model."


def test_a_net_with_a_head_goes_before_a_backbone(tmp_path):
    assert chosen(tmp_path, {"model_ema": BODY, "model": STATE}).candidate.keys == ("model",)


def test_the_weights_of_a_file_are_said(tmp_path):
    path = saved(tmp_path, {"model": STATE, "model_ema": OTHER})
    info = load(path).info
    assert [(w.key, w.num_classes) for w in info.weights] == [("model", 7), ("model_ema", 3)]
    assert "found model, model_ema" in refusal(path, weights="other")


# --- hostile ---------------------------------------------------------------------------------


def _many_prefixes():
    one = "features.1.token_mixer.0.conv.c.weight"
    return {f"net{i}.{one}": torch.zeros(1) for i in range(5000)}


def _many_blocks():
    return {f"stages.0.blocks.{i}.token_mixer.weight": torch.zeros(1) for i in range(15000)}


def _numbers_without_room():
    """A net of 2,000 million weights, each tensor one number repeated."""
    config = RepViTConfig("wide", (4096, 8192, 8192, 8192), (1, 1, 1, 1), 3)
    state = skeleton(config, fused=True).state_dict()
    return {name: torch.zeros(1).expand(tensor.shape) for name, tensor in state.items()}


@pytest.mark.parametrize(
    ("value", "part"),
    [
        (_many_prefixes, "not a RepViT"),
        (_many_blocks, "not a RepViT"),
        (_numbers_without_room, "weights, more than any RepViT has"),
        (lambda: {"a." * 200_000 + next(iter(STATE)): torch.zeros(1)}, "no tensors"),
        (lambda: {"a" * 10**6: STATE}, "no tensors"),
    ],
)
def test_a_state_dict_made_to_take_long_or_much_is_refused_soon(tmp_path, value, part):
    path, start = saved(tmp_path, value()), time.process_time()
    assert part in refusal(path)
    assert time.process_time() - start < 20


# --- other containers ------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", ["module", "module, old format", "in a dictionary", "script"])
def test_a_whole_net_gives_its_weights_and_runs_no_code(tmp_path, kind):
    path = tmp_path / "net.pt"
    if kind == "script":
        torch.jit.save(torch.jit.trace(NET, torch.zeros(1, 3, 64, 64)), path)
    else:
        value = {"model": NET} if kind == "in a dictionary" else NET
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.save(value, path, _use_new_zipfile_serialization=kind != "module, old format")
    assert same_logits(load(path).model)


def test_a_method_saved_in_place_of_its_result_still_holds_the_net(tmp_path):
    found = chosen(tmp_path, {"model": NET.state_dict, "epoch": 3})
    assert found.match.score == 1.0 and found.candidate.keys == ("model", "0")


@pytest.mark.parametrize(
    "name", ["net", "last.ckpt", "pytorch_model.bin", "NET.PTH", "best.tar", "a.pt.tar", "x.jpg"]
)
def test_the_name_of_a_file_does_not_matter(tmp_path, name):
    torch.save(STATE, tmp_path / name)
    assert choose(read(tmp_path / name), None).match.score == 1.0
    save_file(STATE, tmp_path / name)
    assert choose(read(tmp_path / name), None).match.score == 1.0


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_model_folder_is_read(tmp_path, name):
    (tmp_path / "config.json").write_text('{"architecture": "repvit_m0_6"}')
    if name.endswith("bin"):
        torch.save(STATE, tmp_path / name)
    else:
        save_file(STATE, tmp_path / name)
    loaded = load(tmp_path)
    assert same_logits(loaded.model)
    assert loaded.info.path == str(tmp_path / name)


def _shards(folder: Path) -> Path:
    names = list(STATE)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, inside in parts.items():
        save_file({name: STATE[name] for name in inside}, folder / file)
    index = {"metadata": {}, "weight_map": {n: f for f, inside in parts.items() for n in inside}}
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps(index))
    return path


def test_shards_are_read_as_one(tmp_path):
    path = _shards(tmp_path)
    by_index, by_folder = load(path), load(tmp_path)
    assert same_logits(by_index.model) and by_index.info == by_folder.info
    assert by_index.info.size_bytes == sum(f.stat().st_size for f in tmp_path.iterdir())
    (tmp_path / "b.safetensors").unlink()
    with pytest.raises(InputError, match=r"b\.safetensors: no such file"):
        load(path)


@pytest.mark.parametrize("name", ["../net.safetensors", "/etc/passwd", "sub/net.safetensors"])
def test_a_shard_outside_the_folder_is_refused(tmp_path, name):
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(InputError, match="does not lie beside it"):
        load(path)


def test_an_index_that_names_itself_ends(tmp_path):
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": {"a": path.name}}))
    with pytest.raises(InputError, match="JSON text"):
        load(path)


@pytest.mark.parametrize(
    ("files", "part"),
    [
        ([], "found: nothing"),
        (["a.txt", "b.txt"], "found: a.txt, b.txt"),
        ([".metadata", "__0_0.distcp"], "dcp_to_torch"),
        (["data.pkl"], "unpacked torch checkpoint"),
    ],
)
def test_a_folder_without_weights_says_what_it_holds(tmp_path, files, part):
    for name in files:
        (tmp_path / name).write_text("x")
    with pytest.raises(InputError, match=part):
        load(tmp_path)


def test_a_link_to_nothing_is_said(tmp_path):
    (tmp_path / "net.pth").symlink_to(tmp_path / "gone.pth")
    with pytest.raises(InputError, match="a link to a file that is gone"):
        load(tmp_path / "net.pth")
