"""The end of a run of the Redlock sale: that of the limited product, the books of the everyday one, and the locks."""
from __future__ import annotations

from typing import Any

import one_product_report
from redlock_tally import RedlockTally
from report import StoreReading

WAIT = "doorbuster_lock_wait_seconds"


def read_store(tally: RedlockTally, acks_path: str | None) -> StoreReading:
    reading = one_product_report.read_store(tally, acks_path)
    if reading.checks_total:
        compare_everyday(reading, tally)
    return reading


def everyday_sold_in_store(tally: RedlockTally, reading: StoreReading) -> int | None:
    product = reading.products.get(tally.everyday_id)
    return None if product is None else tally.everyday_stock_at_start - product["stock"]


def compare_everyday(reading: StoreReading, tally: RedlockTally) -> None:
    sold = everyday_sold_in_store(tally, reading)
    if sold is None:
        reading.faults.append(f"the store does not know product {tally.everyday_id}: is DOORBUSTER_DATA this server's data folder?")
    elif sold != tally.everyday_sold:
        reading.faults.append(f"people were told of {tally.everyday_sold} everyday sales; the store has {sold}")


def faults_of(tally: RedlockTally, reading: StoreReading) -> list[str]:
    faults = one_product_report.faults_of(tally, reading)
    if tally.everyday_sold == 0:
        faults.append("nothing of the everyday product was sold")
    return faults


# --- the locks ------------------------------------------------------------------------------------------------------------------------


def locks(tally: RedlockTally) -> dict[str, Any]:
    acquired = tally.counted(f"{WAIT}_count")
    waited_s = tally.counted(f"{WAIT}_sum")
    return {
        "acquired": int(acquired),
        "wait_average_ms": round(waited_s / acquired * 1000, 3) if acquired else None,
        "wait_p99_ms": wait_percentile_ms(tally, 99),
        "lost": int(tally.counted("doorbuster_lock_lost_total")),
    }


def wait_percentile_ms(tally: RedlockTally, percent: float) -> float | None:
    """The upper edge of the bucket that holds it, so never too small. None: there were no locks, or it is beyond the last bucket."""
    edges = sorted((float(name.split('"')[1]), name) for name in tally.metrics_after
                   if name.startswith(f"{WAIT}_bucket") and "+Inf" not in name)
    wanted = tally.counted(f"{WAIT}_count") * percent / 100
    found = (edge * 1000 for edge, name in edges if wanted and tally.counted(name) >= wanted)
    return next(found, None)


# --- all of it ------------------------------------------------------------------------------------------------------------------------


def as_json(scenario: str, tally: RedlockTally, reading: StoreReading, faults: list[str]) -> dict[str, Any]:
    return {
        **one_product_report.as_json(scenario, tally, reading, faults),
        "everyday": {
            "sold": tally.everyday_sold,
            "sold_in_store": everyday_sold_in_store(tally, reading),
            "longest_pause_ms": round(tally.longest_pause_s * 1000, 1),
            "sold_at": tally.everyday_sold_at,
            "all_in_at": tally.all_in_at,
        },
        "locks": locks(tally),
    }


def summary(scenario: str, tally: RedlockTally, reading: StoreReading, faults: list[str]) -> str:
    found = locks(tally)
    waited = "" if found["wait_average_ms"] is None else f"average wait {found['wait_average_ms']:.1f} ms"
    lines = one_product_report.summary(scenario, tally, reading, faults).split("\n")
    verdict = next(number for number, line in enumerate(lines) if line in ("--- PASSED ---", "--- FAILED ---"))
    lines[verdict:verdict] = [
        f"  everyday sales        {tally.everyday_sold:>8,}    longest pause between two {tally.longest_pause_s * 1000:.0f} ms",
        f"  locks                 {found['acquired']:>8,}    {waited}",
    ]
    return "\n".join(lines)
