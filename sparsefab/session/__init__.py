"""What the verbs and a Python user do with a model: open, compress, evaluate, run, estimate, verify, explore.

from sparsefab.session import Session
session = Session()
result = session.evaluate("char-llama", "w4g32")
print(result.evaluation.delta)
explored = session.explore("char-llama", recipes=["w8", "w4g32"], targets=["u280", "host"], out=Path("runs/first"))
"""

from sparsefab.session.exploration import Explored
from sparsefab.session.running import Ran
from sparsefab.session.session import Evaluated, Session

__all__ = ["Evaluated", "Explored", "Ran", "Session"]
