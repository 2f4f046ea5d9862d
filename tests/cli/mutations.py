"""Seeded damage to the files of a folder: bytes, JSON, and what stands in a file's place."""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

WORDS = ("", "model", "nan", "../..", "\x1b[2J", "a\nb", "\u202e", "x" * 5000, "\ud800", "\udcff", "\x00")
NUMBERS = (-1, 0, 1, 2**31, 2**63, 2**64, 10**12, 10**30, -(10**12), 0.5, 1e308, -1e308, 1e-320)
SPELLED = ("NaN", "Infinity", "-Infinity", "1e999", "1" * 5000, "-0", "[" * 2000 + "]" * 2000, "[" * 60 + "]" * 60)


# --- bytes ------------------------------------------------------------------------------------------------------------


def flipped(content: bytes, rng: random.Random) -> bytes:
    found = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 3, 20))):
        if found:
            found[rng.randrange(len(found))] ^= 1 << rng.randrange(8)
    return bytes(found)


def truncated(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def inserted(content: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(content) + 1)
    return content[:at] + rng.randbytes(rng.choice((1, 4, 100))) + content[at:]


def doubled(content: bytes, rng: random.Random) -> bytes:
    start, end = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    return content[:end] + content[start:]


def zeroed(content: bytes, rng: random.Random) -> bytes:
    start, end = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    return content[:start] + bytes(end - start) + content[end:]


BYTES: tuple[Callable[[bytes, random.Random], bytes], ...] = (flipped, truncated, inserted, doubled, zeroed)


# --- JSON -------------------------------------------------------------------------------------------------------------


def places(value: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value in a JSON value."""
    found = [way]
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        found += places(inner, (*way, key))
    return found


def changed_json(text: str, rng: random.Random) -> str:
    """JSON with one thing in it changed."""
    value = json.loads(text)
    way = rng.choice(places(value))
    marker = "@@mutation@@"
    if not way:
        return rng.choice(("[]", "{}", "null", "3", '"text"', f"[{text}]", f"{text}{text}", *SPELLED))
    holder = value
    for key in way[:-1]:
        holder = holder[key]
    key, old = way[-1], holder[way[-1]]
    kind = rng.randrange(7)
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(key, str):
        del holder[key]
        holder[rng.choice((key + "x", key.upper(), "seed", "event", "name", "self", *WORDS[:4]))] = old
    elif kind == 2 and isinstance(key, str):  # the key twice
        holder[marker] = rng.choice((old, *NUMBERS))
        return json.dumps(value, indent=2).replace(f'"{marker}"', json.dumps(key))
    elif kind == 3:
        holder[key] = marker
        return json.dumps(value, indent=2).replace(f'"{marker}"', rng.choice(SPELLED))
    elif kind == 4:
        holder[key] = rng.choice(([], {}, [old], {"name": old}, None, True, False, str(old), [[old, old]]))
    elif kind == 5:
        holder[key] = rng.choice(NUMBERS)
    else:
        holder[key] = rng.choice(WORDS)
    return json.dumps(value, indent=2)


def changed_lines(text: str, rng: random.Random) -> str:
    """JSON lines with one of them changed, lost, moved or repeated."""
    lines = text.splitlines()
    if not lines:
        return "{}\n"
    at = rng.randrange(len(lines))
    kind = rng.randrange(5)
    if kind == 0:
        del lines[at]
    elif kind == 1:
        lines.insert(at, lines[at])
    elif kind == 2:
        lines.append(lines.pop(at))
    else:
        lines[at] = " ".join(changed_json(lines[at], rng).split("\n"))
    return "".join(line + "\n" for line in lines)


def changed_header(content: bytes, rng: random.Random) -> bytes:
    """A safetensors file with something in its header changed, its length mended so that it is read."""
    size = struct.unpack("<Q", content[:8])[0]
    header, rest = content[8 : 8 + size].decode(), content[8 + size :]
    told = json.loads(header)
    if rng.random() < 0.5 and "__metadata__" in told:
        told["__metadata__"]["record"] = changed_json(told["__metadata__"]["record"], rng)
        header = json.dumps(told)
    else:
        header = changed_json(header, rng)
    own = header.encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(own)) + own + rest


# --- files ------------------------------------------------------------------------------------------------------------


def _removed(path: Path) -> None:
    path.unlink()


def _emptied(path: Path) -> None:
    path.write_bytes(b"")


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def _device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


FILES: tuple[Callable[[Path], None], ...] = (_removed, _emptied, _folder, _pipe, _loop, _device)


def mutate(path: Path, rng: random.Random) -> str:
    """Damage the file at ``path`` and say how."""
    kind = rng.random()
    if kind < 0.08:
        change = rng.choice(FILES)
        change(path)
        return f"{change.__name__.strip('_')} {path.name}"
    content = path.read_bytes()
    if kind < 0.5 or path.suffix not in (".json", ".jsonl", ".safetensors"):
        damage = rng.choice(BYTES)
        path.write_bytes(damage(content, rng))
        return f"{damage.__name__} {path.name}"
    if path.suffix == ".safetensors":
        path.write_bytes(changed_header(content, rng))
        return f"header of {path.name}"
    change_text = changed_json if path.suffix == ".json" else changed_lines
    path.write_bytes(change_text(content.decode(), rng).encode("utf-8", "surrogatepass"))
    return f"{change_text.__name__} {path.name}"


def copied(source: Path, target: Path) -> Path:
    if target.is_dir():
        shutil.rmtree(target)
    shutil.copytree(source, target)
    return target
