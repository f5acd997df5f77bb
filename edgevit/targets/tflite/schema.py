"""TFLite's own schema, as ai_edge_litert generates it: what writing and reading have in common."""

from __future__ import annotations

from typing import Any

from edgevit.errors import ToolMissing

REAL = ".real"
"""Behind the name of a tensor or a module of an int8 file, whose real form it is."""


def schema() -> Any:
    """ai_edge_litert's generated schema module. Raises ToolMissing where it is not installed."""
    try:
        from ai_edge_litert import schema_py_generated
    except ImportError as error:
        raise ToolMissing(
            f"the TFLite schema is missing ({error}); install it with: pip install ai-edge-litert"
        ) from error
    return schema_py_generated
