"""How a net that is not in a file of its own is named; importing this imports no torch."""

from __future__ import annotations

import os

TIMM_PREFIX = "timm:"


def is_timm(source: str | os.PathLike[str]) -> bool:
    """Whether a checkpoint argument names a net of timm."""
    return os.fspath(source).startswith(TIMM_PREFIX)
