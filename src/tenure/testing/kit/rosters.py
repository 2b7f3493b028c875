"""The roster contract itself, as recipes rely on it: censuses, shared claims, widths, records, watchers."""

from __future__ import annotations
