"""The forms of scaling laws: the log of the loss, and its derivatives, at sizes, tokens or compute.

Coefficients and exponents are kept as logs, at the centre of the points: so they are positive, of one size,
and hardly depend on each other. Many sets of them are computed at once, as starts and resamples come in
hundreds.

Shapes: S sets of a law's coefficients, N points, V variables, P coefficients of a law.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

Floats = NDArray[np.float64]
Variable = Literal["params", "tokens", "flops"]

_EXPONENTS = (0.03, 0.08, 0.15, 0.25, 0.4, 0.7, 1.1)
"""Of the starts: from below those of large language models to above those of tiny ones."""
_EXPONENT_BOUNDS = (1e-3, 4.0)
_SMALLEST_TERM = 1e-6
"""Of any loss: a term that wants to vanish stops here."""


class Form(Protocol):
    """A law but for its coefficients.

    Attributes:
      formula: As people write it.
      variables: What the loss depends on.
      least_distinct: How many different values of each variable determine the coefficients.
    """

    @property
    def formula(self) -> str: ...

    @property
    def variables(self) -> tuple[Variable, ...]: ...

    @property
    def size(self) -> int:
        """P: number of coefficients."""
        ...

    @property
    def least_distinct(self) -> int: ...

    def log_losses(self, theta_SP: Floats, log_x_NV: Floats) -> tuple[Floats, Floats]:
        """Logs of the losses [S, N] at centred logs of the variables, and their derivatives [S, N, P]."""
        ...

    def starts(self, log_x_NV: Floats, loss_N: Floats) -> Floats:
        """Coefficients [S, P] to begin from: the best for each of many sets of exponents."""
        ...

    def bounds(self, loss_N: Floats) -> tuple[Floats, Floats]:
        """Lowest and highest coefficients [P]."""
        ...

    def values(self, theta_SP: Floats, centre_V: Floats) -> dict[str, Floats]:
        """The coefficients as the formula names them, each [S]; `centre_V` was taken from the logs."""
        ...


@dataclasses.dataclass(frozen=True)
class SumOfPowers:
    """A power of each variable, and a loss that remains: L(N), L(C), or L(N, D) of Hoffmann et al. 2022.

    Attributes:
      variables: Those that the loss falls with.
      irreducible: Whether there is a loss that remains; without it and of one variable the law is a straight
        line in logs.
    """

    variables: tuple[Variable, ...]
    irreducible: bool = True

    @property
    def formula(self) -> str:
        """`E + A/N^alpha + B/D^beta`, or of one variable `E + (Nc/N)^alpha`."""
        symbols = {"params": "N", "tokens": "D", "flops": "C"}
        if len(self.variables) == 1:
            x = symbols[self.variables[0]]
            terms = [f"({x}c/{x})^alpha"]
        else:
            terms = [
                f"{factor}/{symbols[variable]}^{exponent}"
                for variable, factor, exponent in zip(self.variables, "AB", ("alpha", "beta"), strict=True)
            ]
        return " + ".join((["E"] if self.irreducible else []) + terms)

    @property
    def size(self) -> int:
        """P: number of coefficients."""
        return self.irreducible + 2 * len(self.variables)

    @property
    def least_distinct(self) -> int:
        """Three where something remains: two points of a power law with a constant fit any exponent."""
        return 3 if self.irreducible or len(self.variables) > 1 else 2

    def log_losses(self, theta_SP: Floats, log_x_NV: Floats) -> tuple[Floats, Floats]:
        """See `Form`."""
        first = int(self.irreducible)
        exponent_SV = np.exp(theta_SP[:, first + 1 :: 2])
        slope_SNV = exponent_SV[:, None] * log_x_NV
        terms = theta_SP[:, None, first::2] - slope_SNV
        if self.irreducible:
            constant = np.broadcast_to(theta_SP[:, None, :1], (*terms.shape[:2], 1))
            terms = np.concatenate([constant, terms], axis=2)
        log_loss_SN, share = _log_sum(terms)
        derivative_SNP = np.empty((*log_loss_SN.shape, self.size))
        derivative_SNP[..., :first] = share[..., :first]
        derivative_SNP[..., first::2] = share[..., first:]
        derivative_SNP[..., first + 1 :: 2] = -share[..., first:] * slope_SNV
        return log_loss_SN, derivative_SNP

    def starts(self, log_x_NV: Floats, loss_N: Floats) -> Floats:
        """See `Form`."""
        constant = [np.ones(len(loss_N))] if self.irreducible else []
        found = []
        for exponents in itertools.product(_EXPONENTS, repeat=len(self.variables)):
            columns = constant + [np.exp(-a * x_N) for a, x_N in zip(exponents, log_x_NV.T, strict=True)]
            logs = _log_coefficients(columns, loss_N)
            pairs = zip(logs[len(constant) :], np.log(exponents), strict=True)
            found.append([*logs[: len(constant)], *itertools.chain.from_iterable(pairs)])
        return np.array(found)

    def bounds(self, loss_N: Floats) -> tuple[Floats, Floats]:
        """See `Form`."""
        least, most = _term_bounds(loss_N)
        terms = [[least, most]] * self.irreducible + [[least, most], list(np.log(_EXPONENT_BOUNDS))] * len(
            self.variables
        )
        low_P, high_P = np.array(terms).T
        return low_P, high_P

    def values(self, theta_SP: Floats, centre_V: Floats) -> dict[str, Floats]:
        """See `Form`; of two variables also `a`, the power of compute by which N grows at the least loss."""
        first = int(self.irreducible)
        exponent_VS, factor_VS = np.exp(theta_SP[:, first + 1 :: 2].T), theta_SP[:, first::2].T
        found = {"E": np.exp(theta_SP[:, 0])} if self.irreducible else {}
        with np.errstate(over="ignore"):
            if len(self.variables) == 1:
                scale = {"params": "Nc", "tokens": "Dc", "flops": "Cc"}[self.variables[0]]
                return found | {
                    scale: np.exp(centre_V[0] + factor_VS[0] / exponent_VS[0]),
                    "alpha": exponent_VS[0],
                }
            (alpha, beta), centred_VS = exponent_VS, exponent_VS * centre_V[:, None]
            a, b = np.exp(factor_VS + centred_VS)
        return found | {"A": a, "alpha": alpha, "B": b, "beta": beta, "a": beta / (alpha + beta)}


@dataclasses.dataclass(frozen=True)
class KaplanForm:
    """L(N, D) of Kaplan et al. 2020 (arXiv 2001.08361, equation 1.5), without a loss that remains."""

    formula: str = "((Nc/N)^(alpha_N/alpha_D) + Dc/D)^alpha_D"
    variables: tuple[Variable, ...] = ("params", "tokens")
    size: int = 4
    least_distinct: int = 3

    def log_losses(self, theta_SP: Floats, log_x_NV: Floats) -> tuple[Floats, Floats]:
        """See `Form`; the coefficients are logs of both terms at the centre, and of alpha_N and alpha_D."""
        alpha_n, alpha_d = np.exp(theta_SP[:, 2:].T)[:, :, None]
        slope_SN = alpha_n / alpha_d * log_x_NV[:, 0]
        terms = np.stack([theta_SP[:, :1] - slope_SN, theta_SP[:, 1:2] - log_x_NV[:, 1]], axis=2)
        log_sum_SN, share = _log_sum(terms)
        by_n = alpha_d * share[..., 0]
        log_loss_SN = alpha_d * log_sum_SN
        by_coefficient = [by_n, alpha_d * share[..., 1], -by_n * slope_SN, log_loss_SN + by_n * slope_SN]
        return log_loss_SN, np.stack(by_coefficient, axis=2)

    def starts(self, log_x_NV: Floats, loss_N: Floats) -> Floats:
        """See `Form`."""
        found = []
        for alpha_n, alpha_d in itertools.product(_EXPONENTS, repeat=2):
            columns = [np.exp(-alpha_n / alpha_d * log_x_NV[:, 0]), np.exp(-log_x_NV[:, 1])]
            scale = loss_N.max()  # of a power of the loss, which may be large
            logs = _log_coefficients(columns, (loss_N / scale) ** (1 / alpha_d)) + np.log(scale) / alpha_d
            found.append([*logs, np.log(alpha_n), np.log(alpha_d)])
        return np.array(found)

    def bounds(self, loss_N: Floats) -> tuple[Floats, Floats]:
        """See `Form`; a term is a power of the loss, of up to 1 / alpha_D."""
        exponents, reach = np.log(_EXPONENT_BOUNDS), max(abs(bound) for bound in _term_bounds(loss_N))
        most = reach / _EXPONENT_BOUNDS[0]
        return np.array([-most, -most, *[exponents[0]] * 2]), np.array([most, most, *[exponents[1]] * 2])

    def values(self, theta_SP: Floats, centre_V: Floats) -> dict[str, Floats]:
        """See `Form`."""
        alpha_n, alpha_d = np.exp(theta_SP[:, 2:].T)
        with np.errstate(over="ignore"):
            n_c = np.exp(centre_V[0] + theta_SP[:, 0] * alpha_d / alpha_n)
            d_c = np.exp(centre_V[1] + theta_SP[:, 1])
        return {"Nc": n_c, "alpha_N": alpha_n, "Dc": d_c, "alpha_D": alpha_d}


def _log_sum(terms: Floats) -> tuple[Floats, Floats]:
    """The log of a sum over the last axis of exponentials, and the share of each."""
    highest = terms.max(axis=-1, keepdims=True)
    parts = np.exp(terms - highest)
    total = parts.sum(axis=-1, keepdims=True)
    return (highest + np.log(total))[..., 0], parts / total


def _log_coefficients(columns: Sequence[Floats], target_N: Floats) -> Floats:
    """Logs of the positive factors of columns whose sum comes nearest to a target, relative to it."""
    factors, _ = optimize.nnls(np.stack(columns, axis=1) / target_N[:, None], np.ones(len(target_N)))
    logs: Floats = np.log(np.maximum(factors, 0.01 * target_N.min()))
    return logs


def _term_bounds(loss_N: Iterable[float]) -> tuple[float, float]:
    """Logs of the least and the most that a term of the loss can be."""
    losses = list(loss_N)
    return float(np.log(_SMALLEST_TERM * min(losses))), float(np.log(10 * max(losses)))
