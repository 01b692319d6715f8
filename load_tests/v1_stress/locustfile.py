"""V1 stress: 300 people who do not wait, 100 units. What they do is in ../common/doorbuster_users.py."""
import sys
from pathlib import Path

from locust import between

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "common"))
from doorbuster_users import DoorbusterUser, scenario  # noqa: E402

scenario("v1_stress", users=300, spawn_rate=30)


class StressBuyer(DoorbusterUser):
    wait_time = between(0.1, 0.5)
