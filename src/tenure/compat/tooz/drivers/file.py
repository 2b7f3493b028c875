"""Files of one machine."""

from __future__ import annotations

from .._driver import TenureDriver


class FileDriver(TenureDriver):
    """Tenure's file driver: locks of the kernel's, which end with the process."""

    SCHEME = "file"
