"""The page of a comparison, read as text: nothing is lost, nothing unescaped, nothing fetched."""

from __future__ import annotations

import copy
import itertools
import json
import re
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from contests import MODELS, write_contest

from unsup.core.errors import InputError
from unsup.core.event import BINARY, REAL, Event
from unsup.evaluate.records import Results
from unsup.report import contest as page_module
from unsup.report.contest import comparison_page, write_comparison_page
from unsup.report.drawn import measure_chart
from unsup.report.figures import PURPOSES, Column, Figure, bits_per_dim, columns, figure_of, in_order, mark, tables
from unsup.report.pages import asset, environment
from unsup.report.svg import number

_ANOMALIES = ("auroc", "average_precision")
_VOID = {"meta", "link", "img", "br", "circle", "line", "path", "polygon", "polyline", "rect"}


class Reader(HTMLParser):
    """Elements in order, and whether each closes the one that it should."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.codes: list[list[str]] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {k: v or "" for k, v in attributes}))
        if tag not in _VOID:
            self._open.append(tag)
        if tag == "code":
            self.codes.append([])

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {k: v or "" for k, v in attributes}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] not in ("script", "style"):
            self.words.append(data)
        if "code" in self._open:
            self.codes[-1].append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [a for t, a in self.elements if t == tag]

    @property
    def text(self) -> str:
        return " ".join(self.words)


@pytest.fixture(scope="module")
def contest(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Results]:
    folder = tmp_path_factory.mktemp("contest")
    return folder, write_contest(folder)


@pytest.fixture(scope="module")
def read(contest: tuple[Path, Results]) -> Reader:
    return Reader(comparison_page(contest[1], contest[0]))


def test_every_figure_leads_to_a_run_and_its_commands(contest: tuple[Path, Results], read: Reader) -> None:
    commands = {"".join(line) for line in read.codes}
    for contestant in contest[1]["contestants"]:
        for run in contestant["runs"]:
            assert run["command"] in commands
            assert set(run["commands"].values()) <= commands
            assert run["run"] in read.words
    assert contest[1]["command"] in commands
    targets = {a["id"] for _, a in read.elements if "id" in a}
    links = [a["href"][1:] for a in read.all("a") if a["href"].startswith("#")]
    assert len(links) > len(MODELS)
    assert set(links) <= targets


def test_failures_reasons_notes_and_absences_are_told(read: Reader) -> None:
    assert "InputError: 64 columns <of 17 levels> are more than fit" in read.text
    assert "stopped at step 120 of 4,000" in read.text
    assert "saturated critic at step 400" in read.text
    assert "gan has no likelihood" in read.text


def of_pixelcnn(results: Results, key: str) -> Figure:
    """Of a measure, the mean over seeds."""
    runs = next(c for c in results["contestants"] if c["name"] == "pixelcnn")["runs"]
    figure = figure_of(runs, key)
    assert figure is not None
    return figure


def test_real_bytes_stand_beside_the_implied_ones(contest: tuple[Path, Results], read: Reader) -> None:
    """In the table of figures, in the chart, and among the files; models without a coder say why."""
    for title in ("Implied bytes", "Coded bytes"):
        assert title in read.words
    implied, coded = (of_pixelcnn(contest[1], key) for key in ("implied_bytes", "coded_bytes"))
    assert f"{coded.value:.2f}" in read.words
    assert read.text.count("0.40 % more than implied") == 3
    assert f"{number(implied.value)} bytes, implied" in read.words
    assert f"{number(coded.value)} bytes, coded" in read.words
    assert f"{coded.detail['file_bytes']:,}" in read.words
    assert any(w.startswith("all examples and 540 bytes of header and index, without the model") for w in read.words)
    assert "none was written: vae has no coder (entry by entry: it does not factorise)" in read.words
    assert len([a for a in read.all("rect") if "coded" in a.get("class", "")]) == 3
    assert "Coded bytes were written with the model, decoded and compared" in read.text


def test_without_real_bytes_the_page_says_so(contest: tuple[Path, Results]) -> None:
    results = copy.deepcopy(contest[1])
    for run in (run for c in results["contestants"] for run in c["runs"]):
        run["figures"].pop("coded_bytes", None)
    text = Reader(comparison_page(results, contest[0])).text
    assert "No file was written with a model." in text
    assert "Coded bytes were written" not in text


def test_a_reason_that_all_models_share_is_told_once(contest: tuple[Path, Results]) -> None:
    results = copy.deepcopy(contest[1])
    for contestant in results["contestants"]:
        for run in contestant["runs"]:
            run["missing"] |= {"kid": "8,192 columns are too many", "modes": "8,192 columns are too many"}
    text = Reader(comparison_page(results, contest[0])).text
    assert text.count("8,192 columns are too many") == 1
    assert "gan has no likelihood" in text


def test_a_model_that_hardly_trained_is_marked(contest: tuple[Path, Results]) -> None:
    results = copy.deepcopy(contest[1])
    assert "short training" not in Reader(comparison_page(results, contest[0])).words
    results["contestants"][0]["runs"][0]["notes"] = ["short training: 3 steps, 0.40 of a pass over the training data"]
    words = Reader(comparison_page(results, contest[0])).words
    assert words.count("short training") == 2  # once in each table


def test_the_figures_of_a_run_are_measured_again_by_one_command(contest: tuple[Path, Results]) -> None:
    results = copy.deepcopy(contest[1])
    for contestant in results["contestants"]:
        for run in contestant["runs"]:
            run["commands"] = dict.fromkeys(run["figures"], "unsup eval r --measures a,b")
    reader = Reader(comparison_page(results, contest[0]))
    runs = sum(len(c["runs"]) for c in results["contestants"])
    assert ["".join(line) for line in reader.codes].count("unsup eval r --measures a,b") == runs
    assert reader.words.count("measure it again") == runs


def test_names_are_escaped_everywhere(contest: tuple[Path, Results]) -> None:
    results = copy.deepcopy(contest[1])
    evil = "<script>alert(1)</script>\"'&"
    texts = ("title", "about", "plan", "anomalies", "command")
    results.update(dict.fromkeys(texts, evil))  # type: ignore[typeddict-item]
    results["summary"], results["next"] = [evil], [{"what": evil, "command": evil}]
    results["environment"] = {"machine": evil}
    table = Event((2,), (BINARY, REAL))
    results["data"] = {evil: evil, "event": table.to_json(), "columns": [f"{evil}1", f"{evil}2"]}
    for contestant in results["contestants"]:
        contestant.update(dict.fromkeys(("name", "family", "paper", "reason"), evil))  # type: ignore[typeddict-item]
        contestant["options"] = {evil: evil}
        for run in contestant["runs"]:
            run["command"], run["commands"] = evil, {evil: evil, "fid": evil}
            run["missing"], run["notes"] = {evil: evil, "likelihood": evil}, [evil]
            run["curve"]["losses"] = {evil: [(0, 1.0), (1, 2.0)], evil + "2": [(0, 1.0), (1, 2.0)]}
            run["pictures"] = {
                evil: {"file": run["pictures"]["samples"]["file"], "alt": evil, "caption": evil, "scale": 2}
            }
    for stored in results["baselines"]["stored"]:
        stored["codec"] = stored["how"] = evil
    reader = Reader(comparison_page(results, contest[0]))
    assert len(reader.all("script")) == 1
    assert not any(name.startswith("on") for _, attributes in reader.elements for name in attributes)


def test_nothing_is_fetched(contest: tuple[Path, Results], read: Reader) -> None:
    policy = next(a["content"] for a in read.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert all(a["src"].startswith("data:image/png;base64,") for a in read.all("img"))
    assert {a["href"] for a in read.all("a") if not a["href"].startswith("#")} == {"results.csv", "results.json"}
    css = asset("page.css")
    assert "url(" not in css
    assert "@import" not in css


def test_structure_is_accessible(read: Reader) -> None:
    headings = [int(t[1]) for t, _ in read.elements if re.fullmatch("h[1-6]", t)]
    assert headings.count(1) == 1
    assert headings[0] == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(headings))
    ids = [a["id"] for _, a in read.elements if "id" in a]
    assert len(ids) == len(set(ids))
    assert read.all("html")[0]["lang"] == "en"
    for landmark in ("header", "nav", "main", "footer"):
        assert len(read.all(landmark)) == 1
    assert all(a["alt"] for a in read.all("img"))
    assert all("scope" in a for a in read.all("th"))
    assert len(read.all("caption")) == len(read.all("table"))
    assert all(a["role"] == "img" and set(a["aria-labelledby"].split()) <= set(ids) for a in read.all("svg"))
    assert all("type" in a for a in read.all("button"))


def test_the_table_means_over_seeds(contest: tuple[Path, Results], read: Reader) -> None:
    results = contest[1]
    vae = next(c for c in results["contestants"] if c["name"] == "vae")
    fids = [r["figures"]["fid"]["value"] for r in vae["runs"]]
    figure = figure_of(vae["runs"], "fid")
    assert figure is not None
    assert figure.value == pytest.approx(np.mean(fids))
    assert figure.interval == (min(fids), max(fids))
    bits = bits_per_dim(vae)
    assert bits is not None
    own = [r["figures"]["likelihood"]["detail"]["bits_per_dim"] for r in vae["runs"]]
    assert bits.value == pytest.approx(np.mean(own))
    cells = [float(a["data-value"]) for t, a in read.elements if t == "td" and "data-value" in a]
    assert any(c == pytest.approx(np.mean(fids)) for c in cells)


def test_one_seed_has_its_own_interval(tmp_path: Path) -> None:
    results = write_contest(tmp_path, seeds=(0,))
    vae = next(c for c in results["contestants"] if c["name"] == "vae")
    assert "≤ 124.59 ± 0.62" in Reader(comparison_page(results, tmp_path)).text
    record = vae["runs"][0]["figures"]["fid"]
    figure = figure_of(vae["runs"], "fid")
    assert figure is not None
    assert figure.interval == pytest.approx(record["interval"])


def test_the_order_is_by_kind_then_best_first(contest: tuple[Path, Results]) -> None:
    assert [c["name"] for c in in_order(contest[1])] == [
        "pixelcnn",
        "made <wide>",
        "made",
        "realnvp",
        "gaussian-mixture",
        "iwae",
        "vae",
        "rbm",
        "gan",
    ]


def test_marks_are_of_a_kind_and_ties_are_called_so(contest: tuple[Path, Results]) -> None:
    def place(rank: int, tied: list[str], group: str) -> dict[str, object]:
        return {"value": 0.0, "noise": 0.0, "rank": rank, "tied": tied, "group": group}

    likelihood = {
        "a": place(1, [], "exact"),
        "b": place(2, ["c"], "exact"),
        "c": place(2, ["b"], "exact"),
        "v": place(1, ["w"], "bound"),
        "w": place(1, ["v"], "bound"),
        "alone": place(1, [], "estimate"),
    }
    measured: dict[str, dict[str, object]] = {"likelihood": likelihood, "seconds": {"a": place(1, [], "all")}}
    by_key = {c.key: c for c in columns(contest[1])}
    found = {n: mark(measured, by_key["likelihood"], n) for n in likelihood}  # type: ignore[arg-type]
    assert found == {"a": "best", "b": None, "c": None, "v": "tie", "w": "tie", "alone": None}
    assert mark(measured, by_key["seconds"], "a") is None  # type: ignore[arg-type]
    assert mark(measured, by_key["fid"], "a") is None  # type: ignore[arg-type]


def test_a_flag_in_a_sentence_is_not_broken(contest: tuple[Path, Results]) -> None:
    results = copy.deepcopy(contest[1])
    results["summary"] = ["Which one detects real <anomalies> is not known (--anomalies)."]
    page = comparison_page(results, contest[0])
    said = 'real &lt;anomalies&gt; is not known <span class="flag">(--anomalies).</span></li>'
    assert said in page
    assert ".flag { white-space: nowrap; }" in page


def test_the_chart_of_anomalies_names_every_kind_of_score(contest: tuple[Path, Results]) -> None:
    results = copy.deepcopy(contest[1])
    column = next(c for c in columns(results) if c.key == "auroc")
    (chart,) = measure_chart(results, column)
    assert ", by log-likelihood;" in chart.caption
    last = next(c for c in reversed(results["contestants"]) if any("auroc" in r["figures"] for r in c["runs"]))
    for run in last["runs"]:
        run["figures"]["auroc"]["detail"]["by"] = "energy"
    (chart,) = measure_chart(results, column)
    assert re.search(", by (log-likelihood or energy|energy or log-likelihood);", chart.caption)


@pytest.mark.parametrize("artificial", [False, True])
def test_nothing_is_the_best_at_artificial_anomalies(contest: tuple[Path, Results], artificial: bool) -> None:
    results = copy.deepcopy(contest[1])
    for figure in (r["figures"].get(key) for c in results["contestants"] for r in c["runs"] for key in _ANOMALIES):
        if figure is not None:
            figure["detail"]["artificial"] = artificial
    cells = re.findall(r"<td[^>]*>.*?</td>", comparison_page(results, contest[0]), re.DOTALL)
    every = [results["places"][key] for key in _ANOMALIES if key in results["places"]]
    values = [f"{p['value']:.3f}" for places in every for p in places.values() if p["rank"] == 1 and not p["tied"]]
    marked = [cell for cell in cells if 'class="chip best"' in cell and any(v in cell for v in values)]
    assert values
    assert bool(marked) != artificial


def test_columns_and_sections_that_nobody_fills_are_left_out(contest: tuple[Path, Results]) -> None:
    results = copy.deepcopy(contest[1])
    results["contestants"] = [c for c in results["contestants"] if c["name"] == "gan"]
    results["baselines"] = {"stored": []}
    reader = Reader(comparison_page(results, contest[0]))
    assert "FID" in reader.words
    keys = {a["data-key"] for a in reader.all("th") if "data-key" in a}
    assert keys == {"fid", "kid", "precision", "recall", "memorisation", "seconds", "sampling", "parameters"}
    links = {a["href"] for a in reader.all("a")}
    assert links.isdisjoint({"#density", "#anomalies", "#features", "#compression", "#classes"})


def test_nothing_measured_yet_is_said(contest: tuple[Path, Results]) -> None:
    results = copy.deepcopy(contest[1])
    results["contestants"] = [c for c in results["contestants"] if not c["runs"]]
    results["summary"] = results["next"] = []  # type: ignore[typeddict-item]
    results["pictures"], results["places"] = {}, {}
    text = Reader(comparison_page(results, contest[0])).text
    assert "No model has been measured yet." in text
    assert "histogram" in text


def test_values_that_are_not_finite_are_missing(contest: tuple[Path, Results]) -> None:
    results = copy.deepcopy(contest[1])
    gan = next(c for c in results["contestants"] if c["name"] == "gan")
    for run in gan["runs"]:
        run["figures"]["fid"] |= {"value": None, "interval": (None, None)}
        run["figures"]["kid"] |= {"value": 0.001, "interval": (None, float("nan"))}
    assert figure_of(gan["runs"], "fid") is None
    kid = figure_of(gan["runs"], "kid")
    assert kid is not None
    assert kid.value == pytest.approx(0.001)
    comparison_page(results, contest[0])


def test_an_unnormalised_figure_is_not_drawn_with_the_others(contest: tuple[Path, Results]) -> None:
    results = copy.deepcopy(contest[1])
    rbm = next(c for c in results["contestants"] if c["name"] == "rbm")
    for run in rbm["runs"]:
        run["figures"]["likelihood"]["detail"]["kind"] = "unnormalised"
    page = comparison_page(results, contest[0])
    drawn = page[page.index('id="chart-likelihood-d"') :]
    assert "rbm" not in drawn[: drawn.index("</desc>")]
    assert "∝ 126.00" in page


def test_a_picture_that_is_gone_is_named(contest: tuple[Path, Results]) -> None:
    results = copy.deepcopy(contest[1])
    results["pictures"]["real"]["file"] = "pictures/nowhere.png"
    assert "pictures/nowhere.png" in Reader(comparison_page(results, contest[0])).text


def test_pictures_of_a_run_elsewhere_are_found(contest: tuple[Path, Results], tmp_path: Path) -> None:
    results = copy.deepcopy(contest[1])
    for contestant in results["contestants"]:
        for run in contestant["runs"]:
            run["run"] = str((contest[0] / run["run"]).resolve())
    results["pictures"] = {}
    assert "was not found" not in comparison_page(results, tmp_path)


def test_pictures_that_do_not_fit_are_left_out_last_things_first(
    contest: tuple[Path, Results], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, results = contest
    monkeypatch.setattr(page_module, "LIMIT", len(comparison_page(results, folder).encode()) - 60_000)
    page = comparison_page(results, folder)
    assert len(page.encode()) <= page_module.LIMIT
    reader = Reader(page)
    left = next(w for w in reader.words if w.startswith("Omitted to keep the page"))
    shown = {a["alt"] for a in reader.all("img")}
    assert "nearest training examples of pixelcnn" in left
    for contestant in results["contestants"]:
        for run in contestant["runs"][:1]:
            assert run["pictures"]["samples"]["alt"] in shown
    assert results["pictures"]["real"]["alt"] in shown


def test_the_page_is_written_whole_and_small(contest: tuple[Path, Results]) -> None:
    path = write_comparison_page(contest[0])
    assert path == contest[0] / "index.html"
    assert path.stat().st_size < page_module.LIMIT
    assert path.read_text() == comparison_page(contest[1], contest[0])


@pytest.mark.parametrize("content", [None, "{", json.dumps({"format": 2})])
def test_a_folder_without_good_results_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    with pytest.raises(InputError, match=r"results\.json"):
        write_comparison_page(tmp_path)
    assert not (tmp_path / "index.html").exists()


def test_an_interval_of_no_width_is_not_shown() -> None:
    column = Column("x", "X", "", "", "lower", "", "samples")
    assert column.interval(Figure(1.0, (1.0, 1.0), (1.0, 1.0), None, None, {})) == ""
    assert column.interval(Figure(0.92, (0.92,), (0.9, 0.95), None, None, {})) == "0.900–0.950"
    assert column.interval(Figure(0.5, (0.5,), (-1.0, 2.0), None, None, {})) == "−1.00 to 2.00"


def test_a_measure_added_by_one_row_has_its_column_and_its_chart(contest: tuple[Path, Results]) -> None:
    results = copy.deepcopy(contest[1])
    results["measures"]["novelty"] = {
        "title": "novelty of <codes>",
        "explanation": "how new the codes are",
        "unit": "bits",
        "better": "higher",
        "floor": "old codes",
        "purpose": "features",
    }
    for i, contestant in enumerate(results["contestants"]):
        for run in contestant["runs"]:
            figure = {
                "value": 3.25 + i,
                "error": None,
                "interval": (3.0 + i, 3.5 + i),
                "floor": 1.5,
                "n": 9,
                "detail": {},
            }
            run["figures"]["novelty"] = figure  # type: ignore[assignment]
    page = comparison_page(results, contest[0])
    reader = Reader(page)
    assert {"novelty", "probe"} <= {a["data-key"] for a in reader.all("th") if "data-key" in a}
    assert "old codes" in reader.words
    assert 'id="chart-novelty-t"' in page
    assert "bits ↑ higher is better" in reader.words


@pytest.mark.parametrize("purpose", [None, *PURPOSES])
def test_what_is_asked_for_comes_first(contest: tuple[Path, Results], purpose: str | None) -> None:
    results = copy.deepcopy(contest[1])
    results["for"] = purpose  # type: ignore[typeddict-item]
    reader = Reader(comparison_page(results, contest[0]))
    keys = [a["data-key"] for a in reader.all("th") if "data-key" in a]
    sections = [a["id"] for a in reader.all("section")]
    assert results["measures"][keys[0]]["purpose"] == (purpose if purpose not in (None, "classes") else "density")
    assert sections[:2] == ["summary", "results"]
    assert sections[2] == (purpose if purpose not in (None, "classes", "cost") else "density")
    assert sorted(keys) == sorted(c.key for c in columns(contest[1]))
    if purpose == "anomalies":
        assert [c["name"] for c in in_order(results)][:3] == ["pixelcnn", "made <wide>", "made"]
        assert in_order(results)[-1]["name"] == "gan"


def test_a_table_has_at_most_nine_measures_and_a_purpose_stays_together(contest: tuple[Path, Results]) -> None:
    packed = tables(columns(contest[1]))
    assert [c for own in packed for c in own] == columns(contest[1])
    assert max(map(len, packed)) <= 9
    assert all({c.purpose for c in a}.isdisjoint({c.purpose for c in b}) for a, b in itertools.pairwise(packed))


def test_no_template_says_that_text_is_safe() -> None:
    """Markup comes from our own functions as `Markup`: SVG, style sheet and script."""
    for name in environment().list_templates():
        text = asset(name)
        assert not re.search(r"\|\s*safe|autoescape\s+false|Markup\(", text), name
    made = {"svg.py", "pages.py"}
    for path in Path(str(files("unsup.report"))).glob("*.py"):
        assert ("Markup(" in path.read_text()) == (path.name in made), path.name
        assert not re.search(r"f[\"'][^\"']*</?[a-z]+[ >]", path.read_text()) or path.name == "svg.py", path.name


@pytest.mark.parametrize(("count", "said"), [(1, "1 minute"), (2, "2 minutes"), (0.5, "0.5 minutes")])
def test_one_is_not_plural(tmp_path: Path, count: float, said: str) -> None:
    results = write_contest(tmp_path, seeds=(0,))
    results["minutes"], results["examples"], results["samples"] = count, 1, 1
    results["contestants"] = results["contestants"][:1]
    text = Reader(comparison_page(results, tmp_path)).text
    assert said in text
    assert "1 model measured on digits" in text
    assert "1 held-out example or 1 sample," in text
    assert not re.search(r"\b1 (minutes|models|samples|examples|steps|threads)\b", text)


def _luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(a: str, b: str) -> float:
    light, dark = sorted((_luminance(a), _luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(
    ("front", "back"),
    [
        (front, back)
        for front in ("ink", "soft", "accent", "warn", "exact", "bound", "estimate", "other")
        for back in ("paper", "card")
    ]
    + [("good", "good-wash"), ("accent", "accent-wash"), ("warn", "warn-wash"), ("ink", "accent-wash")]
    + [("soft", "accent-wash"), ("bound", "accent-wash"), ("estimate", "accent-wash"), ("exact", "accent-wash")],
)
def test_colours_are_far_enough_apart(front: str, back: str, theme: int) -> None:
    css = asset("page.css")
    colours = {m[1]: m.groups()[1:] for m in re.finditer(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\);", css)}
    assert _contrast(colours[front][theme], colours[back][theme]) >= 4.5
