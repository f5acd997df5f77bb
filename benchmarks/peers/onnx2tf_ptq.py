"""onnx2tf's own full int8 of the float32 ONNX of opset 17: it fails at this net's of opset 20."""

from __future__ import annotations

import numpy as np
from _job import Job, run

TITLE = "onnx2tf, full integer"
REQUIREMENTS = ("onnx2tf==1.29.24", "tensorflow==2.19.0", "tf-keras==2.19.0")
FORMAT = "tflite"
SCALES = "calibrates anew"
SOURCE = "float_onnx17"
SAMPLES = "calibration_image_sample_data_20x128x128x3_float32.npy"
"""What it downloads to compare its TensorFlow model with the ONNX, unless it lies where it runs."""


def make(job: Job, source: str = SOURCE) -> None:
    import onnx2tf  # pyright: ignore[reportMissingImports]

    images = job.out.with_name("calibration_nhwc.npy")
    np.save(images, job.calibration(channels_last=True))
    zeros, ones = np.zeros((1, 1, 1, 3), np.float32), np.ones((1, 1, 1, 3), np.float32)
    folder = job.out.with_name("saved_model")
    noise = np.random.default_rng(0).random((20, 128, 128, 3), np.float32)
    np.save(SAMPLES, noise)
    job.note("its self-check is given seeded noise, for it would download images")
    with job.timed("convert"):  # it calibrates in the same call
        onnx2tf.convert(
            input_onnx_file_path=str(job.inputs[source]),
            output_folder_path=str(folder),
            output_integer_quantized_tflite=True,
            quant_type="per-channel",
            custom_input_op_name_np_data_path=[["input", str(images), zeros, ones]],
            input_quant_dtype="int8",
            output_quant_dtype="int8",
            non_verbose=True,
        )
    (made,) = folder.glob("*_full_integer_quant.tflite")
    job.out.write_bytes(made.read_bytes())


if __name__ == "__main__":
    run(make)
