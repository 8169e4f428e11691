"""What tests of pages do in a browser, and what they measure there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from playwright.sync_api import ConsoleMessage, Locator, Page

HARMLESS = re.compile(r"Password forms should have|Failed to load resource: the server responded with a status of 4")
"""What a browser says to the console although all is well: an error page is an answer, too."""
CUT_OFF = re.compile(r"net::ERR_|Failed to load resource: net")


_MEASURE = Path(__file__).with_name("measure.js").read_text().partition("\n")[2].strip()


class Tab:
    """A page of the browser; ``complaints`` is what it had to say about scripts, styles and rules."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.may_be_cut_off = False
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _heard(self, message: ConsoleMessage) -> None:
        text = message.text
        if HARMLESS.search(text) or (self.may_be_cut_off and CUT_OFF.search(text)):
            return
        self.complaints.append(text)

    def log_in(self, url: str, token: str, path: str = "/") -> None:
        """Logs in on the way to ``path``."""
        self.page.goto(url + path)
        self.page.get_by_label("Token").fill(token)
        self.page.get_by_role("button", name="Log in").click()
        self.page.wait_for_url(url + path)

    def live(self) -> None:
        """Waits until the page is kept fresh."""
        self.page.wait_for_selector('#live[data-state="on"]')

    def part(self, name: str) -> Locator:
        return self.page.locator(f"#part-{name}")

    def walk(self, url: str) -> Iterator[str]:
        """Goes to every page that can be reached by links, one of each kind below a cluster; yields its address."""
        waiting, met = ["/"], {"/"}
        while waiting:
            path = waiting.pop(0)
            self.page.goto(url + path)
            yield path
            links = "all => all.map(a => a.getAttribute('href'))"
            hrefs: Sequence[str] = self.page.eval_on_selector_all("a[href]", links)
            for href in hrefs:
                kind = re.sub(r"^/clusters/[^/]+/|=db\d", "…", href)
                if href.startswith("/") and kind not in met:
                    met.add(kind)
                    waiting.append(href)

    def measured(self, script: str) -> Any:
        return self.page.evaluate(script)

    def measure(self, what: str) -> Any:
        """Returns what measure.js finds: ``pale``, ``cut`` or ``unnamed``."""
        return self.page.evaluate(f"{_MEASURE}.{what}()")
