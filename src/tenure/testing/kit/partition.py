"""Partitioning: hash rings and claims of slots."""

from __future__ import annotations
