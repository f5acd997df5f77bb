"""Where a checkout of edgevit holds its small set of images and the net that was trained on it."""

from pathlib import Path

EMBEDDED = Path(__file__).resolve().parents[2] / "calibration" / "eurosat"
"""A sample of EuroSAT (train.tar, val.tar); not there where edgevit was installed otherwise."""
