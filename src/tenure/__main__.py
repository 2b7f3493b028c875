"""`python -m tenure` is the command `tenure`."""

from __future__ import annotations

import sys

from .cli import main

sys.exit(main())
