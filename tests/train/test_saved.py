"""Saving a model does not cost a run."""

from __future__ import annotations

import pytest

import unsup
from unsup.core.errors import InputError
from unsup.train.runs import Run


def test_a_model_is_not_saved_over_a_run(tmp_path):
    data = unsup.load_data("moons", n=200)
    unsup.fit(unsup.create("histogram", data.event), data, out=tmp_path / "run", progress="off")
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    with pytest.raises(InputError, match="is a run folder, which a saved model would overwrite"):
        unsup.load(str(tmp_path / "run")).save(tmp_path / "run")
    assert before == {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    unsup.load(str(tmp_path / "run")).save(tmp_path / "model")
    unsup.load(str(tmp_path / "model")).save(tmp_path / "model")  # over itself
    assert Run(tmp_path / "run").finished
