"""Headless Chromium: a page at a time, what it says, and what it must never do (errors, requests to other hosts)."""

import json
import pathlib
import shutil
import tempfile

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains

from sale import wait_for

FLAGS = """--headless=new --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update
           --disable-sync --disable-dev-shm-usage --disable-extensions --lang=en-US""".split()
AUDIT = (pathlib.Path(__file__).parent / "audit.js").read_text()
NAMED_ROLES = {"button", "link", "textbox", "spinbutton", "combobox", "checkbox", "radio", "image", "meter", "dialog", "alertdialog", "region", "article"}
INNER_SCHEMES = ("data:", "blob:", "about:", "chrome:", "chrome-untrusted:", "chrome-error:", "devtools:")


class Browser:
    def __init__(self, url):
        self.url = url
        self.profile = tempfile.mkdtemp(prefix="doorbuster-chromium-")
        options = webdriver.ChromeOptions()
        options.binary_location = "/usr/bin/chromium"
        for flag in [*FLAGS, f"--user-data-dir={self.profile}"]:
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(service=Service("/usr/bin/chromedriver"), options=options)
        self.problems = []

    def end(self):
        self.driver.quit()
        shutil.rmtree(self.profile, ignore_errors=True)

    # --- looking ---
    def open(self, path):
        self.driver.get(self.url + path)

    def run(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def cdp(self, command, **parameters):
        return self.driver.execute_cdp_cmd(command, parameters)

    def text(self, selector):
        """The visible text of the first element, "" if there is none."""
        return self.run("const e = document.querySelector(arguments[0]); return e && e.checkVisibility() ? e.innerText.trim() : '';", selector)

    def wait_text(self, selector, part):
        return wait_for(lambda: part in self.text(selector), lambda: f"{part!r} in {selector}, which says {self.text(selector)!r}; page: {self.text('body')[:1500]}")

    def wait_gone(self, selector):
        wait_for(lambda: not self.text(selector), lambda: f"{selector} to go; it says {self.text(selector)!r}")

    def element(self, selector):
        """The first one that can be seen, waited for."""
        script = "return [...document.querySelectorAll(arguments[0])].find((e) => e.checkVisibility());"
        return wait_for(lambda: self.run(script, selector), selector)

    def click(self, selector):
        self._click_found(lambda: self.element(selector), selector)

    def _click_found(self, find, what):
        """A list that is drawn anew between looking and clicking is looked at again."""
        def click():
            try:
                found = find()
                if found:
                    found.click()
                return bool(found)
            except StaleElementReferenceException:
                return False
        wait_for(click, what)

    def click_button(self, within, label):
        """The button of this label; clicked when it is there."""
        def find():
            return self.run("""return [...document.querySelectorAll(arguments[0] + ' button')].find(
                (b) => b.checkVisibility() && b.innerText.trim() === arguments[1]);""", within, label)
        self._click_found(find, f"a button {label!r} in {within}")

    def type(self, selector, text):
        field = self.element(selector)
        field.clear()
        field.send_keys(text)

    def keys(self, *keys):
        ActionChains(self.driver).send_keys(*keys).perform()

    # --- the world around the page ---
    def look(self, width, height, scheme):
        self.cdp("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}, {"name": "prefers-reduced-motion", "value": "reduce"}])

    def block(self, *patterns):
        """Requests to these do not arrive."""
        self.cdp("Network.enable")
        self.cdp("Network.setBlockedURLs", urls=list(patterns))

    def forget_everything(self):
        """As a new visitor."""
        self.block()
        self.open("/health")
        self.run("sessionStorage.clear();")

    # --- judging ---
    def audit(self):
        """What is wrong with the page for those who see little or nothing, and for those on a small screen."""
        nodes = self.cdp("Accessibility.getFullAXTree")["nodes"]
        nameless = [f"a {node['role']['value']} has no name" for node in nodes
                    if not node["ignored"] and node.get("role", {}).get("value") in NAMED_ROLES and not node.get("name", {}).get("value", "").strip()]
        return nameless + self.run(AUDIT + "return audit();")

    def gather_problems(self):
        """What the browser complained of, and who was asked for anything, since the last time."""
        for entry in self.driver.get_log("browser"):
            # "network" is a 4xx, a 5xx or a broken connection: tests make these on purpose, and the page has to cope.
            if entry["level"] in ("SEVERE", "WARNING") and entry["source"] != "network":
                self.problems.append(f"{entry['source']}: {entry['message']}")
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                asked = message["params"]["request"]["url"]
                if not asked.startswith((self.url + "/", *INNER_SCHEMES)):
                    self.problems.append(f"asked another host: {asked}")
        found, self.problems = self.problems, []
        return found
