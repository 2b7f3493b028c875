"""A badge for each driver: its name and its level, as a small picture."""

from __future__ import annotations

from html import escape

from .levels import Level

_COLOURS = {
    Level.UNVERIFIED: "#777777",
    Level.EXPERIMENTAL: "#b35900",
    Level.PREVIEW: "#1a6fb3",
    Level.STABLE: "#2d7a2d",
}
_CHARACTER = 6.6
_MARGIN = 6


def badge(name: str, level: Level) -> str:
    """The badge, as SVG. Colours are dark enough for white letters to be read on them."""
    left, right = (round(len(text) * _CHARACTER) + 2 * _MARGIN for text in (name, str(level)))
    name, told = escape(name), escape(str(level))
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="20" role="img" \
aria-label="{name}: {told}">
  <title>{name}: {told}</title>
  <rect width="{left}" height="20" fill="#333333"/>
  <rect x="{left}" width="{right}" height="20" fill="{_COLOURS[level]}"/>
  <g fill="#ffffff" font-family="DejaVu Sans Mono,Menlo,monospace" font-size="11">
    <text x="{_MARGIN}" y="14">{name}</text>
    <text x="{left + _MARGIN}" y="14">{told}</text>
  </g>
</svg>
"""
