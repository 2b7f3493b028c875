"""Semaphores, barriers, latches and multi-locks."""

from __future__ import annotations
