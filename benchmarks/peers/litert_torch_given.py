"""litert-torch of a torch.export archive with a quantize-dequantize pair on every tensor."""

from __future__ import annotations

from _job import Job, run

TITLE = "litert-torch, handed edgevit's scales"
REQUIREMENTS = (
    "litert-torch==0.10.0", "ai-edge-quantizer==0.10.0", "ai-edge-litert==2.3.0", "torch==2.13.0",
    "torchao==0.18.0", "numpy==2.4.6",
)  # fmt: skip
FORMAT = "tflite"
SCALES = "given"


def make(job: Job) -> None:
    import litert_torch
    import torch
    import torchao.quantization.pt2e  # noqa: F401  it registers the operations of the pairs
    from litert_torch.quantize.pt2e_quantizer import (
        PT2EQuantizer,
        get_symmetric_quantization_config,
    )
    from litert_torch.quantize.quant_config import QuantConfig

    image = torch.from_numpy(job.calibration(channels_last=True)[:1])
    # The converter asks it whether ranges are static; it quantizes nothing here.
    quantizer = PT2EQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    quantized = torch.export.load(job.inputs["given_pt2"]).module()
    with job.timed("convert"):
        made = litert_torch.convert(
            litert_torch.to_channel_last_io(quantized, args=[0]),
            (image,),
            quant_config=QuantConfig(pt2e_quantizer=quantizer),
        )
    made.export(str(job.out))


if __name__ == "__main__":
    run(make)
