"""The linear probe: multinomial logistic regression on standardised features, solved to convergence.

It minimises, over kernel W (dim, classes) and bias, the mean cross-entropy of the photos + l2 / 2 · ΣW². The penalty is invariant
to rotations of the features, so the problem is solved along their principal axes, of which there are at most as many as photos.
In that basis the Hessian at W = 0 is diagonal except for the classes' 1/K term (Böhning, "Multinomial logistic regression
algorithm", 1992); preconditioning with it makes L-BFGS (Liu and Nocedal, 1989) converge in few steps.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

Features = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int32]
Matrix = npt.NDArray[np.float64]
Edge = Literal["weakest", "strongest"]

START = 1e-5
"""The first penalty of cross-validation, as a share of the features' mean squared norm; see `choose_l2`."""

DECADES = 4
"""Half-width of the grid: decades from the first penalty in either direction. Beyond it, see `MIN_IMPROVEMENT`."""

MOST_DECADES = 8
"""Half-width of the extended grid, used if the best penalty is at the edge."""

MIN_IMPROVEMENT = 0.01
"""A weaker penalty must lower the loss by at least this share, since weaker penalties take longer to solve."""

MOST_COMPARED = 2000
"""Most photos for cross-validation, whose time grows with their square."""

ITERATIONS = 500
"""Most L-BFGS iterations to compare penalties, and per round for the probe itself."""

ROUNDS = 4
"""Most rounds of ITERATIONS for the probe itself."""


class Probe(NamedTuple):
    """`kernel` (dim, classes) and `bias` (classes,) float32, and the penalty they were solved with.

    `converged`: whether the solver converged before its iteration limit. `edge`: set if cross-validation chose the `weakest` or
    `strongest` penalty of its grid, so that an even weaker or stronger one might be better.
    """

    kernel: Features
    bias: Features
    l2: float
    converged: bool = True
    edge: Edge | None = None

    @property
    def doubts(self) -> tuple[str, ...]:
        """One sentence per reason to doubt that this is the best linear probe."""
        found = []
        if not self.converged:
            found.append(
                f"the linear probe did not converge in {ROUNDS * ITERATIONS} iterations (penalty {self.l2:.2g})."
            )
        if self.edge:
            other = "weaker" if self.edge == "weakest" else "stronger"
            found.append(
                f"the linear probe's best penalty, {self.l2:.2g}, is the {self.edge} of its grid, even extended by "
                f"{MOST_DECADES - DECADES} decades; a {other} one may be better."
            )
        return tuple(found)


class Tolerance(NamedTuple):
    """L-BFGS stops at this relative decrease of the loss per step, or this largest entry of the preconditioned gradient."""

    loss: float
    gradient: float


SOLVED = Tolerance(1e-9, 1e-6)
COMPARED = Tolerance(1e-6, 1e-5)
"""Tolerance for fits that only compare penalties."""


def fit_probe(features: Features, labels: Labels, classes: int, l2: float | None = None, folds: int = 3) -> Probe:
    """Fits standardised features (n, dim) float32 and labels (n,). Deterministic.

    The solver runs at most ROUNDS times ITERATIONS; `Probe.doubts` tells if it did not converge.

    If `l2` is None, cross-validation over `folds` folds chooses it, on about MOST_COMPARED photos if there are more. That penalty
    is then scaled to all n photos: relative to a mean loss, a fixed prior on the weights has weight 1/n.

    Runs on one thread: the steps are so short that threads would mostly wait, and results must not depend on the number of cores.
    """
    import scipy.linalg
    import scipy.optimize  # noqa: F401  # imported before the limit, which applies only to loaded libraries
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        basis, edge = _Basis.of(features), None
        if l2 is None:
            rows = spread(labels, MOST_COMPARED)
            few = basis if len(rows) == len(labels) else _Basis.of(features[rows])
            chosen = choose_l2(few, labels[rows], classes, folds)
            l2, edge = chosen.l2 * len(rows) / len(labels), chosen.edge
        solution = _solve(basis, basis.features, labels, classes, l2, SOLVED)
        for _ in range(ROUNDS - 1):
            if solution.converged:
                break
            solution = _solve(basis, basis.features, labels, classes, l2, SOLVED, solution.weights)
        return _probe(basis, solution, l2)._replace(edge=edge)


class ProbePath:
    """Probes of one training set for several penalties, each warm-started from the one before (fast from strong to weak), and
    only precise enough to compare them."""

    def __init__(self, features: Features, labels: Labels, classes: int) -> None:
        """Takes standardised features (n, dim) float32 and labels (n,)."""
        import scipy.linalg
        import scipy.optimize  # noqa: F401  # imported before the limit, which applies only to loaded libraries
        from threadpoolctl import threadpool_limits

        self._labels, self._classes = labels, classes
        self._start: Matrix | None = None
        with threadpool_limits(1):
            self._basis = _Basis.of(features)

    def fit(self, l2: float) -> Probe:
        """The probe for this penalty."""
        from threadpoolctl import threadpool_limits

        with threadpool_limits(1):
            found = _solve(self._basis, self._basis.features, self._labels, self._classes, l2, COMPARED, self._start)
            self._start = found.weights
            return _probe(self._basis, found, l2)


def log_probabilities(kernel: Features, bias: Features, features: Features) -> Features:
    """Log-probabilities (n, classes) float32 of standardised features (n, dim)."""
    logits: Features = features @ kernel + bias
    logits -= logits.max(1, keepdims=True)
    return np.asarray(logits - np.log(np.exp(logits).sum(1, keepdims=True)), np.float32)


class _Basis(NamedTuple):
    """The principal axes (dim, r) of features (n, dim), the features along them (n, r), and the mean square along each (r,)."""

    axes: Features
    features: Features
    power: Matrix

    @classmethod
    def of(cls, features: Features) -> _Basis:
        """Computed from the smaller of the two Gram matrices; with fewer photos than features, null axes are left out."""
        from scipy.linalg import eigh

        images, width = features.shape
        if images < width:
            wide = features.astype(np.float64)
            squares, vectors = eigh(wide @ wide.T, overwrite_a=True, check_finite=False, driver="evd")
            kept = squares > 1e-10 * squares[-1]
            squares, vectors = squares[kept], vectors[:, kept]
            lengths = np.sqrt(squares)
            axes = (wide.T @ (vectors / lengths)).astype(np.float32)
            return cls(axes, (vectors * lengths).astype(np.float32), squares / images)
        # All axes are kept: they form a rotation, even if rounding has mixed some of them.
        squares, vectors = eigh(features.T @ features, overwrite_a=True, check_finite=False, driver="evd")
        return cls(vectors, features @ vectors, np.maximum(squares.astype(np.float64), 0) / images)


class Chosen(NamedTuple):
    """The penalty that cross-validation chose, and the edge of the grid if it is there."""

    l2: float
    edge: Edge | None


class _Solution(NamedTuple):
    """Weights (r + 1, classes) along the axes of a basis, and whether the solver converged."""

    weights: Matrix
    converged: bool


def _probe(basis: _Basis, solution: _Solution, l2: float) -> Probe:
    small = solution.weights.astype(np.float32)
    return Probe(basis.axes @ small[:-1], small[-1], l2, solution.converged)


def choose_l2(basis: _Basis, labels: Labels, classes: int, folds: int) -> Chosen:
    """The penalty with the lowest cross-validated loss: a power of √10 times the first one.

    The loss falls and then rises with the penalty. So the search goes downhill in decades until it stops improving, then tries
    half a decade to either side. Each fold is warm-started from its solution for the previous penalty. Beyond DECADES, where
    penalties are hardly plausible, each further one must lower the loss by MIN_IMPROVEMENT.
    """
    parts = fold_of(labels, folds)
    start = START * float(basis.power.sum())
    solutions: dict[int, Matrix] = {}
    losses: dict[float, float] = {}

    def loss(decade: float) -> float:
        """The cross-validated loss of the penalty `decade` decades weaker than the first."""
        if decade not in losses:
            l2, total = start / 10**decade, 0.0
            for fold in range(folds):
                seen = parts != fold
                features, before = basis.features[seen], solutions.get(fold)
                solved = _solve(basis, features, labels[seen], classes, l2, COMPARED, before).weights
                solutions[fold] = solved
                small = solved.astype(np.float32)
                held = log_probabilities(small[:-1], small[-1], basis.features[~seen])
                total -= float(held[np.arange(len(held)), labels[~seen]].sum(dtype=np.float64))
            losses[decade] = total / len(labels)
        return losses[decade]

    best, way = 0.0, 1
    if loss(1) > loss(0) * (1 - MIN_IMPROVEMENT):
        way = -1
    least = 1 - MIN_IMPROVEMENT if way == 1 else 1.0
    while abs(best) < MOST_DECADES and loss(best + way) < loss(best) * least:
        best += way
        if abs(best) >= DECADES:
            least = 1 - MIN_IMPROVEMENT
    best = min((best - 0.5, best, best + 0.5), key=loss)
    edge: Edge | None = None
    if abs(best) > MOST_DECADES:
        edge = "weakest" if way == 1 else "strongest"
    return Chosen(start / 10**best, edge)


def fold_of(labels: Labels, folds: int) -> npt.NDArray[np.int64]:
    """The fold of each photo (n,): the photos of every class are dealt out in random order, so that folds differ by at most one
    photo, per class and in total. A class with fewer photos than folds is only in some of them."""
    random = np.random.Generator(np.random.Philox(0))
    shuffled = random.permutation(len(labels))
    found = np.empty(len(labels), np.int64)
    found[shuffled[np.argsort(labels[shuffled], kind="stable")]] = np.arange(len(labels)) % folds
    return found


def spread(labels: Labels, most: int) -> npt.NDArray[np.int64]:
    """The positions of about `most` photos, in order: the same share of every class, evenly spaced, at least one per class."""
    if len(labels) <= most:
        return np.arange(len(labels))
    chosen = []
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels == label)
        count = max(1, int(len(of_class) * most / len(labels)))
        chosen.append(of_class[np.linspace(0, len(of_class), count, endpoint=False).astype(np.int64)])
    return np.sort(np.concatenate(chosen))


def _solve(
    basis: _Basis,
    features: Features,
    labels: Labels,
    classes: int,
    l2: float,
    tolerance: Tolerance,
    start: Matrix | None = None,
) -> _Solution:
    """Solves for the weights (r + 1, classes) along the axes of the basis, bias last, from features (m, r) along them."""
    from scipy.optimize import minimize

    shape = (features.shape[1] + 1, classes)
    curved = np.maximum(basis.power / classes + l2, 1e-12)  # power is 0 along constant features
    scale = np.append(1 / np.sqrt(curved), np.sqrt(classes))[:, None]

    def scaled(flat: Matrix) -> tuple[float, Matrix]:
        value, gradient = objective(flat.reshape(shape) * scale, features, labels, l2)
        return value, (gradient * scale).ravel()

    found = minimize(
        scaled,
        (np.zeros(shape) if start is None else start / scale).ravel(),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": ITERATIONS, "ftol": tolerance.loss, "gtol": tolerance.gradient},
    )
    return _Solution(np.asarray(found.x.reshape(shape) * scale), found.nit < ITERATIONS)


def objective(weights: Matrix, features: Features, labels: Labels, l2: float) -> tuple[float, Matrix]:
    """Mean cross-entropy + l2 / 2 · the sum of squared weights (without the bias), and its gradient with respect to the weights.

    `weights` are (dim + 1, classes), bias last; products are computed in float32, sums in float64.
    """
    logits = features @ weights[:-1].astype(np.float32) + weights[-1].astype(np.float32)
    logits -= logits.max(1, keepdims=True)
    rows = np.arange(len(labels))
    truth = logits[rows, labels].astype(np.float64)
    np.exp(logits, out=logits)
    total = logits.sum(1, dtype=np.float64)
    loss = float((np.log(total) - truth).mean() + l2 / 2 * np.square(weights[:-1]).sum())
    logits /= total[:, None].astype(np.float32)
    logits[rows, labels] -= 1
    gradient = np.empty_like(weights)
    gradient[:-1] = (features.T @ logits) / len(labels) + l2 * weights[:-1]
    gradient[-1] = logits.mean(0, dtype=np.float64)
    return loss, gradient
