"""Moments as the cloud writes them."""

import time
from datetime import datetime


def parse_time(text: str) -> float:
    """Seconds since the epoch of a time with its zone; ValueError if it is none.

    The API documents `2022-07-07T12:41:14+0800`; any ISO 8601 time with a zone is understood.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a time without a zone")
    return moment.timestamp()


def format_time(seconds: float) -> str:
    """As the API takes it, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%S+0000", time.gmtime(seconds))
