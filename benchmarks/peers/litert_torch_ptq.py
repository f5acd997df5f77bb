"""litert-torch's PT2E quantizer on the torch net, converted by litert-torch."""

from __future__ import annotations

from _job import Job, run

TITLE = "litert-torch, PT2E static int8"
REQUIREMENTS = (
    "litert-torch==0.10.0", "ai-edge-quantizer==0.10.0", "ai-edge-litert==2.3.0", "torch==2.13.0",
    "torchao==0.18.0", "numpy==2.4.6",
)  # fmt: skip
FORMAT = "tflite"
SCALES = "calibrates anew"


def make(job: Job) -> None:
    import litert_torch  # pyright: ignore[reportMissingImports]
    import torch
    from litert_torch.quantize.pt2e_quantizer import (  # pyright: ignore[reportMissingImports]
        PT2EQuantizer,
        get_symmetric_quantization_config,
    )
    from litert_torch.quantize.quant_config import (  # pyright: ignore[reportMissingImports]
        QuantConfig,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    images = torch.from_numpy(job.calibration())
    config = get_symmetric_quantization_config(is_per_channel=True, is_dynamic=False)
    quantizer = PT2EQuantizer().set_global(config)
    prepared = prepare_pt2e(torch.export.load(job.inputs["float_pt2"]).module(), quantizer)
    with job.timed("calibrate"), torch.no_grad():
        for image in images:
            prepared(image[None])
    with job.timed("convert"):
        quantized = convert_pt2e(prepared, fold_quantize=False)
        made = litert_torch.convert(
            litert_torch.to_channel_last_io(quantized, args=[0]),
            (images[:1].permute(0, 2, 3, 1).contiguous(),),
            quant_config=QuantConfig(pt2e_quantizer=quantizer),
        )
    made.export(str(job.out))


if __name__ == "__main__":
    run(make)
