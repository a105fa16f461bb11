"""Scaling laws fitted to finished runs, and what they say of the next one, with intervals.

The objective is that of Hoffmann et al. 2022 (arXiv 2203.15556, section 3.3): Huber's loss of the error of
log(loss), which an outlier moves little, minimised from many starts. Intervals resample the runs; those of a
prediction add the scatter of single runs about the law.

Losses are nats per token. Which parameters count is up to the points: Kaplan et al. 2020 leave embeddings
out, Hoffmann et al. count them, and for small models the exponents differ for that alone (Pearce and Song
2024, arXiv 2406.12907; Porian et al. 2024, arXiv 2406.19146). `icl.analysis.run_points` reads either.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from icl.analysis.fitting import Problem, minimise, minimise_from, residuals
from icl.analysis.law_forms import Floats, Form, KaplanForm, SumOfPowers, Variable
from icl.errors import InputError, check_types


@dataclasses.dataclass(frozen=True)
class RunPoint:
    """A finished run: how large, on how much, and how well.

    Attributes:
      params: N, parameters, counted the same way for all points.
      tokens: D, tokens trained on.
      loss: Nats per token, on text that the run had not seen.
      seed: Of its initial parameters.
      flops: C, FLOPs of training; 0 for 6 N D.
      finished: Whether its schedule came to its end; a law of the loss of unfinished runs is another one
        (Hoffmann et al. 2022, section 3.1).
      repeats: How often it saw the text that it saw most often; above 1 the tokens are not worth what unique
        ones are (Muennighoff et al. 2023, arXiv 2305.16264).
      name: For messages and figures.
    """

    params: int
    tokens: int
    loss: float
    seed: int = 0
    flops: float = 0.0
    finished: bool = True
    repeats: float = 1.0
    name: str = ""

    def __post_init__(self) -> None:
        if not self.flops:
            object.__setattr__(self, "flops", 6.0 * self.params * self.tokens)


@dataclasses.dataclass(frozen=True)
class FitSettings:
    """How a law is fitted.

    Attributes:
      resamples: Of the points, with replacement, for the intervals.
      level: Of the intervals.
      huber_delta: Errors of log(loss) above it count by their size, not its square; as Hoffmann et al.
      seed: Of the resamples.
    """

    resamples: int = 1000
    level: float = 0.95
    huber_delta: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        check_types(self)
        for name, holds, expected in (
            ("resamples", self.resamples >= 1, "at least 1"),
            ("level", 0 < self.level < 1, "a share between 0 and 1"),
            ("huber_delta", self.huber_delta > 0, "a positive number"),
            ("seed", self.seed >= 0, "0 or more"),
        ):
            if not holds:
                raise InputError(f"FitSettings.{name} = {getattr(self, name)!r}: expected {expected}")


_SETTINGS = FitSettings()


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The loss of a run that is not among those fitted, in nats per token.

    Attributes:
      loss: By the law.
      low: Lower end of the interval of a single run's loss.
      high: Its upper end.
      level: Share of such intervals that hold the loss, if the law holds.
      naive: The guess without a law: the loss of the fitted run of the most compute.
    """

    loss: float
    low: float
    high: float
    level: float
    naive: float


@dataclasses.dataclass(frozen=True)
class FittedLaw:
    """A law with its coefficients.

    Attributes:
      form: Which law.
      points: What it was fitted to.
      values: Coefficients by the names of `form.formula`.
      intervals: Of each coefficient, at `level`, over resampled points.
      scatter: Root mean square of the error of log(loss), corrected for the number of coefficients.
      level: Of all intervals.
      theta_P: Coefficients as the form keeps them; `thetas_RP` those of the resamples.
      residuals_N: Errors of log(loss) at the points.
      centre_V: Mean logs of the variables.
    """

    form: Form
    points: tuple[RunPoint, ...]
    values: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    scatter: float
    level: float
    theta_P: Floats = dataclasses.field(repr=False)
    thetas_RP: Floats = dataclasses.field(repr=False)
    residuals_N: Floats = dataclasses.field(repr=False)
    centre_V: Floats = dataclasses.field(repr=False)

    @property
    def formula(self) -> str:
        """The law as people write it."""
        return self.form.formula

    def losses(self, *, params: object = None, tokens: object = None, flops: object = None) -> Floats:
        """The law's losses [N] in nats per token, at values [N] of the variables it has.

        Raises:
          InputError: a variable of the law is missing.
        """
        log_x_NV = self._centred({"params": params, "tokens": tokens, "flops": flops})
        return np.exp(self.form.log_losses(self.theta_P[None], log_x_NV)[0][0])

    def predict(
        self, *, params: float | None = None, tokens: float | None = None, flops: float | None = None
    ) -> Prediction:
        """What one more run will lose, with the interval of a single run.

        The interval holds what the resampled laws say, each with an error of log(loss) like those that the
        points have. It knows nothing of a law that bends beyond the points.

        Args:
          params: N, where the law has it, counted as in the points.
          tokens: D, where the law has it.
          flops: C, where the law has it.

        Raises:
          InputError: a variable of the law is missing.
        """
        log_x_NV = self._centred({"params": params, "tokens": tokens, "flops": flops})
        log_loss = float(self.form.log_losses(self.theta_P[None], log_x_NV)[0][0, 0])
        log_losses_R = self.form.log_losses(self.thetas_RP, log_x_NV)[0][:, 0]
        freedom = math.sqrt(len(self.points) / (len(self.points) - self.form.size))
        rng = np.random.default_rng(len(log_losses_R))
        noise_R = (
            rng.choice(self.residuals_N, len(log_losses_R)) * freedom * rng.choice((-1, 1), len(log_losses_R))
        )
        low, high = np.exp(np.quantile(log_losses_R + noise_R, _tails(self.level)))
        loss = math.exp(log_loss)
        return Prediction(
            loss, min(float(low), loss), max(float(high), loss), self.level, naive_loss(self.points)
        )

    def _centred(self, values: Mapping[Variable, object]) -> Floats:
        missing = [name for name in self.form.variables if values[name] is None]
        if missing:
            raise InputError(f"the law {self.formula} needs {missing[0]}: expected a value of it")
        columns = [
            np.log(np.atleast_1d(np.asarray(values[name], np.float64))) for name in self.form.variables
        ]
        return np.stack(columns, axis=1) - self.centre_V


def fit_size_law(
    points: Sequence[RunPoint], settings: FitSettings = _SETTINGS, *, irreducible: bool = True
) -> FittedLaw:
    """L(N) = E + (Nc/N)^alpha (E = 0 unless `irreducible`), of runs on the same, ample number of tokens.

    Errors are those of `fit_law`.
    """
    return fit_law(SumOfPowers(("params",), irreducible), points, settings)


def fit_compute_law(
    points: Sequence[RunPoint], settings: FitSettings = _SETTINGS, *, irreducible: bool = True
) -> FittedLaw:
    """L(C) = E + (Cc/C)^alpha along the runs that are `efficient`; the others are left out.

    GPT-3's Fig. 3.1 has it without E (`irreducible` False). Further settings and errors are those of
    `fit_law`.
    """
    return fit_law(SumOfPowers(("flops",), irreducible), efficient(points), settings)


def fit_chinchilla_law(points: Sequence[RunPoint], settings: FitSettings = _SETTINGS) -> FittedLaw:
    """L(N, D) = E + A/N^alpha + B/D^beta (Hoffmann et al. 2022, equation 2).

    Errors are those of `fit_law`.
    """
    return fit_law(SumOfPowers(("params", "tokens")), points, settings)


def fit_kaplan_law(points: Sequence[RunPoint], settings: FitSettings = _SETTINGS) -> FittedLaw:
    """L(N, D) = ((Nc/N)^(alpha_N/alpha_D) + Dc/D)^alpha_D (Kaplan et al. 2020, equation 1.5).

    Errors are those of `fit_law`.
    """
    return fit_law(KaplanForm(), points, settings)


def fit_law(form: Form, points: Sequence[RunPoint], settings: FitSettings = _SETTINGS) -> FittedLaw:
    """Fits a law to runs.

    The same points in any order give the same law.

    Args:
      form: Which law.
      points: At least one more than the law has coefficients, of three different values of each variable.
      settings: Resamples and intervals.

    Raises:
      InputError: too few points, a loss that is not finite and positive, a run whose schedule is not finished
        or whose text was repeated.
    """
    ordered = tuple(sorted(points, key=dataclasses.astuple))
    _check(form, ordered)
    log_x_NV = np.log([[getattr(point, name) for name in form.variables] for point in ordered])
    centre_V = log_x_NV.mean(axis=0)
    problem = Problem(
        form, log_x_NV - centre_V, np.array([point.loss for point in ordered]), settings.huber_delta
    )
    theta_P = minimise(problem)
    counts_RN = _resampled_counts(ordered, form, settings.resamples, settings.seed)
    thetas_RP = minimise_from(problem, np.tile(theta_P, (len(counts_RN), 1)), counts_RN)
    draws = form.values(thetas_RP, centre_V)
    ends = {name: np.quantile(draws_R, _tails(settings.level)) for name, draws_R in draws.items()}
    residuals_N = residuals(problem, theta_P)
    return FittedLaw(
        form=form,
        points=ordered,
        values={name: float(value[0]) for name, value in form.values(theta_P[None], centre_V).items()},
        intervals={name: (float(low), float(high)) for name, (low, high) in ends.items()},
        scatter=math.sqrt(float(residuals_N @ residuals_N) / (len(ordered) - form.size)),
        level=settings.level,
        theta_P=theta_P,
        thetas_RP=thetas_RP,
        residuals_N=residuals_N,
        centre_V=centre_V,
    )


def efficient(points: Sequence[RunPoint]) -> list[RunPoint]:
    """The runs that no other one beats with as little compute or less, from the least compute on."""
    found: list[RunPoint] = []
    for point in sorted(points, key=lambda point: (point.flops, point.loss)):
        if not found or point.loss < found[-1].loss:
            found.append(point)
    return found


def naive_loss(points: Sequence[RunPoint]) -> float:
    """The loss of the run of the most compute, in nats per token: the guess that more changes nothing."""
    return max(points, key=lambda point: point.flops).loss


def _tails(level: float) -> tuple[float, float]:
    return (1 - level) / 2, (1 + level) / 2


def _resampled_counts(points: Sequence[RunPoint], form: Form, resamples: int, seed: int) -> Floats:
    """How often each point stands in each resample [R, N]; only resamples that determine the law count."""
    rng, count = np.random.default_rng(seed), len(points)
    kept: list[Floats] = []
    for _ in range(50 * resamples):
        if len(kept) == resamples:
            break
        counts_N = rng.multinomial(count, np.full(count, 1 / count))
        drawn = [point for point, times in zip(points, counts_N, strict=True) if times]
        if len(drawn) >= form.size and not _undetermined(form, drawn):
            kept.append(counts_N.astype(np.float64))
    if len(kept) < resamples:
        raise InputError(
            f"{count} points: hardly any resample of them determines the law {form.formula}; expected more"
        )
    return np.stack(kept)


def _undetermined(form: Form, points: Sequence[RunPoint]) -> str:
    """The first variable of which the points have too few different values; empty if there is none."""
    for name in form.variables:
        if len({getattr(point, name) for point in points}) < form.least_distinct:
            return name
    return ""


def _check(form: Form, points: Sequence[RunPoint]) -> None:
    for number, point in enumerate(points):
        where = f"run {point.name or number} ({point.params:,} parameters, {point.tokens:,} tokens)"
        if not (math.isfinite(point.loss) and point.loss > 0):
            raise InputError(f"{where}: loss {point.loss!r}: expected a finite number of nats above 0")
        if point.params < 1 or point.tokens < 1:
            raise InputError(f"{where}: expected at least one parameter and one token")
        if not point.finished:
            raise InputError(f"{where}: its schedule is not finished; expected finished runs only")
        if point.repeats > 1:
            raise InputError(f"{where}: saw its text {point.repeats:.3g} times; expected unique text only")
    if len(points) <= form.size:
        raise InputError(
            f"{len(points)} points: expected at least {form.size + 1}, as the law {form.formula} has"
            f" {form.size} coefficients"
        )
    if name := _undetermined(form, points):
        values = sorted({getattr(point, name) for point in points})
        raise InputError(
            f"{len(points)} points with {name} = {', '.join(f'{value:g}' for value in values)}: expected at"
            f" least {form.least_distinct} different ones, to determine the law {form.formula}"
        )
