"""Image encoders of Segment Anything on RepViT's trunk: from a file of either form to artifacts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import Tensor

import edgevit
from edgevit.cli import cli
from edgevit.errors import InputError
from edgevit.graph import trace
from edgevit.models import checkpoint
from edgevit.models.recognise import _renamed, _thu_prefixes
from edgevit.models.repvit import RepViTConfig, count_macs, is_fused
from edgevit.models.sam import EMBEDDING, LayerNorm2d, SamEncoder, sam_config, signal_to_noise
from edgevit.models.variants import variant_config
from edgevit.ops import LayerNorm
from edgevit.program import Program
from edgevit.targets import load_target
from edgevit.targets.manifest import Manifest
from tests.npu import OWN_FORMAT
from tests.random_nets import trained_looking

TRUNK = RepViTConfig("repvit", (8, 16, 16, 24), (1, 1, 2, 1), num_classes=1)
FORMS = {"edgesam": True, "repvit-sam": False}
form_of = pytest.mark.parametrize("fusion", FORMS.values(), ids=FORMS)


def encoder(fusion: bool, trunk: RepViTConfig = TRUNK, seed: int = 0) -> SamEncoder:
    torch.manual_seed(seed)
    trunk = replace(trunk, branch_norms=fusion, distillation=False)
    net = trained_looking(SamEncoder(sam_config(trunk, fusion)))
    for layer in net.modules():
        if isinstance(layer, LayerNorm2d):
            torch.nn.init.normal_(layer.weight, 1, 0.2)
            torch.nn.init.normal_(layer.bias, 0, 0.2)
    return net


def published(net: SamEncoder, prefix: str = "image_encoder.") -> dict[str, Tensor]:
    """The state dict as the published files name it, with the other parts of a whole SAM."""
    prefixes = _thu_prefixes(net.config.depths)
    found = {prefix + _renamed(name, prefixes): t for name, t in net.state_dict().items()}
    if prefix:
        found["prompt_encoder.point_embeddings.0.weight"] = torch.zeros(1, 256)
        found["mask_decoder.output_upscaling.0.weight"] = torch.zeros(256, 64, 2, 2)
        found["mask_decoder.iou_prediction_head.layers.0.weight"] = torch.zeros(256, 256)
    return found


def saved(state: Any, folder: Path, name: str = "sam.pth") -> Path:
    torch.save(state, folder / name)
    return folder / name


def images(size: int = 64, count: int = 2) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


# -- the nets -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variant", "fusion", "millions"), [("repvit_m1", True, 5.5), ("repvit_m2_3", False, 23.2)]
)
def test_the_published_encoders_have_their_size(
    variant: str, fusion: bool, millions: float
) -> None:
    net = SamEncoder(sam_config(variant_config(variant, distillation=False), fusion)).eval()
    assert round(sum(p.numel() for p in net.parameters()) / 1e6, 1) == millions
    with torch.no_grad():
        assert net(images(64, 1)).shape == (1, EMBEDDING, 4, 4)
        maps = net.features()(images(64, 1))
    strides = [64 // m.shape[-1] for m in maps]
    assert strides == [4, 8, 16, 32 if fusion else 16]


def test_the_neck_is_what_torch_computes() -> None:
    """Of the fusion and the neck by torch's own layers, from the trunk's maps."""
    net, x = encoder(True), images()
    with torch.no_grad():
        *_, before, last = net.features()(x)
        state, functional = net.state_dict(), torch.nn.functional
        summed = functional.conv2d(before, state["fuse_stage2.weight"]) + functional.interpolate(
            functional.conv2d(last, state["fuse_stage3.op_list.0.weight"]),
            scale_factor=2, mode="bicubic", align_corners=False,
        )  # fmt: skip
        y = summed
        for index in (0, 2):
            y = functional.conv2d(y, state[f"neck.{index}.weight"], padding=index // 2)
            norm = (state[f"neck.{index + 1}.{part}"] for part in ("weight", "bias"))
            y = functional.layer_norm(y.permute(0, 2, 3, 1), (EMBEDDING,), *norm, 1e-6)
            y = y.permute(0, 3, 1, 2)
        assert torch.allclose(net(x), y, atol=1e-5)


@form_of
def test_a_fused_encoder_computes_the_same(fusion: bool) -> None:
    net, x = encoder(fusion), images()
    with torch.no_grad():
        expected = net(x)
        convolutions = sum(isinstance(m, torch.nn.Conv2d) for m in net.fuse().modules())
        assert is_fused(net) and convolutions == net.config.fused_convs
        assert torch.allclose(net(x), expected, atol=1e-4)


@form_of
def test_the_multiplications_are_those_that_are_done(fusion: bool) -> None:
    net, done = encoder(fusion).fuse(), 0

    def count(layer: Any, _: Any, out: Tensor) -> None:
        nonlocal done
        done += layer.weight.numel() * out.shape[2] * out.shape[3]

    for layer in net.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(count)
    with torch.no_grad():
        net(images(64, 1))
    assert count_macs(net, 64) == done


def test_sizes_at_which_the_maps_do_not_meet_are_refused() -> None:
    with pytest.raises(InputError, match="80 x 80 px .* use multiples of 32"):
        encoder(True)(images(80))
    assert encoder(False)(images(80)).shape[2:] == (5, 5)


# -- files ----------------------------------------------------------------------------------------


@form_of
@pytest.mark.parametrize("held", ["whole", "under model", "alone", "fused"])
def test_either_form_is_recognised(fusion: bool, held: str, tmp_path: Path) -> None:
    net = encoder(fusion)
    if held == "fused":
        net.fuse()
    state: Any = published(net, "" if held == "alone" else "image_encoder.")
    path = saved({"model": state} if held == "under model" else state, tmp_path)
    loaded = edgevit.load(path)
    assert isinstance(loaded, SamEncoder) and loaded.config.fusion == fusion
    info = loaded.checkpoint_info
    assert info is not None and info.variant == "repvit_sam" and not info.num_classes
    assert info.fused == (held == "fused")
    form = "EdgeSAM's form" if fusion else "RepViT-SAM's form"
    assert any(form in note for note in info.notes)
    with torch.no_grad():
        assert torch.equal(loaded(images()), net(images()))


@form_of
def test_a_fused_file_is_read_back(fusion: bool, tmp_path: Path) -> None:
    net = encoder(fusion)
    path, out = saved(published(net), tmp_path), tmp_path / "fused.safetensors"
    result = run("fuse", path, "-o", out, "--image-size", 64)
    assert result.exit_code == 0, result.output
    loaded = checkpoint.load(out)
    assert isinstance(loaded.model, SamEncoder) and loaded.info.fused and loaded.info.proof
    assert loaded.info.config == net.config
    with torch.no_grad():
        assert torch.allclose(loaded.model(images()), net(images()), atol=1e-4)


def test_another_encoder_is_named_and_refused(tmp_path: Path) -> None:
    for kind, name in (
        ("vision transformer", "image_encoder.blocks.0.attn.qkv.weight"),
        ("TinyViT", "image_encoder.layers.0.blocks.0.conv1.c.weight"),
    ):
        state = {name: torch.zeros(4, 4), "mask_decoder.iou_token.weight": torch.zeros(1, 256)}
        with pytest.raises(InputError, match=f"{kind}.*image encoders of RepViT-SAM and EdgeSAM"):
            edgevit.load(saved(state, tmp_path))


@pytest.mark.parametrize("odd", ["one more", "one less", "other width"])
def test_an_unknown_neck_is_named_and_the_trunk_offered(odd: str, tmp_path: Path) -> None:
    state = published(encoder(False))
    if odd == "one more":
        state["image_encoder.neck.4.weight"] = torch.ones(EMBEDDING)
    elif odd == "one less":
        del state["image_encoder.neck.3.bias"]
    else:
        state["image_encoder.neck.0.weight"] = torch.zeros(128, 24, 1, 1)
    loaded = edgevit.load(saved(state, tmp_path))
    assert not isinstance(loaded, SamEncoder)
    with pytest.raises(InputError, match=r"'neck.0.weight'.* --stages 1,2,3,4 takes the trunk"):
        loaded.as_features()
    assert len(loaded.features((2, 3))(images())) == 2


# -- programs and artifacts -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for i in range(24):
        coarse = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((64, 64), Image.Resampling.BICUBIC).save(root / f"{i}.png")
    return root


@pytest.fixture(scope="module", params=FORMS.values(), ids=list(FORMS))
def program(
    request: pytest.FixtureRequest, pictures: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("sam")
    path, out = saved(published(encoder(request.param)), folder), folder / "m.evq"
    more = ("--upsample", "bilinear") if request.param else ()
    result = quantized(path, pictures, out, "--min-sqnr", 15, "--min-cosine", 0.97, *more)
    assert result.exit_code == 0, result.output
    return out


def run(*arguments: object):
    return CliRunner().invoke(cli, [str(each) for each in arguments])


def quantized(path: Path, pictures: Path, out: Path, *more: object):
    return run(
        "quantize", path, "--task", "features", "--data", pictures, "--image-size", 64,
        "--epochs", 1, "--batch-size", 4, "--calibration-images", 8, "-o", out, *more,
    )  # fmt: skip


def test_the_program_has_one_output_and_two_islands(program: Path) -> None:
    graph = Program.load(program).graph()
    assert [graph.shape(name) for name in graph.outputs] == [(1, EMBEDDING, 4, 4)]
    islands = [node.name for node in graph.nodes if isinstance(node, LayerNorm)]
    assert islands == ["neck.1", "neck.3"]


@pytest.mark.parametrize("target", OWN_FORMAT)
def test_every_target_holds_it(target: str, program: Path, pictures: Path, tmp_path: Path) -> None:
    result = run("compile", program, "--target", target, "-o", tmp_path)
    assert result.exit_code == 0 and "neck.1, neck.3" in result.stdout, result.output
    assert Manifest.load(tmp_path / target).islands == ("neck.1", "neck.3")
    load_target(target).check_artifact(tmp_path / target, Program.load(program))
    result = run(
        "parity", tmp_path / target, "--program", program, "--data", pictures,
        "--images", 4, "--layer-images", 1, "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    ((found,),) = (each["outputs"] for each in json.loads(result.stdout).values())
    assert found["cosine"] > (0.999 if target in ("tflite", "onnx") else 0.97)


def test_bicubic_is_not_replaced_in_silence(
    pictures: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    net = encoder(True)
    path, out = saved(published(net), tmp_path), tmp_path / "m.evq"
    result = quantized(path, pictures, out)
    assert isinstance(result.exception, InputError) and not out.exists()
    assert "bicubic" in str(result.exception) and "--upsample bilinear" in str(result.exception)
    bilinear = net.with_upsample("bilinear")
    assert bilinear.config.upsample == "bilinear" and net.config.upsample == "bicubic"
    assert 5 < signal_to_noise(net, bilinear, images()) < 60
    trace(bilinear, (3, 64, 64))
    with pytest.raises(InputError, match="upsample_bicubic2d"):
        trace(net, (3, 64, 64))


def test_upsample_without_a_fusion_is_refused(pictures: Path, tmp_path: Path) -> None:
    path, out = saved(published(encoder(False)), tmp_path), tmp_path / "m.evq"
    result = quantized(path, pictures, out, "--upsample", "bilinear")
    assert isinstance(result.exception, InputError) and not out.exists()
    assert "--upsample bilinear is for an image encoder that sums two stages" in str(
        result.exception
    )


def test_the_trunk_of_an_unknown_neck_can_be_quantized(pictures: Path, tmp_path: Path) -> None:
    state = published(encoder(False)) | {"image_encoder.neck.4.weight": torch.ones(EMBEDDING)}
    path, out = saved(state, tmp_path), tmp_path / "m.evq"
    result = quantized(path, pictures, out)
    assert isinstance(result.exception, InputError) and not out.exists()
    assert "--stages 1,2,3,4" in str(result.exception)
    result = quantized(path, pictures, out, "--stages", "2,3", "--min-sqnr", 5, "--min-cosine", 0.8)
    assert result.exit_code == 0, result.output
    graph = Program.load(out).graph()
    assert [graph.shape(name)[2:] for name in graph.outputs] == [(8, 8), (4, 4)]
