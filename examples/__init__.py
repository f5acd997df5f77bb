"""Nets of a user's own around RepViT, quantized by edgevit; each folder is meant to be copied."""
