"""A real browser for tests of the pages: it opens, clicks, types and reads, and remembers what a page complained of."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.common.exceptions import StaleElementReferenceException  # noqa: E402
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.remote.webdriver import WebDriver  # noqa: E402
from selenium.webdriver.remote.webelement import WebElement  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

__all__ = ["NEEDS_CHROMIUM", "Browser", "Keys", "WebDriver", "start_chromium", "wait_until"]

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
NEEDS_CHROMIUM = [
    pytest.mark.browser,
    pytest.mark.slow,
    # A browser is a program of many processes on a busy machine: what fails twice in a row is ours.
    pytest.mark.flaky(reruns=1),
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs Debian's chromium and chromium-driver"),
]
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1280,900",
)  # fmt: skip


def wait_until(condition: Callable[[], object], what: str, seconds: float = 20) -> Any:
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        # A page that is put in the place of another takes its elements away while one reads them.
        with suppress(StaleElementReferenceException):
            if found := condition():
                return found
        time.sleep(0.05)
    pytest.fail(f"waited {seconds} s in vain until {what}")


class Browser:
    """A browser that is signed in, and remembers what it complained about."""

    def __init__(self, driver: WebDriver, site: Any) -> None:
        self.driver = driver
        self.site = site

    def open(self, path: str) -> None:
        self.driver.get(self.site.server.url + path)

    def find(self, css: str) -> WebElement:
        return WebDriverWait(self.driver, 10).until(lambda driver: driver.find_element(By.CSS_SELECTOR, css))

    def all(self, css: str) -> list[WebElement]:
        return list(self.driver.find_elements(By.CSS_SELECTOR, css))

    def texts(self, css: str) -> list[str]:
        try:
            return [element.text for element in self.all(css)]
        except StaleElementReferenceException:
            # The page changed while it was read, as after a click: read the new one.
            return self.texts(css)

    def click(self, css: str) -> None:
        self.find(css).click()

    def click_link(self, text: str) -> None:
        WebDriverWait(self.driver, 10).until(lambda driver: driver.find_element(By.LINK_TEXT, text)).click()

    def wait_for_text(self, css: str, text: str) -> None:
        wait_until(lambda: any(text in found for found in self.texts(css)), f"{css} says {text!r}")

    @property
    def path(self) -> str:
        return str(self.driver.current_url).removeprefix(self.site.server.url)

    @property
    def title(self) -> str:
        return self.find("h1").text

    def script(self, text: str, *arguments: object) -> Any:
        return self.driver.execute_script(text, *arguments)

    def complaints(self) -> list[str]:
        log = self.driver.get_log("browser")
        said = [entry["message"] for entry in log if entry["level"] in ("SEVERE", "WARNING")]
        # Reading pixels is what tests do, not pages.
        return [one for one in said if "willReadFrequently" not in one]

    def theme(self, name: str) -> None:
        features = [{"name": "prefers-color-scheme", "value": name}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def width(self, pixels: int) -> None:
        size = {"width": pixels, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def sign_in(self, token: str) -> None:
        """Begin afresh on a wide screen, as whom the token is of."""
        self.width(1280)
        self.theme("light")
        self.open("/sign-in")
        self.script("localStorage.clear()")
        self.driver.delete_all_cookies()
        cookie = {"name": "modelyard_session", "value": token, "path": "/", "sameSite": "Strict"}
        self.driver.add_cookie(cookie)
        self.complaints()


def start_chromium(profile: Path) -> WebDriver:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=Service(DRIVER))
