"""onnx2tf's full int8 of a QDQ ONNX that has a program's scale on every tensor."""

from __future__ import annotations

from _job import Job, run
from onnx2tf_ptq import make

TITLE = "onnx2tf, handed edgevit's scales"
REQUIREMENTS = ("onnx2tf==1.29.24", "tensorflow==2.19.0", "tf-keras==2.19.0")
FORMAT = "tflite"
SCALES = "given"


def made(job: Job) -> None:
    make(job, "given_onnx")


if __name__ == "__main__":
    run(made)
