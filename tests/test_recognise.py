"""Nets of RepViT's blocks that nobody published, and those of its first release."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest
import torch

from edgevit.errors import InputError
from edgevit.models.checkpoint import load
from edgevit.models.fuse import fuse, noise_images, save_fused
from edgevit.models.recognise import recognise, without_counters
from edgevit.models.refusals import check_names_and_shapes
from edgevit.models.repvit import RepViT, RepViTConfig, skeleton
from edgevit.models.variants import variant_config
from tests.official_names import official_state_dict
from tests.random_nets import random_images, random_net, trained_looking
from tests.saved_nets import saved
from tests.shared_data import shared_folder
from tests.timm_compat import import_timm

IMAGES = random_images()
PATH = Path("net.pth")


def shapes_of(net: RepViT, naming: str = "timm") -> dict:
    state = net.state_dict() if naming == "timm" else official_state_dict(net)
    return without_counters({name: tuple(tensor.shape) for name, tensor in state.items()})


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("naming", ["timm", "thu-mig"])
@pytest.mark.parametrize(
    ("widths", "depths", "options"),
    [
        ((32, 64, 128, 256), (1, 1, 4, 1), {}),
        ((24, 48, 96, 192), (2, 3, 5, 2), {"distillation": False}),
        ((48, 96, 192, 384), (2, 2, 15, 2), {}),
        ((40, 72, 136), (1, 2, 3), {"out_indices": (0, 1, 2)}),
        ((16, 32), (1, 1), {"out_indices": (0, 1), "in_channels": 1}),
        ((16, 32, 64, 128, 256), (1, 1, 2, 2, 1), {"out_indices": (0, 1, 2, 3, 4)}),
        ((32, 64, 128, 256), (1, 1, 4, 2), {"se": ((), (0,), (1, 2), (1,))}),
        ((32, 64, 128, 256), (3, 3, 3, 3), {"kernel_size": 7, "expansion": 4, "se": "every"}),
        ((32, 64, 128, 256), (1, 1, 4, 1), {"branch_norms": True, "in_channels": 13}),
    ],
    ids=str,
)
def test_widths_depths_and_options_are_read_off_the_tensors(widths, depths, options, naming, fused):
    config = RepViTConfig("repvit", widths, depths, 5, **options)
    match = recognise(PATH, shapes_of(skeleton(config, fused), naming))
    hidden = {"distillation": False, "branch_norms": False} if fused else {}
    expected = RepViTConfig("repvit", widths, depths, 5, **{**options, **hidden})
    if len(widths) != 4:
        assert match.config.out_indices == tuple(range(len(widths)))
    assert match.config == expected and match.score == 1.0 and match.fused == fused
    check_names_and_shapes(PATH, match, shapes_of(skeleton(config, fused), naming))


@torch.no_grad()
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("variant", ["repvit_m1", "repvit_m2", "repvit_m3"])
def test_the_first_release_loads_as_timm_makes_it(tmp_path, variant, fused):
    torch.manual_seed(0)
    reference = trained_looking(import_timm().create_model(variant, num_classes=3))
    expected = reference(IMAGES)
    if fused:
        reference.fuse()
    loaded = load(saved(tmp_path, reference.state_dict()))
    same = {"repvit_m1": "repvit_m0_9", "repvit_m2": "repvit_m1_1"}
    assert loaded.info.variant == (same.get(variant, variant) if fused else variant)
    assert loaded.info.config.branch_norms != fused and loaded.info.fused == fused
    assert (loaded.model(IMAGES) - expected).abs().max() <= 1e-5
    if not fused:
        proved = fuse(loaded.model, IMAGES)
        assert (proved.net(IMAGES) - expected).abs().max() <= 1e-5
        again = load(save_fused(proved, tmp_path / "fused.safetensors"))
        assert again.info.variant == variant and again.info.config.branch_norms


@torch.no_grad()
@pytest.mark.parametrize("channels", [1, 2, 4])
def test_nets_of_other_channels_are_timms_too(tmp_path, channels):
    reference = trained_looking(
        import_timm().create_model("repvit_m0_9", num_classes=3, in_chans=channels)
    )
    loaded = load(saved(tmp_path, reference.state_dict()))
    assert loaded.info.config.in_channels == channels
    images = noise_images(64, channels)[:2]
    assert (loaded.model(images) - reference(images)).abs().max() <= 1e-5
    assert fuse(loaded.model).proof.top1_changed == 0
    with pytest.raises(InputError, match=f"the net takes images of {channels} channel"):
        fuse(loaded.model, IMAGES)


def test_a_net_too_deep_for_its_tensors_is_none():
    shapes = shapes_of(skeleton(variant_config("repvit_m0_6", num_classes=3), False))
    for name in (
        "stages.2.blocks.999999999.token_mixer.conv.c.weight",
        "features.999999999.token_mixer.0.conv.c.weight",
        "stages.999999999.blocks.0.token_mixer.conv.c.weight",
    ):
        with pytest.raises(InputError, match="not a RepViT"):
            recognise(PATH, {**shapes, name: (160, 1, 3, 3)})


@pytest.mark.parametrize("size", [2**40, 2**17])
def test_widths_beyond_reason_are_none(size):
    shapes = shapes_of(skeleton(variant_config("repvit_m0_6", num_classes=3), False))
    wide = {n: tuple(size if x == 320 else x for x in s) for n, s in shapes.items()}
    with pytest.raises(InputError, match="not a RepViT"):
        recognise(PATH, wide)


@pytest.mark.parametrize("classes", [2**40, 2**21])
def test_classes_beyond_reason_are_none(classes):
    shapes = shapes_of(skeleton(variant_config("repvit_m0_6", num_classes=3), False))
    many = {
        n: (classes, *s[1:]) if n.startswith("head.") and ".l." in n else s
        for n, s in shapes.items()
    }
    with pytest.raises(InputError, match="not a RepViT"):
        recognise(PATH, many)


def test_the_old_names_of_modules_still_serve():
    from edgevit import data, repvit
    from edgevit.data.images import ImageSet, Preprocessing

    assert data.ImageSet is ImageSet and data.Preprocessing is Preprocessing
    assert repvit.repvit_m0_6(num_classes=3).config.num_classes == 3
    assert all(hasattr(repvit, name) for name in repvit.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = data.Nothing
    assert random_net().config == repvit.variant_config("repvit_m0_6")


def test_what_the_shared_cases_import_is_there():
    wanted = {
        (node.module, name.name)
        for path in shared_folder().glob("cases/*/repro.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("edgevit")
        for name in node.names
    }
    missing = [w for w in wanted if not hasattr(importlib.import_module(w[0]), w[1])]
    assert not missing
