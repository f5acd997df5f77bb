"""Measuring artifacts: the harness, devices, validation, parity, and the report."""
