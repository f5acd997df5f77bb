"""Where what is no Python lies: C++ sources, targets, app templates, the demo's data.

Of a checkout it lies beside the package. A wheel carries it inside, and the compiled harness too.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
IS_CHECKOUT = (_PACKAGE.parent / "targets" / "harness" / "CMakeLists.txt").is_file()
SOURCES = _PACKAGE.parent if IS_CHECKOUT else _PACKAGE / "_project"
COMPILED_HARNESS = _PACKAGE / "_native" / "edgevit-harness"
EMBEDDED = SOURCES / "calibration" / "eurosat"
"""Images, their origin and licence, and a RepViT-M0.9 that was trained on them."""
