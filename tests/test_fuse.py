import json
import os

import pytest
import torch
from click.testing import CliRunner
from torch import nn

from edgevit.commands.fuse import fuse_command
from edgevit.commands.inspect import inspect_command
from edgevit.errors import GateFailed, InputError
from edgevit.files import sha256_file
from edgevit.models import layers
from edgevit.models.checkpoint import load
from edgevit.models.fuse import (
    DEFAULT_BOUND,
    NOISE_SOURCE,
    FuseProof,
    fuse,
    noise_images,
    save_fused,
)
from edgevit.models.repvit import is_fused
from edgevit.models.variants import VARIANTS
from tests.official_names import official_state_dict
from tests.random_nets import random_images, random_net
from tests.shared_data import shared_checkpoint, shared_data

IMAGES = random_images()


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_is_proved(variant):
    result = fuse(random_net(variant, num_classes=100), IMAGES)
    proof = result.proof
    assert is_fused(result.net) and proof.norms_and_branches_left == 0
    assert proof.convs == proof.expected_convs == result.net.config.fused_convs
    # Two orders below the bound, so that the bound has room for rounding and none for mistakes.
    assert proof.max_abs_delta_logit <= DEFAULT_BOUND / 10
    assert proof.max_abs_logit > 0.1
    assert (proof.images, proof.image_size, proof.top1_changed) == (2, 64, 0)


@pytest.mark.parametrize("se", ["none", "every", "alternate"])
@pytest.mark.parametrize("distillation", [True, False])
def test_squeeze_excite_and_heads_of_each_kind(se, distillation):
    result = fuse(random_net(se=se, distillation=distillation), IMAGES)
    blocks = {"none": 0, "alternate": 7, "every": 11}[se]
    assert result.proof.convs == 56 + 2 * blocks
    assert type(result.net.head) is nn.Linear


def test_the_model_itself_is_left_as_it_is():
    model = random_net().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fuse(model, IMAGES)
    assert model.training and not is_fused(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_without_images_seeded_noise_stands_in_and_the_proof_says_so():
    state = torch.get_rng_state()
    proof = fuse(random_net()).proof
    assert proof.images_source == NOISE_SOURCE
    assert (proof.images, proof.image_size) == (8, 224)
    assert torch.equal(noise_images(32), noise_images(32))
    assert torch.equal(torch.get_rng_state(), state)


def test_several_batches_count_as_one_set():
    proof = fuse(random_net(), iter([IMAGES, IMAGES[:1]])).proof
    assert proof.images == 3


def test_a_fused_net_is_proved_by_structure_alone():
    net = fuse(random_net(), IMAGES).net
    proof = fuse(net, IMAGES).proof
    assert proof.already_fused
    assert proof.max_abs_delta_logit is None and proof.max_abs_logit is None
    assert proof.convs == proof.expected_convs


def test_a_wrong_fusion_fails_the_gate(monkeypatch):
    right = layers.ConvNorm.folded

    def forgets_the_mean(self):
        kernel, bias = right(self)
        scale = self.bn.weight.double() / (self.bn.running_var.double() + self.bn.eps).sqrt()
        return kernel, bias + self.bn.running_mean.double() * scale

    monkeypatch.setattr(layers.ConvNorm, "folded", forgets_the_mean)
    with pytest.raises(GateFailed, match=r"differ by up to .* the bound is 0.0001"):
        fuse(random_net(), IMAGES)


def test_the_bound_sees_an_error_in_a_single_weight():
    model = random_net()
    net = fuse(model, IMAGES).net
    with torch.no_grad():
        net.get_parameter("stages.2.blocks.3.token_mixer.weight")[0, 0, 1, 1] += 0.05
        delta = (net(IMAGES) - model(IMAGES)).abs().max()
    assert delta > DEFAULT_BOUND


@torch.no_grad()
@pytest.mark.parametrize("factor", [1e-4, 1.0, 1e4])
def test_the_bound_grows_with_the_logits(monkeypatch, factor):
    model = random_net()
    for head in (model.head.head, model.head.head_dist):
        head.l.weight.mul_(factor)
        head.l.bias.mul_(factor)
    proof = fuse(model, IMAGES).proof
    assert proof.bound == DEFAULT_BOUND * proof.max_abs_logit
    assert proof.max_abs_delta_logit <= proof.bound / 10
    right = layers.NormLinear.folded
    monkeypatch.setattr(
        layers.NormLinear, "folded", lambda self: (right(self)[0] * 1.001, right(self)[1])
    )
    with pytest.raises(GateFailed, match="of the largest logit"):
        fuse(model, IMAGES)


def test_a_layer_that_does_not_fuse_fails_the_gate():
    model = random_net()
    model.stages[0].blocks[0].se = nn.BatchNorm2d(40)
    with pytest.raises(GateFailed, match=r"1 layers did not fuse, first stages.0.blocks.0.se"):
        fuse(model, IMAGES)


def test_a_convolution_too_few_fails_the_gate():
    model = random_net()
    model.stages[2].blocks[3].channel_mixer = nn.Identity()
    with pytest.raises(GateFailed, match="68 convolutions, where its config has 70"):
        fuse(model, IMAGES)


def test_logits_that_are_not_finite_fail_the_gate():
    with pytest.raises(GateFailed, match="not finite"):
        fuse(random_net(), torch.full_like(IMAGES, float("inf")))


@pytest.mark.parametrize(
    ("images", "part"),
    [
        (torch.zeros(2, 1, 64, 64), r"expected \(N, 3, H, W\)"),
        (torch.zeros(3, 64, 64), r"expected \(N, 3, H, W\)"),
        ([], "no images"),
    ],
)
def test_images_of_no_use_are_refused(images, part):
    with pytest.raises(InputError, match=part):
        fuse(random_net(), images)


@pytest.mark.parametrize("bound", [0, -1, float("nan"), float("inf")])
def test_a_bound_of_no_use_is_refused(bound):
    with pytest.raises(InputError, match="bound"):
        fuse(random_net(), IMAGES, bound)


@torch.no_grad()
def test_a_headless_net_is_proved_by_its_maps():
    net = random_net(features_only=True)
    found = fuse(net, IMAGES)
    deltas = [(a - b).abs().max() for a, b in zip(found.net(IMAGES), net(IMAGES), strict=True)]
    assert found.proof.max_abs_delta_logit == pytest.approx(float(max(deltas)))
    assert found.proof.max_abs_delta_logit > 0 and found.proof.top1_changed == 0
    with pytest.raises(GateFailed, match="differ by up to"):
        fuse(net, IMAGES, 1e-12)


# --- saving ----------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {"se": "none"}, {"reparameterization": False}], ids=str)
def test_a_saved_net_reads_back_with_its_proof_and_config(tmp_path, options):
    result = fuse(random_net(num_classes=4, **options), IMAGES)
    path = save_fused(result, tmp_path / "fused.safetensors")
    loaded = load(path)
    assert torch.equal(loaded.model(IMAGES), result.net(IMAGES))
    assert loaded.model.config == result.net.config
    assert (loaded.info.naming, loaded.info.fused) == ("edgevit", True)
    assert FuseProof.from_json(loaded.info.proof) == result.proof


def test_equal_nets_give_equal_files(tmp_path):
    paths = [
        save_fused(fuse(random_net(), IMAGES), tmp_path / f"{name}.safetensors") for name in "ab"
    ]
    assert sha256_file(paths[0]) == sha256_file(paths[1])


def test_an_existing_file_needs_force(tmp_path):
    result = fuse(random_net(), IMAGES)
    path = save_fused(result, tmp_path / "fused.safetensors")
    with pytest.raises(InputError, match="--force"):
        save_fused(result, path)
    save_fused(result, path, force=True)
    with pytest.raises(InputError, match=r"as \.safetensors"):
        save_fused(result, tmp_path / "fused.pth")
    assert os.listdir(tmp_path) == ["fused.safetensors"]


@pytest.mark.parametrize(
    ("name", "value"), [("convs", "many"), ("already_fused", 1.5), ("original", [])]
)
def test_a_proof_with_values_of_another_type_is_refused(name, value):
    stored = fuse(random_net(), IMAGES).proof.to_json()
    with pytest.raises(InputError, match=name):
        FuseProof.from_json({**stored, name: value})
    with pytest.raises(InputError, match="keys"):
        FuseProof.from_json({**stored, "more": 1})


# --- the command -----------------------------------------------------------------------------


def run(*arguments):
    return CliRunner(catch_exceptions=True).invoke(fuse_command, [str(a) for a in arguments])


@pytest.mark.parametrize("name", ["timm", "thu"])
def test_the_shared_checkpoint_is_proved_on_real_images(tmp_path, name):
    output = tmp_path / "fused.safetensors"
    result = run(
        shared_checkpoint(f"repvit_m0_9_eurosat64_{name}.pth"),
        *("-o", output, "--data", shared_data("eurosat-val.tar"), "--image-size", 64, "--json"),
    )
    proof = json.loads(result.stdout)
    assert proof["max_abs_delta_logit"] <= 1e-5
    assert (proof["images"], proof["top1_changed"], proof["convs"]) == (64, 0, 103)
    assert proof["images_source"].startswith("64 of 5400 images of the set with sha256 ")
    assert load(output).info.proof == proof


def test_fuse_command_on_a_fused_file_keeps_the_first_proof(tmp_path):
    first, second, third = (tmp_path / f"{name}.safetensors" for name in "abc")
    checkpoint = tmp_path / "net.pth"
    torch.save({"model": official_state_dict(random_net(num_classes=3))}, checkpoint)
    assert run(checkpoint, "-o", first, "--image-size", 64).exit_code == 0
    assert run(first, "-o", second, "--image-size", 64).exit_code == 0
    table = run(second, "-o", third, "--image-size", 64).output
    assert "not compared: fused already" in table
    proof = load(third).info.proof
    assert proof["already_fused"] and proof["max_abs_delta_logit"] is None
    assert proof["original"] == load(first).info.proof
    assert "max |Δlogit|" in CliRunner().invoke(inspect_command, [str(third)]).output


def test_fuse_command_writes_nothing_when_the_proof_fails(tmp_path):
    checkpoint = tmp_path / "net.pth"
    torch.save(random_net().state_dict(), checkpoint)
    output = tmp_path / "new" / "fused.safetensors"
    result = run(checkpoint, "-o", output, "--image-size", 64, "--bound", "1e-12")
    assert isinstance(result.exception, GateFailed) and result.exception.exit_code == 3
    assert os.listdir(tmp_path) == ["net.pth"]


def test_fuse_command_refuses_an_existing_output_before_it_loads(tmp_path):
    (tmp_path / "out.safetensors").touch()
    result = run(tmp_path / "gone.pth", "-o", tmp_path / "out.safetensors")
    assert isinstance(result.exception, InputError) and "exists already" in str(result.exception)


def test_fuse_command_help_has_an_example():
    assert "Example:\n" in run("--help").output
