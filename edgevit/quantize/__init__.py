"""Quantization: NNCF placement and ranges, bias correction, fine-tuning under distillation."""
