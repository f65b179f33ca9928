"""A headless Chromium with a profile of its own; tests skip only where there is none and no CI."""

import os
import shutil

import pytest
from selenium import webdriver

from verify.report.render.html import render

NAMES = ("chromium", "chromium-browser", "google-chrome")
SWITCHES = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


def found(*names):
    return next(filter(None, map(shutil.which, names)), None)


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    chromium, driver = found(*NAMES), found("chromedriver")
    if not (chromium and driver):
        missing = f"needs a browser ({' or '.join(NAMES)}) and chromedriver on the PATH"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for switch in (*SWITCHES, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    chrome.set_page_load_timeout(60)
    chrome.set_script_timeout(30)
    try:
        yield chrome
    finally:
        chrome.quit()


@pytest.fixture
def window(browser):
    """Sets width, height and colour scheme; 1280 x 900 and light unless told."""

    def resize(*, width=1280, height=900, scheme="light"):
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    resize()
    yield resize
    resize()


@pytest.fixture
def show(browser, window, tmp_path):
    """Opens a report's page from a file, changed by `edit`; the logs hold what this page says."""

    def load(report, *, edit=lambda text: text):
        page = tmp_path / "report.html"
        page.write_text(edit(render(report)), encoding="utf-8")
        for log in ("browser", "performance"):
            browser.get_log(log)
        browser.get(page.as_uri())
        return browser

    return load
