"""Run the toy exploration as a process of its own, for tests that end it: drive.py STORE LOG COUNT PAUSE_S."""

import sys
from pathlib import Path

from sparsefab.reports.explore import explore
from sparsefab.reports.store import Store
from tests.unit.reports import toy


def main() -> int:
    store, log, count, pause_s = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    try:
        points = explore(
            toy.make_jobs(count),
            toy.LoggedEvaluation(log, pause_s),
            toy.make_cases(),
            toy.cost,
            Store(store),
            workers=2,
        )
    except KeyboardInterrupt:
        return 130
    print(len(points))
    return 0


if __name__ == "__main__":
    sys.exit(main())
