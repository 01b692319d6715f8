"""V3 Redlock: the people of v1_stress at the Redlock gate, while lock nodes die. What they do is in ../common/redlock_users.py."""
import sys
from pathlib import Path

from locust import between

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "common"))
from redlock_users import RedlockUser, scenario  # noqa: E402

scenario("v3_redlock", users=300, spawn_rate=30)


class RedlockBuyer(RedlockUser):
    wait_time = between(0.1, 0.5)
