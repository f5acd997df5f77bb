"""TensorFlow's converter of fake_quant operations with a program's scales."""

from __future__ import annotations

from _job import Job, run

TITLE = "TensorFlow, handed edgevit's scales"
REQUIREMENTS = ("tensorflow-cpu==2.21.0", "numpy==2.4.6")
FORMAT = "tflite"
SCALES = "given"


def make(job: Job) -> None:
    from _tensorflow import Net, converter

    made = converter(Net(*job.net("given_net")).concrete())
    with job.timed("convert"):
        data = made.convert()
    job.out.write_bytes(data)


if __name__ == "__main__":
    run(make)
