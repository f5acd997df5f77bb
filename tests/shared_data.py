"""Finds the large files that tests share and the repository does not hold."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


def shared_folder() -> Path:
    """$EDGEVIT_SHARED, or the folder `shared` beside the repository; skips when absent."""
    folder = Path(os.environ.get("EDGEVIT_SHARED") or REPOSITORY.parent / "shared")
    if not folder.is_dir():
        pytest.skip("no shared files: set EDGEVIT_SHARED to their folder")
    return folder


def _shared_file(*parts: str) -> Path:
    path = shared_folder().joinpath(*parts)
    if not path.exists():
        pytest.skip(f"no shared file {'/'.join(parts)}")
    return path


def shared_checkpoint(name: str) -> Path:
    """A file of shared/checkpoints, such as "expected_logits.npz"."""
    return _shared_file("checkpoints", name)


def shared_data(name: str) -> Path:
    """A file of shared/data, such as "eurosat-val.tar"."""
    return _shared_file("data", name)
