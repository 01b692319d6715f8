#!/usr/bin/env python3
"""web/openapi.json keeps its own rules, and check_exchanges.py is awake: answers made of the description's own examples pass, and each of them that
is falsified is noticed.

    test_checks.py DESCRIPTION"""
import copy
import json
import sys
import unittest

import check_exchanges
from description import Description

DESCRIPTION = None


def head(status, media_type="application/json", **headers):
    lines = [f"HTTP/1.1 {status} X", "Connection: keep-alive", "X-Request-Id: r-1"]
    if media_type:
        lines.append(f"Content-Type: {media_type}")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines) + "\r\n"


def faults(method, target, head_text, body, request=None):
    line = {"method": method, "target": target, "head": head_text, "body": body if isinstance(body, str) else json.dumps(body)}
    if request is not None:
        line["request"] = json.dumps(request)
    return check_exchanges.Check(DESCRIPTION).faults(check_exchanges.Exchange(json.dumps(line), "self-test"))


def example(name):
    return copy.deepcopy(DESCRIPTION.component("examples", name)["value"])


class TheDescription(unittest.TestCase):
    def test_keeps_its_rules(self):
        self.assertEqual(DESCRIPTION.faults(), [])

    def falsified(self, change):
        document = copy.deepcopy(DESCRIPTION.document)
        change(document)
        return Description(document).faults()

    def test_faults_in_it_are_noticed(self):
        buy = lambda document: document["paths"]["/api/purchases"]["post"]
        schemas = lambda document: document["components"]["schemas"]
        changes = {
            "a reference to nothing": lambda each: buy(each)["responses"].update({"201": {"$ref": "#/components/responses/Nothing"}}),
            "an operation twice": lambda each: buy(each).update(operationId="health"),
            "a path parameter that is not described": lambda each: each["paths"]["/api/products/{id}"].pop("parameters"),
            "an example that is not valid": lambda each: each["components"]["examples"]["purchase"]["value"].update(quantity=0),
            "a problem of another status": lambda each: buy(each)["responses"].update({"404": {"$ref": "#/components/responses/PurchaseConflict"}}),
            "a slug in one list only": lambda each: schemas(each)["ProblemType"]["enum"].pop(),
            "a schema that is none": lambda each: schemas(each)["Id"].update(type="whole"),
            "a schema that nothing refers to": lambda each: schemas(each).update(Alone={"type": "string"}),
            "required and not described": lambda each: schemas(each)["Line"]["required"].append("colour"),
            "a 503 without Retry-After": lambda each: each["components"]["responses"]["Unavailable"]["headers"].pop("Retry-After"),
            "a call that needs a token and has no 401": lambda each: buy(each)["responses"].pop("401"),
        }
        for name, change in changes.items():
            with self.subTest(name):
                self.assertNotEqual(self.falsified(change), [])


class TheCheck(unittest.TestCase):
    def test_answers_as_described_pass(self):
        problem = "application/problem+json"
        good = [
            ("POST", "/api/purchases", head(201), example("purchase"), example("buy_one")),
            ("POST", "/api/purchases", head(201, Idempotent_Replayed="true"), example("cart"), example("buy_cart")),
            ("POST", "/api/purchases", head(400, problem), example("sold_out")),
            ("POST", "/api/purchases", head(503, problem, Retry_After=1), example("unavailable")),
            ("GET", "/api/products/7", head(200), example("product")),
            ("GET", "/api/products/7/stock?x=1", head(200), example("stock")),
            ("GET", "/api/purchases/me", head(200), example("purchases")),
            ("DELETE", "/api/purchases/97", head(200), example("cancelled")),
            ("GET", "/api/figures", head(200), example("figures")),
            ("HEAD", "/health", head(200), ""),
            ("PUT", "/health", head(405, problem, Allow="GET, HEAD"), {"type": "/problems/method-not-allowed", "title": "Method not allowed", "status": 405, "detail": "No."}),
            ("GET", "/nowhere", head(404, problem), {"type": "/problems/not-found", "title": "Not found", "status": 404, "detail": "No."}),
            ("GET", "/api/events", head(200, "text/event-stream"), "event: figures\ndata: " + json.dumps(example("figures")) + "\n\n"),
        ]
        for each in good:
            with self.subTest(f"{each[0]} {each[1]}"):
                self.assertEqual(faults(*each), [])

    def noticed(self, name, *exchange):
        with self.subTest(name):
            self.assertNotEqual(faults(*exchange), [])

    def test_falsified_bodies_are_noticed(self):
        purchase = example("purchase")
        for name, body in {"a wrong type": purchase | {"quantity": "1"}, "a number that is not whole": purchase | {"total_price": 1.5}, "an unknown member": purchase | {"colour": "red"},
                           "out of range": purchase | {"remaining_stock": -1}, "another form of time": purchase | {"purchased_at": "2026-11-27 09:00"},
                           "neither one product nor a cart": {"id": 1}, "not an object": [purchase], "not JSON": "{"}.items():
            self.noticed(name, "POST", "/api/purchases", head(201), body)
        for member in purchase:
            self.noticed(f"no {member}", "POST", "/api/purchases", head(201), {key: value for key, value in purchase.items() if key != member})
        self.noticed("an element of a list", "GET", "/api/purchases/me", head(200), [purchase, purchase | {"id": 0}])
        self.noticed("cancelled, but not when", "DELETE", "/api/purchases/97", head(200), purchase)
        self.noticed("an event's data", "GET", "/api/events", head(200, "text/event-stream"), "event: figures\ndata: {}\n\n")
        self.noticed("HEAD with a body", "HEAD", "/health", head(200), example("healthy"))

    def test_falsified_problems_are_noticed(self):
        problem, sold_out = "application/problem+json", example("sold_out")
        self.noticed("another problem's type", "POST", "/api/purchases", head(400, problem), sold_out | {"type": "/problems/nothing"})
        self.noticed("a problem that this call does not have", "GET", "/api/products/1", head(404, problem), sold_out)
        self.noticed("a status that is not the answer's", "POST", "/api/purchases", head(400, problem), sold_out | {"status": 409})
        self.noticed("an extension of another problem", "POST", "/api/purchases", head(400, problem), sold_out | {"limit": 1})
        self.noticed("an error as plain JSON", "POST", "/api/purchases", head(400), sold_out)
        self.noticed("an error at no path as HTML", "GET", "/nowhere", head(404, "text/html"), "<p>No</p>")

    def test_falsified_heads_are_noticed(self):
        problem, unavailable = "application/problem+json", example("unavailable")
        self.noticed("a status that is not described", "POST", "/api/purchases", head(202), example("purchase"))
        self.noticed("no Retry-After", "POST", "/api/purchases", head(503, problem), unavailable)
        self.noticed("a Retry-After that is none", "POST", "/api/purchases", head(503, problem, Retry_After="soon"), unavailable)
        self.noticed("no WWW-Authenticate", "GET", "/api/auth/me", head(401, problem), example("no_token"))
        self.noticed("no X-Request-Id", "GET", "/health", "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n", example("healthy"))
        self.noticed("a header that is not described", "GET", "/health", head(200, X_Colour="red"), example("healthy"))
        self.noticed("a header twice", "GET", "/health", head(200, X_Request_Id="r-2"), example("healthy"))
        self.noticed("another media type", "GET", "/health", head(200, "text/plain"), example("healthy"))
        bare = {"type": "/problems/method-not-allowed", "title": "Method not allowed", "status": 405, "detail": "No."}
        self.noticed("405 without Allow", "PUT", "/health", head(405, problem), bare)
        self.noticed("405 with another Allow", "PUT", "/health", head(405, problem, Allow="GET, HEAD, POST"), bare)
        self.noticed("200 at no path", "GET", "/nowhere", head(200), example("healthy"))

    def test_requests_that_should_not_have_been_accepted_are_noticed(self):
        self.noticed("quantity 0", "POST", "/api/purchases", head(201), example("purchase"), {"product_id": 1, "quantity": 0})
        self.noticed("both forms", "POST", "/api/purchases", head(201), example("purchase"), example("buy_one") | example("buy_cart"))
        self.noticed("no stock", "POST", "/api/products", head(201), example("product"), {"name": "x", "price": 1})

    def test_a_fall_of_coverage_is_noticed(self):
        check = check_exchanges.Check(DESCRIPTION)
        self.assertTrue(any("200 of GET /health is" in fault for fault in check.unseen([])))
        for status in ("200", "400"):
            check.seen[(status, "GET", "/health")] += 1
        self.assertFalse(any("200 of GET /health is" in fault for fault in check.unseen([])))
        rules = [check_exchanges.Rule("never 418 GET /health"), check_exchanges.Rule("somewhere 431 * *")]
        found = check.unseen(rules)
        self.assertTrue(any("418" in fault for fault in found))
        self.assertTrue(any("somewhere 431" in fault for fault in found))


if __name__ == "__main__":
    DESCRIPTION = Description.load(sys.argv.pop())
    unittest.main()
