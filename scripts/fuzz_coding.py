"""Search for damaged compressed files that break the reader, guided by coverage.

    pip install atheris
    python scripts/fuzz_coding.py container -max_total_time=300
    python scripts/fuzz_coding.py decompress -max_total_time=300
    python scripts/fuzz_coding.py archive -max_total_time=300

``container`` opens files, with and without salvage, and reads their chunks. ``decompress`` decodes files of a tiny
model. ``archive`` restores archives to a folder, which it must not leave (``tests/coding/forging_archives.py``). Most
mutations end with valid checksums, so that the search gets past them (``tests/coding/forging.py``). It starts from the
golden files and stops at the first exception that is not an error of input. Other arguments are those of libFuzzer:
options, a folder that keeps the files that reached something new, or a file that was found (``crash-…``), which is read
again.
"""

from __future__ import annotations

import collections
import io
import random
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "coding"))
with atheris.instrument_imports(include=["unsup.coding", "unsup.core.config", "unsup.core.reading"]):
    import forging
    import forging_archives

from unsup.coding.container import MAX_CHUNK_SIZE, Container
from unsup.coding.errors import CodingError, CorruptChunk
from unsup.core import memory

NAME = "made-binary"
FILES = [(forging.GOLDEN / f"{name}.unsup").read_bytes() for name in forging.NAMES]
COUNTS: collections.Counter[str] = collections.Counter()
READERS: list[forging.Reader] = []
ARCHIVES: list[forging_archives.Reader] = []


def container(data: bytes) -> None:
    """Open a file, and read what it states and its chunks."""
    for salvage in (False, True):
        with Container(io.BytesIO(data), "it", salvage=salvage) as file, memory.within(2**30):
            for info in file.infos():
                assert max(info.raw_size, info.coded_size) <= MAX_CHUNK_SIZE
                with suppress(CorruptChunk):
                    assert len(file.chunk(info.number)) == info.coded_size
            for item in (0, file.items // 2, file.items - 1):
                with suppress(forging.InputError):
                    number, position = file.locate(item)
                    assert file.info(number).items[position] == item


def examples(data: bytes) -> None:
    """Decode a file, and what salvage recovers of it."""
    for reader in READERS:
        with suppress(CodingError):
            reader.rescued(data)
    for reader in READERS:
        reader.decompress(data)


def archives(data: bytes) -> None:
    """Restore an archive, and what is undamaged of it."""
    with Container(io.BytesIO(data), "it", salvage=True) as file:
        wanted = file.header.get("model")
    reader = next((each for each in ARCHIVES if each.header["model"] == wanted), ARCHIVES[0])
    with suppress(forging.InputError):
        reader.restored(data, keep_going=True)
    reader.restored(data)


TARGETS = {"container": container, "decompress": examples, "archive": archives}


def mutator(data: bytes, most: int, seed: int) -> bytes:
    """Another file of at most ``most`` bytes, usually with valid checksums."""
    new = mutated(data, most, random.Random(seed))
    return new if len(new) <= most else data[:most]


def mutated(data: bytes, most: int, draw: random.Random) -> bytes:
    try:
        file = forging.Sealed.of(data)
    except CodingError:
        return atheris.Mutate(data, most) if draw.random() < 0.3 else forging.forged(draw.choice(FILES), draw, FILES[0])
    kind = draw.random()
    if ARCHIVES and kind > 0.3:
        return forging_archives.forged(data, draw, draw.choice(FILES))
    if kind < 0.1:
        return atheris.Mutate(data, most)
    if kind < 0.6 or not file.chunks:
        return forging.forged(data, draw, draw.choice(FILES))
    if kind < 0.75:
        return forging.replace(file, header=atheris.Mutate(file.header, 4096)).to_bytes()
    chunks = list(file.chunks)
    place = draw.randrange(len(chunks))
    chunks[place] = (chunks[place][0], atheris.Mutate(chunks[place][1], 4096))
    return file.with_chunks(chunks).to_bytes()


def main(words: list[str]) -> None:
    target = TARGETS[words[1]]
    if target is archives:
        ARCHIVES[:] = map(forging_archives.Reader, forging_archives.NAMES)
        FILES[:] = [reader.content for reader in ARCHIVES]
    if target is examples:
        READERS[:] = [forging.Reader(NAME)]
        FILES.append(READERS[0].with_notes().content)

    def run(data: bytes) -> None:
        COUNTS[forging.outcome(target, data)] += 1
        if COUNTS.total() % 500 == 0:
            print(f"outcomes of {COUNTS.total():,}: {dict(COUNTS.most_common())}", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as folder:
        for k, content in enumerate(FILES):
            Path(folder, f"{k}").write_bytes(content)
        seeds = [] if any(Path(word).is_file() for word in words[2:]) else [folder]
        limits = ["-max_len=8192", "-timeout=20", "-rss_limit_mb=2048", "-print_final_stats=1"]
        atheris.Setup([words[0], *limits, *words[2:], *seeds], run, custom_mutator=mutator)
        atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv)
