import pytest
import torch
from torch import nn

from edgevit.errors import InputError
from edgevit.models.repvit import (
    RepViT,
    RepViTConfig,
    count_macs,
    count_parameters,
    is_fused,
    skeleton,
    unfused_layers,
)
from edgevit.models.variants import VARIANTS, repvit_m0_6, variant_config
from tests.random_nets import random_images, random_net
from tests.timm_compat import import_timm

# Parameters (M) and MACs (G) that the paper and the official README print, at 224 px.
PUBLISHED = {
    "repvit_m0_6": ("2.5", "0.4"),
    "repvit_m0_9": ("5.1", "0.8"),
    "repvit_m1_0": ("6.8", "1.1"),
    "repvit_m1_1": ("8.2", "1.3"),
    "repvit_m1_5": ("14.0", "2.3"),
    "repvit_m2_3": ("22.9", "4.5"),
    "repvit_m1": ("5.1", "0.8"),
    "repvit_m2": ("8.2", "1.3"),
    "repvit_m3": ("10.1", "1.9"),
}
IN_TIMM = [name for name in VARIANTS if name != "repvit_m0_6"]
ABLATIONS = [
    {"se": "none"},
    {"se": "every"},
    {"reparameterization": False},
    {"reparameterization": False, "se": "none", "distillation": False},
    {"kernel_size": 5},
    {"kernel_size": 1},
    {"expansion": 3},
    {"expansion": 1.5},
    {"se": ((), (0,), (1, 4), ())},
    {"branch_norms": True},
]


def test_every_variant_is_published():
    assert set(VARIANTS) == set(PUBLISHED)


@pytest.mark.parametrize("variant", VARIANTS)
def test_parameters_and_macs_are_the_published_ones(variant):
    model = skeleton(variant_config(variant, distillation=False), fused=True)
    figures = f"{count_parameters(model) / 1e6:.1f}", f"{count_macs(model) / 1e9:.1f}"
    assert figures == PUBLISHED[variant]


@torch.no_grad()
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("image_size", [64, 75])
def test_macs_are_those_of_a_real_run(image_size, fused):
    model = random_net(kernel_size=5)
    if fused:
        model.fuse()
    macs = 0

    def add(layer, _inputs, output):
        nonlocal macs
        macs += output.numel() * layer.weight[0].numel()

    for layer in model.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            layer.register_forward_hook(add)
    model(random_images(1, image_size))
    assert count_macs(model, image_size) == macs


@torch.no_grad()
@pytest.mark.parametrize(
    ("variant", "distillation"), [*((name, True) for name in IN_TIMM), (IN_TIMM[0], False)]
)
def test_same_weights_give_timms_logits_and_features(variant, distillation):
    model, images = random_net(variant, distillation=distillation), random_images()
    reference = import_timm().create_model(variant, distillation=distillation).eval()
    reference.load_state_dict(model.state_dict())
    assert (model(images) - reference(images)).abs().max() <= 1e-5
    for ours, theirs in zip(
        model.forward_features(images),
        reference.forward_intermediates(images, intermediates_only=True),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_train_mode_gives_both_heads_as_timm_does():
    model, images = random_net("repvit_m0_9"), random_images()
    reference = import_timm().create_model("repvit_m0_9")
    reference.load_state_dict(model.state_dict())
    reference.train().set_distilled_training(True)
    for ours, theirs in zip(model.train()(images), reference(images), strict=True):
        assert (ours - theirs).abs().max() <= 1e-5


@torch.no_grad()
def test_fused_names_and_weights_are_timms():
    model = random_net("repvit_m0_9")
    reference = import_timm().create_model("repvit_m0_9").eval()
    reference.load_state_dict(model.state_dict())
    reference.fuse()
    ours, theirs = model.fuse().state_dict(), reference.state_dict()
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], atol=1e-6, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("options", ABLATIONS, ids=str)
def test_each_ablation_fuses_to_the_same_logits(options):
    model, images = random_net(**options), random_images()
    expected = model(images)
    model.fuse()
    assert is_fused(model)
    assert not hasattr(model.stages[0].blocks[0].token_mixer, "conv")
    convs = sum(isinstance(layer, nn.Conv2d) for layer in model.modules())
    assert convs == model.config.fused_convs
    assert (model(images) - expected).abs().max() <= 1e-5


def test_squeeze_excite_sits_where_the_switch_says():
    def blocks_with_se(se):
        with torch.device("meta"):
            blocks = repvit_m0_6(se=se).stages[2].blocks
        return [
            index for index, block in enumerate(blocks) if not isinstance(block.se, nn.Identity)
        ]

    assert blocks_with_se("none") == []
    assert blocks_with_se("alternate") == [0, 2, 4, 6]
    assert blocks_with_se("every") == list(range(8))


def test_reparameterization_off_trains_a_single_depthwise_branch():
    model = random_net(reparameterization=False)
    assert type(model.stages[0].blocks[0].token_mixer).__name__ == "ConvNorm"


def test_fused_module_names():
    model = random_net().fuse()
    leaves = {name: layer for name, layer in model.named_modules() if not list(layer.children())}
    block, downsample = "stages.2.blocks.0", "stages.1.downsample"
    for name, kind in {
        "stem.conv1": nn.Conv2d,
        "stem.act1": nn.GELU,
        f"{block}.token_mixer": nn.Conv2d,
        f"{block}.se.fc1": nn.Conv2d,
        f"{block}.se.act": nn.ReLU,
        f"{block}.se.gate": nn.Sigmoid,
        f"{block}.channel_mixer.conv2": nn.Conv2d,
        f"{downsample}.pre_block.token_mixer": nn.Conv2d,
        f"{downsample}.spatial_downsample": nn.Conv2d,
        f"{downsample}.channel_downsample": nn.Conv2d,
        f"{downsample}.ffn.act": nn.GELU,
        "head": nn.Linear,
    }.items():
        assert type(leaves[name]) is kind, name


def test_unfused_layers_are_named():
    left = unfused_layers(random_net())
    assert left["stem.conv1"] == "ConvNorm"
    assert left["stem.conv1.bn"] == "BatchNorm2d"
    assert left["head"] == "Classifier"


def test_fusing_twice_changes_nothing_and_draws_no_random_numbers():
    model = random_net()
    state = torch.get_rng_state()
    first = {name: value.clone() for name, value in model.fuse().state_dict().items()}
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in model.fuse().state_dict().items():
        assert torch.equal(value, first[name])


@torch.no_grad()
def test_features_only_gives_the_pyramid():
    images = random_images(1, 64)
    model = random_net(features_only=True)
    assert [tuple(m.shape) for m in model(images)] == [
        (1, 40, 16, 16),
        (1, 80, 8, 8),
        (1, 160, 4, 4),
        (1, 320, 2, 2),
    ]
    assert not any(name.startswith("head") for name in model.state_dict())


@torch.no_grad()
def test_features_of_chosen_stages_and_no_stage_beyond():
    full = random_net(features_only=True)
    model = repvit_m0_6(features_only=True, out_indices=(0, 2)).eval()
    state = full.state_dict()
    model.load_state_dict({name: state[name] for name in model.state_dict()})
    images = random_images(1, 64)
    expected = full(images)
    maps = model.fuse()(images)
    assert len(model.stages) == 3 and len(maps) == 2
    for found, index in zip(maps, (0, 2), strict=True):
        torch.testing.assert_close(found, expected[index], atol=1e-5, rtol=1e-5)
    convs = sum(isinstance(layer, nn.Conv2d) for layer in model.modules())
    assert convs == model.config.fused_convs


@torch.no_grad()
def test_fused_net_exports_at_a_static_shape():
    model, images = random_net().fuse(), random_images(1, 64)
    program = torch.export.export(model, (images,))
    ops = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert ops == {
        f"aten.{op}"
        for op in (
            "add.Tensor",
            "conv2d.default",
            "flatten.using_ints",
            "gelu.default",
            "linear.default",
            "mean.dim",
            "mul.Tensor",
            "relu.default",
            "sigmoid.default",
        )
    }
    assert torch.equal(program.module()(images), model(images))


@pytest.mark.parametrize(
    ("wrong", "part"),
    [
        ({"num_classes": 0}, "num_classes"),
        ({"kernel_size": 4}, "kernel_size"),
        ({"expansion": 1.33}, "expansion"),
        ({"expansion": 0}, "expansion"),
        ({"se": "some"}, "none, every, alternate"),
        ({"se": ((0,), (0,))}, "blocks of each stage"),
        ({"se": ((0,), (0,), (8,), (0,))}, "blocks of each stage"),
        ({"in_channels": 0}, "in_channels"),
        ({"out_indices": (4,)}, "out_indices"),
        ({"out_indices": ()}, "out_indices"),
    ],
)
def test_a_config_that_describes_no_net_is_refused(wrong, part):
    with pytest.raises(InputError, match=part):
        repvit_m0_6(**wrong)


@pytest.mark.parametrize(
    ("widths", "depths"), [((48,), (2, 2)), ((), ()), ((47,), (2,)), ((48,), (0,))]
)
def test_widths_and_depths_must_fit(widths, depths):
    with pytest.raises(InputError, match=r"widths|depths"):
        RepViTConfig("mine", widths, depths, out_indices=(0,))


def test_a_config_of_ones_own_builds():
    config = RepViTConfig("mine", (16, 32), (1, 2), num_classes=3, out_indices=(0, 1))
    assert RepViT(config).eval()(random_images(2, 32)).shape == (2, 3)
