"""JSON from a folder is not trusted, and what is written goes where it was sent and nowhere else."""

from __future__ import annotations

import json
import logging
import os
from typing import Any, NotRequired, TypedDict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import unsup
from unsup.core import memory
from unsup.core.config import check_value
from unsup.core.errors import InputError
from unsup.core.event import BINARY, REAL, Event, Support
from unsup.core.logbook import read_log
from unsup.core.part import Part
from unsup.core.reading import difference, parse_json, read_json
from unsup.core.registry import create
from unsup.core.storage import load_model, load_tensors, save_tensors, set_aside, write_file
from unsup.train.runs import Run


class _Inner(TypedDict):
    n: int
    share: NotRequired[float]


class _Outer(TypedDict):
    name: str
    inner: _Inner
    rows: list[_Inner]


GOOD = {"name": "a", "inner": {"n": 1, "share": 0.5}, "rows": [{"n": 2}]}

BROKEN = {
    "empty": "",
    "no JSON": "{",
    "two values": "{}{}",
    "no mapping": "[]",
    "a number": "3",
    "nothing": "null",
    "a key twice": '{"name": "a", "name": "b", "inner": {"n": 1}, "rows": []}',
    "a missing key": '{"name": "a", "rows": []}',
    "a wrong type": '{"name": 3, "inner": {"n": 1}, "rows": []}',
    "a wrong type inside": '{"name": "a", "inner": {"n": "1"}, "rows": []}',
    "a wrong type in a list": '{"name": "a", "inner": {"n": 1}, "rows": [{"n": true}]}',
    "NaN": '{"name": "a", "inner": {"n": 1, "share": NaN}, "rows": []}',
    "a number too large for a float": '{"name": "a", "inner": {"n": 1, "share": 1' + "0" * 400 + '}, "rows": []}',
    "digits without end": '{"name": "a", "inner": {"n": 1' + "0" * 5000 + '}, "rows": []}',
    "nested": "[" * 100_000,
    "nested a little": '{"name": "a", "inner": {"n": 1}, "rows": ' + "[" * 60 + "]" * 60 + "}",
    "no text": '{"name": "\\ud800", "inner": {"n": 1}, "rows": []}',
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_what_is_wrong_in_a_file_is_one_line_with_its_name(text, tmp_path):
    path = tmp_path / "record.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"record\.json") as caught:
        read_json(path, _Outer)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_the_field_is_named():
    for change, field in (
        ({"inner": {"n": None}}, "inner.n"),
        ({"rows": [{"n": 1}, {"n": "x"}]}, r"rows\[1\].n"),
        ({"inner": {}}, "'n'"),
    ):
        with pytest.raises(InputError, match=field):
            check_value("it", GOOD | change, _Outer)
    assert check_value("it", GOOD, _Outer) == GOOD
    assert check_value("it", GOOD | {"later": 1}, _Outer) == GOOD | {"later": 1}  # what a later version adds stays


@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "loop", "nothing", "bytes"])
def test_what_is_no_text_file_is_refused_at_once(kind, tmp_path):
    path = tmp_path / "record.json"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "bytes":
        path.write_bytes(b'{"name": "\xff\xfe"}')
    with pytest.raises(InputError, match=r"record\.json"):
        read_json(path, _Outer)


def test_a_file_too_large_is_not_read(tmp_path):
    path = tmp_path / "record.json"
    path.write_text(json.dumps(GOOD | {"name": "x" * 10_000}))
    with memory.within(100_000), pytest.raises(InputError, match="too large to read"):
        read_json(path, _Outer)
    tensors = tmp_path / "sparse.safetensors"
    with tensors.open("wb") as file:
        file.truncate(2**40)
    with memory.within(2**33), pytest.raises(InputError, match="memory"):
        load_tensors(tensors)


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
NAMES = st.sampled_from(["shape", "support", "layout", "precision", "open", "name", "options", "frozen", "x"])
JSON = st.recursive(LEAVES, lambda v: st.lists(v, max_size=3) | st.dictionaries(NAMES, v, max_size=5), max_leaves=12)


@settings(max_examples=500, deadline=None)
@given(JSON)
def test_any_json_is_an_event_and_a_part_or_is_refused(value):
    for kind in (Event, Part):
        try:
            found = kind.from_json(value)
        except InputError:
            continue
        assert kind.from_json(found.to_json()) == found


EVENTS = st.fixed_dictionaries(
    {
        "shape": st.lists(st.integers(-1, 4) | LEAVES, max_size=5),
        "support": st.lists(
            st.lists(st.sampled_from(["binary", "ordinal", "nominal", "real"]) | LEAVES, max_size=3)
            | st.tuples(st.sampled_from(["binary", "ordinal", "nominal", "real"]), st.integers(), st.integers()),
            max_size=3,
        ),
        "layout": st.sampled_from(["scalar", "vector", "image", "sequence", "video"]) | LEAVES,
    },
    optional={"precision": st.sampled_from(["float32", "float64"]) | LEAVES, "open": LEAVES},
)


@settings(max_examples=500, deadline=None)
@given(EVENTS)
def test_what_nearly_is_an_event_is_one_that_keeps_its_rules_or_is_refused(value):
    try:
        event = Event.from_json(value)
    except InputError:
        return
    assert Event.from_json(event.to_json()) == event
    assert (len(event.shape) == 3) >= event.is_image
    assert all(-(2**63) <= s.low <= s.low + s.levels <= 2**63 for s in event._distinct)


def test_events_survive_json():
    for event in (
        Event((2,), (REAL, Support("ordinal", 3, low=-5))),
        Event((), Support("nominal", 4)),
        Event((1, 8, 8), BINARY),
        Event((5,), Support("nominal", 4), layout="sequence", open=True),
        Event((3,), REAL, precision="float64"),
    ):
        assert Event.from_json(parse_json(json.dumps(event.to_json()))) == event


# --- one truth about a model ------------------------------------------------------------------------------------------


def _ways(value: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict):
        return [w for k, v in value.items() for w in _ways(v, (*way, k))]
    if isinstance(value, list):
        return [w for i, v in enumerate(value) for w in _ways(v, (*way, i))]
    return [way]


def _other(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, (int, float)) else 1 if value is None else f"{value}x"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run, and the same model in a folder of its own."""
    root = tmp_path_factory.mktemp("trained")
    data = unsup.load_data("moons", n=200)
    model = create("vae", data.event, preset="tiny", prior=Part("made", {"hidden": (5,)}))
    unsup.fit(model, data, out=root / "run", steps=2, progress="off")
    model.save(str(root / "saved"))
    return root


@pytest.mark.parametrize("folder", ["run", "saved"])
def test_every_field_that_differs_from_the_checkpoint_is_refused_and_named(trained, folder):
    path = trained / folder / "config.json"
    text = path.read_text()
    record = json.loads(text)
    told = 0
    try:
        for way in _ways(record):
            if way in ((("digest",)), ("data", "name")):  # the data's own matters
                continue
            changed = json.loads(text)
            holder = changed
            for key in way[:-1]:
                holder = holder[key]
            holder[way[-1]] = _other(holder[way[-1]])
            path.write_text(json.dumps(changed))
            with pytest.raises(InputError) as caught:
                load_model(trained / folder) if folder == "saved" else Run(trained / folder).config
            said = str(caught.value)
            names = [k for k in way if isinstance(k, str)]
            assert "\n" not in said
            # What no reader would take is refused before it is compared.
            assert "does not match" in said or "is damaged" in said or "has layout" in said, said
            assert names[-1] in said, (way, said)
            told += "does not match" in said
    finally:
        path.write_text(text)
    assert told > 10
    load_model(trained / folder)


def test_it_is_said_where_the_last_parameters_stand_in_for_lost_ones(trained, caplog):
    best = trained / "run" / "checkpoints" / "best.safetensors"
    content = best.read_bytes()
    load_model(trained / "run")
    assert not caplog.records
    best.unlink()
    try:
        load_model(trained / "run")
    finally:
        best.write_bytes(content)
    assert any("the best parameters are lost" in r.getMessage() for r in caplog.records)


def test_differences_are_told_by_the_way_to_them():
    names = ("a", "b")
    assert difference({"x": [1, {"y": 2}]}, {"x": [1, {"y": 2}]}, names) is None
    assert difference({"x": [1, {"y": 2}]}, {"x": [1, {"y": 3}]}, names) == "x[1].y is 2 in a and 3 in b"
    assert difference({"x": 1}, {}, names) == "x is not in b"
    assert difference({"x": 1}, {"x": 1, "z": 2}, names) == "z is not in a"
    assert difference({"x": 1}, {"x": True}, names) == "x is 1 in a and True in b"
    assert difference({"x": [1]}, {"x": [1, 2]}, names) == "x is [1] in a and [1, 2] in b"


# --- the log ----------------------------------------------------------------------------------------------------------

POINT = b'{"step": 1, "seconds": 0.5, "loss": 2.0}'
NO_POINTS = (
    b"",
    b"{",
    b"[]",
    b"3",
    b'"text"',
    b"\xff\xfe",
    b'{"seconds": 1.0}',
    b'{"step": "many", "seconds": 1.0}',
    b'{"step": -1, "seconds": 1.0}',
    b'{"step": 1e9, "seconds": 1.0}',
    b'{"step": 1, "seconds": NaN}',
    b'{"step": 1, "seconds": 1.0, "loss": "high"}',
    b'{"step": 1, "seconds": 1.0, "critic/loss": null}',
    b'{"step": 1, "seconds": 1.0, "bits_per_dim": 2.0}',
    b'{"step": 1, "seconds": 1.0, "symptom": "collapse"}',
    b'{"step": 1, "seconds": 1.0, "extra": [1]}',
    b'{"step": 1, "step": 2, "seconds": 1.0}',
    b"[" * 5000,
)


@pytest.mark.parametrize("line", NO_POINTS)
def test_a_line_that_is_no_log_point_is_left_out(line, tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"\n".join([POINT, line, POINT]) + b"\n")
    points, wrong = read_log(path)
    assert [point.record["loss"] for point in points] == [2.0, 2.0]
    assert [point.number for point in points] == [0, 2]
    assert "1 of 3 lines" in wrong


def test_a_last_line_cut_short_is_nothing_wrong(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_bytes(POINT + b"\n" + POINT[:20])
    points, wrong = read_log(path)
    assert (len(points), wrong) == (1, None)


def test_a_damaged_log_is_said_once_and_kept_where_it_is_written_anew(tmp_path, caplog):
    run = Run(tmp_path)
    content = b"\n".join([POINT, b"garbage", POINT.replace(b"1", b"7", 1)]) + b"\n"
    (tmp_path / "events.jsonl").write_bytes(content)
    for _ in range(3):
        assert len(run.events()) == 2
    assert sum("1 of 3 lines" in r.message for r in caplog.records) == 1
    run.keep_events(2)
    assert (tmp_path / "events.jsonl").read_bytes() == POINT + b"\n"
    assert (tmp_path / "events.jsonl.damaged").read_bytes() == content


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", None])
def test_a_damaged_side_file_is_kept_beside_what_is_written_in_its_place(tmp_path, content, caplog):
    path = tmp_path / "eval.json"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    run = Run(tmp_path)
    assert run.side_record("eval.json") == {}
    run.write_json("eval.json", {"a": 1})
    assert read_json(path, dict[str, int]) == {"a": 1}
    kept = tmp_path / "eval.json.damaged"
    assert kept.is_dir() if content is None else kept.read_bytes() == content
    assert any("eval.json.damaged" in r.message for r in caplog.records)


def test_what_is_set_aside_overwrites_nothing(tmp_path):
    logging.getLogger("unsup").addHandler(logging.NullHandler())
    for content in ("a", "b", "c"):
        (tmp_path / "x").write_text(content)
        set_aside(tmp_path / "x", "x is damaged")
    assert [(tmp_path / f"x.damaged{n}").read_text() for n in ("", "-2", "-3")] == ["a", "b", "c"]


# --- writing ----------------------------------------------------------------------------------------------------------


def test_a_link_is_written_through(tmp_path):
    (tmp_path / "there").mkdir()
    target = tmp_path / "there" / "target"
    target.write_bytes(b"before")
    for name, way in (("relative", "there/target"), ("absolute", target), ("of a link", tmp_path / "relative")):
        link = tmp_path / name
        link.symlink_to(way)
        write_file(link, name.encode())
        assert link.is_symlink()
        assert target.read_bytes() == name.encode()
    assert sorted(p.name for p in target.parent.iterdir()) == ["target"]


def test_a_link_to_nothing_makes_what_it_names(tmp_path):
    (tmp_path / "link").symlink_to("target")
    write_file(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"new"


def test_a_pipe_and_a_device_are_refused_and_kept(tmp_path):
    pipe, link = tmp_path / "pipe", tmp_path / "null"  # never /dev/null itself: a test that fails must not replace it
    os.mkfifo(pipe)
    link.symlink_to("/dev/null")
    for path, kind in ((pipe, "a named pipe"), (link, "a device")):
        with pytest.raises(InputError, match=f"is {kind}; expected the name of a file"):
            write_file(path, b"gone")
    assert pipe.is_fifo()
    assert link.is_symlink()
    assert link.is_char_device()


def test_in_a_folder_of_ours_a_link_is_replaced(tmp_path):
    (tmp_path / "target").write_bytes(b"before")
    (tmp_path / "link").symlink_to("target")
    save_tensors(tmp_path / "link", {}, {"a": 1})
    assert not (tmp_path / "link").is_symlink()
    assert load_tensors(tmp_path / "link")[1] == {"a": 1}
    assert (tmp_path / "target").read_bytes() == b"before"
