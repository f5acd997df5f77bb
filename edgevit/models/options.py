"""Options of reading and fusing a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgevit.choices import Device
from edgevit.options import check, device_option, option


@dataclass(frozen=True)
class CheckpointOptions:
    """What a checkpoint is expected to hold. Raises InputError for a value of another type."""

    variant: str | None = option(
        None,
        "Fail unless the checkpoint is this variant, for example repvit_m0_9.",
        metavar="NAME",
        default_text="any",
    )
    weights: str | None = option(
        None,
        "Weights to read from a file that holds several, as `edgevit inspect` lists them; of a net "
        "named timm:NAME the file itself, or FILE#KEY.",
        metavar="KEY|FILE",
        default_text="the averaged ones (EMA), else the first",
    )

    def __post_init__(self) -> None:
        check(self)


def bound_option() -> Any:
    """The option of how far fusing may move a logit, for every class of options that has it."""
    # Float32 rounding alone moves the logits of a trained net by 1e-7 to 1e-5 of the largest; one
    # wrong weight, by far more than this.
    return option(
        1e-4,
        "Largest difference of a logit that fusing may make, as a share of the largest logit.",
        above=0,
        maximum=1e6,
        metavar="SHARE",
    )


@dataclass(frozen=True)
class FuseOptions:
    """How the fused net is proved equal. Raises InputError when a value is out of range."""

    images: int = option(
        64, "Images of --data to compare, spread evenly over the set.", minimum=1, metavar="N"
    )
    bound: float = bound_option()
    device: Device = device_option("Device that the nets are compared on")

    def __post_init__(self) -> None:
        check(self)
