"""The HTML report, in a browser without a network."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import Project
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

BROWSER, DRIVER = "chromium", "chromedriver"
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--host-resolver-rules=MAP * ~NOTFOUND",  # no network: what is not in the file is missing
    "--window-size=1400,900",
)
SECONDS = 30


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[WebDriver]:
    """Headless Chromium; that it is missing is an error where everything has to be tested."""
    if not (shutil.which(BROWSER) and shutil.which(DRIVER)):
        if os.environ.get("CI"):
            pytest.fail(f"{BROWSER} and {DRIVER} are not installed")
        pytest.skip(f"{BROWSER} and {DRIVER} are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which(BROWSER)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which(DRIVER)))
    yield driver
    driver.quit()


def press(browser: WebDriver, element: WebElement) -> None:
    """Click on an element wherever it is: menus slide in, and a pointer would miss them."""
    browser.execute_script("arguments[0].click()", element)


def click(browser: WebDriver, path: str) -> None:
    """Click on what an XPath names, as soon as it is there."""
    wait = WebDriverWait(browser, SECONDS)
    press(browser, wait.until(lambda b: b.find_elements(By.XPATH, path))[-1])


def show(browser: WebDriver, result: str) -> None:
    """Click through the categories to a result, and on its eye."""
    tree = browser.execute_script("return categories")
    category, subcategory = next(
        (name, sub) for name, subs in tree.items() for sub in subs if result in subs[sub]
    )
    label = next(iter(browser.execute_script("return results")[result]["labels"].values()))
    click(browser, f"//*[normalize-space(text())='{category}']")
    if len(tree[category]) > 1:
        click(browser, f"//*[normalize-space(text())='{subcategory}']")
    click(browser, f"//tr[td[normalize-space()='{label}']]//a[@iconname='eye']")


def open_report(browser: WebDriver, project: Project) -> None:
    project.run("--report", "report.html")
    browser.get((project.root / "report.html").as_uri())


def test_table_can_be_found_and_sorted(project: Project, browser: WebDriver) -> None:
    open_report(browser, project)
    show(browser, "results/smoke/lorenz63/tables/lorenz63.html")
    wait = WebDriverWait(browser, SECONDS)
    browser.switch_to.frame(wait.until(lambda b: b.find_elements(By.TAG_NAME, "iframe"))[0])
    text = wait.until(lambda b: b.find_element(By.TAG_NAME, "main").text)
    for word in ("Lorenz-63", "CRPS", "FlowDAS", "limit", "floor"):
        assert word in text

    def column() -> list[float]:
        rows = browser.find_elements(By.CSS_SELECTOR, "table tbody:first-of-type tr:not(.head)")
        values = [row.find_elements(By.CSS_SELECTOR, "th, td")[1] for row in rows]
        return [float(v.get_attribute("data-value")) for v in values if v.text.strip(" –")]

    button = browser.find_elements(By.CSS_SELECTOR, "thead th")[1].find_element(
        By.TAG_NAME, "button"
    )
    press(browser, button)
    assert column() == sorted(column())
    press(browser, button)
    assert column() == sorted(column(), reverse=True)
    assert len(column()) >= 4
    assert not [line for line in browser.get_log("browser") if line["level"] == "SEVERE"]


def test_figure_can_be_found(project: Project, browser: WebDriver) -> None:
    open_report(browser, project)
    figures = sorted((project.tree / "figures").glob("*.png"))
    if not figures:
        pytest.skip("the experiment has no figure at smoke scale")
    show(browser, str(figures[0].relative_to(project.root)))

    def widths(b: WebDriver) -> list[int]:
        images = b.find_elements(By.CSS_SELECTOR, "img[src^='data:image/png']")
        return [int(image.get_attribute("naturalWidth")) for image in images]

    WebDriverWait(browser, SECONDS).until(lambda b: any(width > 300 for width in widths(b)))
    assert not [line for line in browser.get_log("browser") if line["level"] == "SEVERE"]
