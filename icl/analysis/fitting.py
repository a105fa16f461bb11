"""Minimises Huber's loss of the error of log(loss) over a law's coefficients, from many starts at once.

By damped Gauss-Newton steps (Levenberg-Marquardt) whose points are weighed anew at each step; a test holds
the minimum against L-BFGS from the same starts. Shapes as in `icl.analysis.law_forms`.
"""

import dataclasses

import numpy as np

from icl.analysis.law_forms import Floats, Form

_STEPS = 300
_SCREENING_STEPS = 30
_BEST_STARTS = 8
_CONVERGED = 1e-12
_MOST_DAMPING = 1e10


@dataclasses.dataclass(frozen=True)
class Problem:
    """A law, the points it is fitted to, and from which error on they count by its size."""

    form: Form
    log_x_NV: Floats
    loss_N: Floats
    huber_delta: float


def minimise(problem: Problem) -> Floats:
    """The coefficients [P] of the least objective that any start leads to."""
    starts_SP = problem.form.starts(problem.log_x_NV, problem.loss_N)
    screened_SP = _descend(
        problem, starts_SP, np.ones((len(starts_SP), len(problem.loss_N))), _SCREENING_STEPS
    )
    order = np.argsort(objective(problem, screened_SP), kind="stable")[:_BEST_STARTS]
    finished_SP = minimise_from(problem, screened_SP[order], np.ones((len(order), len(problem.loss_N))))
    best: Floats = finished_SP[np.argmin(objective(problem, finished_SP))]
    return best


def minimise_from(problem: Problem, theta_SP: Floats, weights_SN: Floats) -> Floats:
    """The minimum [S, P] near each start, each with its own weights of the points."""
    return _descend(problem, theta_SP, weights_SN, _STEPS)


def residuals(problem: Problem, theta_P: Floats) -> Floats:
    """Errors [N] of log(loss): measured minus the law."""
    log_loss_SN, _ = problem.form.log_losses(theta_P[None], problem.log_x_NV)
    errors: Floats = np.log(problem.loss_N) - log_loss_SN[0]
    return errors


def objective(problem: Problem, theta_SP: Floats, weights_SN: Floats | None = None) -> Floats:
    """The sum over points of Huber's loss, in units of delta squared, [S]."""
    log_loss_SN, _ = problem.form.log_losses(theta_SP, problem.log_x_NV)
    return _huber(problem, log_loss_SN - np.log(problem.loss_N), 1.0 if weights_SN is None else weights_SN)


def _huber(problem: Problem, error_SN: Floats, weights_SN: Floats | float) -> Floats:
    size_SN = np.abs(error_SN) / problem.huber_delta
    total: Floats = (weights_SN * np.where(size_SN <= 1, 0.5 * size_SN**2, size_SN - 0.5)).sum(axis=1)
    return total


def _descend(problem: Problem, theta_SP: Floats, weights_SN: Floats, steps: int) -> Floats:
    """Steps until none helps any more; sets that have converged are left alone."""
    low_P, high_P = problem.form.bounds(problem.loss_N)
    theta_SP = np.clip(theta_SP, low_P, high_P)
    value_S = objective(problem, theta_SP, weights_SN)
    damping_S = np.full(len(theta_SP), 1e-3)
    active = np.arange(len(theta_SP))
    for _ in range(steps):
        now_SP, w_SN = theta_SP[active], weights_SN[active]
        step_SP = _step(problem, now_SP, w_SN, damping_S[active])
        tried_SP = np.clip(now_SP + step_SP, low_P, high_P)
        tried_S = objective(problem, tried_SP, w_SN)
        gain_S = value_S[active] - tried_S
        better = gain_S > 0
        theta_SP[active[better]], value_S[active[better]] = tried_SP[better], tried_S[better]
        damping_S[active] *= np.where(better, 0.2, 8.0)
        damping_S = np.maximum(damping_S, 1e-12)
        small = better & (gain_S <= _CONVERGED * (1e-9 + tried_S))
        active = active[~(small | (damping_S[active] > _MOST_DAMPING))]
        if not len(active):
            break
    return theta_SP


def _step(problem: Problem, theta_SP: Floats, weights_SN: Floats, damping_S: Floats) -> Floats:
    """The damped Gauss-Newton step; a coefficient at its bound that wants beyond it stays."""
    low_P, high_P = problem.form.bounds(problem.loss_N)
    log_loss_SN, derivative_SNP = problem.form.log_losses(theta_SP, problem.log_x_NV)
    error_SN = (log_loss_SN - np.log(problem.loss_N)) / problem.huber_delta
    weighted_SN = weights_SN / np.maximum(np.abs(error_SN), 1.0)
    scaled_SNP = derivative_SNP / problem.huber_delta
    gradient_SP = np.einsum("snp,sn->sp", scaled_SNP, weighted_SN * error_SN)
    hessian_SPP = np.einsum("snp,sn,snq->spq", scaled_SNP, weighted_SN, scaled_SNP)
    held_SP = ((theta_SP <= low_P) & (gradient_SP > 0)) | ((theta_SP >= high_P) & (gradient_SP < 0))
    free_SP = (~held_SP).astype(np.float64)
    hessian_SPP = hessian_SPP * free_SP[:, :, None] * free_SP[:, None, :]
    diagonal_SP = np.einsum("spp->sp", hessian_SPP)
    ridge_SP = (
        damping_S[:, None] * diagonal_SP + 1e-12 * (1 + diagonal_SP.max(axis=1, keepdims=True)) + held_SP
    )
    hessian_SPP = hessian_SPP + ridge_SP[:, :, None] * np.eye(theta_SP.shape[1])
    step: Floats = -np.linalg.solve(hessian_SPP, (gradient_SP * free_SP)[:, :, None])[:, :, 0]
    return step
