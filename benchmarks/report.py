"""How fast a large report opens: 20 methods, 2 data sets, 10 checkpoints each, its scores and pictures invented.

  taskset -c 1 env OMP_NUM_THREADS=1 python -m benchmarks.report

Writes the project that tests/report/test_report_browser.py checks into a temporary folder, opens its page in Chromium
RUNS times, each in a fresh profile, and prints benchmarks/report.md. Paint times are the browser's own (Performance
API), from the start of navigation; a sort and the slider are timed from the input to the second frame after it.
"""

import os
import platform
import shutil
import statistics
import tempfile
import time
from contextlib import chdir
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from pipeline.core import layout
from tests.report import report_project

RUNS = 7

PAINTS = """() => {
    const paint = Object.fromEntries(performance.getEntriesByType("paint").map((one) => [one.name, one.startTime]));
    const page = performance.getEntriesByType("navigation")[0];
    return [paint["first-paint"], paint["first-contentful-paint"], page.domContentLoadedEventEnd, page.loadEventEnd];
}"""
# Milliseconds from an action to when its result has been drawn.
DRAWN = """async (act) => {
    const start = performance.now();
    eval(act);
    await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
    return performance.now() - start;
}"""
ACTIONS = {
    "sort the first leaderboard": "document.querySelector('table.sortable thead button').click()",
    "sort the longest table": """[...document.querySelectorAll('table.sortable')]
        .sort((a, b) => b.rows.length - a.rows.length)[0].querySelector('thead button').click()""",
    "move the slider": """{ const one = document.querySelector('.compare input'); one.value = 70;
        one.dispatchEvent(new Event('input')); }""",
    "go to the end": "scrollTo({ top: 1e9, behavior: 'instant' })",
}


def measure(page: Page, address: str) -> dict[str, float]:
    """Milliseconds of one opening, and of what a reader does then."""
    clock = page.context.new_cdp_session(page)
    clock.send("Performance.enable", {"timeDomain": "threadTicks"})
    page.goto(address, wait_until="load")
    page.wait_for_function("performance.getEntriesByType('paint').length === 2")
    names = ("first paint", "first contentful paint", "page parsed", "page loaded")
    found = dict(zip(names, page.evaluate(PAINTS), strict=True))
    counted = {one["name"]: one["value"] for one in clock.send("Performance.getMetrics")["metrics"]}
    found["processor time of the page's thread until then"] = 1000 * counted["TaskDuration"]
    return found | {name: page.evaluate(DRAWN, action) for name, action in ACTIONS.items()}


def runs(path: Path) -> tuple[list[dict[str, float]], str]:
    """Each opening's times, and the browser's version."""
    found, version = [], ""
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        for _ in range(RUNS):
            browser = playwright.chromium.launch(executable_path=executable, args=arguments)
            context = browser.new_context(offline=True, viewport={"width": 1400, "height": 900})
            found.append(measure(context.new_page(), path.as_uri()))
            version = browser.version
            browser.close()
    return found, version


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{model}, {len(os.sched_getaffinity(0))} core of {os.cpu_count()}"


def main() -> None:
    size = report_project.LARGE
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        start = time.process_time()
        report_project.write(Path(folder), size)
        took = time.process_time() - start
        text = layout.REPORT.read_text(encoding="utf-8")
        beside = len(list(layout.REPORT_PICTURES.iterdir()))
        found, browser = runs(Path(folder) / layout.REPORT)
    pictures = sum(len(part.partition('"')[0]) for part in text.split('"data:image/')[1:])
    print("# A large report in the browser\n")
    print(
        f"{len(size.trained)} trained methods and 2 floors, {len(size.datasets)} data sets, {size.checkpoints} "
        f"checkpoints each, {size.pairs} test pairs; pictures as hard to compress as photographs.\nMade by "
        "`taskset -c 1 env OMP_NUM_THREADS=1 python -m benchmarks.report > benchmarks/report.md`.\n"
    )
    print(
        f"{processor()}, shared with other work (load {os.getloadavg()[0]:.0f}); Chromium {browser}, without a GPU; "
        f"Python {platform.python_version()}.\n"
    )
    print("| the page | |\n|---|---|")
    print(f"| size, MB (to reach: under 15) | {len(text.encode()) / 1e6:.2f} |")
    print(f"| of it pictures, MB | {pictures / 1e6:.2f} |")
    print(f"| pictures beside it | {beside} |")
    print(f"| elements, about | {text.count('</') + text.count('/>'):,} |")
    print(f"| to write it all (inputs, tables, page), s of processor time | {took:.1f} |\n")
    print(f"| milliseconds, {RUNS} openings | median | least | most |\n|---|---|---|---|")
    for name in found[0]:
        values = [run[name] for run in found]
        print(f"| {name} | {statistics.median(values):.0f} | {min(values):.0f} | {max(values):.0f} |")


if __name__ == "__main__":
    main()
