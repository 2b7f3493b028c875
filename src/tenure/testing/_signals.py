"""A shell's background job ignores what the keyboard sends, and so does all that it starts."""

from __future__ import annotations

import signal


def heed_the_keyboard() -> None:
    """Have this process, and what it starts, end by SIGINT and SIGQUIT again, as tests expect."""
    for number, usual in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGQUIT, signal.SIG_DFL),
    ):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)
