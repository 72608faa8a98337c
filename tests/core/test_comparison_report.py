"""The report as a person opens it: in headless Chromium, from the file system, with no network."""

import re
import shutil

import numpy as np
import pytest

import mollikit as mk

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
needs_browser = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="needs Chromium and its driver (Debian: chromium, chromium-driver)"
)


class Waves:
    def value_and_gradient(self, points, **held):
        return np.sin(3 * points).sum((1, 2)), 3 * np.cos(3 * points)


@pytest.fixture(scope="module")
def comparison():
    views = {"pooled": mk.Pool(4)}
    inputs = np.random.default_rng(0).normal(size=(16, 12))
    schemes = {"plain <b>": mk.Independent(), "pairs": mk.Antithetic(), "nets": lambda n: mk.Sobol(n // 8)}
    options = {"rounds": 6, "seconds": None, "rng": 0, "kernel": mk.Gaussian(0.3)}
    return mk.compare(Waves(), inputs, schemes=schemes, views=views, **options)


@pytest.fixture(scope="module")
def report(comparison, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    comparison.save_report(path, "Waves & <nets>")
    return path


def test_it_needs_nothing_else(report):
    text = report.read_text()
    assert "<title>Waves &amp; &lt;nets&gt;</title>" in text
    assert "plain &lt;b&gt;" in text
    assert "plain <b>" not in text
    # Addresses in an SVG's names of vocabularies are never asked for.
    loaded = re.findall(r"""(?:src|href)=["'](?!data:|#)([^"']+)""", text)
    assert not [address for address in loaded if "w3.org" not in address]
    assert "@import" not in text


def test_nothing_half_written_is_left(comparison, tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        comparison.save_report(tmp_path / "absent" / "report.html")
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    profile = tmp_path_factory.mktemp("profile")
    for word in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-dev-shm-usage",
        "--window-size=1200,1600",
        f"--user-data-dir={profile}",
    ):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@needs_browser
def test_it_opens_without_a_complaint(browser, report, comparison):
    browser.get(report.as_uri())
    assert browser.get_log("browser") == []
    for quantity in comparison.quantities:
        for name in ("error", "gain", "seconds", "coverage", "maps"):
            box = browser.execute_script(
                "const svg = document.getElementById(arguments[0]).querySelector('svg');"
                "const box = svg.getBoundingClientRect();"
                "return [box.width, box.height, svg.querySelectorAll('path').length];",
                f"{quantity}-{name}",
            )
            assert min(box[:2]) > 100, (quantity, name, box)
            assert box[2] > 5
    assert comparison.recommendation in browser.find_element("css selector", ".verdict").text
    # Nothing is wider than the page.
    assert browser.execute_script(
        "return document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    )


@needs_browser
def test_its_tables_sort(browser, report, comparison):
    browser.get(report.as_uri())
    table = browser.find_element("css selector", "table.sortable")

    def column(k):
        script = (
            "return [...arguments[0].tBodies[0].rows].map(r => r.cells[arguments[1]].dataset.value"
            " ?? r.cells[arguments[1]].textContent)"
        )
        return browser.execute_script(script, table, k)

    heads = table.find_elements("css selector", "thead button")
    for k, kind in ((3, float), (4, float), (0, str)):
        before = sorted(map(kind, column(k)))
        heads[k].click()
        assert list(map(kind, column(k))) == before
        heads[k].click()
        assert list(map(kind, column(k))) == before[::-1]
    assert len(column(0)) == len(comparison.schemes) * len(comparison.evaluations)
    # Rows stay whole: the errors still stand beside their schemes.
    told = {(row.scheme, row.evaluations): row.error for row in comparison.rows if row.quantity == "map"}
    for scheme, n, error in zip(column(0), column(1), column(3), strict=True):
        assert told[scheme, int(n)] == float(error)


@needs_browser
def test_it_follows_the_scheme_of_the_page(browser, report):
    seen = {}
    for scheme in ("light", "dark"):
        browser.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        )
        browser.get(report.as_uri())
        seen[scheme] = browser.execute_script(
            "const ink = [...document.querySelectorAll('#map-error svg [style*=\"var(--ink)\"]')];"
            "return [getComputedStyle(document.body).backgroundColor, getComputedStyle(ink[0]).stroke,"
            " getComputedStyle(ink[0]).fill, ink.length];"
        )
    assert seen["light"][0] != seen["dark"][0]
    assert seen["light"][1:3] != seen["dark"][1:3]
    assert seen["light"][3] > 3
