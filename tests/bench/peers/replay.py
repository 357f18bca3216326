#!/usr/bin/env python3
"""How fast log files come for replay, beside how fast PostgreSQL replays them; and how soon a command is at work.

    python3 tests/bench/peers/replay.py BACKSTAY PLUGINS [--megabytes 1500] [--profile]

A server writes log while Backstay archives it. Then a restored copy replays it from where a restore has laid it out, and
`backstay log fetch --ahead 32` gets the same files one after another, as a `restore_command` would, with nobody replaying
in between. PostgreSQL's own figure for the replay is taken from its log. Twice: how fast it replays depends on what the
log holds, transactions of pgbench or one table that is updated whole, in order, time and again. With --profile the files
are fetched once more under `perf`, and a table says where the time goes (see flames.py for what that needs).
"""

import os
import pathlib
import re
import socket
import statistics
import subprocess
import tempfile
import time

import contenders
import dataset
import flame
import samples
import script

SEGMENT = 16 << 20
AHEAD = 32
STARTS = 10
FETCHES = 3
# 1.5 million rows of 100 bytes: more than the server's buffers hold.
PGBENCH_SCALE = 15
PGBENCH_SECONDS = 20
REPLAY_SECONDS_MAX = 600


def written(cluster, begun):
    """Bytes of log since `begun`."""
    return int(cluster.sql(f"SELECT pg_current_wal_lsn() - '{begun}'::pg_lsn").split(".")[0])


def transactions(cluster, megabytes):
    """pgbench's own transactions, until there is so much log."""
    pgbench = [dataset.tool("pgbench"), "-h", cluster.folder, "-p", str(cluster.port), "-U", "postgres"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "check": True}
    subprocess.run([*pgbench, "-i", "-q", "-s", str(PGBENCH_SCALE), "postgres"], **quiet)
    cluster.sql("ALTER SYSTEM SET synchronous_commit = off")
    cluster.sql("SELECT pg_reload_conf()")
    begun = cluster.sql("SELECT pg_current_wal_lsn()")
    # Minutes for a gigabyte. Less would be whole pages for the most part, which a server replays faster than records.
    while written(cluster, begun) < megabytes << 20:
        subprocess.run([*pgbench, "-n", "-M", "prepared", "-c", "8", "-j", "2", "-T", str(PGBENCH_SECONDS), "postgres"], **quiet)


def whole_table(cluster, megabytes):
    """All rows of a table in order, until there is so much log: the fastest there is to replay."""
    cluster.sql("CREATE TABLE churn (n int PRIMARY KEY, filler text) WITH (fillfactor = 70)")
    cluster.sql("INSERT INTO churn SELECT n, repeat('x', 80) FROM generate_series(1, 400000) n")
    begun = cluster.sql("SELECT pg_current_wal_lsn()")
    while written(cluster, begun) < megabytes << 20:
        cluster.sql("UPDATE churn SET filler = md5(n::text || random()::text)")


def replay(folder, restored):
    """Bytes a second, as the server itself says."""
    port = dataset.free_port()
    log = folder / "replay.log"
    options = f"-p {port} -k {folder} -c listen_addresses='' -c hot_standby=off -c recovery_target_action=shutdown"
    subprocess.run([dataset.tool("pg_ctl"), "-D", restored, "-o", options, "-l", log, "-w", "-t", "300", "start"],
                   stdout=subprocess.DEVNULL)
    # pg_ctl takes a server that replays for one that is up.
    patience = time.monotonic() + REPLAY_SECONDS_MAX
    while "redo done at" not in log.read_text() and time.monotonic() < patience:
        time.sleep(0.2)
    subprocess.run([dataset.tool("pg_ctl"), "-D", restored, "-m", "immediate", "stop"], stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)
    text = log.read_text()
    start = re.search(r"redo starts at ([0-9A-F]+)/([0-9A-F]+)", text)
    done = re.search(r"redo done at ([0-9A-F]+)/([0-9A-F]+) .*elapsed: ([0-9.]+) s", text)
    if not start or not done:
        raise SystemExit(f"replay: failed to read how long it took:\n{text}")
    at = lambda match: (int(match[1], 16) << 32) + int(match[2], 16)
    return (at(done) - at(start)) / float(done[3])


def laid_out(restored):
    """Names of the log files that a restore has laid out, but for the last: it may be partial."""
    return sorted(name for name in os.listdir(restored / "pg_wal") if re.fullmatch("[0-9A-F]{24}", name))[:-1]


def fetch(backstay, restored):
    """Bytes a second of `log fetch`, file after file."""
    names = laid_out(restored)
    # A folder of its own: what an earlier round fetched ahead must not count.
    into = pathlib.Path(tempfile.mkdtemp(prefix="fetched-", dir=backstay.folder))
    begun = time.monotonic()
    for name in names:
        subprocess.run([backstay.binary, "--quiet", "log", "fetch", "shop", name, str(into / "RECOVERYXLOG"), "--ahead", str(AHEAD)],
                       check=True, stdout=subprocess.DEVNULL, env=backstay.environment)
        assert os.stat(into / "RECOVERYXLOG").st_size == SEGMENT
    return len(names) * SEGMENT / (time.monotonic() - begun)


def profiled(backstay, restored, title):
    """Seconds of a core of the same, by step."""
    names = laid_out(restored)
    into = pathlib.Path(tempfile.mkdtemp(prefix="profiled-", dir=backstay.folder))
    loop = 'for name in "${@:3}"; do "$1" --quiet log fetch shop "$name" "$2" --ahead ' + str(AHEAD) + " || exit; done"
    command = ["bash", "-c", loop, "fetch", backstay.binary, str(into / "RECOVERYXLOG"), *names]
    besides = samples.record(into / "samples", command, backstay.run)
    fetched = samples.taken(into / "samples", r"backstay|tokio|epoch|bash")
    what = f"{len(names) * SEGMENT / 1e6:.0f} MB of log of {title}, file after file"
    return flame.table(what, [("Backstay", fetched, besides)], samples.A_SECOND)


def starts(backstay):
    """Milliseconds from the start of the program until the plugin has logged in, looked and told."""
    took = []
    for _ in range(STARTS):
        begun = time.monotonic()
        backstay.run([backstay.binary, "inspect", "shop"])
        took.append((time.monotonic() - begun) * 1000)
    return took


def calls(backstay, port):
    """Milliseconds from the start of the program until the plugin calls at the database: at one that never answers, so that
    nothing of the server's own time is in it."""
    took = []
    settings = pathlib.Path(backstay.environment["BACKSTAY_CONFIG"])
    with socket.create_server(("127.0.0.1", 0)) as listening:
        elsewhere = settings.with_name("elsewhere.toml")
        elsewhere.write_text(settings.read_text().replace(f"127.0.0.1:{port}", f"127.0.0.1:{listening.getsockname()[1]}"))
        environment = {**backstay.environment, "BACKSTAY_CONFIG": str(elsewhere)}
        for _ in range(STARTS):
            begun = time.monotonic()
            process = subprocess.Popen([backstay.binary, "inspect", "shop"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
            connection, _ = listening.accept()
            took.append((time.monotonic() - begun) * 1000)
            process.kill()
            process.wait()
            connection.close()
    return took


def race(arguments, folder, load):
    """Bytes a second of each fetch and of the replay, how long a start took, and a table of the steps if wanted."""
    folder.mkdir()
    cluster = dataset.Cluster(folder)
    cluster.create()
    try:
        backstay = contenders.Backstay(folder, cluster, arguments.backstay, arguments.plugins, method="stream")
        backstay.reset()
        took = (calls(backstay, cluster.port), starts(backstay))
        archive = subprocess.Popen([backstay.binary, "--quiet", "archive", "shop"], stdout=subprocess.DEVNULL, env=backstay.environment)
        backstay.backup()
        load(cluster, arguments.megabytes)
        end = cluster.sql("SELECT pg_switch_wal()")
        while int(cluster.sql(f"SELECT count(*) FROM pg_replication_slots WHERE restart_lsn >= '{end}'")) == 0:
            time.sleep(0.2)
        archive.terminate()
        archive.wait()
    finally:
        cluster.stop()
    restored = folder / "restored"
    backstay.run([backstay.binary, "restore", "shop", "--into", str(restored), "--to", "latest"])
    fetched = [fetch(backstay, restored) for _ in range(FETCHES)]
    table = profiled(backstay, restored, load.__name__.replace("_", " ")) if arguments.profile else None
    return fetched, replay(folder, restored), took, table


def measure(arguments, folder):
    lines, called, started = [], [], []
    for load in (transactions, whole_table):
        fetched, replayed, took, table = race(arguments, folder / load.__name__, load)
        called += took[0]
        started += took[1]
        middle = statistics.median(fetched)
        lines += [f"log of {load.__name__.replace('_', ' ')}",
                  f"  log fetch, file after file: {middle / 1e6:7.0f} MB/s ({min(fetched) / 1e6:.0f} to {max(fetched) / 1e6:.0f})",
                  f"  replay by PostgreSQL:       {replayed / 1e6:7.0f} MB/s",
                  f"  ratio:                      {middle / replayed:7.1f}"]
        lines += ["", table, ""] if table else []
    for what, took in (("until the plugin calls at the server", called), ("to the end", started)):
        lines.append(f"inspect, from the start {what}: {statistics.median(took):.0f} ms ({min(took):.0f} to {max(took):.0f})")
    return "\n".join(lines)


def main():
    parser = script.parser(__doc__, megabytes=1500)
    parser.add_argument("--profile", action="store_true")
    print(script.run(parser, measure)[0])


main()
