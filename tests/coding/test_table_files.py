"""Tables come back byte for byte, with what the model does not know beside it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import unsup
from unsup.coding.archive import Archive
from unsup.coding.chunks import ChunkCoder
from unsup.coding.container import Container
from unsup.coding.packing import sources_of, write_archive
from unsup.core.model import Model
from unsup.data.form import Form
from unsup.train.trainer import fit

HEADER = "kind,n,price,day,id,flag"


def lines(n: int, seed: int = 0) -> list[str]:
    """Rows whose price and count depend on the kind; the last columns are not for models."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(n):
        k = int(rng.integers(3))
        day = np.datetime64("2024-01-01") + int(rng.integers(90))
        found.append(f"{'abc'[k]},{rng.poisson(3 * k + 1)},{10 * k + rng.normal():.2f},{day},{i:05d}-x,{'ny'[i % 2]}")
    return found


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Form]:
    path = tmp_path_factory.mktemp("table") / "train.csv"
    path.write_text("\n".join([HEADER, *lines(400)]) + "\n")
    data = unsup.load_data(path, drop=("id",))
    model = unsup.create("gaussian-mixture", data, components=3, seed=0)
    fit(model, data, progress="off")
    assert data.form is not None
    return model, data.form


def packed(trained: tuple[Model, Form], path: Path) -> tuple[bytes, dict[str, int]]:
    model, form = trained
    file = io.BytesIO()
    found = write_archive(file, model, ChunkCoder(model), sources_of([path]), form=form)
    return file.getvalue(), found.why


def restored(trained: tuple[Model, Form], data: bytes, out: Path, only: range | None = None) -> bytes:
    archive = Archive(Container(io.BytesIO(data), "it"))
    (name,) = archive.restore(out, archive.coder(trained[0]), only=only)
    return (out / name).read_bytes()


CASES = {
    "plain": "\n".join([HEADER, *lines(500)]) + "\n",
    "no newline at the end": "\n".join([HEADER, *lines(100)]),
    "carriage returns": "\r\n".join([HEADER, *lines(100)]) + "\r\n",
    "byte order mark": "\ufeff" + "\n".join([HEADER, *lines(100)]) + "\n",
    "other order": "\n".join(["flag,id,day,price,n,kind", *(",".join(row.split(",")[::-1]) for row in lines(100))])
    + "\n",
    "other digits": "\n".join([HEADER, *(row.replace(".", ".00", 1) for row in lines(90))]) + "\n",
    "quotes": "\n".join(
        [HEADER, *(row.replace("-x", '"",""x').replace(",0", ',"0', 1) for row in lines(0)), *lines(50)]
    )
    + "\n",
    "words of other languages": "\n".join([HEADER, *(row.replace("-x", "-ж") for row in lines(100))]) + "\n",
}


@pytest.mark.parametrize("name", CASES)
def test_a_table_comes_back_byte_for_byte(name: str, trained: tuple[Model, Form], tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(CASES[name].encode())
    data, why = packed(trained, path)
    assert why == {}
    assert restored(trained, data, tmp_path / "out") == path.read_bytes()


KEPT = {
    "missing column": "\n".join(["kind,n", *(",".join(row.split(",")[:2]) for row in lines(50))]) + "\n",
    "quoted without need": "\n".join([HEADER, *(f'"{row[0]}"{row[1:]}' for row in lines(50))]) + "\n",
    "latin-1": "\n".join([HEADER, *(row.replace("-x", "-ä") for row in lines(50))]) + "\n",
    "empty": "",
    "header only": HEADER + "\n",
    "no table": "once upon a time\nthere was\n",
}


@pytest.mark.parametrize("name", KEPT)
def test_other_files_are_kept_as_they_are(name: str, trained: tuple[Model, Form], tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(KEPT[name].encode("latin-1" if name == "latin-1" else "utf-8"))
    data, why = packed(trained, path)
    assert sum(why.values()) == 1
    assert restored(trained, data, tmp_path / "out") == path.read_bytes()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cells=st.lists(
        st.tuples(
            st.sampled_from("abc"),
            st.integers(-3, 300).map(str),
            st.one_of(
                st.decimals(-1000, 1000, places=2).map(str),
                st.floats(allow_nan=False, allow_infinity=False, width=32).map(repr),
                st.sampled_from(["-0.0", "1e5", "007", "+3", "1.", ".5", "0.30000000000000004", "1e300", "-0"]),
            ),
            st.sampled_from(["2024-02-29", "1969-12-31", "2030-01-01"]),
            st.text(max_size=5),
            st.sampled_from("ny"),
        ),
        min_size=1,
        max_size=30,
    ),
    more=st.booleans(),
)
def test_any_cells(cells: list[tuple[str, ...]], more: bool, trained: tuple[Model, Form], tmp_path: Path) -> None:
    import csv
    import uuid

    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([HEADER.split(","), *cells])
    body = text.getvalue() + ("\n".join(lines(60)) + "\n" if more else "")
    folder = tmp_path / uuid.uuid4().hex
    folder.mkdir()
    path = folder / "rows.csv"
    path.write_bytes(body.encode("utf-8", "surrogatepass"))
    data, _ = packed(trained, path)
    assert restored(trained, data, folder / "out") == path.read_bytes()


def test_some_rows_of_a_table(trained: tuple[Model, Form], tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    rows = lines(9000)
    path.write_text("\n".join([HEADER, *rows]) + "\n")
    data, _ = packed(trained, path)
    for only in (range(5, 9), range(4000, 4100), range(8999, 9000)):
        out = tmp_path / str(only.start)
        assert restored(trained, data, out, only).decode() == "\n".join([HEADER, *rows[only.start : only.stop]]) + "\n"


def test_the_model_is_a_gain(trained: tuple[Model, Form], tmp_path: Path) -> None:
    import lzma

    path = tmp_path / "rows.csv"
    path.write_text("\n".join([HEADER, *lines(5000, seed=7)]) + "\n")
    data, why = packed(trained, path)
    assert why == {}
    assert len(data) < 0.75 * len(lzma.compress(path.read_bytes(), preset=9))
