#!/usr/bin/env python3
"""Plays Gramine's attestation device in a directory, for tests of a program that takes quotes from it.

The program writes 64 bytes of report data into `user_report_data` and then opens `quote`. A plain file would show it
the quote of the time before, so this opens nothing up before the quote is the right one: fanotify asks it for leave
whenever `quote` is opened. That takes root. The quotes come from a command that reads report data and writes a quote.

Usage: device.py DIRECTORY COMMAND [ARGUMENT...]
"""

import ctypes
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

FAN_CLASS_CONTENT = 0x4
FAN_CLOEXEC = 0x1
FAN_MARK_ADD = 0x1
FAN_OPEN_PERM = 0x1_0000
FAN_ALLOW = 0x1
FAN_DENY = 0x2
AT_FDCWD = -100

# struct fanotify_event_metadata, of which this takes length, mask and descriptor, and struct fanotify_response.
EVENT = struct.Struct("=IBBHQii")
RESPONSE = struct.Struct("=iI")

REPORT_DATA = 64
QUOTE_TIMEOUT = 10


def checked(result: int, what: str) -> int:
    if result < 0:
        error = ctypes.get_errno()
        sys.exit(f"device.py: {what}: {os.strerror(error)} (it takes root, and a kernel with fanotify's permissions)")
    return result


def answer(descriptor: int, directory: Path, command: list[str]) -> bool:
    """Puts the quote over the report data into the file behind the descriptor, which raises no further event."""
    report_data = (directory / "user_report_data").read_bytes()
    if len(report_data) != REPORT_DATA:
        print(f"device.py: {len(report_data)} bytes of report data", file=sys.stderr)
        return False
    try:
        made = subprocess.run(command, input=report_data, capture_output=True, check=True, timeout=QUOTE_TIMEOUT)
    except (OSError, subprocess.SubprocessError) as error:
        print(f"device.py: {error}", file=sys.stderr)
        return False
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, made.stdout, 0)
    return True


def main() -> None:
    if len(sys.argv) < 3 or sys.argv[1].startswith("-"):
        print(__doc__, file=sys.stderr)
        sys.exit(2)
    directory, command = Path(sys.argv[1]), sys.argv[2:]
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "attestation_type").write_text("dcap\n")
    (directory / "user_report_data").write_bytes(bytes(REPORT_DATA))
    quote = directory / "quote"
    quote.write_bytes(b"")

    libc = ctypes.CDLL(None, use_errno=True)
    libc.fanotify_mark.argtypes = [ctypes.c_int, ctypes.c_uint, ctypes.c_uint64, ctypes.c_int, ctypes.c_char_p]
    group = checked(libc.fanotify_init(FAN_CLASS_CONTENT | FAN_CLOEXEC, os.O_RDWR | os.O_CLOEXEC), "fanotify_init")
    marked = libc.fanotify_mark(group, FAN_MARK_ADD, FAN_OPEN_PERM, AT_FDCWD, os.fsencode(quote))
    checked(marked, "fanotify_mark")

    # Closing the group lets everybody through who waits for leave.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    print("ready", flush=True)
    while True:
        events = os.read(group, 4096)
        while events:
            length, _, _, _, _, descriptor, _ = EVENT.unpack_from(events)
            events = events[length:]
            allowed = answer(descriptor, directory, command)
            os.write(group, RESPONSE.pack(descriptor, FAN_ALLOW if allowed else FAN_DENY))
            os.close(descriptor)


if __name__ == "__main__":
    main()
