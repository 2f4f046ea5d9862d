"""The page in a real browser: it sorts, shows, fits a phone, asks nothing of the network, and needs no mouse."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from contests import write_contest, write_run

from unsup.core.event import REAL, Event
from unsup.evaluate.outliers import default_detector, rank
from unsup.pictures.gallery import Gallery
from unsup.report.contest import LIMIT, comparison_page, write_comparison_page
from unsup.report.outliers import outlier_page
from unsup.report.page import write_page
from unsup.report.pages import environment

playwright_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")

_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_COLUMN = """key => {
    const head = document.querySelector(`th[data-key="${key}"]`);
    const table = head.closest('table');
    const index = head.cellIndex;
    return [...table.tBodies[0].rows].map(r => [r.cells[0].querySelector('a').textContent,
        r.cells[index].dataset.value === undefined ? null : Number(r.cells[index].dataset.value), r.dataset.group]);
}"""
# The words of the page whose contrast with what is behind them is below 4.5.
_FAINT = """() => {
    const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
    const rgba = colour => {
        canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data];
    };
    const light = c => c.slice(0, 3).map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const faint = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    let seen = 0;
    while (walker.nextNode()) {
        const own = walker.currentNode.parentElement;
        if (!walker.currentNode.data.trim() || ['SCRIPT', 'TITLE', 'title', 'desc'].includes(own.tagName)) continue;
        if (!own.checkVisibility()) continue;
        let behind = own;
        while (behind && rgba(getComputedStyle(behind).backgroundColor)[3] < 255) behind = behind.parentElement;
        const style = getComputedStyle(own);
        const colours = [own.closest('svg') ? style.fill : style.color, getComputedStyle(behind).backgroundColor];
        const [dark, bright] = colours.map(rgba).map(light).sort((a, b) => a - b);
        seen += 1;
        if ((bright + 0.05) / (dark + 0.05) < 4.5) faint.push(walker.currentNode.data);
    }
    return {faint, seen};
}"""
_VARIANCES = """() => Promise.all([...document.images].map(async image => {
    await image.decode();
    const canvas = document.createElement('canvas');
    canvas.width = image.naturalWidth; canvas.height = image.naturalHeight;
    const context = canvas.getContext('2d');
    context.drawImage(image, 0, 0);
    const grey = context.getImageData(0, 0, canvas.width, canvas.height).data.filter((_, i) => i % 4 === 0);
    const mean = grey.reduce((a, b) => a + b, 0) / grey.length;
    return grey.reduce((a, b) => a + (b - mean) ** 2, 0) / grey.length;
}))"""


@dataclass
class Opened:
    """A page in the browser, with all it said and asked for."""

    page: Any
    path: Path
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def go(self, fragment: str = "") -> None:
        self.page.goto(self.path.as_uri() + fragment)

    def column(self, key: str) -> list[tuple[str, float | None, str]]:
        return [tuple(r) for r in self.page.evaluate(_COLUMN, key)]

    def head(self, key: str) -> Any:
        return self.page.locator(f"th[data-key={key}]").get_by_role("button")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    write_contest(folder)
    return write_comparison_page(folder)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=_FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def opened(browser: Any, path: Path) -> Iterator[Opened]:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light")
    found = Opened(context.new_page(), path)
    found.page.set_default_timeout(5000)
    found.page.on("console", lambda m: found.complaints.append(m.text) if m.type in ("error", "warning") else None)
    found.page.on("pageerror", lambda e: found.complaints.append(str(e)))
    found.page.on("requestfailed", lambda r: found.complaints.append(r.url[:80]))
    found.page.on("request", lambda r: found.requests.append(r.url))
    found.go()
    yield found
    context.close()
    assert found.complaints == []
    assert all(url.startswith("data:") or url == path.as_uri() for url in found.requests)


def test_it_loads_without_complaint_or_network(opened: Opened) -> None:
    opened.page.wait_for_load_state("networkidle")
    assert opened.page.title() == "9 models compared on digits"
    assert opened.path.stat().st_size < LIMIT


@pytest.fixture(scope="module", params=["contest", "run", "hostile", "outliers"])
def any_page(
    request: pytest.FixtureRequest, browser: Any, path: Path, run_page: Path, long_page: Path, outliers: Path
) -> Iterator[Any]:
    """Each kind of page, with everything open; tests set its size and scheme, and change nothing else."""
    context = browser.new_context()
    page = context.new_page()
    page.goto({"contest": path, "run": run_page, "hostile": long_page, "outliers": outliers}[request.param].as_uri())
    page.emulate_media(reduced_motion="reduce")
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    yield page
    context.close()


@pytest.fixture(scope="module")
def run_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("a run") / "run") / "report.html"


@pytest.fixture(scope="module")
def long_page(run_page: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run whose folder, data and columns have names without any place to break a line."""
    folder = tmp_path_factory.mktemp("long") / ("folder" * 30)
    shutil.copytree(run_page.parent, folder)
    config = json.loads((folder / "config.json").read_text())
    config["data"]["name"] = "/data/" + "long" * 50 + ".csv"
    (folder / "config.json").write_text(json.dumps(config))
    about = json.loads((folder / "about.json").read_text())
    about["data"]["columns"] = ["column" * 40, "b"]
    about["describe"] = "x" * 400
    (folder / "about.json").write_text(json.dumps(about))
    write_page(folder)
    return folder / "report.html"


@pytest.fixture(scope="module")
def outliers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of rows whose names, columns and scores are long."""
    x = torch.randn(60, 5, generator=torch.Generator().manual_seed(0)).double()
    x[:40, 2] *= 10.0 ** (torch.arange(40) / 4)
    columns = ["alpha", "b", "column" * 30, "no break" * 9, "e"]
    event = Event((5,), REAL, precision="float64")
    detector = default_detector(event, x)
    ranking, scores = rank(detector, x, [f"{'name' * 9} {i}" for i in range(60)], columns, top=40)
    found = outlier_page("/data/" + "long" * 40, "a histogram", ranking, scores, x, Gallery(event, x, names=columns))
    file = tmp_path_factory.mktemp("outliers") / "page.html"
    file.write_text(found)
    return file


def test_no_column_of_outliers_is_lost_on_a_phone(browser: Any, outliers: Path) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.goto(outliers.as_uri())
    assert page.locator(".outliers tbody tr").count() == 40
    outside = """() => [...document.querySelectorAll('.outliers :is(th, td), .outliers strong')].filter(e => {
        const box = e.getBoundingClientRect();
        return box.left < 0 || box.right > innerWidth || e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0;
    }).map(e => e.textContent)"""
    assert page.evaluate(outside) == []
    numbers = page.locator(".outliers td:nth-child(2)")
    assert numbers.evaluate_all(
        "all => all.every(e => { const r = document.createRange(); r.selectNodeContents(e);"
        " return r.getClientRects().length === 1; })"
    )
    page.close()


def test_pictures_of_pixels_have_the_whole_width_of_a_phone(browser: Any, path: Path) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.goto(path.as_uri())
    widths = page.locator(".gallery:not(.strip) img.pixels").evaluate_all(
        "all => all.filter(e => e.checkVisibility()).map(e => e.getBoundingClientRect().width)"
    )
    assert len(widths) > 3
    assert min(widths) > 320, widths
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_never_scrolls_sideways_and_is_legible(any_page: Any, width: int, scheme: str) -> None:
    any_page.set_viewport_size({"width": width, "height": 844})
    any_page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    assert any_page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    found = any_page.evaluate(_FAINT)
    assert found["faint"] == []
    assert found["seen"] > 100


def test_nothing_is_cut(any_page: Any) -> None:
    """At a desk every column and command is seen whole; on a phone commands are, and tables say that they go on."""
    cut = "s => [...document.querySelectorAll(s)].filter(e => e.scrollWidth > e.clientWidth + 1).length"
    for width in (1280, 390):
        any_page.set_viewport_size({"width": width, "height": 844})
        any_page.emulate_media(color_scheme="light", reduced_motion="reduce")
        assert any_page.evaluate(cut, "pre") == 0
        any_page.wait_for_function(
            "() => [...document.querySelectorAll('.scroll')].every("
            "e => e.classList.contains('wider') === e.scrollWidth > e.clientWidth + 1)"
        )
        if width == 1280:
            assert any_page.evaluate(cut, ".scroll") == 0


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1280, "dark")])
def test_axe_finds_nothing(any_page: Any, width: int, scheme: str) -> None:
    """The contrast of words is measured above at every width and scheme."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    any_page.set_viewport_size({"width": width, "height": 844})
    any_page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    found = axe.Axe().run(any_page).response["violations"]
    assert [(v["id"], v["impact"], [n["html"][:120] for n in v["nodes"]][:3]) for v in found] == []


def test_plots_follow_dark_mode_and_pixels_do_not(opened: Opened) -> None:
    shown = "k => getComputedStyle(document.querySelector(`img.${k}`)).filter"
    assert opened.page.evaluate(shown, "plot") == opened.page.evaluate(shown, "pixels") == "none"
    opened.page.locator("#theme").click()
    assert "invert" in opened.page.evaluate(shown, "plot")
    assert opened.page.evaluate(shown, "pixels") == "none"
    opened.page.emulate_media(color_scheme="dark")
    opened.page.locator("#theme").click()
    assert opened.page.evaluate(shown, "plot") == "none"


def test_pictures_are_there_and_not_blank(opened: Opened) -> None:
    assert opened.page.evaluate("[...document.images].every(i => i.naturalWidth > 0)")
    found = opened.page.evaluate(_VARIANCES)
    assert len(found) > 40
    assert min(found) > 1000


def test_samples_have_the_scale_of_the_real_data(opened: Opened) -> None:
    scales_of = "i => [i.width / i.naturalWidth, i.height / i.naturalHeight]"
    for width in (1280, 390):
        opened.page.set_viewport_size({"width": width, "height": 844})
        scales = [
            s
            for pair in opened.page.evaluate(f"[...document.querySelectorAll('#samples img')].map({scales_of})")
            for s in pair
        ]
        assert len(scales) == 20
        assert max(scales) - min(scales) < 0.05
        if width == 1280:
            assert scales[0] == pytest.approx(4)


def test_a_click_sorts_best_first_then_the_other_way(opened: Opened) -> None:
    for key, best in (("fid", min), ("recall", max), ("parameters", min), ("sampling", max)):
        before = opened.column(key)
        opened.head(key).click()
        values = [v for _, v, _ in opened.column(key) if v is not None]
        assert values == sorted(values, reverse=best is max)
        assert sorted(opened.column(key)) == sorted(before)
        opened.head(key).click()
        assert [v for _, v, _ in opened.column(key) if v is not None] == values[::-1] or len(set(values)) < len(values)
    sorted_by = opened.page.locator("th[aria-sort]")
    assert sorted_by.count() == 2  # one in each table
    assert sorted_by.last.get_attribute("data-key") == "sampling"
    assert sorted_by.last.get_attribute("aria-sort") == "ascending"


def test_missing_figures_come_last_both_ways(opened: Opened) -> None:
    for _ in range(2):
        opened.head("probe").click()
        values = [v for _, v, _ in opened.column("probe")]
        assert None not in values[:5]
        assert values[5:] == [None] * 4


def test_likelihoods_stay_among_their_kind(opened: Opened) -> None:
    opened.head("fid").click()
    for sense in (1, -1):
        opened.head("likelihood").click()
        rows = opened.column("likelihood")
        assert [g for _, _, g in rows] == ["0"] * 5 + ["1"] * 2 + ["2", "4"]
        for kind in ("0", "1"):
            values = [sense * v for _, v, g in rows if g == kind and v is not None]
            assert values == sorted(values)
    # 128.1 nats exact come before a bound of 124.8
    assert [n for n, _, _ in rows].index("realnvp") < [n for n, _, _ in rows].index("vae")


def test_the_keyboard_sorts(opened: Opened) -> None:
    opened.page.locator("nav a").last.focus()
    while opened.page.evaluate("document.activeElement.closest('th') === null"):
        opened.page.keyboard.press("Tab")
    opened.page.keyboard.press("Enter")
    assert [n for n, _, _ in opened.column("fid")] == sorted(n for n, _, _ in opened.column("fid"))
    for _ in range(3):
        opened.page.keyboard.press("Tab")
    opened.page.keyboard.press("Space")
    values = [v for _, v, _ in opened.column("fid")]
    assert values == sorted(v for v in values if v is not None)
    assert opened.page.evaluate("document.activeElement.closest('th').getAttribute('aria-sort')") == "ascending"
    assert opened.page.locator("#sorted").text_content() == "Sorted by FID, ascending."


def test_the_theme_can_be_switched_and_is_remembered(opened: Opened) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    light = opened.page.evaluate(paper)
    toggle = opened.page.locator("#theme")
    toggle.click()
    dark = opened.page.evaluate(paper)
    assert dark != light
    opened.page.reload()
    assert opened.page.evaluate(paper) == dark
    opened.page.locator("#theme").focus()
    opened.page.keyboard.press("Enter")
    assert opened.page.evaluate(paper) == light


def test_details_open_by_keyboard_and_by_link(opened: Opened) -> None:
    closed = opened.page.locator("details.model:not([open])").first
    name = closed.get_attribute("id")
    opened.page.locator(f"#{name} > summary").focus()
    opened.page.keyboard.press("Enter")
    assert opened.page.locator(f"#{name}").get_attribute("open") is not None
    opened.page.locator(".measures a", has_text="gan").first.click()
    gan = opened.page.locator("details.model", has=opened.page.locator("h3", has_text="gan"))
    assert gan.get_attribute("open") is not None
    assert gan.get_by_text("saturated critic").is_visible()


def test_a_command_is_copied(opened: Opened) -> None:
    opened.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    opened.page.locator(".next .copy").first.click()
    opened.page.get_by_role("button", name="Copied").wait_for()
    assert (
        opened.page.evaluate("navigator.clipboard.readText()")
        == "unsup fit digits pixelcnn -o runs/longer --minutes 60"
    )


def test_it_is_whole_without_scripts(browser: Any, path: Path) -> None:
    context = browser.new_context(java_script_enabled=False, viewport={"width": 390, "height": 844})
    page = context.new_page()
    page.goto(path.as_uri())
    assert page.locator(".measures tbody tr").count() == 18
    assert not page.locator("#theme").is_visible()
    assert page.locator("th button").count() == 0
    page.locator("details.model > summary").nth(1).click()
    assert page.locator("details.model").nth(1).get_by_text("train it again").first.is_visible()
    context.close()


def test_on_paper_everything_is_open(opened: Opened) -> None:
    opened.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert opened.page.locator("details:not([open])").count() == 0
    opened.page.emulate_media(media="print")
    assert not opened.page.locator("nav").is_visible()


def test_the_policy_stops_what_the_escapes_would_not(browser: Any, tmp_path: Path) -> None:
    """The second wall alone: a page whose names are not escaped runs none of them, and its own script still works."""
    results = write_contest(tmp_path)
    results["about"] = (
        "<script>document.title = 'run'</script><img src=x onerror=\"document.title = 'run'\">"
        "<img src=https://example.org/x.png><a id=link href=\"javascript:document.title = 'run'\">a</a>"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(environment(), "autoescape", False)
        patch.setattr(environment(), "cache", None)
        (tmp_path / "index.html").write_text(comparison_page(results, tmp_path))
    page = browser.new_page()
    failures: list[tuple[str, str]] = []
    page.on("requestfailed", lambda r: failures.append((r.url, r.failure)))
    page.goto((tmp_path / "index.html").as_uri())
    page.click("#link")
    page.wait_for_timeout(200)
    assert page.evaluate("document.images.length") > 2  # the names did become elements
    assert page.title() != "run"
    assert page.locator("button#theme").is_visible()
    assert ("https://example.org/x.png", "csp") in failures  # forbidden, not merely out of reach
    page.close()
