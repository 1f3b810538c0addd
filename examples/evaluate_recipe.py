"""Judge a recipe of your own on the embedded language model, and see that it is the hardware's arithmetic."""

from sparsefab.models.compress import Recipe, Rule
from sparsefab.models.evaluate import Slice
from sparsefab.session import Session

recipe = Recipe(
    name="w4g32, down projections 2:4",
    rules=(
        Rule(weights="int4sym", group_size=32, method="rtn-clip"),
        Rule(layers=("*down_proj",), weights="int8sym", pattern="2:4"),
    ),
)

result = Session().evaluate("char-llama", recipe, Slice(windows=16))
evaluation = result.evaluation
print(f"{evaluation.metric}: {evaluation.baseline.value:.4f} -> {evaluation.compressed.value:.4f}")
print(f"delta {evaluation.delta.value:+.4f}, 95 % interval {evaluation.delta.low:+.4f} .. {evaluation.delta.high:+.4f}")
checked = sum(layer.outputs for layer in result.agreement)
print(f"{checked} outputs recomputed by the reference, {sum(a.mismatches for a in result.agreement)} differ")
