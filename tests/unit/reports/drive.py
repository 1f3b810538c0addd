"""Run the toy exploration as a process of its own, for tests that end it.

drive.py STORE LOG COUNT PAUSE_S [SCHEDULER]
"""

import sys
from pathlib import Path

from sparsefab.errors import SparseFabError
from sparsefab.reports.dask_workers import DaskWorkers
from sparsefab.reports.explore import explore
from sparsefab.reports.store import Store
from sparsefab.reports.workers import ProcessWorkers, Workers
from tests.unit.reports import toy


def main() -> int:
    store, log, count, pause_s = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    workers: Workers = DaskWorkers(sys.argv[5]) if len(sys.argv) > 5 else ProcessWorkers(2)
    evaluate = toy.LoggedEvaluation(log, pause_s)
    try:
        points = explore(toy.make_jobs(count), evaluate, toy.make_cases(), toy.cost, Store(store), workers=workers)
    except KeyboardInterrupt:
        return 130
    except SparseFabError as error:
        print(error)
        return 1
    finally:
        workers.close()
    print(len(points))
    return 0


if __name__ == "__main__":
    sys.exit(main())
