#!/usr/bin/env python3
"""Where Backstay's time goes: a flame graph and a table of the steps for a full backup, one that reads all again, a
restore, and one over a damaged folder. Given the ceiling, what the same steps take there stands beside it.

    python3 tests/bench/peers/flames.py BACKSTAY PLUGINS OUT [--megabytes 4096] [--ceiling CEILING]

Needs `perf`, and a kernel that lets everybody use it: sysctl kernel.perf_event_paranoid=-1 kernel.kptr_restrict=0
"""

import os
import pathlib
import subprocess

import contenders
import dataset
import flame
import script

SAMPLES_A_SECOND = 499


# What the ceiling calls the same work.
CEILINGS = {"backup": "packs", "reread": "reread"}


class Recorded(contenders.Backstay):
    """Keeps samples of what it does."""

    samples = None

    def measure(self, command):
        if not self.samples:
            return super().measure(command)
        self.besides = record(self.samples, command, lambda recording: self.run(recording))


def cores():
    """Seconds that cores have had nothing to do, and that the machine below gave to others, since it started: proc(5)."""
    ticks = [int(field) for field in pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    rate = os.sysconf("SC_CLK_TCK")
    return {"cores without work": sum(ticks[3:5]) / rate, "taken by the machine below": ticks[7] / rate}


def record(samples, command, run):
    """Has a command run and sampled; answers what cores did besides, in seconds."""
    before = cores()
    run(["perf", "record", "--quiet", "-F", str(SAMPLES_A_SECOND), "-g", "-o", str(samples), "--", *command])
    return {name: seconds - before[name] for name, seconds in cores().items()}


def taken(samples, *programs):
    """The samples of a file of `perf`'s."""
    told = ["perf", "script", "--no-inline", "-i", samples]
    with subprocess.Popen(told, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, errors="replace") as process:
        return flame.read(process.stdout, *programs)


def pictures(arguments, folder):
    cluster = dataset.Cluster(folder)
    cluster.create()
    try:
        cluster.fill(arguments.megabytes)
        backstay = Recorded(folder, cluster, arguments.backstay, arguments.plugins)
        backstay.reset()
        into, found = folder / "restored", {}
        steps = [("backup", "a full backup", backstay.backup), ("reread", "nothing changed, content read again", backstay.backup),
                 ("restore", "a restore", lambda: backstay.restore(into)), ("mended", "1 % of the pages damaged", lambda: backstay.mend(into))]
        for name, title, work in steps:
            if name == "mended":
                dataset.damage(into, 1, 0)
            backstay.samples = folder / f"{name}.data"
            work()
            samples = taken(backstay.samples)
            columns = [("Backstay", samples, backstay.besides)]
            if arguments.ceiling and name in CEILINGS:
                ceiling = [str(arguments.ceiling), CEILINGS[name], str(cluster.data)]
                besides = record(folder / "ceiling.data", ceiling, lambda recording: subprocess.run(recording, check=True, stdout=subprocess.DEVNULL))
                columns.append(("the ceiling", taken(folder / "ceiling.data", "ceiling"), besides))
            found[name] = (flame.picture(title, samples), flame.table(title, columns, SAMPLES_A_SECOND))
        return found
    finally:
        cluster.stop()


def main():
    parser = script.parser(__doc__, megabytes=4096)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--ceiling", type=pathlib.Path)
    found, arguments = script.run(parser, pictures)
    for name, (graph, table) in found.items():
        (arguments.out / f"{name}-flame.svg").write_text(graph)
        print(table + "\n")


main()
