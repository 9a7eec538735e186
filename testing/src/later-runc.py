#!/usr/bin/python3
"""Stands where runc is looked for: containers get a clock that is ahead, and everything else is the real one's business.

The clock is a library that programs load. It lies below /dev, which is the runtime's own, so no layer gets a trace of it. Times
of files stay the kernel's: only what asks for the time of day is told another.
"""

import json
import os
import sys

REAL, CLOCK, AHEAD = "@RUNC@", "@CLOCK@", "@AHEAD@"
LIBRARY = "/dev/libfaketime.so.1"
SETTINGS = {
    "LD_PRELOAD": LIBRARY,
    "FAKETIME": "+" + AHEAD,
    "NO_FAKE_STAT": "1",
    "FAKE_UTIME": "0",
    "FAKETIME_DISABLE_SHM": "1",
    # Java waits for ever on a monotonic clock that jumps.
    "FAKETIME_DONT_FAKE_MONOTONIC": "1",
}

arguments = sys.argv[1:]
if "--bundle" in arguments:
    path = os.path.join(arguments[arguments.index("--bundle") + 1], "config.json")
    with open(path) as file:
        config = json.load(file)
    mount = {"destination": LIBRARY, "type": "bind", "source": CLOCK, "options": ["bind", "ro"]}
    config["mounts"].append(mount)
    config["process"]["env"] += [name + "=" + value for name, value in SETTINGS.items()]
    with open(path, "w") as file:
        json.dump(config, file)
os.execv(REAL, [REAL] + arguments)
