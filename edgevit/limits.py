"""The limits that several files or languages keep, each written once.

tools/generate.py makes targets/core/limits.h and the Swift package's Limits.swift of this
file: run it after a change. A limit that one parser alone needs stands in that parser.
"""

from __future__ import annotations

MANIFEST_SCHEMA_VERSION = 3
"""Newest schema_version of manifest.json; older ones are read too."""

MAX_MANIFEST_BYTES = 16 * 2**20
"""Size of a manifest.json."""

MAX_CLASSES = 1_000_000
"""Classes of a model, and so its labels."""

MAX_LABEL_BYTES = 4096
"""UTF-8 bytes of one label."""

MAX_OUTPUTS = 64
"""Outputs of an artifact."""

FEATURE_SAMPLES = 2048
"""Values that are kept of each output of an image, spread evenly over it, to compare features."""

MAX_TENSOR_RANK = 8
"""Dimensions of an artifact's input or output."""

MAX_TENSOR_ELEMENTS = 2**28
"""Elements of an artifact's input or output."""

MAX_IMAGE_SIZE = 4096
"""Height and width of the network's input, pixels."""

MAX_RESIZE_SIZE = 16384
"""Length to which an image's shorter side is resized, pixels."""

MAX_SET_FILES = 20_000_000
"""Files and folders of an image set, links followed."""

MAX_SET_DEPTH = 64
"""Folders inside each other in an image set."""

MAX_IMAGE_BYTES = 64 * 2**20
"""Size of an encoded image file."""

MAX_IMAGE_PIXELS = 64_000_000
"""Pixels of an image, before the resize."""

MAX_RESIZED_PIXELS = MAX_RESIZE_SIZE**2
"""Pixels of an image after the resize, before the crop: a thin image grows the most."""

MAX_STRIDE_BYTES = 2**30
"""Distance between two rows of an image in memory."""

MAX_TREE_ENTRIES = 10_000
"""Files and folders of an artifact that is a folder."""

MAX_TREE_DEPTH = 16
"""Folders inside each other in such an artifact."""

MAX_TREE_BYTES = 4 * 2**30
"""Size of all files of such an artifact."""

MAX_THREADS = 256
"""Threads of a runtime."""

MAX_WARMUP = 100_000
"""Inferences of the harness before the clock counts."""

MAX_RUN_IMAGES = 10**9
"""Images that a run of the harness may be limited to."""

MAX_DURATION_S = 3600
"""Length of a long run, seconds: the figures of every inference are kept in memory."""

MAX_RESULT_BYTES = 64 * 2**20
"""Size of the harness's result.json."""

MAX_LOGITS_BYTES = 8 * 2**30
"""Size of a file of logits: a million images of a thousand classes take half of it."""
