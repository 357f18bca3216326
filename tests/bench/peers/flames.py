#!/usr/bin/env python3
"""Where Backstay's time goes: a flame graph and a table of the steps for a full backup, one that reads all again, a
restore, and one over a damaged folder.

    python3 tests/bench/peers/flames.py BACKSTAY PLUGINS OUT [--megabytes 4096]

Needs `perf`, and a kernel that lets everybody use it: sysctl kernel.perf_event_paranoid=-1 kernel.kptr_restrict=0
"""

import pathlib
import subprocess

import contenders
import dataset
import flame
import script

SAMPLES_A_SECOND = 499


class Recorded(contenders.Backstay):
    """Keeps samples of what it does."""

    samples = None

    def measure(self, command):
        if not self.samples:
            return super().measure(command)
        record = ["perf", "record", "--quiet", "-F", str(SAMPLES_A_SECOND), "-g", "-o", str(self.samples), "--"]
        self.run([*record, *command])


def picture(samples, title):
    """The graph, and the table of the steps."""
    told = ["perf", "script", "--no-inline", "-i", samples]
    with subprocess.Popen(told, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, errors="replace") as process:
        return flame.draw(title, process.stdout)


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
            found[name] = picture(backstay.samples, title)
        return found
    finally:
        cluster.stop()


def main():
    parser = script.parser(__doc__, megabytes=4096)
    parser.add_argument("out", type=pathlib.Path)
    found, arguments = script.run(parser, pictures)
    for name, (graph, table) in found.items():
        (arguments.out / f"{name}-flame.svg").write_text(graph)
        print(table + "\n")


main()
