"""Preprocessing that somebody else's files or names say: timm, Hugging Face, torchvision.

Each becomes values of `PreprocessingOptions`. What such a file says of other things is passed over;
a key that could be about pre-processing and is not known here is named, since it may change pixels.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgevit.data.scales import IMAGENET_MEAN, IMAGENET_STD, unit_scale
from edgevit.errors import InputError
from edgevit.schema import parse_json

log = logging.getLogger(__name__)

MAX_BYTES = 2**20
HUGGING_FACE, TIMM = "preprocessor_config.json", "config.json"


@dataclass(frozen=True)
class Preset:
    """What was found.

    source   for messages: "net/config.json (timm)"
    values   options of `PreprocessingOptions`
    unknown  keys that were not understood
    net      the architecture that it is of, where it says so
    """

    source: str
    values: Mapping[str, Any]
    unknown: tuple[str, ...] = ()
    net: str = ""

    def __str__(self) -> str:
        shown = ", ".join(f"{name} {_text(value)}" for name, value in self.values.items())
        more = f"; not understood and left out: {', '.join(self.unknown)}" if self.unknown else ""
        return f"preprocessing from {self.source}: {shown}{more}"

    def merged(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The values, and over them the user's own, with which no value of theirs quarrels."""
        values = dict(self.values)
        if {"resize", "crop_pct"} & set(given):
            _drop(values, "resize", "crop_pct")
        elif "image_size" in given and "resize" in values:
            # The same share of the picture is seen.
            size, resize = values.get("image_size"), values.pop("resize")
            if isinstance(size, int) and isinstance(resize, int) and resize > size:
                values["crop_pct"] = size / resize
        if given.get("resize_mode", "fit") != "fit":
            _drop(values, "pad_color", "pad_position")
        if given.get("channels", values.get("channels", "RGB")) != values.get("channels", "RGB"):
            _drop(values, "mean", "std", "pad_color")
        if given.get("interpolation") in ("box", "area"):
            _drop(values, "antialias")
        return values | dict(given)


def _drop(values: dict[str, Any], *names: str) -> None:
    for name in names:
        values.pop(name, None)


def read_preset(name: str | Path) -> Preset:
    """The preset of a name (see `NAMES`), of a JSON file or of a folder that holds one.

    Raises InputError for what cannot be read, or asks for pre-processing that there is not.
    """
    if str(name).lower() in NAMES:
        return Preset(str(name), NAMES[str(name).lower()])
    path = Path(name)
    if path.is_dir():
        found = _in_folder(path)
        if found is None:
            raise InputError(f"{path} has neither a {HUGGING_FACE} nor a {TIMM} of timm")
        return found
    if not path.is_file():
        raise InputError(
            f"--preprocessing {name}: no such file, nor one of the names {', '.join(NAMES)}"
        )
    found = _of_file(path)
    if found is None:
        raise InputError(f"{path} says nothing of pre-processing that is known here")
    return found


def find_preset(checkpoint: Path) -> Preset | None:
    """The preset that lies beside a checkpoint, or in its folder where it is one.

    One that says it is of another architecture than RepViT is left alone, and the log says so.
    """
    found = _in_folder(checkpoint if checkpoint.is_dir() else checkpoint.parent)
    if found is not None and found.net and "repvit" not in found.net.lower():
        log.info("%s is of %s and left alone", found.source, found.net)
        return None
    return found


def _in_folder(folder: Path) -> Preset | None:
    for name in (HUGGING_FACE, TIMM):
        path = folder / name
        if path.is_file() and (found := _of_file(path)) is not None:
            return found
    return None


def _of_file(path: Path) -> Preset | None:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise InputError(f"{path} has over {MAX_BYTES} bytes: it is no file of preprocessing")
    value = parse_json(data, str(path))
    if not isinstance(value, dict):
        return None
    config = next((value[key] for key in _TIMM_KEYS if isinstance(value.get(key), dict)), None)
    try:
        if config is not None or "input_size" in value:
            net = str(value.get("architecture") or (config or value).get("architecture") or "")
            return replace(of_timm(config or value, f"{path} (timm)"), net=net)
        if _HUGGING_FACE_KEYS & set(value):
            return _of_hugging_face(value, f"{path} (Hugging Face)")
    except (TypeError, ValueError, KeyError, OverflowError, AttributeError) as error:
        raise InputError(f"{path} cannot be understood as preprocessing: {error}") from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return None


# -- timm -----------------------------------------------------------------------------------------

_TIMM_KEYS = ("pretrained_cfg", "data_config")
_TIMM_OTHERS = frozenset({
    "url", "file", "hf_hub_id", "hf_hub_filename", "architecture", "tag", "custom_load", "source",
    "num_classes", "num_features", "pool_size", "first_conv", "classifier", "license", "origin_url",
    "paper_ids", "paper_name", "notes", "fixed_input_size", "min_input_size", "label_offset",
    "label_names", "label_descriptions", "state_dict", "global_pool", "features_only",
})  # fmt: skip
_CROP_MODES = {"center": "shorter", "squash": "exact", "border": "fit"}


def of_timm(config: Mapping[str, Any], source: str) -> Preset:
    """What timm's configuration of a net says. Raises InputError for what there is not here."""
    values: dict[str, Any] = {}
    known = {"input_size", "interpolation", "crop_pct", "crop_mode", "mean", "std"}
    if "input_size" in config:
        channels, height, width = (int(side) for side in config["input_size"])
        values["image_size"] = height if height == width else (height, width)
        if channels != 3:
            values["channels"] = {1: "L", 4: "RGBA"}[channels]
    if config.get("interpolation"):
        values["interpolation"] = _filter(str(config["interpolation"]))
    if config.get("crop_pct"):
        values["crop_pct"] = float(config["crop_pct"])
    for name in ("mean", "std"):
        if config.get(name):
            values[name] = tuple(float(value) for value in config[name])
    if config.get("crop_mode"):
        values["resize_mode"] = _CROP_MODES[str(config["crop_mode"])]
        if values["resize_mode"] == "fit":
            shares = values.get("mean", IMAGENET_MEAN)
            values["pad_color"] = tuple(round(255 * value) for value in shares)
    return Preset(source, values, _rest(config, known | _TIMM_OTHERS))


# -- Hugging Face ---------------------------------------------------------------------------------

_HUGGING_FACE_KEYS = {"do_resize", "do_normalize", "image_mean", "crop_size", "size"}
_HUGGING_FACE_OTHERS = frozenset({
    "image_processor_type", "feature_extractor_type", "processor_class", "do_convert_rgb",
    "data_format", "input_data_format", "return_tensors", "_valid_processor_keys", "device",
    "disable_grouping",
})  # fmt: skip
_PILLOW_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}


def _of_hugging_face(config: Mapping[str, Any], source: str) -> Preset:
    known = {
        "do_resize", "size", "resample", "do_center_crop", "crop_size", "crop_pct", "do_rescale",
        "rescale_factor", "do_normalize", "image_mean", "image_std",
    }  # fmt: skip
    values = _sizes(config)
    if config.get("do_resize", True) and config.get("resample") is not None:
        resample = config["resample"]
        named = isinstance(resample, str)
        values["interpolation"] = _filter(resample if named else _PILLOW_FILTERS[int(resample)])
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if config.get("do_normalize", True):
        mean = _floats(config.get("image_mean"), IMAGENET_MEAN)
        std = _floats(config.get("image_std"), IMAGENET_STD)
    factor = float(config.get("rescale_factor", 1 / 255)) if config.get("do_rescale", True) else 1.0
    scaled = unit_scale(mean, std, factor)
    values |= {"mean": scaled.mean, "std": scaled.std}
    unknown = _rest(config, known | _HUGGING_FACE_OTHERS)
    return Preset(source, values, tuple(key for key in unknown if config[key] is not False))


def _sizes(config: Mapping[str, Any]) -> dict[str, Any]:
    """image_size, resize and resize_mode."""
    crops = bool(config.get("do_center_crop", "crop_size" in config))
    size = config.get("size") if config.get("do_resize", True) else None
    crop = _pair(config.get("crop_size")) if crops else None
    if size is None:
        if crop is None:
            raise InputError("it has neither a size nor a crop_size: give --image-size")
        return {"image_size": crop}
    shortest = size.get("shortest_edge") if isinstance(size, dict) else None
    if isinstance(size, int) and crops:
        shortest = size
    if shortest is None:
        exact = _pair(size)
        found = {"image_size": crop or exact, "resize_mode": "exact"}
        return found if crop in (None, exact) else found | {"resize": exact}
    shortest = int(shortest)
    if crop is not None:
        return {"image_size": crop, "resize": shortest}
    if config.get("crop_pct"):
        # ConvNeXt's rule: large inputs are stretched, others resized and cropped.
        if shortest >= 384:
            return {"image_size": shortest, "resize_mode": "exact"}
        return {"image_size": shortest, "resize": int(shortest / float(config["crop_pct"]))}
    raise InputError(
        "it resizes the shortest edge and crops nothing, so that inputs have any size: a program "
        "has one; give --image-size and --resize-mode"
    )


def _pair(size: Any) -> int | tuple[int, int]:
    if isinstance(size, dict):
        height, width = int(size["height"]), int(size["width"])
    else:
        height, width = (int(size), int(size)) if isinstance(size, int) else map(int, size)
    return height if height == width else (height, width)


# -- both -----------------------------------------------------------------------------------------


def _floats(values: Any, default: tuple[float, ...]) -> tuple[float, ...]:
    return default if values is None else tuple(float(value) for value in values)


def _filter(name: str) -> str:
    if name not in ("bicubic", "bilinear", "nearest", "box"):
        raise InputError(
            f"its interpolation is {name}, which there is not here; give --interpolation bicubic "
            "and look at the accuracy"
        )
    return name


def _rest(config: Mapping[str, Any], known: set[str] | frozenset[str]) -> tuple[str, ...]:
    return tuple(
        sorted(key for key, value in config.items() if key not in known and value is not None)
    )


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return "(" + ", ".join(_text(each) for each in value) + ")"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _torchvision(resize: int) -> dict[str, Any]:
    return {"image_size": 224, "resize": resize, "interpolation": "bilinear"}


NAMES: dict[str, dict[str, Any]] = {
    "imagenet1k_v1": _torchvision(256),
    "imagenet1k_v2": _torchvision(232),
    "timm": {"image_size": 224, "crop_pct": 0.875, "interpolation": "bicubic"},
    "inception": {
        "image_size": 224, "crop_pct": 0.875, "interpolation": "bicubic", "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
    },
    "caffe": {
        "image_size": 224, "resize": 256, "interpolation": "bilinear", "channels": "BGR",
        "mean": (103.939, 116.779, 123.68), "std": (1.0, 1.0, 1.0),
    },
}  # fmt: skip
"""Presets by name: torchvision's weights IMAGENET1K_V1 and _V2, and what other scripts often do."""
