"""Estimate a workload on a target: the one entry to every cost model.

>>> from sparsefab.targets import load_device
>>> from sparsefab.workload import Phase
>>> from sparsefab.workloads import load_workload
>>> cost = estimate(load_workload("llama2-7b"), {}, load_device("h200"), Phase(kind="decode", context=1024))
>>> cost.provenance.value
'assumed'
"""

from collections.abc import Callable, Mapping

from sparsefab.cost_models.cpu import price_cpu
from sparsefab.cost_models.fpga import price_fpga
from sparsefab.cost_models.gpu import price_gpu
from sparsefab.cost_models.kv import KvCache
from sparsefab.cost_models.layers import Options, Priced, assemble
from sparsefab.cost_models.result import Estimate, Figure, LayerEstimate, LayerPlan, Provenance, Support, report_json
from sparsefab.registry import Registry
from sparsefab.targets import Device
from sparsefab.workload import Phase, Workload

__all__ = [
    "MODELS",
    "Estimate",
    "Figure",
    "KvCache",
    "LayerEstimate",
    "LayerPlan",
    "Options",
    "Provenance",
    "Support",
    "estimate",
    "report_json",
]

CostModel = Callable[[Workload, Mapping[str, LayerPlan], Device, Phase, Options], Priced]

#: Cost models by kind of device; a plug-in replaces none of these but may add a kind.
MODELS: Registry[CostModel] = Registry(
    kind="cost model",
    builtins={"gpu": price_gpu, "cpu": price_cpu, "fpga": price_fpga},
    group="sparsefab.cost_models",
)


def estimate(
    workload: Workload, plans: Mapping[str, LayerPlan], target: Device, phase: Phase, options: Options | None = None
) -> Estimate:
    """Return the cost of one phase of a workload on a target.

    Parameters
    ----------
    workload : Workload
    plans : Mapping[str, LayerPlan]     By layer name; a layer without one stays in float.
    target : Device                     From `load_device`.
    phase : Phase
    options : Options | None            Cache format, accelerator, measured peaks, calibrated configuration.

    Raises
    ------
    TargetError                         If a layer's format is absent on the target, or the accelerator does not fit.
    ValueError                          If a plan names no layer of the workload, or has another shape than its layer.
    """
    known = {layer.name for layer in workload.weight_layers()}
    strangers = sorted(set(plans) - known)
    if strangers:
        raise ValueError(f"plans must name weight layers of {workload.name}; {strangers[0]!r} is none")
    priced = MODELS.get(target.kind)(workload, plans, target, phase, Options() if options is None else options)
    return assemble(target, workload, phase, priced)
