"""V4 production: people who come in a shape (shapes.py), buy, look and sign up, while an admin restocks and puts products on sale. What they do
is in ../common/production_users.py. Besides its settings, from the environment:

  DOORBUSTER_SHAPE     baseline, ramp, spike, step or soak    default baseline
  DOORBUSTER_SECONDS   how long it lasts                      default the shape's
  DOORBUSTER_USERS     how many people at most                default the shape's
"""
import os
import sys
from pathlib import Path

from locust import LoadTestShape

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1] / "common")]
from production_users import Admin, Shopper, scenario  # noqa: E402
from shapes import SHAPES  # noqa: E402

name = os.environ.get("DOORBUSTER_SHAPE", "baseline")
if name not in SHAPES:
    raise SystemExit(f"DOORBUSTER_SHAPE {name}: must be one of {', '.join(SHAPES)}")


class Chosen(SHAPES[name], LoadTestShape):  # type: ignore[misc]
    """Locust takes the one shape that it finds here."""

    def __init__(self) -> None:
        super().__init__(int(os.environ.get("DOORBUSTER_USERS", 0)), int(os.environ.get("DOORBUSTER_SECONDS", 0)))
        self.name = name
        scenario(self)


class Customer(Shopper):
    pass


class Manager(Admin):
    pass
