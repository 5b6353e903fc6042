"""Single lines of an answer's head, as far as there is but one way to read them; remembered, for most come again."""

from __future__ import annotations

import re
from typing import TypeAlias

from predawn.proxy.wire.client_lines import HAS_TYPE, NOT_MERELY_PASSED, for_client

MOST_KEPT = 512
"""Lines; beyond that all are forgotten, and those that come again are soon back."""
LONGEST_KEPT = 256
HAS_LENGTH, IS_CHUNKED = 1 << 8, 1 << 9
"""Said besides what `client_lines` knows."""
ONCE = HAS_LENGTH | IS_CHUNKED | HAS_TYPE
"""What is said at most once, or the answer is not a plain one."""
Line: TypeAlias = "tuple[tuple[bytes, bytes], bytes, int, int]"
"""Name and value, the line that a client may see or nothing, what it says, and the body's length if it tells that."""

_STATUS = re.compile(rb"HTTP/1\.1 (?!204|304)([2-5][0-9][0-9]) [\t\x20-\x7e]*+")
# no space before the colon, no control characters
_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]++):([\t\x20-\x7e\x80-\xff]*+)")
LENGTH = re.compile(rb"[1-9][0-9]{0,8}+")
OWN = frozenset({b"x-request-id", b"content-length", b"date"})
"""Names, in lower case, of lines that few answers share, so that they are not kept."""
_FRAMING = frozenset({b"upgrade", b"trailer", b"proxy-connection"})

known: dict[bytes, Line] = {}
"""Lines by how they came. To look here first is for the caller: a call for each took as long as the parser."""
_statuses: dict[bytes, int] = {}


def read_status(line: bytes) -> int:
    """The status that a line tells; 0 if it is not the usual one of an answer with a body."""
    status = _statuses.get(line)
    if status is None:
        found = _STATUS.fullmatch(line)
        if found is None:
            return 0
        status = int(found[1])
        if len(line) <= LONGEST_KEPT:
            if len(_statuses) >= MOST_KEPT:
                _statuses.clear()
            _statuses[line] = status
    return status


def read_line(line: bytes) -> Line | None:
    """What a line says that is not known yet; `None` if the parser must judge."""
    found = _LINE.fullmatch(line)
    if found is None:
        return None
    name, value = found.groups()
    header = name, value.strip(b" \t")
    lower = name.lower()
    read = (
        (header, b"%b: %b\r\n" % header, 0, 0)
        if lower not in NOT_MERELY_PASSED
        else _read_special(lower, value, header)
    )
    if read is not None and len(line) <= LONGEST_KEPT and lower not in OWN:
        if len(known) >= MOST_KEPT:
            known.clear()
        known[line] = read
    return read


def _read_special(lower: bytes, raw: bytes, header: tuple[bytes, bytes]) -> Line | None:
    value = header[1]
    if lower == b"transfer-encoding":  # a tab behind it is no space here, as for the parser
        return (header, b"", IS_CHUNKED, 0) if raw.strip(b" ").lower() == b"chunked" else None
    if lower in _FRAMING or (lower == b"connection" and value.lower() != b"keep-alive"):
        return None
    if lower == b"content-length":
        return (header, b"", HAS_LENGTH, int(value)) if LENGTH.fullmatch(value) is not None else None
    lines, says = for_client((header,))
    return header, b"".join(lines), says, 0
