"""When a client library had its last release, asked of the package index that pip is set up with.

By the JSON of the simple API. Which index that is, pip says: nothing here names one.
"""

from __future__ import annotations

import base64
import json
import os
import re
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from datetime import UTC, datetime
from urllib.parse import quote, unquote, urlsplit, urlunsplit

JSON = "application/vnd.pypi.simple.v1+json"
SECONDS_MAX = 30.0
_ANSWER_BYTES_MAX = 50_000_000


class CannotAsk(Exception):
    """The index cannot be asked, or does not say; the text says why, and names no secret."""


def last_release(distribution: str) -> datetime:
    """When the newest file of a distribution that was not withdrawn was uploaded."""
    name = re.sub(r"[-_.]+", "-", distribution).lower()
    url, ca = _pip()
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise CannotAsk(f"the package index is {parts.scheme or 'a'}: no server that can be asked")
    host = parts.netloc.rpartition("@")[2]
    request = urllib.request.Request(
        urlunsplit((parts.scheme, host, f"{parts.path.rstrip('/')}/{quote(name)}/", "", "")),
        headers={"Accept": JSON},
    )
    if parts.username:
        secret = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        request.add_header("Authorization", f"Basic {base64.b64encode(secret.encode()).decode()}")
    context = ssl.create_default_context(cafile=ca) if parts.scheme == "https" else None
    try:
        with urllib.request.urlopen(request, timeout=SECONDS_MAX, context=context) as answer:
            found = json.loads(answer.read(_ANSWER_BYTES_MAX))
        files = found["files"]
        times = [each["upload-time"] for each in files if not each.get("yanked")]
    except urllib.error.HTTPError as error:
        error.close()
        raise CannotAsk(f"the package index answered {error.code}") from None
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise CannotAsk(f"the package index cannot be reached: {reason}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CannotAsk("the package index does not say when files were uploaded") from None
    if not times:
        raise CannotAsk(f"the package index has no file of {distribution}")
    return max(datetime.fromisoformat(each).astimezone(UTC) for each in times)


def _pip() -> tuple[str, str | None]:
    """The index that pip asks, and whose certificates it trusts."""
    text = _run("install", "--help")
    found = re.search(r"Base URL of the Python\s+Package Index \(default (\S+?)\)", text)
    if found is None:
        raise CannotAsk("pip does not say which package index it asks")
    settings = _run("config", "list")
    certificates = _settings(settings, "cert")
    url = found[1]
    if "****" in url:  # how pip shows a password
        url = next((each for each in reversed(_settings(settings, "index-url")) if each), url)
    return url, certificates[-1] if certificates else None


def _settings(text: str, name: str) -> list[str]:
    return re.findall(rf"^\S*\.{name}='?([^'\n]+)'?$", text, re.MULTILINE)


def _run(*arguments: str) -> str:
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pip", *arguments],
            env=os.environ | {"COLUMNS": "1000"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            timeout=SECONDS_MAX,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        raise CannotAsk("pip cannot be run") from None
    if done.returncode:
        raise CannotAsk("pip is not installed, so it is not known which package index to ask")
    return done.stdout
