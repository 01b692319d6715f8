#!/usr/bin/python3
"""Makes the report page of a run: report_page.py RUNFOLDER [-o FILE]. Exit 2 if the folder does not hold a run."""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "common"))
import page  # noqa: E402
import reading  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(prog="report.sh")
    parser.add_argument("folder", metavar="RUNFOLDER", type=Path)
    parser.add_argument("-o", "--out", metavar="FILE", type=Path, help="default: RUNFOLDER/report.html")
    arguments = parser.parse_args()
    try:
        text = page.render(reading.read(arguments.folder))
        out = arguments.out or arguments.folder / "report.html"
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")
    except (reading.NoRun, OSError, ValueError, KeyError) as error:
        print(f"report: {error}", file=sys.stderr)
        return 2
    print(f"  Report: {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
