"""The real frontend in headless Chromium, used as a creator uses it: load a workflow, press Run, look at the nodes.

Needs Playwright and Debian's Chromium, or a Chromium that CHROMIUM_PATH names.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .place import refuse
from .server import Server

CHROMIUM = Path(os.environ.get("CHROMIUM_PATH", "/usr/bin/chromium"))
FLAGS = "--no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync --no-first-run".split()
SIZE = {"width": 1500, "height": 900}
MILLISECONDS = 1000

READY = "window.app?.graph && window.LiteGraph && LiteGraph.registered_node_types.KnotForcingDecode && document.querySelector('canvas')"
LISTEN = """() => {
    window.seen = [];
    for (const event of ['execution_start', 'execution_success', 'execution_error', 'execution_interrupted'])
        app.api.addEventListener(event, (message) => seen.push([event, message.detail]));
}"""
LOAD = "([text, name]) => app.handleFile(new File([text], name, {type: 'application/json'}))"
SET = """([type, name, value]) => {
    const node = app.graph.nodes.find((node) => node.type === type);
    const widget = node.widgets.find((widget) => widget.name === name);
    widget.value = value;
    widget.callback?.(value);
}"""

LIVE_FRAME = """(() => {
    const shows = ['KnotForcingDecode', 'KnotForcingNextSegment'];
    const node = app.graph.nodes.find((node) => shows.includes(node.type));
    const place = document.querySelector(`[data-node-id="${node.id}"]`);  // Nodes 2.0 only
    const images = place ? [...place.querySelectorAll('img')] : node.imgs ?? [];
    return images.some((image) => image.src.startsWith('blob:') && image.naturalWidth > 0);
})()"""
LINES = "app.graph.nodes.flatMap((node) => (node.widgets ?? []).filter((w) => w.type === 'progressText').map((w) => String(w.value)))"


class Frontend:
    """One tab."""

    def __init__(self, page, name: str) -> None:
        self.page, self.name = page, name
        self.problems: list[str] = []  # what the page complained about
        page.on("pageerror", lambda error: self.problems.append(str(error)))

    def load(self, text: str, name: str) -> None:
        """Open a workflow file, as if it had been dropped on the canvas."""
        self.page.evaluate(LOAD, [text, f"{name}.json"])
        wanted = len(json.loads(text)["nodes"])
        self.page.wait_for_function(f"app.graph.nodes.length === {wanted}", timeout=60 * MILLISECONDS)

    def set(self, type: str, widget: str, value: object) -> None:
        self.page.evaluate(SET, [type, widget, value])

    def press_run(self) -> None:
        self.page.evaluate("() => { seen.length = 0 }")
        self.page.get_by_test_id("queue-button").first.click()

    def press_cancel(self) -> None:
        self.page.get_by_role("button", name="Cancel current run").first.click()

    def wait_until(self, condition: str, seconds: float = 180):
        """Wait until a JavaScript expression is true; its value."""
        return self.page.wait_for_function(condition, timeout=seconds * MILLISECONDS).json_value()

    def end(self, seconds: float = 240) -> tuple[str, dict]:
        """How the run ended: the event and what came with it."""
        return tuple(self.wait_until("seen.find(([event]) => event !== 'execution_start')", seconds))

    def prompt(self) -> dict:
        """The workflow as the frontend sends it to the server."""
        return self.page.evaluate("async () => (await app.graphToPrompt()).output")


@contextmanager
def chromium() -> Iterator:
    """A browser; without one the test says so loudly."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        refuse("NO PLAYWRIGHT FOUND: `pip install playwright` in the host's environment to test in a browser")
    if not CHROMIUM.exists():
        refuse(f"NO CHROMIUM AT {CHROMIUM}: `apt install chromium`, or set CHROMIUM_PATH, to test in a browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def frontend(browser, server: Server, *, nodes2: bool = False, locale: str = "en", scale: float = 1) -> Iterator[Frontend]:
    """A tab with an empty canvas, in the classic look or in Nodes 2.0."""
    server.post("/settings", {"Comfy.TutorialCompleted": True, "Comfy.VueNodes.Enabled": nodes2, "Comfy.Locale": locale})
    page = browser.new_page(viewport=SIZE, device_scale_factor=scale)
    try:
        tab = Frontend(page, "nodes2" if nodes2 else "classic")
        page.goto(f"http://127.0.0.1:{server.port}", timeout=180 * MILLISECONDS)
        tab.wait_until(READY)
        page.wait_for_timeout(MILLISECONDS)  # the workflow of a first visit is loaded a moment later
        page.evaluate("() => app.graph.clear()")
        page.evaluate(LISTEN)
        yield tab
    finally:
        page.close()
