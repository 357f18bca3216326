"""Where the time of a command goes: a flame graph, and a table of the steps, of what `perf script --no-inline` says.

Hand-written assembler keeps no frame pointers: such functions stand at the bottom. The table goes by the function that
ran, so it is right all the same.
"""

import html
import re
from collections import Counter

# The first that matches the running function, or one that called it, names the step.
STEPS = [
    ("SHA-256", r"sha256|SHA256"),
    ("zstd", r"ZSTD|HUF_|FSE_|HIST_"),
    ("AES and Poly1305", r"aes_hw|aes_|poly1305|chacha|Poly1305"),
    ("scrypt: the repository's password", r"scrypt|salsa"),
    ("reading files (kernel)", r"sys_pread|sys_read|filemap_read"),
    ("writing files (kernel)", r"sys_pwrite|sys_write|fsync|syncfs|fdatasync"),
    ("memory (kernel)", r"page_fault|sys_mmap|sys_munmap|sys_madvise|mprotect"),
    ("opening, listing (kernel)", r"sys_open|sys_newfstat|sys_statx|sys_getdents|sys_close"),
    ("copying", r"memmove|memcpy|memset"),
    ("plugin: page checksums and logic", r"^wasm$|wasmtime"),
    # zstd's decoder of Huffman codes is one of these.
    ("assembler without names", r"^assembler$"),
]
WIDTH, ROW = 1000, 17


def stacks(lines):
    """Every sample's functions, outermost first."""
    stack, program = [], None
    for line in lines:
        if not line.strip():
            if program and stack:
                yield [program] + stack[::-1]
            stack, program = [], None
        elif not line[0].isspace():
            program = line.split()[0]
        else:
            name = re.sub(r"\+0x[0-9a-f]+$", "", line.split(None, 1)[1].rsplit(" (", 1)[0].strip())
            where = line.rsplit("(", 1)[1].rstrip(")\n")
            # Compiled plugins lie in memory that no file names to perf.
            if name == "[unknown]" and not stack and re.search(r"anon|JIT|memfd|\.cwasm|unknown", where):
                name = "wasm"
            if name == "[unknown]" and not stack and where.endswith("/backstay"):
                name = "assembler"
            stack.append(re.sub(r"::h[0-9a-f]{16}$", "", name))


def step(stack):
    for name, pattern in STEPS:
        if any(re.search(pattern, frame) for frame in stack):
            return name
    return "all else"


def tree(samples):
    root = {"count": 0, "below": {}}
    for stack, count in samples.items():
        root["count"] += count
        node = root
        for frame in stack:
            node = node["below"].setdefault(frame, {"count": 0, "below": {}})
            node["count"] += count
    return root


def boxes(node, total, x, depth, out):
    for name, below in sorted(node["below"].items()):
        width = below["count"] / total * WIDTH
        if width >= 0.4:
            out.append((x, depth, width, name, below["count"]))
            boxes(below, total, x, depth + 1, out)
        x += width


def colour(name):
    if re.search(r"^(__|do_|sys_|vfs_|ext4|entry_|asm_|exc_|filemap|folio|_raw|copy_|handle_mm|alloc)", name):
        return "#d9a05b"
    hue = 10 + sum(map(ord, name)) % 40
    return f"hsl({hue},75%,{62 + sum(map(ord, name)) % 12}%)"


def picture(title, samples):
    root, found = tree(samples), []
    boxes(root, root["count"], 0, 0, found)
    height = (max(depth for _, depth, *_ in found) + 1) * ROW + 40
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="monospace" font-size="11">',
           f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
           f'<text x="{WIDTH / 2}" y="20" text-anchor="middle" font-size="14">{html.escape(title)}: CPU time, {root["count"]} samples</text>']
    for x, depth, width, name, count in found:
        y = height - (depth + 1) * ROW - 8
        shown = html.escape(name if len(name) * 6.7 < width else name[:int(width / 6.7) - 2] + ".." if width > 30 else "")
        out.append(f'<g><title>{html.escape(name)} {count / root["count"]:.1%}</title><rect x="{x:.1f}" y="{y}" width="{width:.1f}" '
                   f'height="{ROW - 1}" fill="{colour(name)}"/><text x="{x + 3:.1f}" y="{y + 12}">{shown}</text></g>')
    return "\n".join(out + ["</svg>", ""])


def read(lines, programs=r"backstay|tokio|epoch"):
    """The samples in these lines, of some programs alone: `perf` has samples of its own start."""
    return Counter(tuple(stack) for stack in stacks(lines) if re.match(programs, stack[0]))


def table(title, columns, rate):
    """Seconds of a core for each step. A column: its name, samples of which there are `rate` in a second, and what cores
    did besides, in seconds by name."""
    steps = []
    for _, samples, _ in columns:
        steps.append(Counter())
        for stack, count in samples.items():
            steps[-1][step(stack)] += count
    lines = [f"| {title}, in seconds of a core | {' | '.join(name for name, _, _ in columns)} |", "|---" * (len(columns) + 1) + "|"]
    for name, _ in steps[0].most_common():
        lines.append(f"| {name} | {' | '.join(f'{step[name] / rate:.2f}' for step in steps)} |")
    lines.append(f"| all of it | {' | '.join(f'{step.total() / rate:.2f}' for step in steps)} |")
    for name in columns[0][2]:
        lines.append(f"| {name} | {' | '.join(f'{besides[name]:.2f}' for _, _, besides in columns)} |")
    return "\n".join(lines)
