"""Events, configuration, storage, registry: the contracts that everything else stands on."""

from __future__ import annotations

import ast
import json
import math
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import unsup
from unsup.core.config import check_value
from unsup.core.errors import InputError, nearest
from unsup.core.event import BINARY, REAL, Event, Support
from unsup.core.likelihood import Likelihood
from unsup.core.model import keyed_generator
from unsup.core.registry import create, fitting, model_class, names, row
from unsup.core.storage import load_model, load_tensors, save_tensors
from unsup.testing import law_cases

SOURCE = Path(unsup.__file__).parent


# --- events -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "event",
    [
        Event((1, 8, 8), Support("ordinal", 17)),
        Event((5,), Support("nominal", 3), layout="sequence"),
        Event((2,), REAL),
        Event((3,), (BINARY, REAL, Support("ordinal", 7, low=-3))),
    ],
)
def test_event_round_trips_through_json(event):
    assert Event.from_json(json.loads(json.dumps(event.to_json()))) == event


def test_contains_agrees_with_a_loop_over_entries():
    event = Event((4,), (BINARY, Support("ordinal", 5, low=-2), Support("nominal", 3), REAL))
    x = torch.randint(-4, 5, (300, 4), generator=torch.Generator().manual_seed(0)).double()
    x[::7, 3] = math.nan
    x[::5, 1] += 0.5
    allowed = [{0, 1}, {-2, -1, 0, 1, 2}, {0, 1, 2}]
    expected = [
        all(float(v) in a for v, a in zip(r[:3], allowed, strict=True)) and math.isfinite(r[3]) for r in x.tolist()
    ]
    assert any(expected)
    assert event.contains(x).tolist() == expected


def test_sample_type_holds_every_level():
    assert Event((1,), Support("ordinal", 256)).dtype == torch.uint8
    assert Event((1,), Support("ordinal", 257)).dtype == torch.int64
    assert Event((1,), Support("ordinal", 3, low=-1)).dtype == torch.int64
    assert Event((1,), REAL).dtype == torch.float32


def test_wrong_shape_says_what_was_given_and_how_to_mend_it():
    with pytest.raises(InputError, match=r"\(8, 8\).*expected a batch axis followed by \(1, 8, 8\)"):
        Event((1, 8, 8), BINARY).check_shape(torch.zeros(8, 8))
    with pytest.raises(InputError, match=r"x\[None\]"):
        Event((2, 2, 2), BINARY).check_shape(torch.zeros(2, 2, 2))


# --- likelihoods ------------------------------------------------------------------------------------------------------


def test_a_uniform_byte_is_eight_bits():
    assert Likelihood("exact", 784 * math.log(256), 784, 0.0, 1).bits_per_dim == pytest.approx(8)


def test_every_kind_prints_its_own_sign():
    signs = {k: str(Likelihood(k, 1.0, 1, 0.1, 9))[0] for k in ("exact", "bound", "estimate", "unnormalised")}
    assert signs == {"exact": "=", "bound": "≤", "estimate": "≈", "unnormalised": "∝"}


# --- configuration ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "annotation", "expected"),
    [
        ([1, 2], tuple[int, ...], (1, 2)),
        (3, float, 3.0),
        (None, int | None, None),
        ((0.5, 1), tuple[float, float], (0.5, 1.0)),
    ],
)
def test_values_are_normalised(value, annotation, expected):
    found = check_value("v", value, annotation)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("value", "annotation"), [("3", int), (True, int), (1.5, int), (1, str), ([1, "a"], tuple[int, ...]), (1, bool)]
)
def test_values_of_the_wrong_type_are_refused(value, annotation):
    with pytest.raises(InputError, match="v"):
        check_value("v", value, annotation)


def test_nearest_offers_one_close_name_or_all():
    assert nearest("pixelcn", ["pixelcnn", "made"]) == "; did you mean 'pixelcnn'?"
    assert nearest("qqq", ["pixelcnn", "made"]) == "; known: made, pixelcnn"


# --- registry ---------------------------------------------------------------------------------------------------------


def test_unknown_names_offer_the_nearest():
    event = Event((4,), BINARY)
    with pytest.raises(InputError, match="did you mean 'realnvp'"):
        create("relnvp", event)
    with pytest.raises(InputError, match="did you mean 'hidden'"):
        create("made", event, hiden=(3,))
    with pytest.raises(InputError, match="did you mean 'tiny'"):
        create("made", event, preset="tinny")
    with pytest.raises(InputError, match="did you mean 'flows'"):
        names("flow")


def test_data_that_does_not_fit_names_the_models_that_do():
    with pytest.raises(InputError, match=r"pixelcnn takes .*models that take it: .*made") as caught:
        create("pixelcnn", Event((4,), REAL))
    assert "pixelcnn" not in str(caught.value).split("models that take it:")[1]


@pytest.mark.parametrize("name", names())
def test_creating_leaves_the_global_generator_alone_and_follows_the_seed(name):
    grey = Support("ordinal", 16)
    events = (Event((1, 8, 8), BINARY), Event((2,), REAL), Event((1, 8, 8), grey), Event((2,), grey))
    event = next((e for e in events if name in fitting(e)), law_cases(name)[0].event)  # or a sequence
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first, again, other = (create(name, event, preset="tiny", seed=s).state_dict() for s in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[k], again[k]) for k in first)
    if any(True for _ in model_class(name)(event).parameters()) and name not in ("gaussian-mixture", "fvsbn"):
        assert any(not torch.equal(first[k], other[k]) for k in first)


def test_every_row_cites_a_paper_with_a_link():
    for name in names():
        paper = row(name).paper
        assert paper.link.startswith(("https://", "http://"))
        assert paper.bibtex.count("{") == paper.bibtex.count("}")


# --- storage ----------------------------------------------------------------------------------------------------------


def test_tensors_of_every_type_survive(tmp_path):
    tensors = {
        "f": torch.randn(3, 2),
        "b": torch.tensor([True, False]),
        "i": torch.arange(3),
        "h": torch.randn(2).bfloat16(),
        "scalar": torch.tensor(1.5, dtype=torch.float64),
        "empty": torch.zeros(0, 3),
    }
    save_tensors(tmp_path / "t.safetensors", tensors, {"a": [1, "ü"]})
    found, record = load_tensors(tmp_path / "t.safetensors")
    assert record == {"a": [1, "ü"]}
    assert all(torch.equal(found[k], tensors[k]) and found[k].dtype == tensors[k].dtype for k in tensors)


def test_every_flipped_byte_is_noticed(tmp_path):
    path = tmp_path / "t.safetensors"
    save_tensors(path, {"a": torch.arange(12.0)}, {"step": 3})
    good = path.read_bytes()
    for position in range(0, len(good), 7):
        bad = bytearray(good)
        bad[position] ^= 0x20
        path.write_bytes(bad)
        try:
            found, record = load_tensors(path)
        except InputError:
            continue
        # What is read without complaint must be what was written (a flip in the header's padding, say).
        assert torch.equal(found["a"], torch.arange(12.0)), position
        assert record == {"step": 3}, position


def test_a_foreign_file_is_refused(tmp_path):
    save_file({"a": torch.zeros(2)}, tmp_path / "foreign.safetensors")
    with pytest.raises(InputError, match="not written by unsup"):
        load_tensors(tmp_path / "foreign.safetensors")


def test_weights_of_another_configuration_are_refused(tmp_path):
    event = Event((4,), BINARY)
    create("made", event, hidden=(5,)).save(tmp_path / "a")
    create("made", event, hidden=(6,)).save(tmp_path / "b")
    (tmp_path / "a" / "model.safetensors").write_bytes((tmp_path / "b" / "model.safetensors").read_bytes())
    with pytest.raises(InputError, match=r"config.hidden\[0\] is 5 in config.json and 6 in model.safetensors"):
        load_model(tmp_path / "a")


# --- randomness -------------------------------------------------------------------------------------------------------


def test_keyed_generators_are_unrelated():
    """Draws of neighbouring keys: uniform by Kolmogorov's test and free of repeats."""
    draws = torch.stack(
        [torch.rand(2, generator=keyed_generator(s, p), dtype=torch.float64) for s in range(40) for p in range(40)]
    )
    ordered = draws[:, 0].sort().values
    steps = torch.arange(1, len(ordered) + 1) / len(ordered)
    assert float((ordered - steps).abs().max()) < 1.95 / math.sqrt(len(ordered))  # p ≈ 0.001
    assert len(draws[:, 0].unique()) == len(draws)


# --- layers and start-up ----------------------------------------------------------------------------------------------

ALLOWED = {
    "core": set(),
    "prob": {"core"},
    "nn": {"core", "prob"},
    "families": {"core", "prob", "nn"},
    "pictures": {"core"},
    "data": {"core"},
    "coding": {"core", "prob", "nn", "data"},
    "evaluate": {"core", "prob", "nn", "data", "pictures", "coding"},
    "report": {"core", "data", "evaluate", "pictures"},
    "train": {"core", "data", "coding", "evaluate", "pictures", "report"},
    "contest": {"core", "data", "coding", "evaluate", "pictures", "report", "train"},
    "sklearn": {"core", "data", "evaluate", "train"},
    "testing": {"core", "prob", "nn", "families", "data", "coding", "evaluate", "pictures", "report", "train"},
}


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("unsup."):
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found |= {a.name for a in node.names if a.name.startswith("unsup.")}
    return found


@pytest.mark.parametrize("layer", ALLOWED)
def test_imports_go_downwards_only(layer):
    for path in (SOURCE / layer).rglob("*.py"):
        for module in imports_of(path):
            target = module.split(".")[1]
            assert target in ALLOWED[layer] | {layer}, f"{path} imports {module}"


def test_family_files_never_import_each_other():
    for path in (SOURCE / "families").glob("*/*.py"):
        if path.name != "__init__.py":
            assert not [m for m in imports_of(path) if m.startswith("unsup.families")], path


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.parametrize(
    "arguments",
    [[], ["--help"], ["models"], ["models", "--json"], ["models", "--family", "flows"], ["data"], ["cite", "made"]],
)
def test_light_commands_import_no_torch(arguments):
    code = f"import sys; from unsup.cli.main import main; main({arguments!r}); print('torch' in sys.modules)"
    assert run_python(code).splitlines()[-1] == "False"


def test_importing_the_library_imports_no_torch():
    assert run_python("import sys, unsup; dir(unsup); print('torch' in sys.modules)") == "False"


def test_help_is_fast():
    times = []
    for _ in range(5):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "unsup", "--help"], check=True, capture_output=True)
        times.append(time.perf_counter() - started)
    assert min(times) < 0.4
