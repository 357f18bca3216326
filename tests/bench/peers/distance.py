#!/usr/bin/env python3
"""A full backup to a store that is 20 ms away, beside one into a folder.

    python3 tests/bench/peers/distance.py BACKSTAY PLUGINS SLOW-LINE [--megabytes 4096] [--rounds 3] [--milliseconds 20]

The store is s3s-fs on loopback (`cargo install s3s-fs --version 0.14.1 --features binary`), behind a line that delivers everything later (tests/bench/src/slow_line.rs). Server and
line use the same cores as the backup: what they take is told beside the rate, and so is the rate without any delay.
"""

import contextlib
import pathlib
import shutil
import statistics
import subprocess
import time

import contenders
import dataset
import script

KEY = "backstay-bench"


def cpu_seconds(process):
    """User and system seconds that a process has used so far."""
    fields = pathlib.Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


@contextlib.contextmanager
def running(*command):
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(1)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


class OnS3(contenders.Backstay):
    """Backstay on a bucket; the folder is where the server keeps it."""

    def __init__(self, folder, cluster, binary, plugins, bucket, port):
        super().__init__(folder, cluster, binary, plugins)
        self.repository, self.port = bucket, port

    def reset(self):
        shutil.rmtree(self.repository, ignore_errors=True)
        self.repository.mkdir(parents=True)
        super().reset()

    def location(self):
        secret = self.folder / "secret"
        secret.write_text(KEY)
        secret.chmod(0o600)
        return f"""url = "s3://{self.repository.name}/prefix"
endpoint = "http://127.0.0.1:{self.port}"
region = "us-east-1"
allow-http = true
path-style = true
access-key-id = "{KEY}"
secret-access-key-file = "{secret}\""""


def measure(arguments, folder):
    cluster = dataset.Cluster(folder)
    cluster.create()
    try:
        cluster.fill(arguments.megabytes)
        return race(arguments, folder, cluster)
    finally:
        cluster.stop()


def race(arguments, folder, cluster):
    root, ports = folder / "s3", [dataset.free_port() for _ in range(2)]
    root.mkdir()
    with running("s3s-fs", "--host", "127.0.0.1", "--port", str(ports[0]), "--access-key", KEY, "--secret-key", KEY,
                 root) as server, \
            running(arguments.slow_line, f"127.0.0.1:{ports[1]}", f"127.0.0.1:{ports[0]}", str(arguments.milliseconds)) as line:
        ways = {
            "folder": contenders.Backstay(folder / "local", cluster, arguments.backstay, arguments.plugins),
            "s3": OnS3(folder / "near", cluster, arguments.backstay, arguments.plugins, root / "near", ports[0]),
            "s3 far": OnS3(folder / "far", cluster, arguments.backstay, arguments.plugins, root / "far", ports[1]),
        }
        found = {name: [] for name in ways}
        for _ in range(arguments.rounds):
            for name, way in ways.items():
                way.reset()
                before = [cpu_seconds(server), cpu_seconds(line)]
                seconds = way.backup().seconds
                spent = [after - b for after, b in zip((cpu_seconds(server), cpu_seconds(line)), before)]
                found[name].append({"seconds": seconds, "server": spent[0], "line": spent[1]})
                print(f"{name:8} {seconds:6.2f} s, of the cores the server took {spent[0]:.2f} s, the line {spent[1]:.2f} s", flush=True)
        return found


def main():
    parser = script.parser(__doc__, megabytes=4096)
    parser.add_argument("slow_line", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--milliseconds", type=int, default=20)
    found, arguments = script.run(parser, measure)
    middle = {name: statistics.median(run["seconds"] for run in runs) for name, runs in found.items()}
    print(f"s3 {arguments.milliseconds} ms away: {middle['folder'] / middle['s3 far']:.2f} of the folder's rate, "
          f"{middle['s3'] / middle['s3 far']:.2f} of the rate without the delay")


main()
