"""How a page says that it is fresh, and that it takes no connection while nobody looks at it: browsers have few."""

from __future__ import annotations

import json
import re

from playwright.sync_api import BrowserContext, expect

from tests.support.wait import until
from tests.web.browser.look import Tab
from tests.web.browser.stage import Stage, proxies, three, token


def hide(tab: Tab, hidden: bool) -> None:
    """Lets the page take itself for hidden behind another tab, or for seen again."""
    tab.measured(f"""() => {{
        Object.defineProperty(document, 'hidden', {{value: {json.dumps(hidden)}, configurable: true}});
        document.dispatchEvent(new Event('visibilitychange'));
    }}""")


def test_a_tab_that_is_not_looked_at_leaves_its_connection_to_others_and_is_live_again_at_once(
    stage: Stage, tab: Tab
) -> None:
    stage.show("shop", three(), proxies())
    tab.log_in(stage.url, token(stage), "/clusters/shop")
    tab.live()
    hide(tab, True)
    until(lambda: stage.hub.events.listeners == 0, "the stream to end")
    assert tab.page.locator("#live").text_content() == "not live"
    stage.show("shop", three(lag=9.0), proxies())
    hide(tab, False)
    tab.live()
    expect(tab.part("truth")).to_contain_text("9 s behind")
    assert stage.hub.events.listeners == 1


def test_the_seventh_tab_of_a_browser_is_served(stage: Stage, tab: Tab, context: BrowserContext) -> None:
    stage.show("shop", three(), proxies())
    tab.log_in(stage.url, token(stage))
    tab.live()
    for number in range(1, 7):
        hide(tab, True)
        tab = Tab(context.new_page())
        tab.page.goto(f"{stage.url}/clusters/{'shop' if number % 2 else 'bank'}")
        tab.live()


def test_silence_is_read_out_once_and_its_seconds_are_only_seen(stage: Stage, tab: Tab) -> None:
    stage.show("shop", three(), proxies())
    tab.log_in(stage.url, token(stage))
    tab.live()
    tab.measured("""() => {
        window.said = [];
        const word = document.querySelector('#live [role=status]');
        new MutationObserver(() => window.said.push(word.textContent)).observe(word, {childList: true});
        heard -= 20000;
        source.close();
    }""")
    live = tab.page.locator("#live")
    expect(live).to_contain_text(re.compile(r"no news for \d+ s"))
    first = live.text_content()
    until(lambda: live.text_content() != first, "its seconds to go on")
    assert tab.measured("window.said") == ["no news"]
