"""Watching a group."""

from __future__ import annotations
