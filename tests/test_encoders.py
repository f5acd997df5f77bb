"""Encoders in users' files: detectors' and segmenters' checkpoints, timm's backbones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import Tensor, nn

import edgevit
from edgevit.cli import cli
from edgevit.data.images import Preprocessing
from edgevit.errors import InputError
from edgevit.models.checkpoint import parts_of
from edgevit.models.repvit import RepViT
from edgevit.models.variants import variant_config
from tests.official_names import official_state_dict
from tests.programs import SMALL
from tests.random_nets import trained_looking
from tests.timm_compat import import_timm

NECK = {
    "neck.lateral_convs.0.conv.weight": torch.zeros(8, 16, 1, 1),
    "neck.lateral_convs.0.conv.bias": torch.zeros(8),
    "rpn_head.rpn_conv.weight": torch.zeros(8, 8, 3, 3),
    "roi_head.bbox_head.fc_cls.weight": torch.zeros(81, 64),
}


def small_net(**changed) -> RepViT:
    torch.manual_seed(0)
    return trained_looking(RepViT(replace(SMALL, num_classes=10, **changed))).eval()


def images() -> Tensor:
    return torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def same_maps(path: Path, expected: tuple[Tensor, ...] | list[Tensor]) -> bool:
    """Whether the maps of the file's net, also when it is fused, are these."""
    net = edgevit.load(path).features(range(len(expected)))
    found, fused = net(images()), net.fuse()(images())
    return all(
        torch.allclose(map_, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))
        for each in (found, fused)
        for map_, wanted in zip(each, expected, strict=True)
    )


def detector_file(path: Path, net: RepViT, parts: dict, averaged: bool = False) -> Path:
    """As mmcv's runner saves a detector or a segmenter."""
    body = official_state_dict(net).items()
    state = {f"backbone.{k}": t for k, t in body if not k.startswith("classifier")} | parts
    if averaged:
        state |= {f"ema_{name.replace('.', '_')}": t + 1 for name, t in state.items()}
    optimizer = {"state": {0: {"step": 3, "exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1}]}
    meta = {"CLASSES": ("cat", "dog"), "config": "model = dict()", "epoch": 12}
    torch.save({"meta": meta, "state_dict": state, "optimizer": optimizer}, path)
    return path


@pytest.mark.parametrize("averaged", [False, True])
@pytest.mark.parametrize("branch_norms", [False, True])
def test_the_backbone_of_a_detectors_file_is_taken(
    branch_norms: bool, averaged: bool, tmp_path: Path
) -> None:
    """Both releases; mmcv's plain names hold the averaged weights, its ema_ ones the others."""
    net = small_net(branch_norms=branch_norms)
    path = detector_file(tmp_path / "epoch_12.pth", net, NECK, averaged)
    info = edgevit.load(path).checkpoint_info
    assert info is not None
    assert (info.naming, info.num_classes) == ("thu-mig", 0)
    assert info.config.branch_norms == branch_norms
    assert info.wrappers == ("state_dict", "backbone.")
    assert parts_of(info.riders) == ("neck", "rpn_head", "roi_head", *["ema_*"][:averaged])
    assert any("'neck' (2 tensors), 'rpn_head' (1 tensor)" in note for note in info.notes)
    with torch.no_grad():
        assert same_maps(path, net.features(range(len(SMALL.widths)))(images()))


@pytest.mark.parametrize(
    "parts",
    [
        {"decode_head.conv_seg.weight": torch.zeros(150, 64, 1, 1)},
        # Of the body's width, as a classifier's would be.
        {"decode_head.fc.weight": torch.zeros(150, SMALL.widths[-1])},
        {"roi_head.bbox_head.fc.weight": torch.zeros(81, SMALL.widths[-1])},
    ],
)
def test_another_tasks_head_is_not_taken_for_a_classifiers(parts: dict, tmp_path: Path) -> None:
    path = detector_file(tmp_path / "iter_80000.pth", small_net(), parts)
    info = edgevit.load(path).checkpoint_info
    assert info is not None and info.num_classes == 0 and info.riders == tuple(parts)


def test_what_a_backbone_has_beside_its_stages_is_said(tmp_path: Path) -> None:
    norms = {"backbone.norm0.weight": torch.ones(16), "backbone.norm0.bias": torch.zeros(16)}
    path = detector_file(tmp_path / "e.pth", small_net(), norms)
    info = edgevit.load(path).checkpoint_info
    assert info is not None
    assert any(
        "'norm0.weight', 'norm0.bias' of the backbone is not applied" in n for n in info.notes
    )


def run(*arguments: object):
    return CliRunner().invoke(cli, [str(each) for each in arguments])


def test_a_classification_of_it_offers_features(tmp_path: Path) -> None:
    """At once, before the images are looked at."""
    path = detector_file(tmp_path / "d.pth", small_net(), NECK)
    result = run("quantize", path, "--data", tmp_path / "none", "-o", tmp_path / "m.evq")
    assert isinstance(result.exception, InputError)
    text = str(result.exception)
    assert "without a classifier's head beside neck, rpn_head, roi_head" in text
    assert "--task features" in text
    assert sorted(each.name for each in tmp_path.iterdir()) == ["d.pth"]


def test_from_a_detectors_file_to_a_program(tmp_path: Path) -> None:
    net = small_net()
    path = detector_file(tmp_path / "d.pth", net, NECK, averaged=True)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for i in range(20):
        pixels = torch.randint(0, 256, (6, 6, 3), generator=torch.Generator().manual_seed(i))
        image = Image.fromarray(pixels.byte().numpy())
        image.resize((64, 64), Image.Resampling.BICUBIC).save(pictures / f"{i}.png")
    result = run(
        "quantize", path, "--task", "features", "--stages", "2,1", "--data", pictures,
        "--image-size", 64, "--epochs", 0, "--calibration-images", 8, "--min-sqnr", -50,
        "--min-cosine", -1, "-o", tmp_path / "m.evq",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    graph = edgevit.Program.load(tmp_path / "m.evq").graph()
    assert graph.public_names == ("stage1", "stage2")


@pytest.mark.parametrize(
    ("variant", "form"),
    [
        ("repvit_m0_9", "features_only"),
        ("repvit_m1", "features_only"),
        ("repvit_m2", "no head"),
        ("repvit_m3", "full"),
    ],
)
def test_timms_own_backbones(variant: str, form: str, tmp_path: Path) -> None:
    """As timm makes and saves them; the maps are those that timm gives."""
    timm = import_timm()
    torch.manual_seed(0)
    given = {"features_only": {"features_only": True}, "no head": {"num_classes": 0}, "full": {}}
    net = trained_looking(timm.create_model(variant, **given[form])).eval()
    path = tmp_path / "anything.pth"
    torch.save({"state_dict": net.state_dict()}, path)
    with torch.no_grad():
        if form == "features_only":
            maps = net(images())
        else:
            maps = net.forward_intermediates(images(), intermediates_only=True)
    info = edgevit.load(path).checkpoint_info
    assert info is not None and info.variant == variant
    assert info.num_classes == (1000 if form == "full" else 0)
    assert same_maps(path, maps)


class Unpadded(nn.Module):
    """Its second map is gone below 55 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.deep = nn.Conv2d(3, 8, 7, stride=4), nn.Conv2d(8, 8, 13)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        fine = self.fine(x)
        return {"fine": fine, "deep": self.deep(fine.relu())}


def test_a_size_at_which_a_map_vanishes_is_said(tmp_path: Path) -> None:
    pictures = [torch.zeros(52, 60, 3, dtype=torch.uint8).numpy() for _ in range(12)]
    images = edgevit.from_sequence(pictures, like=Preprocessing((52, 60)), classes=())
    with pytest.raises(InputError, match=r"for an input of \(1, 3, 52, 60\): .*Kernel size"):
        edgevit.quantize(Unpadded().eval(), images, task="features", epochs=0)
    detector_file(tmp_path / "d.pth", small_net(), NECK)
    result = run(
        "quantize", tmp_path / "d.pth", "--task", "features", "--data", tmp_path, "--image-size",
        "512x16", "-o", tmp_path / "m.evq",
    )  # fmt: skip
    assert isinstance(result.exception, InputError)
    assert "512x16 px; use 32 to" in str(result.exception).replace(" × ", "x")


def test_timms_choice_of_stages(tmp_path: Path) -> None:
    """It leaves out the stages behind the last one that is asked for."""
    timm = import_timm()
    torch.manual_seed(0)
    net = timm.create_model("repvit_m0_9", features_only=True, out_indices=(0, 2))
    torch.save(net.state_dict(), tmp_path / "n.pth")
    loaded = edgevit.load(tmp_path / "n.pth")
    assert loaded.config.widths == variant_config("repvit_m0_9").widths[:3]
    with pytest.raises(InputError, match="stage 4 is none of .* it has the stages 1 to 3"):
        loaded.features([3])
