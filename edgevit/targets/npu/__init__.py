"""What the targets of phones' NPUs share: a TFLite file, and a vendor's compiler ahead of time.

`ai-edge-litert` carries a compiler plugin for each vendor and a program that applies it
(`compiler`); the vendor's own libraries come from elsewhere (`vendor`). The artifact is a folder:
the TFLite file that was compiled, and what became of it for each SoC. `write` makes the first,
`read` reads both, `target` is the contract over them.
"""

from __future__ import annotations

from edgevit.targets.npu.vendor import Vendor

SAMSUNG = Vendor(
    title="Samsung Exynos",
    manufacturer="Samsung",
    folder="samsung",
    socs=("E9965",),
    library="",
    package="",
    how_to_get="its plugin wants Samsung's Exynos AI LiteCore; ask Samsung for it. edgevit has no "
    "target for it",
)
"""A vendor whose plugin ai-edge-litert carries and for which there is no target."""

__all__ = ["SAMSUNG", "Vendor"]
