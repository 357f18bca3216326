#!/usr/bin/env python3
"""Reads a Backstay log with Backstay gone. Format: docs/src/formats/log.md.

  restic -r REPOSITORY cat masterkey > key.json
  restic -r REPOSITORY cat config               # shows the repository's id
  read_log.py key.json REPOSITORY list                    targets, pieces, notes
  read_log.py key.json REPOSITORY extract TARGET FOLDER   every log file and note

REPOSITORY is a local folder (copy a bucket with rclone first). Needs the packages
`cryptography` and `zstandard`. Ends with 1 when anything is damaged, or log is missing between pieces or epochs.
"""

import base64
import hashlib
import json
import pathlib
import re
import struct
import sys

import zstandard
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.poly1305 import Poly1305

MAGIC = b"BKSTLOG\x01"
PIECE = re.compile(r"(\d{20})/(\d{20})(?:-(\d{20})-(.+))?")


class Damaged(Exception):
    pass


class Key:
    """The repository's master key: restic's sealing, AES-256-CTR and Poly1305-AES."""

    def __init__(self, text):
        key = json.loads(text)
        self.encrypt = base64.b64decode(key["encrypt"])
        self.k = base64.b64decode(key["mac"]["k"])
        self.r = base64.b64decode(key["mac"]["r"])

    def open(self, sealed):
        iv, text, mac = sealed[:16], sealed[16:-16], sealed[-16:]
        aes = Cipher(algorithms.AES(self.k), modes.ECB()).encryptor()
        try:
            Poly1305.verify_tag(self.r + aes.update(iv), text, mac)
        except Exception:
            raise Damaged("the authentication code does not fit") from None
        return Cipher(algorithms.AES(self.encrypt), modes.CTR(iv)).decryptor().update(text)


def read(key, repository, target, root, name):
    """One object: its header and its content, verified."""
    data = (root / name).read_bytes()
    if data[:8] != MAGIC:
        raise Damaged("it is not a log object of version 1")
    (length,) = struct.unpack_from("<I", data, 8)
    if not 32 <= length <= 65536 + 32 or 12 + length > len(data):
        raise Damaged("its header's length makes no sense")
    header = json.loads(key.open(data[12 : 12 + length]))
    if (header["repository"], header["target"], header["object"]) != (repository, target, name):
        raise Damaged("it was written for another place")
    if header["body"] != len(data) - 12 - length or header["length"] > 64 << 20:
        raise Damaged("its length is not what its header says")
    frame = key.open(data[12 + length :])
    content = zstandard.ZstdDecompressor().decompress(frame, max_output_size=64 << 20) if header["length"] else b""
    if len(content) != header["length"] or hashlib.sha256(content).hexdigest() != header["sha256"]:
        raise Damaged("its content is not what its header says")
    return header, content


def pieces(key, repository, target, root, complain):
    """The chain: per epoch the pieces in order, merged ones first, each byte once."""
    epochs = {}
    for path in sorted(root.glob("[0-9]*/*")):
        name = path.relative_to(root).as_posix()
        match = PIECE.fullmatch(name)
        if match:
            try:
                header, content = read(key, repository, target, root, name)
            except Damaged as error:
                complain(f"{target}/{name}: {error}")
                continue
            epochs.setdefault(int(match[1]), []).append((match[3] is None, header["piece"], content))
    for epoch, found in sorted(epochs.items()):
        at = None
        while True:
            fits = [f for f in found if at is not None and f[1]["end"] > at and f[1]["start"] <= at]
            # An appended piece links only where it starts exactly at the end of the one before.
            fits = [f for f in fits if not f[0] or f[1]["start"] == at]
            later = [f for f in found if at is None or f[1]["start"] > at]
            if fits:
                best = min(fits, key=lambda f: (f[0], -f[1]["end"]))
            elif later:
                best = min(later, key=lambda f: (f[1]["start"], f[0], -f[1]["end"]))
            else:
                break
            yield epoch, at, best[1], best[2]
            at = best[1]["end"]


def lost_links(chain):
    """Where an epoch does not go on from the one it follows. `chain`: of each epoch the pieces in order."""
    for epoch, found in list(chain.items())[1:]:
        start, left = found[0]["start"], found[0]["follows"]
        if left is None:
            yield f"log is missing before {start} of epoch {epoch}, which does not say what it follows"
            continue
        there, offset = chain.get(left["epoch"], []), left["offset"]
        if any(piece["start"] <= offset <= piece["end"] for piece in there):
            if start > offset:
                yield f"log is missing from {offset} to {start} of epoch {epoch}"
        elif there and there[-1]["end"] < offset:
            yield f"log is missing from {there[-1]['end']} to {offset} of epoch {left['epoch']}"
        # Older than all that is left: a prune took it, and the log begins here.
        elif not there and left["epoch"] > min(chain):
            yield f"log is missing up to {offset} of epoch {left['epoch']}, which epoch {epoch} follows"


def main():
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    key = Key(pathlib.Path(sys.argv[1]).read_text())
    folder = pathlib.Path(sys.argv[2])
    repository = json.loads(key.open((folder / "config").read_bytes()))["id"]
    damaged = 0

    def complain(what):
        nonlocal damaged
        damaged += 1
        print(f"damaged: {what}", file=sys.stderr)

    targets = [folder / "logs" / sys.argv[4]] if sys.argv[3] == "extract" else sorted((folder / "logs").iterdir())
    into = pathlib.Path(sys.argv[5]) if sys.argv[3] == "extract" else None
    if into:
        into.mkdir(parents=True, exist_ok=True)
    for root in targets:
        target = root.name
        print(f"target {target}")
        for name in ["identity", "confirmed"] + sorted(p.relative_to(root).as_posix() for p in root.glob("notes/*")):
            if not (root / name).exists():
                continue
            try:
                _, content = read(key, repository, target, root, name)
            except Damaged as error:
                complain(f"{target}/{name}: {error}")
                continue
            print(f"  {name}: {content.decode() if '/' not in name else f'{len(content)} bytes'}")
            if into and "/" in name:
                (into / name.split("/")[1]).write_bytes(content)
        chain = {}
        for epoch, at, piece, content in pieces(key, repository, target, root, complain):
            chain.setdefault(epoch, []).append(piece)
            if at is not None and piece["start"] > at:
                complain(f"{target}: log is missing from {at} to {piece['start']} of epoch {epoch}")
            print(f"  epoch {epoch} {piece['start_label']} to {piece['end_label']}: {piece['file']}")
            if into:
                with open(into / piece["file"], "r+b" if (into / piece["file"]).exists() else "w+b") as file:
                    file.seek(piece["file_offset"])
                    file.write(content)
        for lost in lost_links(chain):
            complain(f"{target}: {lost}")
    sys.exit(1 if damaged else 0)


if __name__ == "__main__":
    main()
