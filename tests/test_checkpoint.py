import argparse
import json
import logging
import os
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file

from edgevit.commands.inspect import inspect_command
from edgevit.data.images import ImageSet, Preprocessing
from edgevit.errors import InputError
from edgevit.models import tensorfile
from edgevit.models.checkpoint import config_from_json, load
from edgevit.models.fuse import fuse, save_fused
from edgevit.models.recognise import recognise
from edgevit.models.repvit import RepViT, RepViTConfig, skeleton
from edgevit.models.variants import VARIANTS, variant_config
from tests.official_names import official_state_dict
from tests.random_nets import random_images, random_net
from tests.saved_nets import A_TENSOR, NET, STATE, refusal, same_logits, saved
from tests.shared_data import shared_checkpoint, shared_data
from tests.timm_compat import import_timm

FUSED = fuse(NET, random_images())
A_RIDER = torch.zeros(2)


# --- what loads ------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "naming", "wrappers"), [("timm", "timm", ()), ("thu", "thu-mig", ("model",))]
)
def test_shared_checkpoints_give_the_recorded_logits(name, naming, wrappers):
    recorded = np.load(shared_checkpoint("expected_logits.npz"))
    images = ImageSet.open(shared_data("eurosat-val.tar"))
    place = {path: index for index, (path, _) in enumerate(images.entries)}
    chosen = [place[path] for path in recorded["paths"]]
    batch, labels = next(images.batches(Preprocessing(64), 64, chosen))
    loaded = load(shared_checkpoint(f"repvit_m0_9_eurosat64_{name}.pth"), image_size=64)

    assert np.abs(loaded.model(batch).numpy() - recorded["logits"]).max() <= 1e-5
    assert (labels == recorded["labels"]).all()
    info = loaded.info
    assert (info.naming, info.wrappers) == (naming, wrappers)
    assert (info.variant, info.num_classes) == ("repvit_m0_9", 10)
    assert info.distillation and not info.fused
    assert (info.parameters, info.fused_parameters) == (4_727_028, 4_685_906)
    assert (info.image_size, info.fused_macs) == (64, 66_745_344)


@pytest.mark.parametrize(
    ("naming", "fused", "distillation"),
    [("timm", False, True), ("thu-mig", False, False), ("thu-mig", True, True)],
)
@pytest.mark.parametrize("variant", VARIANTS)
def test_recognised_from_names_and_shapes_alone(variant, naming, fused, distillation):
    model = skeleton(variant_config(variant, num_classes=3, distillation=distillation), fused)
    state = model.state_dict() if naming == "timm" else official_state_dict(model)
    shapes = {n: tuple(t.shape) for n, t in state.items() if "num_batches" not in n}
    match = recognise(Path("net.pth"), shapes, None)
    assert (match.naming, match.score) == (naming, 1.0)
    config = match.config
    # Fused, the nets of the first release are those of the second: nothing tells them apart.
    same = {"repvit_m1": "repvit_m0_9", "repvit_m2": "repvit_m1_1"} if fused else {}
    assert (config.variant, config.num_classes) == (same.get(variant, variant), 3)
    assert config.distillation == (distillation and not fused)


@torch.no_grad()
def test_a_checkpoint_that_timm_fused_loads(tmp_path):
    reference = import_timm().create_model("repvit_m0_9", num_classes=4).eval()
    reference.fuse()
    loaded = load(saved(tmp_path, reference.state_dict()))
    assert loaded.info.fused and loaded.info.variant == "repvit_m0_9"
    images = random_images()
    assert (loaded.model(images) - reference(images)).abs().max() <= 1e-5


@pytest.mark.parametrize("naming", ["timm", "thu-mig"])
@pytest.mark.parametrize("fused", [True, False])
def test_both_namings_load_fused_and_not(tmp_path, naming, fused):
    model = FUSED.net if fused else NET
    state = model.state_dict() if naming == "timm" else official_state_dict(model)
    loaded = load(saved(tmp_path, state))
    assert same_logits(loaded.model, 1e-5)
    assert (loaded.info.naming, loaded.info.fused) == (naming, fused)


@pytest.mark.parametrize(
    "options",
    [
        {"se": "none"},
        {"se": "every"},
        {"kernel_size": 5},
        {"expansion": 3},
        {"reparameterization": False},
        {"distillation": False},
    ],
    ids=str,
)
def test_ablations_are_recognised(tmp_path, options):
    model = random_net(num_classes=5, **options)
    loaded = load(saved(tmp_path, model.state_dict()))
    assert loaded.info.config == model.config


@pytest.mark.parametrize(
    ("wrap", "wrappers"),
    [
        (lambda s: s, ()),
        (lambda s: {"model": s, "epoch": 3}, ("model",)),
        (lambda s: {"state_dict": s, "args": argparse.Namespace(lr=1.0)}, ("state_dict",)),
        (lambda s: {"model_ema": s}, ("model_ema",)),
        (lambda s: {f"module.{n}": t for n, t in s.items()}, ("module.",)),
        (lambda s: {"model": {"state_dict": s}}, ("model", "state_dict")),
        (
            lambda s: {"model_ema": {"module": {f"module.{n}": t for n, t in s.items()}}},
            ("model_ema", "module", "module."),
        ),
        (
            lambda s: {"state_dict": {f"module._orig_mod.{n}": t for n, t in s.items()}},
            ("state_dict", "module.", "_orig_mod."),
        ),
        (lambda s: {"model": s, "model_ema": {}, "optimizer": {"state": {}}}, ("model",)),
    ],
)
def test_wrappers_are_opened_and_listed(tmp_path, wrap, wrappers):
    loaded = load(saved(tmp_path, wrap(STATE)))
    assert loaded.info.wrappers == wrappers
    assert same_logits(loaded.model)


def test_one_of_several_weights_can_be_chosen(tmp_path):
    other = random_net(num_classes=7, seed=5).state_dict()
    path = saved(tmp_path, {"model": STATE, "model_ema": other})
    assert not same_logits(load(path).model)
    assert same_logits(load(path, weights="model").model)
    assert "'ema'" in refusal(path, weights="ema")


@pytest.mark.parametrize("name", ["net.pth", "net.pt", "net.pth.tar", "net.safetensors"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_kind_of_file_and_float_loads_as_float32(tmp_path, name, dtype):
    state = {n: t.to(dtype) if t.is_floating_point() else t for n, t in STATE.items()}
    loaded = load(saved(tmp_path, state, name))
    assert loaded.info.dtype == str(dtype).removeprefix("torch.")
    assert {p.dtype for p in loaded.model.parameters()} == {torch.float32}
    stored = state[A_TENSOR].float()
    assert torch.equal(loaded.model.get_parameter(A_TENSOR), stored)


def test_training_counters_and_memory_order_do_not_matter(tmp_path):
    state = {n: t for n, t in STATE.items() if not n.endswith("num_batches_tracked")}
    state["stem.conv2.c.weight"] = state["stem.conv2.c.weight"].to(
        memory_format=torch.channels_last
    )
    assert same_logits(load(saved(tmp_path, state)).model)


def test_torchs_old_file_format_loads(tmp_path):
    torch.save(STATE, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert same_logits(load(tmp_path / "old.pth").model)


def test_a_given_variant_is_demanded(tmp_path):
    path = saved(tmp_path, STATE)
    assert same_logits(load(path, variant="repvit_m0_6").model)
    assert "holds repvit_m0_6 (100%" in refusal(path, variant="repvit_m1_0")
    assert "unknown variant 'm9'" in refusal(path, variant="m9")


def test_loading_leaves_torchs_allow_list_as_it_was(tmp_path):
    load(saved(tmp_path, {"model": STATE, "args": argparse.Namespace()}))
    assert argparse.Namespace not in torch.serialization.get_safe_globals()


# --- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "part"),
    [
        ([1, 2], "holds a list"),
        ({"epoch": 3}, "no tensors in it (found: epoch)"),
        ({"model": {"a": {}}}, "no tensors"),
        ({"layer1.0.conv1.weight": torch.zeros(1)}, "looks like a ResNet"),
        ({"blocks.0.attn.qkv.weight": torch.zeros(1)}, "looks like a vision transformer"),
        ({"a": torch.zeros(1)}, "its tensors begin with a"),
        (
            {"features.1.token_mixer.0.conv1.c.weight": torch.zeros(1)},
            "not a RepViT: its tensors begin with features.1",
        ),
    ],
)
def test_another_content(tmp_path, value, part):
    assert part in refusal(saved(tmp_path, value))


def test_a_net_with_repvits_names_but_not_its_shapes(tmp_path):
    state = {name: tensor.new_zeros(3) for name, tensor in STATE.items()}
    message = refusal(saved(tmp_path, state))
    assert "not a RepViT" in message and "0% of its tensors" in message
    state = {**STATE, **{f"decoder.{i}": torch.zeros(1) for i in range(2000)}}
    assert "not a RepViT" in refusal(saved(tmp_path, state))


@pytest.mark.parametrize("naming", ["timm", "thu-mig"])
@pytest.mark.parametrize("ours", [A_TENSOR, "stem.conv1.c.weight", "head.head.l.weight"])
def test_a_missing_tensor_is_named_as_the_file_would(tmp_path, naming, ours):
    state = dict(STATE) if naming == "timm" else official_state_dict(NET)
    name = (
        ours
        if naming == "timm"
        else next(
            theirs
            for theirs, tensor in state.items()
            if tensor is not None and tensor.data_ptr() == STATE[ours].data_ptr()
        )
    )
    shape = tuple(state.pop(name).shape)
    message = refusal(saved(tmp_path, state))
    assert f"the tensor {name!r} of shape {shape} is missing (" in message
    assert "repvit_m0_6" in message


@pytest.mark.parametrize(
    ("name", "wrong"), [(A_TENSOR, (160, 1, 5, 5)), ("head.head_dist.l.weight", (9, 320))]
)
def test_a_misshapen_tensor_is_named(tmp_path, name, wrong):
    state = {**STATE, name: torch.zeros(wrong)}
    expected = tuple(STATE[name].shape)
    message = refusal(saved(tmp_path, state))
    assert f"the tensor {name!r} has shape {wrong}, expected {expected}" in message


def test_a_tensor_too_many_is_named(tmp_path):
    state = {**STATE, "stem.conv9.weight": torch.zeros(1), "stages.7.x": torch.zeros(1)}
    message = refusal(saved(tmp_path, state))
    assert "'stem.conv9.weight' belongs to no part of the net, and 1 more" in message


@pytest.mark.parametrize(
    ("name", "change", "part"),
    [
        (A_TENSOR, lambda t: t * float("nan"), "not finite"),
        ("stem.conv1.bn.running_var", lambda t: -t, "negative variance"),
        (A_TENSOR, lambda t: t.to(torch.int8), "int8"),
        (A_TENSOR, lambda t: t.to("meta"), "on meta"),
        (A_TENSOR, lambda t: t.to_sparse(), "sparse"),
    ],
)
def test_a_tensor_of_no_use_is_named(tmp_path, name, change, part):
    message = refusal(saved(tmp_path, {**STATE, name: change(STATE[name])}))
    assert name in message and part in message


def test_a_tensor_that_claims_to_be_huge_is_not_believed(tmp_path):
    state = {**STATE, A_TENSOR: torch.zeros(1).expand(2**40)}
    assert "has shape (1099511627776,)" in refusal(saved(tmp_path, state))


# --- what edgevit wrote itself ---------------------------------------------------------------


def _tampered(folder: Path, change) -> Path:
    path = save_fused(FUSED, folder / "fused.safetensors")
    file = tensorfile.read(path)
    stored = json.loads(file.metadata["edgevit"])
    change(stored)
    path.unlink()
    tensors = {name: tensor.load() for name, tensor in file.value.items()}
    save_file(tensors, path, {"edgevit": json.dumps(stored)})
    return path


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda s: s.update(schema_version=3), "schema version 3"),
        (lambda s: s.update(more=1), "unknown keys"),
        (lambda s: s.pop("proof"), "unknown keys"),
        (lambda s: s.update(proof=3), "another net"),
        (lambda s: s.update(config=[1]), "expected an object"),
        (lambda s: s["config"].update(depths=[10**9] * 4), "another net"),
        (lambda s: s["config"].update(widths=5), "wrong type"),
        (lambda s: s["config"].update(colour="red"), "the config has the keys"),
        (lambda s: s["config"].pop("widths"), "the config has the keys"),
        (lambda s: s["config"].update(variant="repvit_m1_0"), "another net"),
        (lambda s: s["config"].update(variant="no name"), "another net"),
        (lambda s: s["config"].update(se=[[0], [9]]), "blocks of each stage"),
        (lambda s: s["proof"].update(bound=float("nan")), "NaN is not a JSON number"),
    ],
)
def test_metadata_that_does_not_fit_is_refused(tmp_path, change, part):
    path = _tampered(tmp_path, change)
    with pytest.raises(InputError, match=part):
        load(path)


@pytest.mark.parametrize("options", [{}, {"se": ((0,), (), (1, 2), ())}], ids=str)
def test_a_config_survives_json(options):
    config = replace(NET.config, **options)
    assert config_from_json(json.loads(json.dumps(asdict(config)))) == config


def test_a_fused_file_of_an_earlier_edgevit_loads(tmp_path):
    def as_version_1(stored):
        stored["schema_version"] = 1
        del stored["config"]["in_channels"], stored["config"]["branch_norms"]

    path = _tampered(tmp_path, as_version_1)
    assert load(path).info.config == FUSED.net.config


# --- the command -----------------------------------------------------------------------------


def test_inspect_command_prints_a_table_and_json(tmp_path):
    path = str(saved(tmp_path, {"model": STATE}))
    table = CliRunner().invoke(inspect_command, [path])
    assert table.exit_code == 0 and "repvit_m0_6 · 7 classes" in table.output
    result = CliRunner().invoke(inspect_command, [path, "--json", "--image-size", "64"])
    found = json.loads(result.output)
    assert (found["schema_version"], found["naming"]) == (1, "timm")
    assert (found["variant"], found["num_classes"]) == ("repvit_m0_6", 7)
    assert (found["wrappers"], found["image_size"]) == (["model"], 64)
    assert os.listdir(tmp_path) == ["net.pth"]


def _table(path: Path) -> str:
    result = CliRunner().invoke(inspect_command, [str(path)], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    return result.output


def test_inspect_command_lists_the_weights_of_a_file_and_what_was_assumed(tmp_path):
    other = random_net(num_classes=3).state_dict()
    table = _table(saved(tmp_path, {"model": STATE, "state_dict_ema": {**other, "x.y": A_RIDER}}))
    assert "repvit_m0_6 · 3 classes" in table
    assert "model: repvit_m0_6, 7 classes" in table
    assert "state_dict_ema: repvit_m0_6, 3 classes, taken" in table
    assert "--weights model takes them" in table and "left aside" in table and "x.y" in table


def test_inspect_command_names_a_backbone_and_a_net_of_ones_own(tmp_path):
    config = RepViTConfig("own", (16, 32, 64), (1, 2, 1), features_only=True, out_indices=(0, 1, 2),
                          in_channels=4, se=((), (1,), ()))  # fmt: skip
    table = _table(saved(tmp_path, RepViT(config).state_dict()))
    assert "repvit · a backbone" in table and "widths 16, 32, 64, depths 1, 2, 1" in table
    assert "SE in some blocks" in table and "4 channels" in table and "none" in table


def test_what_was_assumed_of_a_file_is_logged(tmp_path, caplog):
    path = saved(tmp_path, {"model": STATE, "model_ema": STATE | {"x.y": A_RIDER}})
    with caplog.at_level(logging.INFO, "edgevit"):
        load(path)
    assert [m.partition(": ")[0] for m in caplog.messages] == [str(path)] * 2
    caplog.clear()
    load(saved(tmp_path, STATE, "plain.pth"))
    assert caplog.messages == []


def test_inspect_command_ends_in_an_input_error(tmp_path):
    result = CliRunner().invoke(inspect_command, [str(tmp_path / "gone.pth")])
    assert isinstance(result.exception, InputError) and result.exception.exit_code == 2


def test_inspect_command_help_has_an_example():
    assert "Example:\n" in CliRunner().invoke(inspect_command, ["--help"]).output
