"""What was found, for people: a table in Markdown, a plot in SVG, the figures in JSON."""

import json
import os
import pathlib
import platform
import statistics

TITLES = {
    "full": "full backup",
    "unchanged": "again, nothing changed, content read again",
    "changed": "again, a row in 1 % of the pages changed",
    "restore": "restore into an empty folder",
}
US = "backstay files"


def machine():
    model = next((line.split(":", 1)[1].strip() for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), platform.machine())
    memory = int(pathlib.Path("/proc/meminfo").read_text().split()[1]) // 1024
    return f"{os.cpu_count()} × {model}, {memory} MiB of memory, Linux {platform.release()}"


def middle(runs, what):
    return statistics.median(run[what] for run in runs)


def spread(runs, what):
    values = [run[what] for run in runs]
    return min(values), max(values)


def table(found):
    lines = [
        f"{found['megabytes']:.0f} MB of data, {found['rounds']} rounds, medians (least to most); {found['machine']}.",
        "Versions: " + ", ".join(f"{name} {version}" for name, version in found["versions"].items()) + ".",
        "",
    ]
    results = found["results"]
    if results["ceiling"]:
        rate = found["megabytes"] / statistics.median(results["ceiling"])
        lines += [f"The unavoidable work alone (read, SHA-256, zstd, AES; {os.cpu_count()} threads): "
                  f"{statistics.median(results['ceiling']):.1f} s, {rate:.0f} MB/s.", ""]
    for phase, title in TITLES.items():
        lines += [f"**{title[0].upper()}{title[1:]}**", "", "| | seconds | MB/s | as fast as Backstay by files | memory | written |",
                  "|---|---|---|---|---|---|"]
        ours = middle(results[phase][US], "seconds") if results[phase].get(US) else None
        for name, runs in results[phase].items():
            seconds = middle(runs, "seconds")
            least, most = spread(runs, "seconds")
            ratio = f"{ours / seconds:.2f}" if ours else ""
            lines.append(
                f"| {name} | {seconds:.1f} ({least:.1f} to {most:.1f}) | {found['megabytes'] / seconds:.0f} | {ratio} "
                f"| {middle(runs, 'memory') / 2**20:.0f} MiB | {middle(runs, 'added') / 1e6:.1f} MB |".replace("|  |", "| |"))
        lines.append("")
    return "\n".join(lines)


def plot(found):
    """Bars of megabytes a second, a group for each phase."""
    results = found["results"]
    names = list(next(iter(results[phase] for phase in TITLES)))
    colours = ["#0b6e4f", "#7fb69e", "#c25b2b", "#3b5b92", "#8a8a8a"]
    rates = {(phase, name): found["megabytes"] / middle(results[phase][name], "seconds") for phase in TITLES for name in names}
    top = max(rates.values())
    width, row, group = 760, 18, (len(names) * 18 + 34)
    height = group * len(TITLES) + 20
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
           f'<rect width="{width}" height="{height}" fill="white"/>']
    y = 10
    for phase, title in TITLES.items():
        out.append(f'<text x="10" y="{y + 12}" font-weight="bold">{title}, MB/s</text>')
        y += 20
        for number, name in enumerate(names):
            rate = rates[phase, name]
            bar = rate / top * (width - 270)
            out.append(f'<text x="150" y="{y + 12}" text-anchor="end">{name}</text>')
            out.append(f'<rect x="156" y="{y + 2}" width="{bar:.1f}" height="{row - 5}" fill="{colours[number % len(colours)]}"/>')
            out.append(f'<text x="{160 + bar:.1f}" y="{y + 12}">{rate:.0f}</text>')
            y += row
        y += 14
    return "\n".join(out + ["</svg>", ""])


def write(found, folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "peers.json").write_text(json.dumps(found, indent=1) + "\n")
    (folder / "peers.svg").write_text(plot(found))
    (folder / "peers.md").write_text("# Backstay and its peers\n\n![megabytes a second](peers.svg)\n\n" + table(found))
