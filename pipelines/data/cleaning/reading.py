"""The bytes of an image, or the reason why there are none. Nothing here waits for ever or reads without bound."""

import os
import stat
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from pipelines.data.cleaning.sources import WHOLE, Reference, cell, is_url, open_file

MOST_BYTES = 256 * 2**20
"""A larger file is no image that anybody wants."""
FETCH_SECONDS = 20.0
"""From the request to the last byte."""
TRIES = 2
PAUSE_SECONDS = 1.0
"""Before a busy server is asked again."""
AT_ONCE = 16
"""Downloads of one chunk of images at the same time."""
AGENT = "lens-rl (cleaning of training images)"


class Unreadable(ValueError):
    """An image that cannot be had, with the reason in a few words."""


def read_all(references: Sequence[Reference]) -> list[bytes | Unreadable]:
    """The bytes of each; those that must be fetched, at the same time."""
    if not any(is_url(one.where) for one in references):
        return [_outcome(one) for one in references]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(_outcome, references))


def read(reference: Reference) -> bytes:
    """The bytes of one image. Raises Unreadable."""
    if reference.problem:
        raise Unreadable(reference.problem)
    try:
        content = _bytes(reference)
    except Unreadable:
        raise
    except Exception as error:  # Object stores raise their own kinds.
        raise Unreadable(f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not content:
        raise Unreadable("empty file")
    if 0 <= reference.length != len(content):
        raise Unreadable(f"the tar holds {len(content):,} of its {reference.length:,} bytes")
    return content


def _outcome(reference: Reference) -> bytes | Unreadable:
    try:
        return read(reference)
    except Unreadable as problem:
        return problem


def _bytes(reference: Reference) -> bytes:
    where = reference.where
    if reference.column:
        return cell(where, reference.column, reference.offset) or b""
    if where.startswith(("http://", "https://")):
        return _fetch(where)
    if not is_url(where) and not stat.S_ISREG(os.stat(where).st_mode):
        raise Unreadable("not a regular file")  # A pipe would be waited for.
    if reference.length > MOST_BYTES:
        raise Unreadable(f"larger than {MOST_BYTES:,} bytes")
    with open_file(where) as stream:
        stream.seek(reference.offset)
        content = stream.read(MOST_BYTES + 1 if reference.length == WHOLE else reference.length)
    return _bounded(content)


def _bounded(content: bytes) -> bytes:
    if len(content) > MOST_BYTES:
        raise Unreadable(f"larger than {MOST_BYTES:,} bytes")
    return content


def _fetch(url: str) -> bytes:
    """What a server answers in time; asked again once where the failure may pass."""
    for left in reversed(range(TRIES)):
        try:
            return _fetch_once(url)
        except urllib.error.HTTPError as error:
            if left and (error.code == 429 or error.code >= 500):
                time.sleep(PAUSE_SECONDS)
                continue
            raise Unreadable(f"the server answered {error.code} {error.reason}") from error
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            if left:
                continue
            raise Unreadable(f"cannot be fetched: {getattr(error, 'reason', None) or error}") from error
    raise AssertionError("unreachable")


def _fetch_once(url: str) -> bytes:
    deadline = time.monotonic() + FETCH_SECONDS
    request = urllib.request.Request(url, headers={"User-Agent": AGENT, "Accept": "image/*"})
    with urllib.request.urlopen(request, timeout=FETCH_SECONDS) as answer:
        if answer.headers.get_content_type() in ("text/html", "application/xhtml+xml"):
            raise Unreadable("the server answered with a web page")
        parts, size = [], 0
        while part := answer.read1(1 << 16):
            parts.append(part)
            size += len(part)
            if size > MOST_BYTES:
                raise Unreadable(f"larger than {MOST_BYTES:,} bytes")
            if time.monotonic() > deadline:
                raise TimeoutError(f"not all of it came within {FETCH_SECONDS:g} s")
    announced = answer.headers.get("Content-Length")
    if announced and announced.isdigit() and int(announced) != size:
        raise Unreadable(f"the connection ended after {size:,} of {int(announced):,} bytes")
    return b"".join(parts)
