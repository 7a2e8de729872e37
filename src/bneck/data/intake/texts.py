"""Text files of users: UTF-8, with or without a byte order mark, or UTF-16 as Windows saves it."""

from __future__ import annotations

import codecs
from pathlib import Path

from bneck.data.intake.walk import DataError

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def decoded(data: bytes) -> str:
    """Text by its byte order mark, UTF-8 without one.

    Raises:
        UnicodeDecodeError: it is not such text.

    >>> decoded("cup".encode("utf-16")), decoded("cup".encode("utf-8-sig"))
    ('cup', 'cup')
    """
    return data.decode("utf-16" if data.startswith(_UTF16) else "utf-8-sig")


def read_text(path: Path, what: str) -> str:
    """A text file; `what` is what messages call it.

    Raises:
        DataError: it cannot be read, or is not such text.
    """
    try:
        return decoded(path.read_bytes())
    except OSError as error:
        raise DataError(f"{what} {path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise DataError(
            f"{what} {path} cannot be read: it is not utf-8 text; save it as UTF-8"
        ) from None
