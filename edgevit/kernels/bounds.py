"""How large an integer may be to be exact in a type of number."""

from __future__ import annotations

EXACT_FLOAT32 = 2**24
"""Every integer below this is a float32, and so is every partial sum of a bounded total."""
EXACT_INT32 = 2**31
"""int32 holds what is below this in magnitude."""
