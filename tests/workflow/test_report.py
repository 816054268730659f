"""The HTML report, in a browser without a network."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import Project
from selenium import webdriver
from selenium.webdriver.remote.webdriver import WebDriver

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
    "--host-resolver-rules=MAP * ~NOTFOUND",  # whatever is not in the file is missing
    "--window-size=1400,900",
)


@pytest.fixture
def report(project: Project) -> Path:
    """The report of the smoke run."""
    project.run("--report", "report.html")
    return project.root / "report.html"


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[WebDriver]:
    """Headless Chromium; its absence is an error where everything has to be tested."""
    if not (shutil.which(BROWSER) and shutil.which(DRIVER)):
        if os.environ.get("CI"):
            pytest.fail(f"{BROWSER} and {DRIVER} are not installed")
        pytest.skip(f"{BROWSER} and {DRIVER} are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which(BROWSER)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path / 'chromium'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(shutil.which(DRIVER))
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()
