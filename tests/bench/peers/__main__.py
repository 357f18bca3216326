#!/usr/bin/env python3
"""Backs one cluster up with Backstay and its peers, in turns on the same machine, and says who took how long.

    python3 tests/bench/peers BACKSTAY PLUGINS [--ceiling PROGRAM] [--megabytes 4096] [--rounds 3] [--only NAME,…] [--out FOLDER]

Every tool has all cores, encrypts (but for pg_basebackup | zstd, which cannot), compresses with zstd at its fastest
level, and writes to a folder of the same disk. Absolute times differ between machines and days; the ratios within one
run are the result. The page cache is warm for backups: everybody reads the same files, which fit into memory. Before a
restore the repository is put out of it, whoever wrote it in whichever way; before a restore over a damaged folder that
folder is put into it.
"""

import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import contenders
import report
import script
from dataset import Cluster, damage

PHASES = ("full", "unchanged", "trusted", "changed", "appended", "restore", "mended")


def say(text):
    print(text, file=sys.stderr, flush=True)


def files_below(folder):
    for root, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            yield os.path.join(root, name)


def cold(folder):
    """All files out of the page cache."""
    os.sync()
    for path in files_below(folder):
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def digest(folder):
    """Of every table and index below it, with its path: settings say when they were written. Reading brings all files into
    the page cache."""
    whole = hashlib.sha256()
    for path in files_below(folder):
        with open(path, "rb") as file:
            of_this = hashlib.file_digest(file, "sha256").digest()
        if "base" in pathlib.Path(path).parts:
            whole.update(os.path.relpath(path, folder).encode() + of_this)
    return whole.hexdigest()


def measure(arguments, folder):
    cluster = Cluster(folder)
    cluster.create()
    try:
        return race(arguments, folder, cluster)
    finally:
        cluster.stop()


def race(arguments, folder, cluster):
    say(f"making {arguments.megabytes} MB of data")
    cluster.fill(arguments.megabytes)
    all_of_them = [
        contenders.Backstay(folder, cluster, arguments.backstay, arguments.plugins),
        contenders.Backstay(folder, cluster, arguments.backstay, arguments.plugins, method="stream"),
        contenders.Restic(folder, cluster),
        contenders.PgBackRest(folder, cluster),
        contenders.BaseBackupZstd(folder, cluster),
        contenders.Rustic(folder, cluster),
        contenders.Kopia(folder, cluster),
    ]
    all_of_them = [one for one in all_of_them if not one.optional or shutil.which(one.optional)]
    wanted = arguments.only.split(",") if arguments.only else [one.name for one in all_of_them]
    running = [one for one in all_of_them if one.name in wanted]
    # Seconds, memory and added bytes by phase and contender, one of each a round.
    results = {phase: {one.name: [] for one in running} for phase in PHASES}
    for name in report.CEILINGS:
        results[name] = []
    data_bytes = cluster.bytes()
    say(f"{data_bytes / 1e6:.0f} MB in {cluster.data}")

    def note(phase, one, measured):
        if measured is None:
            return
        results[phase][one.name].append(
            {"seconds": measured.seconds, "memory": measured.memory, "added": measured.added})
        say(f"{phase:10} {one.name:22} {measured.seconds:7.2f} s {measured.memory / 2**20:6.0f} MiB {measured.added / 1e6:9.1f} MB added")

    def ceiling(name, *more):
        """The unavoidable work alone, on all cores."""
        out = subprocess.run([arguments.ceiling, name, cluster.data, *more], check=True, stdout=subprocess.PIPE).stdout
        seconds = json.loads(out)["seconds"]
        results[f"ceiling {name}"].append(seconds)
        say(f"ceiling    {name:22} {seconds:7.2f} s")

    for number in range(arguments.rounds):
        if arguments.ceiling:
            for name in ("walk", "reread", "backup", "packs"):
                ceiling(name)
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                ceiling("stored", scratch)
        for one in running:
            one.reset()
            note("full", one, one.backup())
        # Only what a full backup takes is asked of the others.
        going_on = [one for one in running if one.goes_on]
        for one in going_on:
            note("unchanged", one, one.backup())
        for one in going_on:
            note("trusted", one, one.trusting())
        cluster.change(1, (number + 1) / 100)
        for one in going_on:
            note("changed", one, one.backup())
        cluster.append(10)
        grown_bytes = cluster.bytes()
        for one in going_on:
            note("appended", one, one.backup())
        if arguments.ceiling:
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                ceiling("restore", scratch)
                # Everybody's repository is about as large.
                ceiling("disk", running[0].repository, scratch)
        for one in running:
            into = folder / "restored"
            cold(one.repository)
            note("restore", one, one.restore(into))
            right = digest(into)
            damage(into, 1, number)
            if digest(into) == right:
                raise SystemExit("peers: nothing was damaged")
            cold(one.repository)
            mended = one.mend(into)
            note("mended", one, mended)
            if mended and digest(into) != right:
                raise SystemExit(f"peers: {one.name} did not mend what was damaged")
            shutil.rmtree(into)
        check_with_restic(running)
        if number + 1 < arguments.rounds:
            cluster.start_over()
    return {
        "megabytes": data_bytes / 1e6,
        "grown megabytes": grown_bytes / 1e6,
        "rounds": arguments.rounds,
        "machine": report.machine(),
        "versions": {one.name: one.version() for one in running},
        "results": results,
    }


def check_with_restic(running):
    for one in running:
        if isinstance(one, contenders.Backstay):
            environment = {**os.environ, "RESTIC_PASSWORD": "bench"}
            subprocess.run(["restic", "--no-cache", "-r", one.repository, "check", "--read-data"], check=True,
                           stdout=subprocess.DEVNULL, env=environment)
            say(f"restic check --read-data passes on {one.name}")


def main():
    parser = script.parser(__doc__, megabytes=4096)
    parser.add_argument("--ceiling", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only")
    parser.add_argument("--out", type=pathlib.Path)
    found, arguments = script.run(parser, measure)
    print(report.table(found))
    if arguments.out:
        report.write(found, arguments.out)


main()
