"""``unsup compress RUN FILES -o FILE``: compress files losslessly with a run."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsup.cli.options import Parser, add_memory
from unsup.cli.show import note, write, write_json
from unsup.core.errors import InputError, TrainingError
from unsup.core.words import counted

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from unsup.coding.chunks import ChunkCoder
    from unsup.coding.packing import Packed, Source
    from unsup.core.model import Model
    from unsup.train.runs import Run

_BATCH = 16  # examples whose likelihood is computed at once
_OF_TRAINING = ("given", "limit", "unlabelled", "domain_b", "labels", "label_seed")  # not of test examples


def main(arguments: Sequence[str]) -> int:
    parser = Parser(
        prog="unsup compress",
        description="Compress files losslessly with a run, or describe a compressed file (--info).",
        epilog="unsup decompress restores the files; it needs the same run.",
    )
    parser.add_argument("words", nargs="*", metavar="RUN FILE", help="a run folder; files, folders or a data set")
    parser.add_out("the compressed file", metavar="FILE")
    parser.add_argument("--info", metavar="FILE", help="describe a compressed file instead")
    parser.add_argument(
        "--whole-files",
        action="store_true",
        help="restore every file byte for byte; otherwise images are restored with the same pixels",
    )
    parser.add_argument(
        "--native",
        action="store_true",
        help="compute in the type of the model: faster, but the file can be decoded in this environment only",
    )
    parser.add_argument(
        "--verify",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="decode the file in another process, and compare, before it gets its name [yes]",
    )
    parser.add_argument("--json", action="store_true", help="write JSON")
    add_memory(parser)
    options = parser.parse(arguments)
    if options.info is not None:
        if options.words or options.out is not None:
            raise InputError(f"--info {options.info} describes a file; remove the other words")
        return _describe(options.info, as_json=options.json)
    if len(options.words) < 2:
        raise InputError("expected a run and the files to compress: unsup compress RUN FILES -o FILE")
    if options.out is None:
        raise InputError("expected the name of the compressed file: -o FILE")

    from unsup.coding.chunks import ChunkCoder
    from unsup.train.runs import open_model

    run = open_model(options.words[0])
    model = run.model
    profile: Any = "native" if options.native else "portable"
    coder = ChunkCoder(model, profile)
    sources = _sources(options.words[1:], run)
    out = Path(options.out)
    for source in sources:
        if source.path is not None and out.exists() and source.path.samefile(out):
            raise InputError(f"{out} is one of the files to compress; choose another name (-o FILE)")
    ideal = _Ideal(coder)
    started = time.monotonic()
    with _finished(out) as temporary:
        packed = _compressed(temporary, run, model, coder, sources, options, profile, ideal)
        seconds, size = time.monotonic() - started, temporary.stat().st_size
        started = time.monotonic()
        if options.verify:
            _verify(temporary, options.words[0], sources, native=options.native)
        verified = time.monotonic() - started if options.verify else None
    record = _record(packed, coder, ideal, model, size) | {
        "file": str(out),
        "profile": profile,
        "seconds": seconds,
        "verified_seconds": verified,
    }
    if options.json:
        write_json(record)
    else:
        _show(record, packed, model, run)
    return 0


def _sources(words: Sequence[str], run: Run) -> list[Source]:
    """The files; the name of a data set is its test split."""
    from unsup.coding.packing import Source, sources_of
    from unsup.data.catalog import CATALOG

    named = [word for word in words if word in CATALOG and not Path(word).exists()]
    found = []
    for word in named:
        from unsup.data.load import load_data

        recorded = run.config.get("data") or {}
        options = recorded.get("options", {}) if recorded.get("name") == word else {}
        kept = {k: v for k, v in options.items() if k not in _OF_TRAINING}
        found.append(Source(f"{word}-test.npy", array=load_data(word, **kept).test.x.numpy()))
    paths = [word for word in words if word not in named]
    return found + (sources_of(paths) if paths else [])


@contextlib.contextmanager
def _finished(out: Path) -> Iterator[Path]:
    """A temporary file beside ``out``, which gets its name at the end, and is removed if the work is interrupted."""
    from unsup.core.signals import signals_to
    from unsup.core.targets import file_target, make_folder

    target = file_target(out)
    make_folder(target.parent)
    temporary = target.with_name(f".{target.name}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        with signals_to(_stop, "SIGTERM", "SIGHUP"):
            yield temporary
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _stop(number: int, frame: object) -> None:
    raise KeyboardInterrupt(number)


def _compressed(
    temporary: Path,
    run: Run,
    model: Model,
    coder: ChunkCoder,
    sources: list[Source],
    options: Any,
    profile: Any,
    ideal: _Ideal,
) -> Packed:
    from unsup.coding.packing import write_archive

    total = sum(source.size for source in sources)
    with shown_bytes(total, "compressing") as on_bytes, temporary.open("xb") as file:
        packed = write_archive(
            file,
            model,
            coder,
            sources,
            run=options.words[0],
            profile=profile,
            form=run.form,
            whole_files=options.whole_files,
            on_bytes=on_bytes,
            on_model=ideal.add,
        )
        file.flush()
        os.fsync(file.fileno())
    return packed


@contextlib.contextmanager
def shown_bytes(total: int, what: str) -> Iterator[Callable[[int], None]]:
    """Show the progress of ``total`` bytes; the function takes the number of further bytes.

    Args:
        what: what is done with them.
    """
    from unsup.core.steps import heard_by
    from unsup.train.progress import Progress

    done, size = 0, max(1, total // 1000)
    with Progress("auto", unit=f"{what}, kB", start=0) as display:

        def show(kilobytes: float) -> None:
            if display.due():
                display.show(min(kilobytes, size), size, {})

        def on_bytes(count: int) -> None:
            nonlocal done
            done += count
            show(done / 1000)

        def on_step(step: int, steps: int) -> None:
            block = min(2**22, total - done)  # about what is coded at once
            show((done + block * step / steps) / 1000)

        with heard_by(on_step):
            yield on_bytes


def _verify(path: Path, run: str, sources: Sequence[Source], *, native: bool) -> None:
    """Decode the file in another process, with other threads, instructions and batches; compare with the sources."""
    import torch

    from unsup.coding.archive import digest_of

    environment = dict(os.environ)
    threads = torch.get_num_threads()
    if native:
        environment["OMP_NUM_THREADS"] = str(threads)
    else:
        environment["OMP_NUM_THREADS"] = "1" if threads > 1 else "2"
        lower = {"AVX512": "avx2", "AVX2": "default"}.get(torch.backends.cpu.get_cpu_capability())
        if lower is not None:
            environment |= {"ATEN_CPU_CAPABILITY": lower, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    words = [sys.executable, "-m", "unsup", "decompress", str(path), "--run", run, "--check", "--json"]
    done = subprocess.run(words, env=environment, stdout=subprocess.PIPE, check=False)
    name = path.name.removeprefix(".").removesuffix(".tmp")
    if done.returncode:
        raise TrainingError(f"{name} could not be decoded in another process (see above); nothing was written")
    digests = json.loads(done.stdout)["digests"]
    different = [
        source.name
        for source in sources
        if list(digest_of(source.parts(), is_image=digests.get(source.name, [""])[0] == "pixels"))
        != digests.pop(source.name, None)
    ]
    if different or digests:
        shown = ", ".join([*different, *digests][:3])
        raise TrainingError(
            f"{name} is not decoded to the same files ({shown}); nothing was written; compress again if a file was "
            "changed meanwhile, else report this"
        )


class _Ideal:
    """Adds up the −log2 p of the examples that the model has coded, of the entries that are not missing.

    Attributes:
        bits: their sum.
        mask: the bits of the file that mark missing entries.
        entries: the number of the others.
    """

    def __init__(self, coder: ChunkCoder) -> None:
        import torch

        self.model = coder.scheme.model
        self.bits, self.mask, self.entries, self.examples = 0.0, 0.0, 0, 0
        self.generator = torch.Generator().manual_seed(0)

    def add(self, x: Tensor) -> None:
        import torch

        from unsup.coding.autoregressive import mask_bits
        from unsup.core.model import HasDensity

        assert isinstance(self.model, HasDensity)
        with torch.no_grad():
            for part in x.split(_BATCH):
                log_prob = self.model.log_prob(part, generator=self.generator)
                self.bits -= float(log_prob.double().sum()) / math.log(2)
        self.entries += x.numel()
        if self.model.event.missing:
            self.mask += mask_bits(x)
            self.entries -= int(x.isnan().sum())
        self.examples += len(x)


def _record(packed: Packed, coder: ChunkCoder, ideal: _Ideal, model: Model, size: int) -> dict[str, Any]:
    from unsup.core.model import HasDensity

    name = coder.scheme.name
    coded = packed.ways.get(name, 0)
    kind = model.likelihood_kind if isinstance(model, HasDensity) else "exact"
    return {
        "files": packed.files,
        "files_with_model": packed.with_model,
        "files_without_model": packed.why,
        "examples_without_model": packed.otherwise,
        "original_bytes": packed.size,
        "bytes": size,
        "coded_bytes": packed.ways,
        "header_bytes": size - sum(packed.ways.values()),
        "model_bytes": sum(t.numel() * t.element_size() for t in model.state_dict().values()),
        "coder": name,
        "examples": ideal.examples,
        "entries": ideal.entries,
        "mask_bytes": math.ceil(ideal.mask / 8),
        "bits_per_dim": 8 * coded / ideal.entries if ideal.entries else None,
        "model_bits_per_dim": ideal.bits / ideal.entries if ideal.entries and model.event.is_discrete else None,
        "likelihood": kind,
        # Of the entries that are not missing. The bits of real entries depend on their unit.
        "gap": (8 * coded - ideal.mask) / ideal.bits - 1 if model.event.is_discrete and ideal.bits > 0 else None,
    }


def _show(record: dict[str, Any], packed: Packed, model: Model, run: Run) -> None:
    size, original = record["bytes"], record["original_bytes"]
    ratio = f", {original / size:.2f} times smaller" if size < original else ""
    write(f"{record['file']}: {counted(record['files'], 'file')}, {original:,} bytes → {size:,} bytes{ratio}")
    if record["entries"]:
        coded = record["coded_bytes"].get(record["coder"], 0)
        write(
            f"  with the model  {coded:,} bytes for {counted(record['examples'], 'example')} by {record['coder']}: "
            f"{record['bits_per_dim']:.4f} bits/dim"
        )
    if record["mask_bytes"]:
        write(f"  of these, {record['mask_bytes']:,} bytes mark the empty cells")
    if record["gap"] is not None:
        sign = "" if record["likelihood"] == "exact" else "≤ "
        what = "the model's −log2 p" if record["likelihood"] == "exact" else "the model's bound on −log2 p"
        write(
            f"  {what}: {sign}{record['model_bits_per_dim']:.4f} bits/dim; "
            f"{'the rest' if record['mask_bytes'] else 'the file'} is {100 * record['gap']:+.2f} % from it"
        )
    for name in ("zstandard", "stored"):
        if record["coded_bytes"].get(name):
            write(f"  {name:<15} {record['coded_bytes'][name]:,} bytes")
    write(f"  header, names, index  {record['header_bytes']:,} bytes")
    write(f"  model  {record['model_bytes']:,} bytes in {run.path}: not in the file, and needed to decode it")
    if packed.otherwise:
        write(f"  {counted(packed.otherwise, 'example')} without the model: shorter with zstandard")
    for reason, number in packed.why.items():
        write(f"  {counted(number, 'file')} without the model: {reason}")
    if record["verified_seconds"] is not None:
        write(f"  verified: decoded to the same data in another process ({record['verified_seconds']:.0f} s)")
    if size >= original:
        note("the file is not smaller than the originals; the model does not fit them")


def _describe(path: str, *, as_json: bool) -> int:
    from unsup.coding.archive import Archive, is_archive
    from unsup.coding.container import Container

    with Container.open(path) as container:
        header = container.header
        archive = Archive(container) if is_archive(container) else None
        records = set() if archive is None else archive.records
        ways: dict[str, int] = {}
        for info in container.infos():
            if info.number not in records:
                name = header["coders"][info.coder]["name"]
                ways[name] = ways.get(name, 0) + info.coded_size
        size = Path(path).stat().st_size
        model = header.get("model", {"name": "none", "hash": ""})
        record: dict[str, Any] = {
            "file": path,
            "bytes": size,
            "header_bytes": size - sum(ways.values()),
            "format": ".".join(map(str, container.version)),
            "writer": header["writer"],
            "profile": header["profile"],
            "model": dict(model),
            "chunks": container.chunks,
            "decoded_bytes": container.totals.raw_size,
            "coded_bytes": ways,
        }
        files: list[tuple[int, str, int]] = []
        if archive is not None:
            files = archive.files
            record |= {"run": archive.run, "items": archive.items, "files": [[name, n] for _, name, n in files]}
        else:
            record |= {"items": container.items}
    if as_json:
        write_json(record)
        return 0
    write(f"{path}: {record['bytes']:,} bytes, format {record['format']}, {record['profile']}, by {record['writer']}")
    write(f"  model  {model['name']} {model['hash'][:12]}" + (f" ({record['run']})" if record.get("run") else ""))
    held = f"{counted(record['items'], 'item')} in {counted(record['chunks'], 'chunk')}"
    write(f"  {held}, decoded {record['decoded_bytes']:,} bytes")
    for name, coded in ways.items():
        write(f"  {name}  {coded:,} bytes")
    write(f"  header, names, index  {record['header_bytes']:,} bytes")
    first = 0
    for _, name, items in files[:20]:
        write(f"  {first:>8,}  {name}" + (f"  ({items:,} examples)" if items != 1 else ""))
        first += items
    if len(files) > 20:
        write(f"  … and {counted(len(files) - 20, 'file')} more (--json lists all)")
    return 0
