"""The data that all contenders back up: a PostgreSQL cluster, made from a seed, changed from a seed.

One third looks like pgbench's tables, one third is text and JSON that compress about three to one, one third does
not compress at all.
"""

import os
import pathlib
import random
import shutil
import socket
import subprocess

PAGE = 8192
# Tables of each third, so that work on them can be spread.
THIRDS = ("rows", "texts", "noise")


def tool(name):
    """A program of the newest PostgreSQL that Debian installed, or of the path."""
    for folder in sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parts[-2]), reverse=True):
        if (folder / name).exists():
            return str(folder / name)
    found = shutil.which(name)
    if not found:
        raise SystemExit(f"peers: failed to find {name}: install postgresql")
    return found


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Cluster:
    """A server with the data in it, on loopback."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.data = self.folder / "data"
        self.port = free_port()

    def create(self):
        subprocess.run(
            [tool("initdb"), "-D", self.data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync",
             "--data-checksums"], check=True, stdout=subprocess.DEVNULL)
        with open(self.data / "postgresql.conf", "a") as conf:
            conf.write(
                f"port = {self.port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{self.folder}'\n"
                "wal_level = replica\nshared_buffers = '256MB'\nmax_wal_size = '8GB'\nautovacuum = off\n"
                "checkpoint_timeout = '1h'\nfsync = off\n")
        self.start()

    def start(self):
        subprocess.run([tool("pg_ctl"), "-D", self.data, "-l", self.folder / "server.log", "-w", "start"],
                       check=True, stdout=subprocess.DEVNULL)

    def stop(self):
        subprocess.run([tool("pg_ctl"), "-D", self.data, "-m", "immediate", "stop"], stdout=subprocess.DEVNULL)

    def sql(self, text):
        out = subprocess.run([tool("psql"), "-XqAt", "-v", "ON_ERROR_STOP=1", "-h", self.folder, "-p", str(self.port),
                              "-U", "postgres", "-c", text], check=True, stdout=subprocess.PIPE)
        return out.stdout.decode().strip()

    def fill(self, megabytes):
        """Fills the thirds; `megabytes` of pages in all."""
        self.megabytes = megabytes
        pages = megabytes * (1 << 20) // PAGE // 3
        self.sql("CREATE EXTENSION IF NOT EXISTS pgcrypto")
        self.sql("SELECT setseed(0.5)")
        # 61 rows of pgbench_accounts' shape fill a page; room is left so that a changed row stays on its page.
        self.sql(f"CREATE TABLE rows WITH (fillfactor = 90) AS SELECT i AS aid, 1 AS bid, 0 AS abalance, "
                 f"repeat(' ', 84)::char(84) AS filler FROM generate_series(1, {pages * 54}) i")
        # JSON whose keys and phrases repeat and whose references do not: hexadecimal digits, half of them entropy.
        self.sql("CREATE TABLE texts (id int, body text) WITH (fillfactor = 90)")
        self.sql("ALTER TABLE texts ALTER body SET STORAGE EXTERNAL")
        references = " || ' went to ' || ".join(f"md5((i * {factor})::text)" for factor in (3, 7, 11, 13, 17, 19, 23))
        self.sql(f"""INSERT INTO texts SELECT i, json_build_object('id', i, 'at', '2026-01-01'::timestamp + i * interval '7 s',
                     'customer', md5((i % 50000)::text), 'status', (ARRAY['open','paid','sent','closed'])[1 + i % 4],
                     'total', (i * 7919 % 100000) / 100.0, 'note', {references})::text
                     FROM generate_series(1, {pages * 14}::bigint) i""")
        self.sql("CREATE TABLE noise (id int, body bytea) WITH (fillfactor = 90)")
        self.sql("ALTER TABLE noise ALTER body SET STORAGE EXTERNAL")
        # Room for one row more on each page, as above.
        self.sql(f"INSERT INTO noise SELECT i, gen_random_bytes(780) FROM generate_series(1, {pages * 8}) i")
        self.sql("VACUUM (FREEZE, ANALYZE)")
        self.settle()

    def settle(self):
        """Everything in its files, no log that is not needed."""
        self.sql("CHECKPOINT")
        self.sql("SELECT pg_switch_wal()")
        self.sql("CHECKPOINT")

    def change(self, percent, seed):
        """Changes one row in `percent` of all pages, chosen at random; a page's other rows stay."""
        self.sql(f"SELECT setseed({seed})")
        for table, column in (("rows", "abalance = abalance + 1"), ("texts", "id = id + 1"), ("noise", "id = id + 1")):
            self.sql(f"""SELECT setseed({seed});
                UPDATE {table} SET {column} WHERE ctid = ANY (ARRAY(
                    SELECT ('(' || page || ',1)')::tid FROM generate_series(0, pg_relation_size('{table}') / {PAGE} - 1) page
                    WHERE random() < {percent / 100}))""")
        self.settle()

    def append(self, percent):
        """Lets every table grow."""
        for table in THIRDS:
            rows = int(self.sql(f"SELECT count(*) FROM {table}"))
            self.sql(f"INSERT INTO {table} SELECT * FROM {table} ORDER BY ctid LIMIT {rows * percent // 100}")
        self.settle()

    def start_over(self):
        """The cluster as it was filled: every round measures the same."""
        for table in THIRDS:
            self.sql(f"DROP TABLE {table}")
        self.fill(self.megabytes)

    def bytes(self):
        """Bytes of what a backup holds: no log, no files of the running server."""
        total = 0
        for root, folders, files in os.walk(self.data):
            if "pg_wal" in folders:
                folders.remove("pg_wal")
            total += sum(os.stat(os.path.join(root, name)).st_size for name in files)
        return total


def damage(folder, percent, seed):
    """Spoils a byte in `percent` of all pages below `folder`, chosen at random."""
    chance = random.Random(seed)
    for root, folders, files in os.walk(folder):
        folders.sort()
        if "pg_wal" in folders:
            folders.remove("pg_wal")
        for name in sorted(files):
            path = os.path.join(root, name)
            pages = os.stat(path).st_size // PAGE
            if pages < 100:
                continue
            with open(path, "r+b") as file:
                for page in sorted(chance.sample(range(pages), pages * percent // 100)):
                    file.seek(page * PAGE + 4000)
                    byte = file.read(1)[0]
                    file.seek(page * PAGE + 4000)
                    file.write(bytes([byte ^ 1]))
