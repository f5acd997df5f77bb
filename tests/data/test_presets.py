"""Preprocessing of timm's, Hugging Face's and torchvision's files and names, and the options."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from edgevit.commands.preprocessing import chosen_preprocessing, preprocessing_options
from edgevit.data.images import Preprocessing
from edgevit.data.options import PreprocessingOptions
from edgevit.data.presets import NAMES, find_preset, read_preset
from edgevit.errors import InputError

TIMM = {
    "architecture": "repvit_m0_9",
    "num_classes": 1000,
    "pretrained_cfg": {
        "tag": "dist_450e_in1k", "custom_load": False, "input_size": [3, 224, 224],
        "fixed_input_size": False, "interpolation": "bicubic", "crop_pct": 0.95,
        "crop_mode": "center", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225],
        "num_classes": 1000, "pool_size": [7, 7], "first_conv": "stem.conv1.c",
        "classifier": ["head.head.l", "head.head_dist.l"],
    },
}  # fmt: skip
VIT = {
    "do_normalize": True, "do_rescale": True, "do_resize": True, "image_mean": [0.5, 0.5, 0.5],
    "image_processor_type": "ViTImageProcessor", "image_std": [0.5, 0.5, 0.5], "resample": 2,
    "rescale_factor": 0.00392156862745098, "size": {"height": 224, "width": 224},
}  # fmt: skip
CLIP = {
    "crop_size": {"height": 224, "width": 224}, "do_center_crop": True, "do_convert_rgb": True,
    "do_normalize": True, "do_resize": True, "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": [0.48145466, 0.4578275, 0.40821073], "resample": 3,
    "size": {"shortest_edge": 230},
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}  # fmt: skip


def write(folder: Path, name: str, value: Any) -> Path:
    (folder / name).write_text(value if isinstance(value, str) else json.dumps(value))
    return folder / name


def rules_of(path: str | Path) -> Preprocessing:
    return Preprocessing.from_options(PreprocessingOptions(**read_preset(path).values))


def test_timms_config_is_read(tmp_path: Path) -> None:
    write(tmp_path, "config.json", TIMM)
    found = find_preset(tmp_path / "pytorch_model.bin")
    assert found is not None and found.unknown == ()
    assert rules_of(tmp_path) == rules_of(tmp_path / "config.json") == Preprocessing(224, 235)
    assert str(found) == (
        f"preprocessing from {tmp_path}/config.json (timm): image_size 224, interpolation bicubic, "
        "crop_pct 0.95, mean (0.485, 0.456, 0.406), std (0.229, 0.224, 0.225), resize_mode shorter"
    )


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"crop_mode": "squash", "crop_pct": 1.0}, Preprocessing(224, resize="exact")),
        ({"input_size": [1, 96, 64], "mean": [0.5], "std": [0.25], "crop_pct": 0.9},
         Preprocessing((96, 64), (106, 71), channels="L", mean=(0.5,), std=(0.25,))),
        ({"crop_mode": "border", "crop_pct": 1.0},
         Preprocessing(224, resize="fit", pad_color=(124, 116, 104))),
        ({"interpolation": "bilinear", "crop_pct": None}, Preprocessing(224, 224, "bilinear")),
    ],
)  # fmt: skip
def test_timms_forms(tmp_path: Path, change: dict[str, Any], expected: Preprocessing) -> None:
    config = TIMM["pretrained_cfg"] | change  # type: ignore[operator]
    assert rules_of(write(tmp_path, "c.json", TIMM | {"pretrained_cfg": config})) == expected
    assert rules_of(write(tmp_path, "bare.json", config)) == expected


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (VIT, Preprocessing(224, 224, "bilinear", (0.5,), (0.5,), resize="exact")),
        (CLIP, Preprocessing(224, 230, mean=tuple(CLIP["image_mean"]),  # type: ignore[arg-type]
                             std=tuple(CLIP["image_std"]))),  # type: ignore[arg-type]
        ({"size": 224, "do_center_crop": True, "crop_size": 192, "image_mean": [0.5] * 3,
          "image_std": [0.5] * 3}, Preprocessing(192, 224, mean=(0.5,), std=(0.5,))),
        ({"size": 224, "do_normalize": False}, Preprocessing(224, mean=(0,), std=(1,),
                                                             resize="exact")),
        ({"size": {"shortest_edge": 224}, "crop_pct": 0.875, "resample": 3},
         Preprocessing(224, 256)),
        ({"size": {"shortest_edge": 384}, "crop_pct": 0.875}, Preprocessing(384, resize="exact")),
        ({"size": {"height": 256, "width": 256}, "do_center_crop": True,
          "crop_size": {"height": 224, "width": 160}},
         Preprocessing((224, 160), 256, resize="exact")),
        ({"size": [96, 64], "do_rescale": False, "image_mean": [123.675, 116.28, 103.53],
          "image_std": [58.395, 57.12, 57.375]}, Preprocessing((96, 64), resize="exact")),
        ({"size": 224, "rescale_factor": 1 / 127.5, "image_mean": [1] * 3, "image_std": [1] * 3},
         Preprocessing(224, mean=(0.5,), std=(0.5,), resize="exact")),
        ({"do_resize": False, "do_center_crop": True, "crop_size": 64, "size": 70},
         Preprocessing(64, 64)),
    ],
)  # fmt: skip
def test_hugging_faces_forms(
    tmp_path: Path, config: dict[str, Any], expected: Preprocessing
) -> None:
    write(tmp_path, "preprocessor_config.json", config)
    assert rules_of(tmp_path) == expected


def test_unknown_keys_are_named_and_the_processor_goes_before_the_model(tmp_path: Path) -> None:
    write(tmp_path, "config.json", TIMM)
    write(tmp_path, "preprocessor_config.json", VIT | {"do_flip": True, "do_pad": False})
    found = find_preset(tmp_path / "model.safetensors")
    assert found is not None and found.unknown == ("do_flip",)
    assert str(found).endswith("; not understood and left out: do_flip")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ({"size": {"shortest_edge": 224}}, "inputs have any size"),
        ({"size": 224, "resample": 1}, "interpolation is lanczos"),
        ({"size": {"longest_edge": 9}}, "cannot be understood"),
        ({"size": "big"}, "cannot be understood"),
        ({"do_resize": False}, "neither a size nor a crop_size"),
        ({"size": 224, "image_mean": [124, 116, 104]}, "do not fit pixels of 0 to 1"),
        ({"pretrained_cfg": {"input_size": [3, 224]}}, "cannot be understood"),
        ({"pretrained_cfg": {"input_size": [7, 8, 8]}}, "cannot be understood"),
        ({"pretrained_cfg": {"crop_mode": "random"}}, "cannot be understood"),
        ({"hidden_size": 768}, "says nothing of pre-processing"),
        ("[1]", "says nothing of pre-processing"),
        ("{", "not valid JSON"),
        ('{"size": NaN}', "not valid JSON"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused(tmp_path: Path, text: Any, message: str) -> None:
    path = write(tmp_path, "c.json", text)
    with pytest.raises(InputError, match=message) as error:
        rules_of(path)
    assert str(path) in str(error.value)


def test_a_config_of_something_else_is_left_alone(tmp_path: Path) -> None:
    write(tmp_path, "config.json", {"hidden_size": 768, "num_labels": 3})
    assert find_preset(tmp_path / "net.pth") is None
    write(tmp_path, "config.json", TIMM | {"architecture": "resnet50"})
    assert find_preset(tmp_path / "net.pth") is None
    assert rules_of(tmp_path / "config.json") == Preprocessing(224, 235), "it was asked for"
    with pytest.raises(InputError, match="nor one of the names imagenet1k_v1"):
        read_preset("nothing")


def test_every_name_is_a_record() -> None:
    for name in NAMES:
        assert rules_of(name).image_size == 224
    assert rules_of("IMAGENET1K_V1") == Preprocessing(224, 256, "bilinear")
    assert rules_of("imagenet1k_v2") == Preprocessing(224, 232, "bilinear")
    assert rules_of("caffe").table()[0, 0] == pytest.approx(-103.939, abs=1e-3)


# -- the commands --------------------------------------------------------------------------------


def run(checkpoint: Path, *words: str) -> tuple[Preprocessing | None, Any]:
    made: list[Preprocessing] = []

    @click.command()
    @preprocessing_options()
    def command(**given: Any) -> None:
        made.append(Preprocessing.from_options(chosen_preprocessing(given, checkpoint)))

    result = CliRunner().invoke(command, list(words))
    return (made or [None])[0], result


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--image-size 64", Preprocessing(64, 64)),
        ("--image-size 224x160", Preprocessing((224, 160), (224, 160))),
        ("--image-size 64 --mean 0.5,0.5,0.5 --std 0.25,0.25,0.25",
         Preprocessing(64, 64, mean=(0.5,), std=(0.25,))),
        ("--image-size 64 --mean 0.5 0.5 0.5 --std 0.25 0.25 0.25",
         Preprocessing(64, 64, mean=(0.5,), std=(0.25,))),
        ("--image-size 64 --mean 0.5, 0.5, 0.5 --std 0.25",
         Preprocessing(64, 64, mean=(0.5,), std=(0.25,))),
        ("--mean=123.675,116.28,103.53 --std=58.395,57.12,57.375", Preprocessing(224, 224)),
        ("--resize-mode exact", Preprocessing(224, resize="exact")),
        ("--resize-mode fit --pad-color 114 --pad-position top-left",
         Preprocessing(224, resize="fit", pad_color=(114,), pad_position="top-left")),
        ("--crop-pct 0.875", Preprocessing(224, 256)),
        ("--channels L --image-size 96x64 --no-antialias --interpolation bilinear",
         Preprocessing((96, 64), (96, 64), "bilinear", channels="L", antialias=False)),
        ("--preprocessing IMAGENET1K_V1 --image-size 64", Preprocessing(64, 73, "bilinear")),
        ("--preprocessing caffe --channels RGB", Preprocessing(224, 256, "bilinear")),
    ],
)  # fmt: skip
def test_the_options(tmp_path: Path, words: str, expected: Preprocessing) -> None:
    found, result = run(tmp_path / "net.pth", *words.split())
    assert found == expected, result.output


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", Preprocessing(224, 235)),
        ("--image-size 64", Preprocessing(64, 67)),
        ("--resize 256", Preprocessing(224, 256)),
        ("--crop-pct 1", Preprocessing(224, 224)),
        ("--mean 0.5 --std 0.5", Preprocessing(224, 235, mean=(0.5,), std=(0.5,))),
        ("--interpolation area", Preprocessing(224, 235, "area")),
        ("--resize-mode exact", Preprocessing(224, 235, resize="exact")),
    ],
)
def test_a_file_beside_the_checkpoint_is_taken_and_options_go_first(
    tmp_path: Path, words: str, expected: Preprocessing
) -> None:
    write(tmp_path, "config.json", TIMM)
    found, result = run(tmp_path / "net.pth", *words.split())
    assert found == expected, result.exception


@pytest.mark.parametrize(
    "words",
    ["--image-size 0x5x", "--image-size big", "--image-size 5000", "--mean a,b,c", "--mean",
     "--resize-mode squash", "--crop-pct 0", "--crop-pct 1.5", "--resize 20000", "--std 0",
     "--rescale-factor nan", "--pad-color 256", "--mean 0.5,0.5", "--image-size 4x99999"],
)  # fmt: skip
def test_a_bad_word_ends_with_2(tmp_path: Path, words: str) -> None:
    found, result = run(tmp_path / "net.pth", *words.split())
    assert found is None
    assert result.exit_code == 2 or isinstance(result.exception, InputError), result.output
