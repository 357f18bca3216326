"""Who takes part: each makes its repository, backs the cluster up, and restores the newest backup."""

import os
import pathlib
import select
import shutil
import subprocess
import time

import dataset

# How often memory is looked at: often enough for a peak of a tenth of a second, seldom enough to cost nothing.
MEMORY_EVERY_SECONDS = 0.05


class Measured:
    """One command: wall seconds, largest resident memory of it and its children, bytes added to the repository."""

    def __init__(self, seconds, memory, added):
        self.seconds, self.memory, self.added = seconds, memory, added


def children(pid):
    """Process ids right below one; a process that ends meanwhile has none."""
    try:
        return [int(child) for task in os.listdir(f"/proc/{pid}/task")
                for child in pathlib.Path(f"/proc/{pid}/task/{task}/children").read_text().split()]
    except OSError:
        return []


def resident(root):
    """Resident bytes of a process and all below it, without what they share with files."""
    todo, total = [root], 0
    while todo:
        pid = todo.pop()
        todo += children(pid)
        try:
            for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("RssAnon:"):
                    total += int(line.split()[1]) * 1024
        except OSError:
            pass
    return total


def size(folder):
    total = 0
    for root, _, files in os.walk(folder):
        for name in files:
            try:
                total += os.stat(os.path.join(root, name)).st_size
            except OSError:
                pass
    return total


class Contender:
    """A tool, a repository in a folder of its own."""

    name = ""
    # Whether it is asked for more than a full backup and a restore.
    goes_on = True
    # Without this program it does not take part. Nothing: it always does, and fails where something is missing.
    optional = None

    def __init__(self, folder, cluster):
        self.folder = pathlib.Path(folder) / self.name.replace(" ", "-").replace("|", "").replace("_", "-")
        self.repository = self.folder / "repo"
        self.cluster = cluster
        self.environment = dict(os.environ)

    def reset(self):
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.init()

    def run(self, command, quiet=True):
        output = subprocess.DEVNULL if quiet else None
        with open(self.folder / "log", "ab") as log:
            subprocess.run(command, check=True, stdout=output, stderr=log, env=self.environment, shell=isinstance(command, str))

    def measure(self, command):
        before = size(self.repository)
        os.sync()
        with open(self.folder / "log", "ab") as log:
            begun = time.monotonic()
            process = subprocess.Popen(command, stdout=log, stderr=log, env=self.environment, shell=isinstance(command, str),
                                       executable="/bin/bash" if isinstance(command, str) else None)
            # Woken by the end itself: a sleep would be measured too.
            end, memory = os.pidfd_open(process.pid), 0
            while not select.select([end], [], [], MEMORY_EVERY_SECONDS)[0]:
                memory = max(memory, resident(process.pid))
            process.wait()
            seconds = time.monotonic() - begun
            os.close(end)
        if process.returncode != 0:
            raise SystemExit(f"peers: {self.name} failed, see {self.folder}/log: {command}")
        return Measured(seconds, memory, size(self.repository) - before)

    def backup(self):
        """All content read again."""
        raise NotImplementedError

    def trusting(self):
        """Files whose metadata are as before are not read again. Nothing: it has no such thing."""
        return None

    def restore(self, into):
        """The newest backup, into an empty folder."""
        raise NotImplementedError

    def mend(self, into):
        """The newest backup, over a folder in which little is wrong. Nothing: it has no such thing."""
        return None


class Backstay(Contender):
    name = "backstay"

    def __init__(self, folder, cluster, binary, plugins, method="files"):
        self.name = f"backstay {method}"
        super().__init__(folder, cluster)
        self.binary, self.method = str(binary), method
        self.goes_on = method == "files"
        self.environment |= {"BACKSTAY_CONFIG": str(self.folder / "backstay.toml"), "BACKSTAY_PLUGINS": str(plugins),
                             "BACKSTAY_CACHE": str(pathlib.Path(folder) / "cache")}

    def version(self):
        return subprocess.run([self.binary, "--version"], stdout=subprocess.PIPE).stdout.decode().split()[-1]

    def init(self):
        for name in ("password", "pgpassword"):
            path = self.folder / name
            path.write_text("bench\n")
            path.chmod(0o600)
        (self.folder / "backstay.toml").write_text(f"""
[repositories.main]
{self.location()}
password-file = "{self.folder}/password"
[targets.shop]
engine = "postgresql"
repository = "main"
[targets.shop.grants]
endpoints.primary = "127.0.0.1:{self.cluster.port}"
credentials.primary = {{ user = "postgres", password-file = "{self.folder}/pgpassword" }}
directories.data = "{self.cluster.data}"
""")
        self.run([self.binary, "repo", "init", "main"])
        # The plugin is compiled once on a machine, not once a backup.
        self.run([self.binary, "plugin", "show", "postgresql"])

    def location(self):
        return f'url = "file://{self.repository}"'

    def backup(self):
        return self.measure([self.binary, "backup", "shop", "--method", self.method, "--reread"])

    def trusting(self):
        return self.measure([self.binary, "backup", "shop", "--method", self.method])

    def restore(self, into, *more):
        return self.measure([self.binary, "restore", "shop", "--into", str(into), "--to", "backup-end", *more])

    def mend(self, into):
        return self.restore(into, "--delta")


class Restic(Contender):
    name = "restic"

    def version(self):
        return subprocess.run(["restic", "version"], stdout=subprocess.PIPE).stdout.decode().split()[1]

    def init(self):
        self.environment |= {"RESTIC_REPOSITORY": str(self.repository), "RESTIC_PASSWORD": "bench"}
        self.run(["restic", "--no-cache", "init"])

    def backup(self, reread=True):
        exclude = [f"--exclude={self.cluster.data}/pg_wal/*", f"--exclude={self.cluster.data}/postmaster.pid"]
        return self.measure(["restic", "--no-cache", "backup", *["--force"] * reread, str(self.cluster.data)] + exclude)

    def trusting(self):
        return self.backup(reread=False)

    def restore(self, into):
        return self.measure(["restic", "--no-cache", "restore", "latest", "--target", str(into)])


class Rustic(Contender):
    """Restic's format, written by another program in Rust."""

    name = optional = "rustic"

    def version(self):
        return subprocess.run(["rustic", "--version"], stdout=subprocess.PIPE).stdout.decode().split()[1]

    def init(self):
        self.environment |= {"RUSTIC_REPOSITORY": str(self.repository), "RUSTIC_PASSWORD": "bench", "RUSTIC_NO_CACHE": "true",
                             "RUSTIC_NO_PROGRESS": "true"}
        self.run(["rustic", "init"])

    def backup(self, reread=True):
        # Globs below the folder that is backed up.
        exclude = ["--glob=!**/pg_wal/**", "--glob=!**/postmaster.pid"]
        return self.measure(["rustic", "backup", *["--force"] * reread, *exclude, str(self.cluster.data)])

    def trusting(self):
        return self.backup(reread=False)

    def restore(self, into):
        return self.measure(["rustic", "restore", f"latest:{self.cluster.data}", str(into)])

    def mend(self, into):
        # Reads what is there; without it a file of the same size and time is taken for the same.
        return self.measure(["rustic", "restore", "--verify-existing", f"latest:{self.cluster.data}", str(into)])


class Kopia(Contender):
    name = optional = "kopia"

    def version(self):
        return subprocess.run(["kopia", "--version"], stdout=subprocess.PIPE).stdout.decode().split()[0]

    def init(self):
        self.repository.mkdir()
        self.environment |= {"KOPIA_PASSWORD": "bench", "KOPIA_CONFIG_PATH": str(self.folder / "kopia.config"),
                             "KOPIA_CACHE_DIRECTORY": str(self.folder / "cache"), "KOPIA_LOG_DIR": str(self.folder / "logs"),
                             "KOPIA_CHECK_FOR_UPDATES": "false"}
        self.run(["kopia", "repository", "create", "filesystem", f"--path={self.repository}"])
        self.run(["kopia", "policy", "set", "--global", "--compression=zstd-fastest", f"--max-parallel-file-reads={os.cpu_count()}"])
        self.run(["kopia", "policy", "set", str(self.cluster.data), "--add-ignore=/pg_wal/*", "--add-ignore=/postmaster.pid"])

    def backup(self, reread=True):
        # That percentage of the files is read though they look as before.
        return self.measure(["kopia", "snapshot", "create", *["--force-hash=100"] * reread, str(self.cluster.data)])

    def trusting(self):
        return self.backup(reread=False)

    def restore(self, into):
        return self.measure(["kopia", "restore", f"--parallel={os.cpu_count()}", str(self.cluster.data), str(into)])


class PgBackRest(Contender):
    name = "pgbackrest"

    def version(self):
        return subprocess.run(["pgbackrest", "version"], stdout=subprocess.PIPE).stdout.decode().split()[1]

    def options(self):
        cores = os.cpu_count()
        return ["--stanza=bench", f"--repo1-path={self.repository}", f"--pg1-path={self.cluster.data}",
                f"--pg1-port={self.cluster.port}", f"--pg1-socket-path={self.cluster.folder}", "--pg1-user=postgres",
                f"--process-max={cores}", "--compress-type=zst", "--compress-level=1", "--repo1-cipher-type=aes-256-cbc",
                f"--log-path={self.folder}", f"--lock-path={self.folder}/lock", "--log-level-console=warn",
                "--no-archive-check", "--start-fast"]

    def init(self):
        self.environment |= {"PGBACKREST_REPO1_CIPHER_PASS": "bench"}
        only = [o for o in self.options() if not o.startswith(("--process-max", "--compress", "--no-archive", "--start"))]
        self.run(["pgbackrest", *only, "--no-online", "stanza-create"])

    def backup(self, reread=True):
        kind = "full" if size(self.repository / "backup" / "bench") < 1 << 20 else "incr"
        delta = ["--delta"] if kind == "incr" and reread else []
        return self.measure(["pgbackrest", *self.options(), f"--type={kind}", *delta, "backup"])

    def trusting(self):
        return self.backup(reread=False)

    def mend(self, into):
        return self.restore(into, delta=True)

    def restore(self, into, delta=False):
        pathlib.Path(into).mkdir(parents=True, exist_ok=True)
        only = [o for o in self.options() if not o.startswith(("--compress", "--no-archive", "--start", "--pg1"))]
        return self.measure(["pgbackrest", *only, f"--pg1-path={into}", "--type=immediate", "restore"] + ["--delta"] * delta)


class BaseBackupZstd(Contender):
    name = "pg_basebackup | zstd"
    goes_on = False

    def version(self):
        return subprocess.run([dataset.tool("pg_basebackup"), "--version"], stdout=subprocess.PIPE).stdout.decode().split()[2]

    def init(self):
        self.repository.mkdir()

    def backup(self):
        for old in self.repository.iterdir():
            old.unlink()
        dump = [dataset.tool("pg_basebackup"), "-h", str(self.cluster.folder), "-p", str(self.cluster.port), "-U", "postgres",
                "-Ft", "-X", "fetch", "--checkpoint=fast", "-D", "-"]
        return self.measure(f"set -o pipefail; {' '.join(dump)} | zstd -1 -T{os.cpu_count()} -q -o {self.repository}/base.tar.zst")

    def restore(self, into):
        pathlib.Path(into).mkdir(parents=True)
        return self.measure(f"set -o pipefail; zstd -dqc {self.repository}/base.tar.zst | tar -xf - -C {into}")
