"""One browser for all tests of the pages; a module brings its `site`: what has `.server`, a running server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from e2e import browsing


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browsing.WebDriver]:
    """Headless Chromium."""
    from e2e import browsing

    started = browsing.start_chromium(tmp_path_factory.mktemp("chromium"))
    yield started
    started.quit()


@pytest.fixture
def browser(driver: browsing.WebDriver, site: Any) -> Iterator[browsing.Browser]:
    """Signed in as admin, on a wide screen; what a page complains about fails the test."""
    from e2e import browsing

    one = browsing.Browser(driver, site)
    one.sign_in(site.server.token)
    yield one
    assert one.complaints() == []
