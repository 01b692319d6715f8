"""V1 basic: 100 people in no hurry, 100 units: everyone gets one. What they do is in ../common/doorbuster_users.py."""
import sys
from pathlib import Path

from locust import between

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "common"))
from doorbuster_users import DoorbusterUser, scenario  # noqa: E402

scenario("v1_basic", users=100, spawn_rate=10)


class CalmBuyer(DoorbusterUser):
    wait_time = between(1, 3)
