"""V2 multi: 300 people who fill carts with several products, and a clerk who restocks. What they do is in ../common/cart_users.py."""
import sys
from pathlib import Path

from locust import between

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "common"))
from cart_users import CartBuyer, Clerk, scenario  # noqa: E402

scenario("v2_multi", users=300, spawn_rate=30)


class MultiBuyer(CartBuyer):
    wait_time = between(0.1, 0.5)


class Restocker(Clerk):
    wait_time = between(0.2, 1.0)
