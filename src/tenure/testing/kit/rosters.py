"""The roster contract, as recipes rely on it: censuses, shared claims, records, watchers."""

from __future__ import annotations
