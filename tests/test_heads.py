"""Heads that fine-tuners put behind a RepViT, and what a state dict cannot say of them."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from edgevit.models.checkpoint import load
from edgevit.models.fuse import fuse
from edgevit.models.repvit import RepViT
from tests.official_names import official_state_dict
from tests.random_nets import random_images, random_net
from tests.saved_nets import refusal, saved

IMAGES = random_images()
WIDTH = 320


def net_with(head: nn.Module | None = None, **options) -> RepViT:
    """A RepViT in eval mode, its head replaced."""
    net = random_net(num_classes=7, **options)
    if head is not None:
        net.head = head
    return net.eval()


def linear(classes: int = 7, seed: int = 3, **options) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(WIDTH, classes, **options)


class OneHead(nn.Module):
    """The published classifier with another layer in place of each head, as timm's runs them."""

    def __init__(self, head: nn.Module, head_dist: nn.Module | None = None) -> None:
        super().__init__()
        self.head = head
        if head_dist is not None:
            self.head_dist = head_dist

    def forward(self, x):
        if not hasattr(self, "head_dist"):
            return self.head(x)
        return (self.head(x) + self.head_dist(x)) / 2


def norm_linear() -> nn.Module:
    return copy.deepcopy(random_net(num_classes=7).head.head)


HEADS = {
    "linear": lambda: linear(),
    "dropout, linear": lambda: nn.Sequential(nn.Dropout(0.2), linear()),
    "flatten, dropout, linear": lambda: nn.Sequential(nn.Flatten(), nn.Dropout(), linear()),
    "without bias": lambda: linear(bias=False),
    "linear under a name": lambda: nn.ModuleDict({"fc": linear()}),
    "norm, linear": lambda: nn.Sequential(nn.BatchNorm1d(WIDTH), linear()),
    "head = linear": lambda: OneHead(linear()),
    "head = dropout, linear": lambda: OneHead(nn.Sequential(nn.Dropout(), linear())),
    "both linear": lambda: OneHead(linear(), linear(seed=4)),
    "both dropout, linear": lambda: OneHead(
        nn.Sequential(nn.Dropout(), linear()), nn.Sequential(nn.Dropout(), linear(seed=4))
    ),
    "one linear, one published": lambda: OneHead(linear(), norm_linear()),
}


def expected_logits(net: RepViT) -> torch.Tensor:
    with torch.no_grad():
        features = net.forward_features(IMAGES)[-1].mean((2, 3))
        head = net.head["fc"] if isinstance(net.head, nn.ModuleDict) else net.head
        return head(features)


@torch.no_grad()
@pytest.mark.parametrize("naming", ["timm", "thu-mig"])
@pytest.mark.parametrize("title", HEADS)
def test_a_replaced_head_gives_the_nets_own_logits(tmp_path, title, naming):
    net = net_with(HEADS[title]())
    state = net.state_dict() if naming == "timm" else official_state_dict(net)
    loaded = load(saved(tmp_path, state))
    assert loaded.info.naming == naming and loaded.info.num_classes == 7
    assert (loaded.model(IMAGES) - expected_logits(net)).abs().max() <= 1e-5
    fused = fuse(loaded.model, IMAGES).net
    assert (fused(IMAGES) - expected_logits(net)).abs().max() <= 1e-5


@torch.no_grad()
@pytest.mark.parametrize("body_fused", [True, False])
def test_a_body_and_a_head_may_be_fused_apart(tmp_path, body_fused):
    net = random_net(num_classes=7)
    expected = net(IMAGES)
    head = net.head
    if body_fused:
        net.head = nn.Identity()
        net.fuse()
        net.head = head
    else:
        net.head = head.fuse()
    loaded = load(saved(tmp_path, net.state_dict()))
    assert not loaded.info.fused and loaded.info.distillation == body_fused
    assert (loaded.model(IMAGES) - expected).abs().max() <= 1e-5
    proof = fuse(loaded.model, IMAGES).proof
    assert not proof.already_fused and proof.max_abs_delta_logit <= 1e-5


@torch.no_grad()
@pytest.mark.parametrize("left", ["head", "head_dist"])
def test_one_head_of_the_distillation_is_enough(tmp_path, left):
    net = random_net(num_classes=7)
    gone = {"head": "head.head_dist.", "head_dist": "head.head."}[left]
    state = {n: t for n, t in net.state_dict().items() if not n.startswith(gone)}
    loaded = load(saved(tmp_path, state))
    net.head = getattr(net.head, left)
    assert not loaded.info.distillation
    assert (loaded.model(IMAGES) - expected_logits(net)).abs().max() <= 1e-5
    assert any("distillation alone" in n for n in loaded.info.notes) == (left == "head_dist")


@torch.no_grad()
@pytest.mark.parametrize("first", [linear(), norm_linear()], ids=["linear", "published"])
def test_a_second_head_of_other_classes_is_left_aside(tmp_path, first):
    net = random_net(num_classes=1000)
    net.head.head = first.eval()
    loaded = load(saved(tmp_path, net.state_dict()))
    net.head = first
    assert loaded.info.num_classes == 7 and not loaded.info.distillation
    assert (loaded.model(IMAGES) - expected_logits(net)).abs().max() <= 1e-5
    assert any("1000 classes and the first 7" in note for note in loaded.info.notes)
    assert len(loaded.info.riders) == 6


@pytest.mark.parametrize("where", ["fc", "classifier", "head"])
@torch.no_grad()
def test_a_linear_layer_behind_a_backbone_is_its_head(tmp_path, where):
    net = net_with(linear())
    body = {n: t for n, t in net.state_dict().items() if not n.startswith("head.")}
    layer = net.head.state_dict()
    flat = {f"backbone.{n}": t for n, t in body.items()}
    flat |= {f"{where}.{n}": t for n, t in layer.items()}
    for value in (flat, {"backbone": body, where: layer}, {"model": flat, "epoch": 3}):
        loaded = load(saved(tmp_path, value))
        assert (loaded.model(IMAGES) - expected_logits(net)).abs().max() <= 1e-5
        assert any("taken for its head" in note for note in loaded.info.notes)


MLP = nn.Sequential(linear(64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 7))


@pytest.mark.parametrize(
    ("head", "part"),
    [
        (MLP, "2 linear layers (head.0, head.3)"),
        (OneHead(MLP), "2 linear layers (head.head.0, head.head.3)"),
        (nn.Sequential(nn.BatchNorm1d(WIDTH), nn.ReLU(), linear()), "stands between them"),
        (nn.Sequential(nn.LayerNorm(WIDTH), linear()), "does not say enough"),
        (nn.Sequential(linear(), nn.BatchNorm1d(7)), "stands between them"),
    ],
)
def test_a_head_that_names_leave_open_is_refused_with_a_way(tmp_path, head, part):
    message = refusal(saved(tmp_path, net_with(head).state_dict()))
    assert part in message and "edgevit.quantize(model, train, val)" in message


def test_a_head_of_another_width_is_named(tmp_path):
    net = net_with(nn.Linear(2 * WIDTH, 7))
    assert "'head.weight' has shape (7, 640), expected (7, 320)" in refusal(
        saved(tmp_path, net.state_dict())
    )


# --- no head, one logit ----------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("prefix", ["", "backbone.", "image_encoder."])
@pytest.mark.parametrize("naming", ["timm", "thu-mig", "timm's features_only"])
def test_a_backbone_is_named_as_one(tmp_path, naming, prefix):
    net = random_net(features_only=True)
    state = official_state_dict(net) if naming == "thu-mig" else net.state_dict()
    if naming == "timm's features_only":
        state = {n.replace("stages.", "stages_", 1): t for n, t in state.items()}
    beside = {"neck.convs.0.weight": torch.ones(9, 320, 1, 1), "neck.x.weight": torch.ones(9, 320)}
    named = {f"{prefix}{n}": t for n, t in state.items()}
    loaded = load(saved(tmp_path, {**named, **(beside if prefix else {})}))
    assert loaded.info.num_classes == 0 and loaded.info.variant == "repvit_m0_6"
    assert any("backbone" in note for note in loaded.info.notes)
    for ours, theirs in zip(loaded.model(IMAGES), net(IMAGES), strict=True):
        assert torch.equal(ours, theirs)
    fused = fuse(loaded.model, IMAGES)
    assert fused.proof.top1_changed == 0 and fused.proof.convs == fused.proof.expected_convs
    for ours, theirs in zip(fused.net(IMAGES), net(IMAGES), strict=True):
        assert torch.allclose(ours, theirs, atol=fused.proof.bound)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["two heads", "one head", "linear", "fused"])
def test_one_logit_becomes_two_classes_by_its_sign(tmp_path, kind):
    net = random_net(num_classes=1, distillation=kind == "two heads")
    if kind == "linear":
        net.head = linear(1)
    if kind == "fused":
        net.fuse()
    logit = net(IMAGES)
    loaded = load(saved(tmp_path, net.state_dict()))
    found = loaded.model(IMAGES)
    assert loaded.info.num_classes == 2 and any("one logit" in n for n in loaded.info.notes)
    torch.testing.assert_close(found, torch.cat([-logit / 2, logit / 2], 1), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.softmax(1)[:, 1:], logit.sigmoid(), atol=1e-5, rtol=1e-5)
    fused = fuse(loaded.model, IMAGES).net
    assert (fused(IMAGES) - found).abs().max() <= 1e-5
