"""Options of running an artifact here."""

from __future__ import annotations

from dataclasses import dataclass

from edgevit.choices import Device
from edgevit.limits import MAX_CLASSES, MAX_RUN_IMAGES
from edgevit.options import check, device_option, option


@dataclass(frozen=True)
class ClassifyOptions:
    """How single images are classified. Raises InputError when a value is out of range."""

    top_k: int = option(
        3, "Classes to print for each image.", minimum=1, maximum=MAX_CLASSES, metavar="K"
    )

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class ParityOptions:
    """How an artifact is compared with its program. Raises InputError for values out of range."""

    layer_images: int = option(
        32, "Images to compare layer by layer.", minimum=1, maximum=MAX_RUN_IMAGES, metavar="N"
    )
    images: int | None = option(
        None,
        "Images to predict, spread evenly over the set.",
        minimum=1,
        maximum=MAX_RUN_IMAGES,
        metavar="N",
        default_text="all",
    )
    min_agreement: float | None = option(
        None,
        "Gate: percentage of predictions that must equal the program's.",
        minimum=0,
        maximum=100,
        metavar="PERCENT",
        default_text="the target's tolerance, where it states one",
    )
    device: Device = device_option("Device that runs the program")

    def __post_init__(self) -> None:
        check(self)
