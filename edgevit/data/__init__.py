"""Image sets, pre-processing, batches, and the processes that share them.

`ImageSet` and `Preprocessing` are imported when they are first used: this package alone needs
neither torch nor Pillow.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgevit.data.images import ImageSet, Preprocessing

__all__ = ["ImageSet", "Preprocessing"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'edgevit.data' has no attribute {name!r}")
    return getattr(importlib.import_module("edgevit.data.images"), name)
