"""What a peer's program shares with the others: the job that it reads, the answer that it leaves.

Nothing but the standard library and numpy: it runs in the environment of each peer.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np


class Job:
    """What to quantize, and where the artifact goes. Paths are `benchmarks/peer_inputs.py`'s.

    inputs   name -> path: float_tflite, float_onnx (opset 20), float_onnx17, float_pt2, net (the
             operations as JSON, the weights beside it), calibration (float32 NCHW), and of the
             program whose scales are handed over given_tflite, given_onnx, given_pt2, given_net
             (with its quantizers)
    out      the artifact to write
    """

    def __init__(self, path: Path) -> None:
        job = json.loads(path.read_text())
        self.inputs = {name: Path(value) for name, value in job["inputs"].items()}
        self.out, self._answer = Path(job["out"]), Path(job["answer"])
        self._requirements: list[str] = job["requirements"]
        self._seconds: dict[str, float] = {}
        self._notes: list[str] = []

    def calibration(self, channels_last: bool = False) -> np.ndarray:
        """float32 (N, C, H, W), or (N, H, W, C)."""
        images = np.load(self.inputs["calibration"])
        return np.ascontiguousarray(images.transpose(0, 2, 3, 1)) if channels_last else images

    def net(self, name: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """A net's operations, and its arrays by name."""
        path = self.inputs[name]
        with np.load(path.with_suffix(".npz")) as file:
            arrays = {key: file[key] for key in file.files}
        return json.loads(path.read_text()), arrays

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Adds the seconds of its body to the answer, as `calibrate` or `convert`."""
        start = time.perf_counter()
        yield
        self._seconds[what] = self._seconds.get(what, 0.0) + time.perf_counter() - start

    def note(self, text: str) -> None:
        """A fact of this run for the row."""
        self._notes.append(text)

    def finish(self) -> None:
        names = [each.partition("==")[0] for each in self._requirements]
        answer = {
            "seconds": {what: round(value, 3) for what, value in self._seconds.items()},
            "versions": {name: version(name) for name in names},
            "notes": self._notes,
        }
        self._answer.write_text(json.dumps(answer))


def run(make: Callable[[Job], None]) -> None:
    """The peer's program: `make` writes `job.out`."""
    job = Job(Path(sys.argv[1]))
    make(job)
    job.finish()
