#!/usr/bin/python3
"""The shop window and the dashboard in headless Chromium, on a real server.

   tests/browser/test_pages.py [TestPages.test_NAME]      $DOORBUSTER_BIN: the built programs, else build-test/bin"""

import datetime
import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
sys.dont_write_bytecode = True

from selenium.webdriver.common.keys import Keys  # noqa: E402

from browser import Browser  # noqa: E402
from sale import ADMIN, PASSWORD, Sale, wait_for  # noqa: E402

BROWSER_HTML = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


def card(product):
    return f"[data-product='{product}']"


class TestPages(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.sale = Sale(stock=3, limit=1)
        cls.addClassCleanup(cls.sale.end)
        cls.browser = Browser(cls.sale.url)
        cls.addClassCleanup(cls.browser.end)

    def setUp(self):
        self.browser.look(1280, 800, "light")
        self.browser.forget_everything()

    def tearDown(self):
        self.assertEqual(self.browser.gather_problems(), [])

    # --- steps ---
    def open_shop(self, product):
        self.browser.open("/")
        self.browser.element(card(product))

    def sign_in(self, username):
        """In the dialog that is open, with the password of the tests."""
        self.browser.type("dialog [name=username]", username)
        self.browser.type("dialog [name=password]", PASSWORD)
        self.browser.click("dialog [type=submit]")
        self.browser.wait_text("#account", username)

    def shop_as(self, username, product):
        """The shop window, somebody signed in."""
        self.sale.token(username)
        self.open_shop(product)
        self.browser.click_button("#account", "Sign in")
        self.sign_in(username)

    def dashboard_as_admin(self):
        self.browser.open("/dashboard")
        self.browser.click_button("#account", "Sign in")
        self.sign_in(ADMIN)

    def ask_for_change(self, product, label, reason, **fields):
        """On the dashboard, up to the sentence that says what will happen."""
        self.browser.click_button(card(product), label)
        for name, value in fields.items():
            self.browser.type(f"dialog [name={name}]", value)
        self.browser.type("dialog [name=reason]", reason)
        self.browser.click_button("dialog", "Continue")

    def press_buy(self, product):
        """Once the last order's second press is over, if it is on sale."""
        self.browser.click(f"{card(product)}[data-state=open] .buy:not([aria-disabled]), {card(product)}:not([data-state=open]) .buy")

    def outcome(self, product, part):
        self.browser.wait_text(f"{card(product)} .outcome", part)

    def intent(self, product):
        """What the page remembers of an order that is not answered for good; None: nothing."""
        return self.browser.run("return (JSON.parse(sessionStorage.getItem('doorbuster.intents')) || {})[arguments[0]];", product)

    def lose_answers(self, method, path, times=1000):
        """What is asked for is done, but the page does not hear of it."""
        self.browser.run("""const real = window.fetch, [method, path] = arguments;
            let left = arguments[2];
            window.findAnswers = () => { left = 0; };
            window.fetch = async (asked, options) => {
              const answer = await real(asked, options);
              if (left === 0 || asked !== path || options.method !== method) return answer;
              left -= 1;
              throw new TypeError('lost');
            };""", method, path, times)

    def find_answers(self):
        self.browser.run("window.findAnswers();")

    # --- the shop window ---
    def test_a_new_customer_buys_and_cancels(self):
        """Registers in the dialog; the purchase goes on by itself. Then the limit, my orders, and back on sale."""
        browser, product = self.browser, self.sale.product
        self.open_shop(product)
        browser.wait_text(f"{card(product)} .stock", "3 of 3 left")
        browser.wait_text(f"{card(product)} .price", "$499.00")
        self.press_buy(product)
        browser.click_button("dialog", "New here? Make an account")
        browser.type("dialog [name=username]", "newcomer")
        browser.type("dialog [name=password]", PASSWORD)
        browser.type("dialog [name=again]", PASSWORD + "!")
        browser.click("dialog [type=submit]")
        browser.wait_text("dialog .message", "passwords differ")
        browser.type("dialog [name=again]", PASSWORD)
        browser.click("dialog [type=submit]")
        self.outcome(product, "Bought! Order ")
        browser.wait_text(f"{card(product)} .stock", "2 of 3 left")
        browser.wait_text("#orders-list", "Black Friday Limited Edition")
        self.press_buy(product)
        self.outcome(product, "Limit reached")
        browser.click_button("#orders-list", "Cancel")
        browser.wait_text("dialog", "go back on sale at once")
        self.assertEqual(browser.audit(), [])
        browser.click_button("dialog", "Cancel the order")
        browser.wait_text("#orders-list", "cancelled")
        browser.wait_text(f"{card(product)} .stock", "3 of 3 left")

    def test_a_wrong_password_is_said(self):
        browser = self.browser
        self.sale.token("forgetful")
        self.open_shop(self.sale.product)
        browser.click_button("#account", "Sign in")
        browser.type("dialog [name=username]", "forgetful")
        browser.type("dialog [name=password]", "something else")
        browser.click("dialog [type=submit]")
        browser.wait_text("dialog .message", "The user name or the password is wrong.")

    def test_sold_out_behind_old_figures(self):
        """No stream, so the page asks again and again; then no figures at all, and the last unit goes meanwhile."""
        product = self.sale.add_product("The last one", 2)
        browser = self.browser
        browser.block("*/api/events*")
        self.shop_as("too_late", product)
        browser.wait_text("#link-state", "every few seconds")
        browser.wait_text(f"{card(product)} .stock", "2 of 2 left")
        browser.block("*/api/events*", "*/api/figures*")
        self.sale.buy("somebody", product)
        browser.type(f"{card(product)} [name=quantity]", "2")
        self.press_buy(product)
        self.outcome(product, "Only 1 left")
        self.sale.buy("somebody", product)
        browser.type(f"{card(product)} [name=quantity]", "1")
        self.press_buy(product)
        self.outcome(product, "Sold out")
        browser.block()
        browser.wait_text(f"{card(product)} .tag", "Sold out")
        self.assertEqual(self.sale.orders_of(product), 2)

    def test_the_countdown_is_the_servers(self):
        """A visitor whose clock is an hour fast waits as long as everybody."""
        browser = self.browser
        script = browser.cdp("Page.addScriptToEvaluateOnNewDocument", source="const realNow = Date.now; Date.now = () => realNow() + 3600000;")
        try:
            for seconds in (4, 12, 36):  # until most of it is left when the page is there
                starts_at = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=seconds)
                product = self.sale.add_product(f"Opens in {seconds} s", 5, starts_at=starts_at.isoformat())
                self.open_shop(product)
                if datetime.datetime.now(datetime.timezone.utc) < starts_at - datetime.timedelta(seconds=0.6 * seconds):
                    break
            browser.wait_text(f"{card(product)} .clock", "Opens in 00:00:0")
            self.assertEqual(browser.text(f"{card(product)} .buy"), "Not open yet")
            self.press_buy(product)
            self.outcome(product, "Not open yet")
            browser.wait_text(f"{card(product)} .buy", "Buy")
            self.assertEqual(browser.text(f"{card(product)} .outcome"), "")
            self.assertGreater(datetime.datetime.now(datetime.timezone.utc), starts_at - datetime.timedelta(seconds=1))
        finally:
            browser.cdp("Page.removeScriptToEvaluateOnNewDocument", identifier=script["identifier"])

    def test_a_lost_answer_is_no_second_order(self):
        """The order is made, the answer is lost on its way: the page asks again with the same key."""
        product = self.sale.add_product("Bought once", 9)
        browser = self.browser
        self.shop_as("unlucky", product)
        browser.run("""const real = window.fetch;
            window.fetch = async (path, options) => {
              const answer = await real(path, options);
              if (path !== '/api/purchases') return answer;
              window.fetch = real;
              throw new TypeError('lost');
            };""")
        self.press_buy(product)
        self.outcome(product, "Your first try had come through; nothing was bought twice.")
        self.assertEqual(self.sale.orders_of(product), 1)

    def test_a_double_click_is_one_order(self):
        """The first press is answered before the second comes: that second one is still the same click."""
        product = self.sale.add_product("Pressed twice", 9)
        browser = self.browser
        self.shop_as("impatient", product)
        browser.run("""const outcome = document.querySelector(`[data-product='${arguments[0]}'] .outcome`), buy = document.querySelector(`[data-product='${arguments[0]}'] .buy`);
            new MutationObserver(() => {
              if (!outcome.innerText.startsWith('Bought!') || window.secondPress !== undefined) return;
              buy.click();
              window.secondPress = outcome.innerText;
            }).observe(outcome, { childList: true });""", product)
        self.press_buy(product)
        self.outcome(product, "Bought!")
        self.assertTrue(wait_for(lambda: browser.run("return window.secondPress;"), "the second press").startswith("Bought!"))
        self.press_buy(product)  # a moment later it is meant
        wait_for(lambda: self.sale.orders_of(product) == 2, lambda: f"two orders, not {self.sale.orders_of(product)}")

    def test_no_news_from_the_start(self):
        """A phone without a network: the page says so where one looks, and shows the products once there is one."""
        browser, product = self.browser, self.sale.product
        browser.block("*/api/events*", "*/api/figures*")
        browser.open("/")
        browser.wait_text("#notice", "The shop does not answer yet.")
        browser.block()
        browser.wait_text(f"{card(product)} .price", "$499.00")
        self.assertEqual(browser.text("#notice"), "")

    def test_older_orders_are_shown_once(self):
        product = self.sale.add_product("Again and again", 100)
        for _ in range(25):
            self.sale.buy("regular", product)
        browser = self.browser
        self.shop_as("regular", product)
        browser.element("#orders-more")
        browser.run("document.getElementById('orders-more').click(); document.getElementById('orders-more').click();")
        browser.wait_gone("#orders-more")
        shown = browser.run("return [...document.querySelectorAll('.order-title strong')].map((e) => e.textContent);")
        self.assertEqual((len(shown), len(set(shown))), (25, 25))

    def test_a_reload_goes_on(self):
        """The order does not get through, the page is loaded anew: it goes on by itself, with the same key."""
        product = self.sale.add_product("Patience", 9)
        browser = self.browser
        self.shop_as("patient", product)
        browser.block("*/api/purchases")
        self.press_buy(product)
        self.outcome(product, "Connection in doubt")
        key = self.intent(product)["key"]
        self.open_shop(product)
        self.outcome(product, "Connection in doubt")
        self.assertEqual(self.intent(product)["key"], key)
        browser.click_button(card(product), "Stop trying")
        self.outcome(product, "press Buy once more, which can never buy twice")
        browser.block()
        self.open_shop(product)  # who has stopped does not go on by loading the page
        self.assertEqual(self.intent(product)["key"], key)
        self.press_buy(product)
        self.outcome(product, "Bought!")
        self.assertIsNone(self.intent(product))
        self.assertEqual(self.sale.orders_of(product), 1)

    def test_what_one_meant_to_buy_nobody_else_buys(self):
        """Signed out while the answer is in doubt; who signs in next in this tab buys nothing by that, nor by loading the page."""
        product = self.sale.add_product("Not for the next one", 9)
        browser = self.browser
        self.sale.token("next_one")
        self.shop_as("one_before", product)
        browser.block("*/api/purchases")
        self.press_buy(product)
        self.outcome(product, "Connection in doubt")
        browser.click_button("#account", "Sign out")
        self.outcome(product, "Whether it was bought is not known")
        browser.click_button("#account", "Sign in")
        self.sign_in("next_one")
        browser.block()
        self.open_shop(product)
        browser.wait_text("#orders-status", "No orders yet.")
        sent = "return performance.getEntriesByType('resource').filter((entry) => entry.name.endsWith('/api/purchases')).length;"
        self.assertEqual((browser.run(sent), browser.text(f"{card(product)} .outcome")), (0, ""))
        self.assertEqual(self.sale.orders_of(product), 0)

    def test_the_last_one_in_doubt(self):
        """It was bought, the answer is lost, and the page says "Sold out": Buy once more still says what became of it."""
        product = self.sale.add_product("The very last", 1)
        browser = self.browser
        self.shop_as("in_doubt", product)
        self.lose_answers("POST", "/api/purchases")
        self.press_buy(product)
        self.outcome(product, "Connection in doubt")
        browser.click_button(card(product), "Stop trying")
        self.outcome(product, "press Buy once more")
        browser.wait_text(f"{card(product)} .tag", "Sold out")
        self.find_answers()
        self.press_buy(product)
        self.outcome(product, "Your first try had come through; nothing was bought twice.")

    def test_an_account_whose_making_was_not_answered(self):
        """The account is made, the answer lost: the next try finds the name taken, by oneself."""
        browser = self.browser
        self.open_shop(self.sale.product)
        self.lose_answers("POST", "/api/auth/register", times=1)
        browser.click_button("#account", "Sign in")
        browser.click_button("dialog", "New here? Make an account")
        browser.type("dialog [name=again]", PASSWORD)
        self.sign_in("made_once")

    def test_redis_restarts_in_between(self):
        """kill -9 of the private Redis: whoever buys at that moment waits and gets it."""
        product = self.sale.add_product("Through thick and thin", 9)
        browser = self.browser
        self.shop_as("steadfast", product)
        self.press_buy(product)
        self.outcome(product, "Bought!")
        first = browser.text(f"{card(product)} .outcome-title")
        self.sale.kill_redis()
        self.press_buy(product)
        wait_for(lambda: "Bought!" in browser.text(f"{card(product)} .outcome-title") and browser.text(f"{card(product)} .outcome-title") != first,
                 lambda: f"the second order; it says {browser.text(card(product))!r}", 60)
        self.assertEqual(self.sale.orders_of(product), 2)
        self.sale.verify()

    def test_with_the_keyboard_alone(self):
        product = self.sale.add_product("No mouse", 9, per_customer_limit=1)
        browser = self.browser
        self.sale.token("typist")
        self.open_shop(product)
        for _ in range(60):
            browser.keys(Keys.TAB)
            if browser.run("return document.activeElement.matches(arguments[0]);", f"{card(product)} .buy"):
                break
        self.assertTrue(browser.run("return document.activeElement.matches(arguments[0] + ':focus-visible');", f"{card(product)} .buy"))
        self.assertNotEqual(browser.run("return getComputedStyle(document.activeElement).outlineStyle;"), "none")
        browser.keys(Keys.ENTER)
        wait_for(lambda: browser.run("return document.activeElement.name === 'username';"), "the focus in the dialog")
        browser.keys("typist", Keys.TAB, PASSWORD, Keys.ENTER)
        self.outcome(product, "Bought!")
        self.assertTrue(browser.run("return document.activeElement.matches(arguments[0]);", f"{card(product)} .buy"))
        self.assertEqual(browser.run("return document.querySelector(arguments[0]).getAttribute('aria-live');", f"{card(product)} .outcome"), "assertive")

    # --- the dashboard ---
    def test_a_restock_is_seen_live(self):
        """Sold out in the shop; an admin restocks on the dashboard; both pages show it without a reload."""
        product = self.sale.add_product("Comes back", 1)
        browser = self.browser
        self.sale.buy("first", product)
        self.open_shop(product)
        browser.wait_text(f"{card(product)} .tag", "Sold out")
        shop = browser.driver.current_window_handle
        browser.driver.switch_to.new_window("window")
        try:
            self.dashboard_as_admin()
            browser.wait_text(f"{card(product)} .tag", "sold out")
            self.ask_for_change(product, "Restock", "a pallet arrived", units="5")
            browser.wait_text("dialog", "5 units of “Comes back” go on sale at once")
            browser.click_button("dialog", "Add 5")
            browser.wait_text(f"{card(product)} .stock-left", "5 of 6 left")
            browser.wait_text("#audit-rows", "a pallet arrived")
            browser.wait_text("#books-state", "Equal")
            self.assertTrue(browser.run("return document.querySelector(arguments[0] + ' path.stock').getAttribute('d').length > 0;", card(product)))
            self.ask_for_change(product, "Withdraw", "too many", units="50")
            browser.click_button("dialog", "Withdraw 50")
            browser.wait_text("dialog .message", "50 to be withdrawn, 5 available.")
            browser.driver.close()
        finally:
            browser.driver.switch_to.window(shop)
        browser.wait_text(f"{card(product)} .tag", "On sale")
        browser.wait_text(f"{card(product)} .stock", "5 of 6 left")

    def test_a_change_that_is_stopped(self):
        """Done, the answer lost: stopping says that it is not known, goes on trying no more, and the same button does it no second time."""
        product = self.sale.add_product("Restocked once", 1)
        browser = self.browser
        self.dashboard_as_admin()
        self.ask_for_change(product, "Restock", "two pallets", units="5")
        self.lose_answers("POST", f"/api/admin/products/{product}/stock")
        browser.click_button("dialog", "Add 5")
        browser.wait_text("dialog .message", "No answer yet")
        browser.click_button("dialog", "Stop trying")
        browser.wait_text("dialog .message", "whether it was done is not known")
        self.find_answers()
        browser.click_button("dialog", "Add 5")
        browser.wait_gone("dialog")
        browser.wait_text(f"{card(product)} .stock-left", "6 of 6 left")
        self.ask_for_change(product, "Restock", "a third", units="7")
        browser.block("*/api/admin/products/*")
        browser.click_button("dialog", "Add 7")
        browser.wait_text("dialog .message", "No answer yet")
        browser.keys(Keys.ESCAPE)
        browser.click_button("dialog", "Close")
        browser.wait_gone("dialog")
        browser.block()
        browser.driver.refresh()
        browser.wait_text(f"{card(product)} .stock-left", "6 of 6 left")

    def test_an_admin_makes_a_product(self):
        browser = self.browser
        self.dashboard_as_admin()
        browser.click("#create-product")
        browser.type("dialog [name=name]", "Made by hand <b>")
        browser.type("dialog [name=price]", "12.50")
        browser.type("dialog [name=stock]", "7")
        browser.click_button("dialog", "Continue")
        browser.wait_text("dialog", "“Made by hand <b>” goes on sale at once: 7 units at $12.50")
        self.assertEqual(browser.audit(), [])
        browser.click_button("dialog", "Make the product")
        browser.wait_text("#products", "Made by hand <b>")
        made = self.sale.call("GET", "/api/products", as_user=ADMIN)[-1]
        self.assertEqual((made["name"], made["price"], made["stock"]), ("Made by hand <b>", 1250, 7))
        self.ask_for_change(made["id"], "Price", "midnight", price="9.99")
        browser.click_button("dialog", "Change the price")
        browser.wait_text(card(made["id"]), "$9.99")

    def test_an_admin_closes_and_opens_a_sale(self):
        """Closed now, in the shop too; times that make no sense are not even asked for; opened again."""
        product = self.sale.add_product("Now and then", 5)
        browser = self.browser
        self.dashboard_as_admin()
        browser.wait_text(f"{card(product)} .tag", "open")
        browser.click_button(card(product), "Open or close")
        browser.click("dialog [value=close]")
        browser.type("dialog [name=reason]", "lunch")
        browser.click_button("dialog", "Continue")
        browser.wait_text("dialog", "The sale of “Now and then” closes now. Nobody can buy any more")
        browser.click_button("dialog", "Close the sale")
        browser.wait_text(f"{card(product)} .tag", "closed")
        browser.wait_text("#audit-rows", "lunch")
        browser.wait_text("#audit-rows", "none → ")
        status, answer = self.sale.try_call("POST", "/api/purchases", {"product_id": product, "quantity": 1}, as_user="somebody")
        self.assertEqual((status, answer["type"]), (409, "/problems/sale-over"))
        browser.click_button(card(product), "Open or close")
        browser.run("""document.querySelector('dialog [name=starts]').value = '2031-01-02T10:00:00';
            document.querySelector('dialog [name=ends]').value = '2031-01-02T09:00:00';""")
        browser.type("dialog [name=reason]", "wrong way round")
        browser.click_button("dialog", "Continue")
        browser.wait_text("dialog .message", "The sale must end after it begins.")
        browser.click("dialog [value=open]")
        browser.click_button("dialog", "Continue")
        browser.click_button("dialog", "Open the sale")
        browser.wait_text(f"{card(product)} .tag", "open")
        self.sale.buy("somebody", product)

    def test_an_admin_on_a_phone(self):
        browser, product = self.browser, self.sale.product
        self.dashboard_as_admin()
        browser.look(360, 740, "light")
        for open_dialog in (lambda: browser.click_button(card(product), "Open or close"), lambda: browser.click("#create-product")):
            open_dialog()
            browser.element("dialog")
            self.assertEqual(browser.audit(), [])
            browser.keys(Keys.ESCAPE)
            browser.wait_gone("dialog")

    def test_two_admins_set_times(self):
        """What the one has changed while the other's form was open stays: only what is changed in a form is sent."""
        product = self.sale.add_product("Two hands", 5, ends_at="2031-01-01T10:00:00Z")
        browser = self.browser
        self.dashboard_as_admin()
        browser.click_button(card(product), "Open or close")
        browser.element("dialog")
        self.sale.call("POST", f"/api/admin/products/{product}/window", {"ends_at": "2032-01-01T10:00:00Z", "reason": "longer"}, as_user=ADMIN)
        browser.run("document.querySelector('dialog [name=starts]').value = '2030-12-01T10:00:00';")
        browser.type("dialog [name=reason]", "later")
        browser.click_button("dialog", "Continue")
        browser.click_button("dialog", "Set these times")
        browser.wait_gone("dialog")
        made = self.sale.call("GET", f"/api/products/{product}", as_user=ADMIN)
        self.assertEqual((made["starts_at"][:7], made["ends_at"]), ("2030-12", "2032-01-01T10:00:00.000Z"))

    def test_a_buyer_is_no_admin(self):
        browser = self.browser
        self.sale.token("curious")
        browser.open("/dashboard")
        browser.click_button("#account", "Sign in")
        browser.type("dialog [name=username]", "curious")
        browser.type("dialog [name=password]", PASSWORD)
        browser.click("dialog [type=submit]")
        browser.wait_text("dialog .message", "curious is not an admin")
        self.assertEqual(browser.text("#audit"), "")

    def test_pages_that_were_left_hold_no_connection(self):
        """A browser opens six connections to a server, and keeps pages for its "back" button."""
        for _ in range(5):
            for path in ("/", "/dashboard"):
                self.browser.open(path)
                self.browser.element(card(self.sale.product))

    def test_silence_is_said(self):
        browser = self.browser
        browser.open("/dashboard")
        browser.wait_text("#link-text", "Live")
        browser.wait_gone("#banner")
        browser.block("*/api/events*", "*/api/figures*")
        browser.driver.refresh()
        browser.wait_text("#banner", "No news from the server")
        self.assertIn("⚠", browser.driver.title)
        browser.block()
        browser.wait_gone("#banner")
        self.assertNotEqual(browser.text("#link-text"), "No news")

    def test_a_silent_recorder_is_said(self):
        """Books that nobody compares are not green, however equal they were; nor is anything else on the page that the recorder fills."""
        browser = self.browser
        browser.open("/dashboard")
        browser.wait_text("#books-state", "Equal")
        browser.wait_gone("#banner")
        with self.sale.recorder_stopped():
            browser.wait_text("#books-detail", "not compared since ")
            self.assertEqual(browser.text("#books-state"), "Old")
            browser.wait_text("#tile-recorder", " s silent")
            browser.wait_text("#link-text", "Live, stock is old")
            browser.wait_text(card(self.sale.product), "not known")
            browser.wait_text("#banner", "The recorder gives no sign of life")
            self.assertEqual(browser.audit(), [])
        browser.wait_text("#books-state", "Equal")
        browser.wait_text("#tile-recorder", " behind")
        browser.wait_gone("#banner")

    def test_a_trouble_is_called_by_its_name(self):
        """The rules of troubles.js, fed with figures."""
        self.browser.open("/dashboard")

        def judge(**changes):
            return self.browser.run("""const [changes] = arguments;
                const figures = { at: '2026-11-27T09:00:10.000Z', products: [], products_total: 1, processes: [], breakers: [],
                  recorder: { name: 'recorder', up: true, lag_seconds: 0, silent_seconds: 0.2 }, books: { equal: true, differences: 0, compared_at: '2026-11-27T09:00:09.500Z' } };
                for (const [name, value] of Object.entries(changes)) figures[name] = Array.isArray(value) ? value : { ...figures[name], ...value };
                return import('/assets/troubles.js').then(({ judgeBooks, findTroubles }) =>
                  [judgeBooks(figures), findTroubles(figures, 'live', 0).map(({ title, text }) => `${title} ${text}`).join(' ')]);""", changes)

        self.assertEqual(judge(), ["equal", ""])
        self.assertEqual(judge(books={"compared_at": "2026-11-27T09:00:04.000Z"})[0], "old")
        self.assertEqual(judge(books={"compared_at": None})[0], "unknown")
        self.assertEqual(judge(books={"equal": False, "differences": 1})[0], "differ")
        books, said = judge(recorder={"up": False, "silent_seconds": None})
        self.assertEqual(books, "old")
        self.assertIn("no sign of life", said)
        self.assertEqual(judge(recorder={"active": False}), ["equal", ""])
        self.assertIn("which stands by", judge(recorder={"active": False, "up": False, "silent_seconds": None})[1])
        for name, words in (("redis", "Redis cannot be reached"), ("record", "sales wait for their record"), ("store", "The store does not answer"),
                            ("books", "cannot be read side by side")):
            said = judge(breakers=[{"name": name, "state": "open"}])[1]
            self.assertIn(words, said)
            self.assertIn(f"/health/ready, “breaker {name}”", said)
            self.assertIn("Nothing to do", judge(breakers=[{"name": name, "state": "half-open"}])[1])

    def test_the_plot_has_a_past(self):
        """Who opens the dashboard sees what was before: the line begins before the page did."""
        wait_for(lambda: len(self.sale.call("GET", "/api/figures")["history"]) >= 3, "three figures of the past")
        browser = self.browser
        browser.open("/dashboard")
        older = """const path = document.querySelector('#rates-chart path.confirmed').getAttribute('d');
            const first = path ? 60 * (600 - Number(path.match(/[\d.]+/)[0])) / 600 : 0;
            return first - performance.now() / 1000;"""
        wait_for(lambda: browser.run(older) > 3, lambda: f"a line that begins before the page; it begins {browser.run(older)} s before", 10)

    # --- all ---
    def test_everybody_can_use_them(self):
        """Contrast, names, headings, sizes: light and dark, on a phone and on a desk. And nothing moves once it is there."""
        browser, product = self.browser, self.sale.product
        for width, height, scheme in ((1280, 800, "light"), (360, 740, "dark"), (360, 740, "light"), (1280, 800, "dark")):
            browser.look(width, height, scheme)
            for path in ("/docs", "/problems/insufficient-stock"):
                with self.subTest(path=path, width=width, scheme=scheme):
                    browser.open(path)
                    browser.element("h1")
                    self.assertEqual(browser.audit(), [])
            for path, ready in (("/", card(product)), ("/dashboard", card(product))):
                with self.subTest(path=path, width=width, scheme=scheme):
                    browser.open(path)
                    browser.element(ready)
                    self.assertEqual(browser.audit(), [])
                    browser.click_button("#account", "Sign in")
                    self.assertEqual(browser.audit(), [])
                    browser.keys(Keys.ESCAPE)
                    browser.wait_gone("dialog")
                    moved = browser.run("""return new Promise((done) => new PerformanceObserver((list) => done(
                        list.getEntries().reduce((sum, entry) => sum + entry.value, 0))).observe({ type: 'layout-shift', buffered: true })
                        || setTimeout(() => done(0), 100));""")
                    self.assertLess(moved, 0.1)

    def test_scripts_come_at_once(self):
        """Whatever a page's script imports is named in the page: no script waits for another to be read."""
        browser = self.browser
        for path in ("/", "/dashboard"):
            with self.subTest(path=path):
                browser.open(path)
                browser.element(card(self.sale.product))
                late = browser.run("""const named = [...document.querySelectorAll('script[src], link[rel=modulepreload]')].map((e) => e.src || e.href);
                    return performance.getEntriesByType('resource').map((entry) => entry.name).filter((name) => name.endsWith('.js') && !named.includes(name));""")
                self.assertEqual(late, [])

    def test_other_clients_get_json(self):
        for accept in ({}, {"Accept": "*/*"}, {"Accept": "application/json"}):
            status, answer = self.sale.try_call("GET", "/", headers=accept)
            self.assertEqual((status, answer["service"]), (200, "doorbuster"))
        status, answer = self.sale.try_call("GET", "/", headers={"Accept": BROWSER_HTML})
        self.assertEqual(status, 200)
        self.assertIn("<!doctype html>", answer)


if __name__ == "__main__":
    unittest.main(verbosity=2)
