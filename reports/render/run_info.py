"""What a run was: enough to repeat it and to judge its result; `run.toml` is this, written out."""

from dataclasses import dataclass, field

from sparsefab.reports.objectives import DEFAULT_OBJECTIVES, Limits

__all__ = ["RecipeText", "RunInfo"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeText:
    """A recipe by name, as the TOML text that was explored."""

    name: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInfo:
    """How a set of points was made.

    Parameters
    ----------
    model : str                  Name of the model.
    command : tuple[str, ...]    The command line that made the points.
    seed : int                   Seed of everything random.
    created : str                Date and time, ISO 8601.
    versions : dict[str, str]    Package versions that matter.
    commit : str                 Source revision, or empty.
    settings : dict[str, str]    What else the run was given.
    reference : str              Name of the recipe that leaves the model in float, or empty: speed-ups count from it.
    max_loss_fraction : float    The loss that the recommendation may cost, as a part of the baseline.
    max_latency_s : float | None The latency that it may cost.
    recipes                      Every recipe of the run.
    objectives : tuple[str, ...] What the fronts are of; the first two are the axes of the charts, up and across.
    limits : Limits              What a point must keep to for a front.
    verilog : dict[str, str]     Manifest of the chain, beside the report, by the text of the accelerator it is of.
    """

    model: str
    command: tuple[str, ...]
    seed: int
    created: str
    versions: dict[str, str] = field(default_factory=dict)
    commit: str = ""
    settings: dict[str, str] = field(default_factory=dict)
    reference: str = ""
    max_loss_fraction: float = 0.01
    max_latency_s: float | None = None
    recipes: tuple[RecipeText, ...] = ()
    objectives: tuple[str, ...] = DEFAULT_OBJECTIVES
    limits: Limits = field(default_factory=Limits)
    verilog: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0.0 <= self.max_loss_fraction <= 1.0:
            raise ValueError(f"max_loss_fraction must be between 0 and 1, not {self.max_loss_fraction}")
        if self.max_latency_s is not None and self.max_latency_s <= 0.0:
            raise ValueError(f"max_latency_s must be positive, not {self.max_latency_s}")
