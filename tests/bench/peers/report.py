"""What was found, for people: tables in Markdown, a plot in SVG, the figures in JSON."""

import json
import os
import pathlib
import platform
import statistics

TITLES = {
    "full": "full backup",
    "unchanged": "again, nothing changed, content read again",
    "trusted": "again, nothing changed, metadata trusted",
    "changed": "again, a row in 1 % of the pages changed",
    "appended": "again, 10 % appended",
    "restore": "restore into an empty folder",
    "mended": "restore over a folder with 1 % of its pages damaged",
}
# Of phases that read or write what was appended too.
GROWN = ("appended", "restore", "mended")
CEILINGS = {
    "ceiling walk": "listing (stat calls alone)",
    "ceiling reread": "content read again (read, page checksum, SHA-256)",
    "ceiling backup": "a full backup (read, page checksum, SHA-256, zstd, AES; nothing is written)",
    "ceiling packs": "the same with SHA-256 of the packs, which the format wants",
    "ceiling stored": "the same, and what is sealed is written past the page cache and made durable",
    "ceiling restore": "a restore (read, AES, zstd, SHA-256, write, make durable; all in the page cache)",
    "ceiling disk": "a restore's reads and writes past the page cache, with nothing done in between",
}
US = "backstay files"
COLOURS = {"backstay files": "#0b6e4f", "backstay stream": "#7fb69e", "restic": "#c25b2b", "pgbackrest": "#3b5b92",
           "pg_basebackup | zstd": "#8a8a8a", "rustic": "#d99a6c", "kopia": "#7a5c99"}


def machine():
    model = next((line.split(":", 1)[1].strip() for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), platform.machine())
    memory = int(pathlib.Path("/proc/meminfo").read_text().split()[1]) // 1024
    return f"{os.cpu_count()} × {model}, {memory} MiB of memory, Linux {platform.release()}"


class Ratio:
    """Two figures of the same round, divided; the middle of all rounds and how far they lie apart."""

    def __init__(self, above, below):
        self.rounds = [a / b for a, b in zip(above, below)]
        self.middle = statistics.median(self.rounds)

    def __str__(self):
        return f"{self.middle:.2f} ({min(self.rounds):.2f} to {max(self.rounds):.2f})"


def goals(results):
    """What Backstay has to reach: title, the figure, at least or at most, the bound. What was not run is left out."""
    def series(phase, name, what="seconds"):
        return [run[what] for run in results.get(phase, {}).get(name, [])]

    def ratio(above, below):
        return Ratio(above, below) if above and below else None

    ours = {phase: series(phase, US) for phase in TITLES}
    wanted = [
        ("full backup: times as fast as pgBackRest", ratio(series("full", "pgbackrest"), ours["full"]), ">=", 2.0),
        ("full backup: times as fast as restic", ratio(series("full", "restic"), ours["full"]), ">=", 2.0),
        ("full backup: part of the ceiling's rate", ratio(results["ceiling backup"], ours["full"]), ">=", 0.85),
        ("unchanged, content read again: times as fast as restic", ratio(series("unchanged", "restic"), ours["unchanged"]),
         ">=", 1.5),
        ("unchanged, metadata trusted: times as fast as the full backup", ratio(ours["full"], ours["trusted"]), ">=", 20),
        ("1 % of the pages changed: uploaded, as part of what restic uploads",
         ratio(series("changed", US, "added"), series("changed", "restic", "added")), "<=", 1 / 3),
        ("1 % of the pages changed: time, as part of restic's", ratio(ours["changed"], series("changed", "restic")), "<=", 0.5),
        ("restore: times as fast as restic", ratio(series("restore", "restic"), ours["restore"]), ">=", 2.0),
        ("restore: times as fast as pgBackRest", ratio(series("restore", "pgbackrest"), ours["restore"]), ">=", 2.0),
        ("1 % of the pages damaged: times as fast as the full restore", ratio(ours["restore"], ours["mended"]), ">=", 5.0),
    ]
    return [(title, figure, "least" if sign == ">=" else "most", bound,
             figure.middle >= bound if sign == ">=" else figure.middle <= bound)
            for title, figure, sign, bound in wanted if figure]


def peak(results):
    return max(run["memory"] for phase in TITLES for run in results.get(phase, {}).get(US, []))


def verdicts(found):
    results = found["results"]
    lines = ["| what | must | is (each round) | |", "|---|---|---|---|"]
    for title, figure, side, bound, reached in goals(results):
        lines.append(f"| {title} | at {side} {bound:.2f} | {figure} | {'yes' if reached else 'no'} |")
    mebibytes = peak(results) / 2**20
    lines.append(f"| peak memory of any of them | at most 384 MiB | {mebibytes:.0f} MiB | {'yes' if mebibytes <= 384 else 'no'} |")
    return lines


def table(found):
    results = found["results"]
    rounds = found["rounds"]
    lines = [
        f"{found['megabytes']:.0f} MB of data, {rounds} round{'s' * (rounds > 1)}, everybody in turn; {found['machine']}. "
        "The data fit into the page cache and are in it; repositories are put out of it before every restore. All lie on the same disk.",
        "Every backup of Backstay passed stock `restic check --read-data`, every restore over a damaged folder came out as the first one.",
        "",
        "Versions: " + ", ".join(f"{name} {version}" for name, version in found["versions"].items()) + ".",
        "",
        *verdicts(found),
        "",
    ]
    if any(results.get(name) for name in CEILINGS):
        lines += [f"## Ceilings", "", f"The unavoidable work alone, on {os.cpu_count()} threads.", "",
                  "| of | seconds, median (least to most) |", "|---|---|"]
        for name, what in CEILINGS.items():
            if runs := results.get(name):
                lines.append(f"| {what} | {statistics.median(runs):.2f} ({min(runs):.2f} to {max(runs):.2f}) |")
        lines.append("")
    for phase, title in TITLES.items():
        ran = {name: runs for name, runs in results[phase].items() if runs}
        lines += [f"## {title[0].upper()}{title[1:]}", "", "| | seconds, median (least to most) | MB/s | peak memory | written |",
                  "|---|---|---|---|---|"]
        for name, runs in ran.items():
            seconds = [run["seconds"] for run in runs]
            middle = statistics.median(seconds)
            memory = statistics.median(run["memory"] for run in runs) / 2**20
            added = statistics.median(run["added"] for run in runs) / 1e6
            shown = name.replace("|", "\\|")
            lines.append(f"| {shown} | {middle:.2f} ({min(seconds):.2f} to {max(seconds):.2f}) "
                         f"| {size_of(found, phase) / middle:.0f} | {memory:.0f} MiB | {added:.1f} MB |")
        lines.append("")
    return "\n".join(lines)


def size_of(found, phase):
    """Megabytes that a phase reads or writes."""
    return found["grown megabytes" if phase in GROWN else "megabytes"]


def plot(found):
    """Bars of megabytes a second, a group for each phase; the ceiling is a line."""
    results = found["results"]
    groups = {phase: {name: size_of(found, phase) / statistics.median(run["seconds"] for run in runs)
                      for name, runs in results[phase].items() if runs}
              for phase in TITLES if phase != "trusted"}
    of = {"full": "ceiling backup", "unchanged": "ceiling reread", "restore": "ceiling disk", "mended": "ceiling reread"}
    ceilings = {phase: size_of(found, phase) / statistics.median(results[name])
                for phase, name in of.items() if results.get(name) and phase in groups}
    top = max([*ceilings.values(), *(rate for group in groups.values() for rate in group.values())])
    width, row, left = 780, 18, 160
    height = sum(len(group) * row + 38 for group in groups.values()) + 16
    place = lambda rate: rate / top * (width - left - 90)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
           f'<rect width="{width}" height="{height}" fill="white"/>']
    y = 14
    for phase, group in groups.items():
        out.append(f'<text x="10" y="{y + 12}" font-weight="bold">{TITLES[phase]}, MB/s</text>')
        y += 20
        if ceiling := ceilings.get(phase):
            x = left + place(ceiling)
            out.append(f'<line x1="{x:.1f}" y1="{y}" x2="{x:.1f}" y2="{y + len(group) * row}" stroke="#444" stroke-dasharray="4 3"/>')
            out.append(f'<text x="{x:.1f}" y="{y - 4}" text-anchor="middle">ceiling {ceiling:.0f}</text>')
        for name, rate in group.items():
            out.append(f'<text x="{left - 6}" y="{y + 12}" text-anchor="end">{name}</text>')
            out.append(f'<rect x="{left}" y="{y + 2}" width="{place(rate):.1f}" height="{row - 5}" fill="{COLOURS.get(name, "#777")}"/>')
            out.append(f'<text x="{left + place(rate) + 5:.1f}" y="{y + 12}">{rate:.0f}</text>')
            y += row
        y += 18
    return "\n".join(out + ["</svg>", ""])


def write(found, folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "peers.json").write_text(json.dumps(found, indent=1) + "\n")
    (folder / "peers.svg").write_text(plot(found))
    (folder / "peers.md").write_text("# Backstay and its peers\n\n![megabytes a second](peers.svg)\n\n" + table(found))
