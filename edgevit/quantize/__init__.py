"""Quantization: NNCF placement and ranges, correction, fine-tuning under distillation.

The package is a function as well: `edgevit.quantize(model, train, val)` is
`edgevit.quantize.pipeline.quantize`, whose documentation says how.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _QuantizePackage(ModuleType):
    def __call__(self, *args: Any, **options: Any) -> Any:
        from edgevit.quantize.pipeline import quantize

        return quantize(*args, **options)


# The public function is called edgevit.quantize, and so is this package: whichever is imported
# first, the name means both.
sys.modules[__name__].__class__ = _QuantizePackage
