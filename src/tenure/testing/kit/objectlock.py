"""The object lock."""

from __future__ import annotations
