"""A shelf of several products, some of them bundles of others, and what a run has heard about each. Plain data, no Locust in here."""
from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tally import Tally

Lines = dict[int, int]  # what an order is about: product id -> quantity


@dataclass
class Product:
    """Figures are of this run, as people were told. Those of a product count what went in bundles; those of a bundle count bundles,
    which have no stock of their own."""
    id: int
    name: str
    price: int
    limit: int                # units a customer may have; 0: any number
    components: Lines         # what a bundle is made of; empty: not a bundle
    opening: int              # stock when the run began
    restocked: int = 0
    cancelled: int = 0
    sold: int = 0
    db_stock: int | None = None     # after the run, as the server says
    redis_stock: int | None = None

    def expected_stock(self) -> int:
        return 0 if self.components else self.opening + self.restocked + self.cancelled - self.sold


@dataclass
class ShelfTally(Tally):
    """A run in which everyone wants several things."""

    host: str = ""
    products: dict[int, Product] = field(default_factory=dict)
    store_before: dict[int, dict[str, Any]] = field(default_factory=dict)  # what `verify` said of each product before the run
    buyers: list[Any] = field(default_factory=list)   # the people, for open questions at the end
    clerks: list[Any] = field(default_factory=list)

    carts_sold: int = 0
    carts_refused: int = 0       # answers 400 "Insufficient stock"
    singles_sold: int = 0        # purchases of one line, bundles among them
    singles_refused: int = 0
    half_sold: int = 0           # answers 201 with other lines than were asked for
    over_limit: int = 0          # answers 201 that gave somebody more than the product's limit
    cancels: int = 0             # orders cancelled
    cancels_repeated: int = 0    # answers to further requests for the same
    restocks: int = 0
    restocks_repeated: int = 0   # answers to further requests with the same key

    def plain(self) -> list[Product]:
        return [product for product in self.products.values() if not product.components]

    def bundles(self) -> list[Product]:
        return [product for product in self.products.values() if product.components]

    def units(self, lines: Lines) -> Counter[int]:
        """What these lines take of each product, and of each bundle."""
        taken: Counter[int] = Counter()
        for product_id, quantity in lines.items():
            taken[product_id] += quantity
            for component_id, each in self.products[product_id].components.items():
                taken[component_id] += quantity * each
        return taken

    def price(self, lines: Lines) -> int:
        return sum(quantity * self.products[product_id].price for product_id, quantity in lines.items())

    def note_sold(self, lines: Lines) -> None:
        if len(lines) > 1:
            self.carts_sold += 1
        else:
            self.singles_sold += 1
        for product_id, units in self.units(lines).items():
            self.products[product_id].sold += units

    def note_cancelled(self, lines: Lines) -> None:
        self.cancels += 1
        for product_id, units in self.units(lines).items():
            self.products[product_id].cancelled += units

    def note_restocked(self, product_id: int, delta: int) -> None:
        self.restocks += 1
        self.products[product_id].restocked += delta
