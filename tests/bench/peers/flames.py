#!/usr/bin/env python3
"""Where Backstay's time goes: a flame graph and a table of the steps for a full backup, one that reads all again, a
restore, and one over a damaged folder. Given the ceiling, what the same steps take there stands beside it.

    python3 tests/bench/peers/flames.py BACKSTAY PLUGINS OUT [--megabytes 4096] [--ceiling CEILING]

Needs `perf`, and a kernel that lets everybody use it: sysctl kernel.perf_event_paranoid=-1 kernel.kptr_restrict=0
"""

import pathlib
import subprocess

import contenders
import dataset
import flame
import samples
import script

# What the ceiling calls the same work.
CEILINGS = {"backup": "packs", "reread": "reread"}


class Recorded(contenders.Backstay):
    """Keeps samples of what it does."""

    recording = None

    def measure(self, command):
        if not self.recording:
            return super().measure(command)
        self.besides = samples.record(self.recording, command, self.run)


def quietly(command):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


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
            backstay.recording = folder / f"{name}.data"
            work()
            sampled = samples.taken(backstay.recording)
            columns = [("Backstay", sampled, backstay.besides)]
            if arguments.ceiling and name in CEILINGS:
                ceiling = [str(arguments.ceiling), CEILINGS[name], str(cluster.data)]
                besides = samples.record(folder / "ceiling.data", ceiling, quietly)
                columns.append(("the ceiling", samples.taken(folder / "ceiling.data", "ceiling"), besides))
            found[name] = (flame.picture(title, sampled), flame.table(title, columns, samples.A_SECOND))
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
