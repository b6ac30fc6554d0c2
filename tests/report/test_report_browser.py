"""The report as a reader uses it, in a Chromium without a network: by mouse, by keyboard, in the dark, and on paper."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.core import layout, params
from pipeline.report import charts
from pipeline.tables.papers import MARKS
from tests.report import report_project

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine (apt-get install chromium)"),
]
MEGABYTE = 1_000_000
WIDE, NARROW = {"width": 1400, "height": 900}, {"width": 390, "height": 844}


@contextmanager
def project_of(folder: Path, size: report_project.Size) -> Iterator[Path]:
    """The page of an invented project."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        params.load.cache_clear()
        report_project.write(folder, size)
        params.load.cache_clear()
        yield folder / layout.REPORT


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Iterator[Path]:
    with project_of(tmp_path_factory.mktemp("small"), report_project.SMALL) as page:
        yield page


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Iterator[Path]:
    with project_of(tmp_path_factory.mktemp("large"), report_project.LARGE) as page:
        yield page


@pytest.fixture(scope="module")
def chromium():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=quiet)
        yield browser
        browser.close()


@contextmanager
def opened(chromium, path: Path, **options) -> Iterator:
    """The page in a tab of its own; leaving it fails if the page complained, or asked for anything but its pictures."""
    context = chromium.new_context(offline=True, **({"viewport": WIDE} | options))
    page = context.new_page()
    complaints, requests = [], []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else 0)
    page.on("request", lambda request: requests.append(request.url))
    page.goto(path.as_uri())
    yield page
    context.close()
    assert complaints == []
    pictures = (path.parent / layout.REPORT_PICTURES.name).as_uri()
    assert [url for url in requests if not url.startswith((path.as_uri(), "data:", f"{pictures}/"))] == []


def overflow(page) -> int:
    """By how many pixels the page is wider than what shows it."""
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


# ---- what is shown


def test_every_picture_is_drawn_with_a_size(chromium, small):
    with opened(chromium, small) as page:
        page.add_style_tag(content="* { content-visibility: visible !important; }")  # as if the reader had scrolled
        sizes = page.evaluate(
            """[...document.querySelectorAll("main img, main svg:not(:has(image[id]))")]
            .filter((one) => one.checkVisibility() && !one.closest("[hidden]")).map((one) => {
                const box = one.getBoundingClientRect();
                const loaded = one.tagName !== "IMG" || (one.complete && one.naturalWidth > 0);
                return [one.tagName, box.width, box.height, loaded];
            })"""
        )
        stored = page.evaluate(
            """Promise.all([...document.querySelectorAll("image")].map(async (one) => {
                const picture = new Image();
                picture.src = one.getAttribute("href");
                await picture.decode();
                return [picture.naturalWidth, Number(one.getAttribute("width"))];
            }))"""
        )
    assert {tag.lower() for tag, *_ in sizes} == {"img", "svg"}
    assert [size for size in sizes if not (size[1] > 0 and size[2] > 0 and size[3])] == []
    assert stored
    assert [size for size in stored if size[0] != size[1]] == []


def test_nothing_is_wider_than_the_window(chromium, small):
    for viewport in (WIDE, {"width": 800, "height": 1000}, NARROW):
        with opened(chromium, small, viewport=viewport) as page:
            assert overflow(page) == 0
            page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
            assert overflow(page) == 0


A4_LANDSCAPE = {"width": 1032, "height": 703}  # less 12 mm a side, at 96 dots an inch


def test_nothing_is_wider_than_the_paper(chromium, small, tmp_path):
    with opened(chromium, small, viewport=A4_LANDSCAPE) as page:
        page.emulate_media(media="print")
        assert overflow(page) == 0
        cut = page.evaluate(
            """[...document.querySelectorAll("main *")].filter((one) => one.checkVisibility()
            && !one.closest(".hidden, [hidden]") && one.getBoundingClientRect().right > innerWidth + 1)
            .map((one) => one.outerHTML.slice(0, 100))"""
        )
        assert cut == []
        assert page.pdf(prefer_css_page_size=True).startswith(b"%PDF")


# ---- by mouse and keyboard


def column(page, table: str, name: str) -> int:
    return page.evaluate(
        """([table, name]) => [...document.querySelector(table).tHead.rows[0].cells]
        .findIndex((cell) => cell.textContent.includes(name))""",
        [table, name],
    )


def values(page, table: str, at: int) -> list[str]:
    return page.evaluate(
        """([table, at]) => [...document.querySelector(table).tBodies[0].rows]
        .map((row) => row.cells[at].dataset.value ?? row.cells[at].textContent.trim())""",
        [table, at],
    )


@pytest.mark.parametrize("by", ["mouse", "Enter", "Space"])
def test_a_table_sorts(chromium, small, by):
    table = "table.sortable"
    with opened(chromium, small) as page:
        at = column(page, table, "LPIPS")
        head = page.locator(f"{table} >> nth=0").locator("thead th").nth(at)
        before = values(page, table, at)
        ascending = sorted(before, key=float)
        assert len(set(before)) == 4
        page.evaluate("(table) => document.querySelector(table).tBodies[0].append("
                      "document.querySelector(table).tBodies[0].rows[0])", table)  # fmt: skip
        assert values(page, table, at) != ascending
        for direction, wanted in (("ascending", ascending), ("descending", ascending[::-1])):
            if by == "mouse":
                head.locator("button").click()
            else:
                head.locator("button").focus()
                page.keyboard.press(by)
            assert values(page, table, at) == wanted
            assert head.get_attribute("aria-sort") == direction
            others = page.locator(f"{table} >> nth=0").locator("thead th[aria-sort]").evaluate_all(
                "(all) => all.map((one) => one.getAttribute('aria-sort')).filter((one) => one !== 'none').length"
            )  # fmt: skip
            assert others == 1


def test_the_slider_uncovers_by_keyboard(chromium, small):
    with opened(chromium, small) as page:
        box = page.locator(".compare").first
        assert box.is_visible()
        slider, stage = box.locator("input[type=range]"), box.locator(".stage")

        def uncovered() -> float:
            """The share of the upper picture that shows, from the shape it is cut to."""
            shape = stage.evaluate("(one) => getComputedStyle(one.lastElementChild).clipPath")
            return 100 - float(re.search(r"([\d.]+)%\s*\)", shape)[1])

        assert stage.locator("> *").count() == 2
        slider.focus()
        middle = uncovered()
        assert middle == 50
        for key, wanted in (("ArrowRight", 51), ("ArrowLeft", 50), ("Home", 0), ("End", 100)):
            page.keyboard.press(key)
            assert slider.input_value() == str(wanted)
            assert uncovered() in (wanted, 100 - wanted)
            assert slider.get_attribute("aria-valuetext").startswith(f"{wanted} % ")
        right = uncovered()
        page.keyboard.press("Home")
        assert uncovered() == 100 - right


def visible(page, what: str) -> int:
    count = "(all) => all.filter((one) => one.getClientRects().length).length"
    return page.locator(f".charts {what}").evaluate_all(count)


def test_the_key_takes_curves_away(chromium, small):
    with opened(chromium, small) as page:
        key = page.locator(".key").first
        for part, what in (("val", ".points.val"), ("intervals", ".points.test .whisker")):
            before = visible(page, what)
            assert before
            key.locator(f"input[name={part}]").press("Space")
            assert visible(page, what) == 0
            key.locator(f"input[name={part}]").press("Space")
            assert visible(page, what) == before
        name = key.locator("label[data-variant]").first.get_attribute("data-variant")
        of_one, all_curves = visible(page, f".points.test[data-variant={name}]"), visible(page, ".points.test")
        key.get_by_label(name, exact=True).press("Space")
        assert visible(page, ".points.test") == all_curves - of_one
        key.get_by_role("button", name="none").press("Enter")
        assert visible(page, ".points") == 0
        key.get_by_role("button", name="all").press("Enter")
        assert visible(page, ".points.test") == all_curves


@pytest.mark.slow
def test_many_methods_start_with_their_test_curves(chromium, large):
    with opened(chromium, large) as page:
        page.locator(".charts").first.scroll_into_view_if_needed()
        assert visible(page, ".points.test") > charts.MANY
        assert visible(page, ".points.val") == visible(page, ".points.test .whisker") == 0
        page.locator(".key").first.locator("input[name=val]").check()
        assert visible(page, ".points.val")


def test_the_slider_shows_the_pictures_that_are_chosen(chromium, small):
    with opened(chromium, small) as page:
        box = page.locator(".compare").first
        pair, left, right = (box.locator("select").nth(number) for number in range(3))
        for select in (pair, left, right):
            texts = [text.strip() for text in select.locator("option").all_text_contents()]
            assert len(texts) > 3
            assert all(texts)
        assert pair.locator("option").first.text_content() == "0 0000_c1.png to 0000_c2.png"

        def shown() -> str:
            return box.locator(".stage > *").first.evaluate("(one) => one.outerHTML")

        first = shown()
        left.select_option(label="spig")
        assert shown() != first
        second = shown()
        pair.select_option(index=1)
        assert shown() != second
        assert left.locator("option:checked").text_content() == "spig"


def test_the_keyboard_reaches_everything_and_shows_where_it_is(chromium, small):
    """Tab visits every control in the page's order, none is skipped or a trap, and each is drawn differently then."""
    with opened(chromium, small) as page:
        page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        wanted = page.evaluate(
            """(() => {
                const all = document.querySelectorAll("a[href], button, input, select, summary, [tabindex='0']");
                const seen = [...all].filter((one) => one.checkVisibility() && !one.closest("[hidden]"));
                seen.forEach((one, number) => { one.dataset.stop = number; });
                return seen.length;
            })()"""
        )
        visited, invisible = [], []
        for _ in range(wanted):
            page.keyboard.press("Tab")
            stop, drawn, what = page.evaluate(
                """(() => {
                    const one = document.activeElement, box = one.getBoundingClientRect();
                    const style = getComputedStyle(one);
                    const outlined = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1;
                    return [one.dataset.stop, outlined && box.width > 0 && box.height > 0, one.outerHTML.slice(0, 80)];
                })()"""
            )
            visited.append(int(stop) if stop else what)
            if not drawn:
                invisible.append(what)
        assert visited == list(range(wanted))
        assert invisible == []
        assert wanted > 30


# ---- marks and definitions


def explained(page) -> str:
    """What the page explains just now, as a reader sees it; "" for nothing."""
    tip = page.locator(".tip")
    return " ".join(tip.inner_text().split()) if tip.is_visible() else ""


def test_a_mark_is_explained_to_pointer_and_keyboard(chromium, small):
    wanted = "‡ " + MARKS["steps"].text
    with opened(chromium, small) as page:
        mark = page.locator("table a.marks[aria-describedby*=mark-steps]").first
        mark.scroll_into_view_if_needed()
        assert explained(page) == ""
        mark.hover()
        assert wanted in explained(page)
        box, window = page.locator(".tip").bounding_box(), page.viewport_size
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= window["width"]
        assert box["y"] + box["height"] <= window["height"]
        page.locator(".tip").hover()  # whoever moves onto it can go on reading
        page.wait_for_timeout(300)
        assert wanted in explained(page)
        page.keyboard.press("Escape")
        assert explained(page) == ""
        page.mouse.move(0, 0)
        mark.focus()
        assert wanted in explained(page)
        mark.blur()
        assert explained(page) == ""
        mark.focus()
        page.keyboard.press("Enter")
        assert page.url.endswith("#marks")  # it leads to the list of all


def test_a_definition_is_explained_as_a_mark_is(chromium, small):
    with opened(chromium, small) as page:
        page.locator("th a.define[href='#metric-ssim']").first.focus()
        assert explained(page).startswith("ssim (higher is better)")


def test_a_mark_is_explained_to_a_finger(chromium, small):
    with opened(chromium, small, viewport=NARROW, has_touch=True, is_mobile=True) as page:
        mark = page.locator("table a.marks").first
        mark.scroll_into_view_if_needed()
        mark.tap()
        assert explained(page)
        assert "#" not in page.url  # nor did the page jump
        box = page.locator(".tip").bounding_box()
        assert box["x"] + box["width"] <= NARROW["width"]
        page.locator("h1").tap()
        assert explained(page) == ""


def test_on_paper_the_list_of_marks_is_there(chromium, small):
    with opened(chromium, small, viewport=A4_LANDSCAPE) as page:
        page.emulate_media(media="print")
        assert page.locator("#mark-steps").is_visible()
        assert page.locator(".legend").count() == 1
        folded = page.locator("details:not([open])")
        assert folded.count() > 10
        assert not any(one.is_visible() for one in folded.all())  # paper cannot be unfolded


# ---- the first screen


def test_pictures_and_leaderboard_are_the_first_that_is_seen(chromium, small):
    with opened(chromium, small, viewport={"width": 1300, "height": 900}) as page:
        row = page.locator(".lineup").first.bounding_box()
        board = page.locator("table.sortable").first.bounding_box()
        assert 0 < row["y"] < board["y"] < 900
        tops = page.locator(".lineup").first.locator("li").evaluate_all(
            "(all) => [...new Set(all.map((one) => Math.round(one.getBoundingClientRect().top)))]"
        )  # fmt: skip
        assert len(tops) == 1
    with opened(chromium, small, viewport=NARROW) as page:
        assert page.locator(".lineup").first.bounding_box()["y"] < NARROW["height"]
        shown = [one.is_visible() for one in page.locator(".lineup").all()]
        assert shown == [True, False]  # one pair; the others are under Pictures


# ---- for everybody


def violations(page) -> list[str]:
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [f"{one['id']} ({one['impact']}): {node['target']}: {one['help']}" for one in found for node in one["nodes"]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(chromium, small, scheme):
    with opened(chromium, small, color_scheme=scheme) as page:
        page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        assert violations(page) == []


def test_axe_finds_what_is_wrong(chromium, small, tmp_path):
    """The check itself: an image without a text, and grey on grey."""
    text = small.read_text(encoding="utf-8")
    worse = '<img src="data:," width="5" height="5"><p style="color: #999; background: #aaa">faint</p></main>'
    (tmp_path / "worse.html").write_text(text.replace("</main>", worse), encoding="utf-8")
    with opened(chromium, tmp_path / "worse.html") as page:
        found = " ".join(violations(page))
    assert "image-alt" in found
    assert "color-contrast" in found


def test_the_dark_page_is_dark(chromium, small):
    grounds = {}
    for scheme in ("light", "dark"):
        with opened(chromium, small, color_scheme=scheme) as page:
            colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
            grounds[scheme] = sum(map(int, re.findall(r"\d+", colour)[:3]))
    assert grounds["dark"] < 150 < 600 < grounds["light"]


# ---- 20 methods, 2 data sets, 10 checkpoints


@pytest.mark.slow
def test_a_large_page_stays_small_and_sound(chromium, large):
    assert 1 * MEGABYTE < large.stat().st_size < 15 * MEGABYTE
    for viewport in (WIDE, NARROW):
        with opened(chromium, large, viewport=viewport) as page:
            assert overflow(page) == 0
            assert page.locator("table.pictures").count() == 2
            heads = page.locator("table.pictures").first.locator("thead th")
            assert heads.count() == 4 + len(report_project.TWENTY) == 24
            assert page.locator(".lineup").first.locator("li").count() == 23
            assert page.locator("svg[aria-label*='over training steps']").count() >= 2
