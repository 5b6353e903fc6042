"""A worker without a server behind it: what it plays stands in the settings that it is handed down.

The settings are a JSON object of parts by number, and for all others. Parts: serve; die (before it serves); once (serves the
first time, and dies from then on); mute (serves, and is silent from then on); refuse (cannot reload); lapse (agrees to a reload, and cannot); stay (when it is retired);
alone (says so in a file when its supervisor is gone).
"""

import contextlib
import json
import os
import signal
import socket
import sys
from pathlib import Path

NUMBER = sys.argv[-1]


def words(line):
    held = b""
    while data := socket.recv_fds(line, 65536, 16)[0]:
        *lines, held = (held + data).split(b"\n")
        yield from map(json.loads, lines)


def part_of(text):
    parts = json.loads(text)
    return parts.get(NUMBER, parts.get("all", "serve"))


def play(line):
    told = words(line)
    sockets, _ = next(told)
    assert sockets == "sockets"
    text = next(told)[1]
    part = part_of(text)

    def say(word):
        line.sendall(json.dumps([word, ""]).encode() + b"\n")

    def drain(*_):
        say("draining")
        sys.exit(0)

    signal.signal(signal.SIGTERM, drain)
    mark = Path(sys.argv[1], f"once-{NUMBER}")
    if part == "die" or (part == "once" and mark.exists()):
        sys.exit(3)
    mark.touch()
    say("alive")
    say("serving")
    for word, given in told:
        if part == "mute":
            continue
        if word == "load":
            asked = part_of(given)
            say("refused" if asked == "refuse" else "prepared")
        elif word == "commit":
            part = asked
            say("refused" if part == "lapse" else "reloaded")
        elif word == "abort":
            say("refused")
        elif word == "retire" and part != "stay":
            sys.exit(0)
    if part == "alone":
        Path(sys.argv[1], f"alone-{NUMBER}").touch()


with contextlib.suppress(BrokenPipeError):
    play(socket.socket(fileno=os.dup(0)))
