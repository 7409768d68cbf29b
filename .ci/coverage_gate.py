"""Fail unless lines and branches are each covered to a given percentage: their mean alone can hide either."""

import json
import sys
from pathlib import Path


def main(report: str, gate: str) -> int:
    """Print what coverage's JSON `report` says of both; return 1 if either is below `gate`."""
    totals = json.loads(Path(report).read_text(encoding="utf-8"))["totals"]
    counts = {
        "lines": (totals["covered_lines"], totals["num_statements"]),
        "branches": (totals["covered_branches"], totals["num_branches"]),
    }
    shares = {what: 100 * covered / total if total else 100.0 for what, (covered, total) in counts.items()}
    figures = ", ".join(f"{what} {share:.1f} %" for what, share in shares.items())
    missed = [what for what, share in shares.items() if share < float(gate)]
    verdict = f"too few {' and '.join(missed)}" if missed else "passed"
    print(f"coverage: {figures}; the gate of {gate} % of each: {verdict}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
