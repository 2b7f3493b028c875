"""`tenure migrate`: make the tables of a database, or bring them to this version."""

from __future__ import annotations

import argparse
from typing import Any

from .._coordinator import make_session
from .._runtime.thread import ThreadRuntime, drive
from ..errors import Unsupported
from . import _holding, _tables
from ._exit import ExitCode

_EPILOG = """\
Connecting makes the tables, too, if the user may. This is for whoever may when the application's
user may not, and for tables that an older Tenure has made. It may be run at any time, and twice.

exit codes:
    0  the tables are there, and of this version
   64  wrong usage, or a backend without tables
   69  backend unreachable     74  backend refused, or the tables are of a newer version
"""


def add_to(commands: Any) -> None:
    """Declare the command and its options."""
    parser = commands.add_parser(
        "migrate",
        help="make or update the tables of a database",
        description="Make the tables that the drivers sqlite and sql need, or bring those of an\n"
        "older version to this one.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("given", metavar="URL", nargs="?", help="the backend, as with --url")
    where.add_argument("--url", help="the backend (default: $TENURE_URL)")
    parser.add_argument(
        "--sql", action="store_true", help="connect to nothing; print what makes the tables"
    )
    parser.set_defaults(run=run, parser=parser)


def run(options: argparse.Namespace) -> int:
    """Run `tenure migrate` and return its exit code."""
    from ..drivers._sql_documents import SqlDocuments  # few commands need it

    _holding.set_up_logging(verbose=False)
    url = options.url if options.given is None else options.given
    session = make_session(ThreadRuntime(), url, None, None, None, None)
    driver = session.driver
    if not isinstance(driver, SqlDocuments):
        raise Unsupported(f"{driver.url.scheme}: there are no tables to migrate")
    if options.sql:
        with _tables.while_read():
            _tables.emit(driver.script())
        return ExitCode.DONE
    try:
        before, after = drive(driver.migrate())
    finally:
        drive(driver.close())
    with _tables.while_read():
        _tables.emit(f"{driver.label}: {_told(before, after)}\n")
    return ExitCode.DONE


def _told(before: int, after: int) -> str:
    if before == after:
        return f"the tables have version {after}, as they should"
    if not before:
        return f"made the tables, version {after}"
    return f"brought the tables from version {before} to {after}"
