"""TensorFlow's converter with a representative data set: full int8."""

from __future__ import annotations

from _job import Job, run

TITLE = "TensorFlow, TFLiteConverter"
REQUIREMENTS = ("tensorflow-cpu==2.21.0", "numpy==2.4.6")
FORMAT = "tflite"
SCALES = "calibrates anew"


def make(job: Job) -> None:
    import tensorflow as tf
    from _tensorflow import Net, converter

    images = job.calibration(channels_last=True)
    made = converter(Net(*job.net("net")).concrete())
    made.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]  # no float operator
    made.representative_dataset = lambda: ([image[None]] for image in images)
    with job.timed("convert"):  # it calibrates in the same call
        data = made.convert()
    job.out.write_bytes(data)


if __name__ == "__main__":
    run(make)
