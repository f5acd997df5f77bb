"""mean and std on the scale that the user's framework has, brought to 0..1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgevit.errors import InputError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_DIGITS = 12
"""Of a quotient: 123.675 / 255 is 0.485 again."""


@dataclass(frozen=True)
class Scaled:
    """mean and std for pixels from 0 to 1; `note` says what was done, empty where nothing was."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    note: str = ""


def unit_scale(
    mean: Sequence[float], std: Sequence[float], rescale_factor: float | None = None
) -> Scaled:
    """mean and std of (pixel * rescale_factor - mean) / std for pixels divided by 255.

    Without a factor a value above 1 says that they are on a scale of 0 to 255. Raises InputError
    for values on both scales, beyond either, or a std that is not positive.
    """
    mean, std = tuple(map(float, mean)), tuple(map(float, std))
    if min(std) <= 0:
        raise InputError(f"std must be positive, not {_text(std)}")
    if rescale_factor is not None:
        return _by_factor(mean, std, rescale_factor)
    if min(mean) < 0:
        raise InputError(f"mean is {_text(mean)}: a pixel's mean is 0 or more; give it as it is")
    if max(*mean, *std) <= 1:
        return Scaled(mean, std)
    both = f"mean {_text(mean)} and std {_text(std)}"
    if max(*mean, *std) > 255:
        raise InputError(f"{both} reach beyond 255, which no pixel does")
    # A std of 1 is Caffe's and Keras's; a mean of 0 is on either scale.
    if any(0 < value <= 1 for value in mean) or any(value < 1 for value in std):
        raise InputError(f"{both} mix the scales of 0 to 1 and 0 to 255: give both on one of them")
    scaled = Scaled(_divided(mean), _divided(std))
    return Scaled(
        scaled.mean,
        scaled.std,
        f"{both} are on the scale of 0 to 255: taken as mean {_text(scaled.mean)} and std "
        f"{_text(scaled.std)}",
    )


def _by_factor(mean: tuple[float, ...], std: tuple[float, ...], factor: float) -> Scaled:
    if not 0 < factor <= 1:
        raise InputError(f"rescale_factor is {factor}, it must be above 0 and at most 1")
    steps = factor * 255  # the largest pixel, rescaled
    found = Scaled(_divided(mean, steps), _divided(std, steps))
    if not all(0 <= value <= 1 for value in (*found.mean, *found.std)):
        raise InputError(
            f"mean {_text(mean)} and std {_text(std)} do not fit pixels of 0 to {steps:.6g}, which "
            f"rescale_factor {factor:.6g} makes"
        )
    return found


def _divided(values: tuple[float, ...], by: float = 255.0) -> tuple[float, ...]:
    return tuple(round(value / by, _DIGITS) for value in values)


def _text(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:.6g}" for value in values) + ")"
