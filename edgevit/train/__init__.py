"""Training a RepViT from scratch, by the paper's recipe (arXiv 2307.09283, section 4.1)."""

from __future__ import annotations
