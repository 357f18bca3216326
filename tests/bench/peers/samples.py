"""What `perf` sees of a command, and what cores did besides."""

import os
import pathlib
import subprocess

import flame

A_SECOND = 499


def cores():
    """Seconds that cores have had nothing to do, and that the machine below gave to others, since it started: proc(5)."""
    ticks = [int(field) for field in pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    rate = os.sysconf("SC_CLK_TCK")
    return {"cores without work": sum(ticks[3:5]) / rate, "taken by the machine below": ticks[7] / rate}


def record(into, command, run):
    """Has a command run and sampled; answers what cores did besides, in seconds."""
    before = cores()
    run(["perf", "record", "--quiet", "-F", str(A_SECOND), "-g", "-o", str(into), "--", *command])
    return {name: seconds - before[name] for name, seconds in cores().items()}


def taken(recorded, *programs):
    """The samples of a file of `perf`'s."""
    told = ["perf", "script", "--no-inline", "-i", recorded]
    with subprocess.Popen(told, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, errors="replace") as process:
        return flame.read(process.stdout, *programs)
