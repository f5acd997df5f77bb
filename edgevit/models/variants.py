"""The published RepViTs: what each is made of, and a function for each that builds it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgevit.errors import InputError
from edgevit.models.repvit import RepViT, RepViTConfig

_PUBLISHED: dict[str, tuple[tuple[int, ...], tuple[int, ...], bool]] = {
    "repvit_m0_6": ((40, 80, 160, 320), (1, 1, 8, 1), False),
    "repvit_m0_9": ((48, 96, 192, 384), (2, 2, 14, 2), False),
    "repvit_m1_0": ((56, 112, 224, 448), (2, 2, 14, 2), False),
    "repvit_m1_1": ((64, 128, 256, 512), (2, 2, 12, 2), False),
    "repvit_m1_5": ((64, 128, 256, 512), (4, 4, 24, 4), False),
    "repvit_m2_3": ((80, 160, 320, 640), (6, 6, 34, 2), False),
    "repvit_m1": ((48, 96, 192, 384), (2, 2, 14, 2), True),
    "repvit_m2": ((64, 128, 256, 512), (2, 2, 12, 2), True),
    "repvit_m3": ((64, 128, 256, 512), (4, 4, 18, 2), True),
}
"""Widths and depths, and whether each branch has a norm."""

UNPUBLISHED = "repvit"
"""The variant of a net with widths or depths of its own."""


def variant_config(variant: str, **options: Any) -> RepViTConfig:
    """The config of a published variant; `options` are fields of RepViTConfig.

    Raises InputError for an unknown variant or an option that describes no net.
    """
    if variant not in _PUBLISHED:
        known = ", ".join(_PUBLISHED)
        raise InputError(f"unknown variant {variant!r}; use one of {known}")
    widths, depths, branch_norms = _PUBLISHED[variant]
    return RepViTConfig(variant, widths, depths, **{"branch_norms": branch_norms, **options})


def variant_of(widths: tuple[int, ...], depths: tuple[int, ...], branch_norms: bool) -> str:
    """The name of a net: published where it is, otherwise UNPUBLISHED.

    A fused net has no branches, so that it may go by the name of either release.
    """
    names = {norms: n for n, (w, d, norms) in _PUBLISHED.items() if (w, d) == (widths, depths)}
    return names.get(branch_norms) or next(iter(names.values()), UNPUBLISHED)


def _build(variant: str, num_classes: int, distillation: bool, options: dict[str, Any]) -> RepViT:
    options = {"num_classes": num_classes, "distillation": distillation, **options}
    return RepViT(variant_config(variant, **options))


def repvit_m0_6(num_classes: int = 1000, distillation: bool = True, **options: Any) -> RepViT:
    """RepViT-M0.6 (in the authors' code only): 2.5 M parameters, 0.4 G MACs at 224 px, fused."""
    return _build("repvit_m0_6", num_classes, distillation, options)


def repvit_m0_9(num_classes: int = 1000, distillation: bool = True, **options: Any) -> RepViT:
    """RepViT-M0.9: 5.1 M parameters, 0.8 G MACs at 224 px, fused."""
    return _build("repvit_m0_9", num_classes, distillation, options)


def repvit_m1_0(num_classes: int = 1000, distillation: bool = True, **options: Any) -> RepViT:
    """RepViT-M1.0: 6.8 M parameters, 1.1 G MACs at 224 px, fused."""
    return _build("repvit_m1_0", num_classes, distillation, options)


def repvit_m1_1(num_classes: int = 1000, distillation: bool = True, **options: Any) -> RepViT:
    """RepViT-M1.1: 8.2 M parameters, 1.3 G MACs at 224 px, fused."""
    return _build("repvit_m1_1", num_classes, distillation, options)


def repvit_m1_5(num_classes: int = 1000, distillation: bool = True, **options: Any) -> RepViT:
    """RepViT-M1.5: 14.0 M parameters, 2.3 G MACs at 224 px, fused."""
    return _build("repvit_m1_5", num_classes, distillation, options)


def repvit_m2_3(num_classes: int = 1000, distillation: bool = True, **options: Any) -> RepViT:
    """RepViT-M2.3: 22.9 M parameters, 4.5 G MACs at 224 px, fused."""
    return _build("repvit_m2_3", num_classes, distillation, options)


def repvit_m1(num_classes: int = 1000, distillation: bool = True, **options: Any) -> RepViT:
    """RepViT-M1 of the first release (2023): M0.9, trained with a norm in each branch."""
    return _build("repvit_m1", num_classes, distillation, options)


def repvit_m2(num_classes: int = 1000, distillation: bool = True, **options: Any) -> RepViT:
    """RepViT-M2 of the first release (2023): M1.1, trained with a norm in each branch."""
    return _build("repvit_m2", num_classes, distillation, options)


def repvit_m3(num_classes: int = 1000, distillation: bool = True, **options: Any) -> RepViT:
    """RepViT-M3 of the first release (2023): 10.1 M parameters, 1.8 G MACs at 224 px, fused."""
    return _build("repvit_m3", num_classes, distillation, options)


_BUILDERS = (
    repvit_m0_6, repvit_m0_9, repvit_m1_0, repvit_m1_1, repvit_m1_5, repvit_m2_3,
    repvit_m1, repvit_m2, repvit_m3,
)  # fmt: skip
VARIANTS: dict[str, Callable[..., RepViT]] = {build.__name__: build for build in _BUILDERS}
