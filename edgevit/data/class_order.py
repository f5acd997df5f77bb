"""The orders in which training libraries number class folders."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable


def torchvision_order(names: Iterable[str]) -> list[str]:
    """By code point, as torchvision's ImageFolder: "Dog", "cat", "class10", "class2"."""
    return sorted(names)


def timm_order(names: Iterable[str]) -> list[str]:
    """Naturally, ignoring case, as timm's ImageFolder: "cat", "class2", "class10", "Dog"."""
    return sorted(sorted(names), key=_natural)


def _natural(name: str) -> list[str | int]:
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name.lower())]


ORDERS: dict[str, Callable[[Iterable[str]], list[str]]] = {
    "default": torchvision_order,
    "natural": timm_order,
}
