"""Image sets and their pre-processing, under the one name that callers import them by."""

from __future__ import annotations

from edgevit.data.decode import RGB_MODES, decode_rgb
from edgevit.data.image_set import DamagedImages, ImageSet, check_labels
from edgevit.data.kinds import READ_SUFFIXES
from edgevit.data.preprocessing import Preprocessing

__all__ = [
    "READ_SUFFIXES",
    "RGB_MODES",
    "DamagedImages",
    "ImageSet",
    "Preprocessing",
    "check_labels",
    "decode_rgb",
]
