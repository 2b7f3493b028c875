"""Reader-writer locks."""

from __future__ import annotations
