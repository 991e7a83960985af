"""The linear probe: multinomial logistic regression on standardised features, solved to convergence.

It minimises, over kernel W (dim, classes) and bias, the mean cross-entropy of the photos + l2 / 2 · ΣW². That penalty does not
change when the features are rotated, so that the problem is solved along the principal axes of the features, of which there are
no more than photos. In that basis the Hessian at W = 0 is diagonal but for the classes' 1/K (Böhning, "Multinomial logistic
regression algorithm", 1992): dividing by it makes L-BFGS (Liu and Nocedal, 1989) converge in few steps.
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
"""The penalty that cross-validation begins with, as a share of the features' mean squared length; see `choose_l2`."""

DECADES = 4
"""How far it goes from there in either direction."""

MOST_DECADES = 8
"""How far it goes where the best penalty is at that edge."""

WORTH = 0.01
"""A weaker penalty must lower the loss by this share: the weaker it is, the longer it takes to solve."""

MOST_COMPARED = 2000
"""Photos that cross-validation uses, at most: the time that it takes grows with their square."""

ITERATIONS = 500
"""Of L-BFGS, at most, to compare penalties; and at a time for the probe itself."""

ROUNDS = 4
"""So many times ITERATIONS, at most, for the probe itself."""


class Probe(NamedTuple):
    """`kernel` (dim, classes) and `bias` (classes,) float32, and the penalty that they were solved with.

    `converged` says whether the solver ended by itself; `edge` is the end of the grid of penalties, the `weakest` or the
    `strongest` one, where cross-validation chose that and a still weaker or stronger one might be better.
    """

    kernel: Features
    bias: Features
    l2: float
    converged: bool = True
    edge: Edge | None = None

    @property
    def doubts(self) -> tuple[str, ...]:
        """A line for each reason to doubt that this is the best linear probe."""
        found = []
        if not self.converged:
            found.append(
                f"the linear probe did not converge in {ROUNDS * ITERATIONS} iterations (penalty {self.l2:.2g})."
            )
        if self.edge:
            other = "weaker" if self.edge == "weakest" else "stronger"
            found.append(
                f"the linear probe's best penalty, {self.l2:.2g}, is the {self.edge} of its grid, also after it went "
                f"{MOST_DECADES - DECADES} decades further; a {other} one may be better."
            )
        return tuple(found)


class Tolerance(NamedTuple):
    """When L-BFGS ends: by the relative fall of the loss in a step, or the largest entry of the preconditioned gradient."""

    loss: float
    gradient: float


SOLVED = Tolerance(1e-9, 1e-6)
COMPARED = Tolerance(1e-6, 1e-5)
"""For what is fitted to compare penalties."""


def fit_probe(features: Features, labels: Labels, classes: int, l2: float | None = None, folds: int = 3) -> Probe:
    """Solves for features (n, dim) float32, which are standardised, and labels (n,); the same arguments give the same numbers.

    A solver that has not converged after ITERATIONS goes on for ROUNDS of them; see `Probe.doubts` for what it says then.

    Where `l2` is None, cross-validation over `folds` folds chooses it, of many photos on MOST_COMPARED. The penalty that it finds
    there is scaled to all of them: against the mean loss of n photos, a fixed belief about the weights weighs 1/n.

    On one thread: the steps are short, so that threads would wait for each other, and the number of cores must not change a sum.
    """
    import scipy.linalg
    import scipy.optimize  # noqa: F401  # before the limit, which holds for libraries that are loaded
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
    """Probes of one training set for several penalties, each from the one before (strong to weak is short), as near as needed to
    compare them."""

    def __init__(self, features: Features, labels: Labels, classes: int) -> None:
        """Features (n, dim) float32, which are standardised, and labels (n,)."""
        import scipy.linalg
        import scipy.optimize  # noqa: F401  # before the limit, which holds for libraries that are loaded
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
    """Logarithms of the probabilities (n, classes) of standardised features (n, dim)."""
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
        """Of the smaller of the two matrices of products; axes along which nothing varies are left out."""
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
        # All axes are kept: they are a rotation, also where rounding has turned some of them among each other.
        squares, vectors = eigh(features.T @ features, overwrite_a=True, check_finite=False, driver="evd")
        return cls(vectors, features @ vectors, np.maximum(squares.astype(np.float64), 0) / images)


class Chosen(NamedTuple):
    """The penalty that cross-validation chose, and the end of the grid where it is that."""

    l2: float
    edge: Edge | None


class _Solution(NamedTuple):
    """Weights (r + 1, classes) along the axes of a basis, and whether the solver ended by itself."""

    weights: Matrix
    converged: bool


def _probe(basis: _Basis, solution: _Solution, l2: float) -> Probe:
    small = solution.weights.astype(np.float32)
    return Probe(basis.axes @ small[:-1], small[-1], l2, solution.converged)


def choose_l2(basis: _Basis, labels: Labels, classes: int, folds: int) -> Chosen:
    """The penalty with the lowest cross-validated loss: a power of √10 times the one that it begins with.

    The loss falls and then rises with the penalty. So the search goes downhill in decades until one is not better, then looks
    half a decade to either side. Every fold starts from its solution for the penalty before. From DECADES on, where a penalty
    has to be much too weak or too strong, each further one must lower the loss by WORTH.
    """
    parts = fold_of(labels, folds)
    start = START * float(basis.power.sum())
    solutions: dict[int, Matrix] = {}
    losses: dict[float, float] = {}

    def loss(decade: float) -> float:
        """Of the penalty that is so many decades weaker than the first one."""
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
    if loss(1) > loss(0) * (1 - WORTH):
        way = -1
    least = 1 - WORTH if way == 1 else 1.0
    while abs(best) < MOST_DECADES and loss(best + way) < loss(best) * least:
        best += way
        if abs(best) >= DECADES:
            least = 1 - WORTH
    best = min((best - 0.5, best, best + 0.5), key=loss)
    edge: Edge | None = None
    if abs(best) > MOST_DECADES:
        edge = "weakest" if way == 1 else "strongest"
    return Chosen(start / 10**best, edge)


def fold_of(labels: Labels, folds: int) -> npt.NDArray[np.int64]:
    """The fold of each photo (n,): every class is dealt out in a drawn order, so that folds differ by one photo at most in each
    class and in all. A class with fewer photos than folds is there in some of them."""
    random = np.random.Generator(np.random.Philox(0))
    shuffled = random.permutation(len(labels))
    found = np.empty(len(labels), np.int64)
    found[shuffled[np.argsort(labels[shuffled], kind="stable")]] = np.arange(len(labels)) % folds
    return found


def spread(labels: Labels, most: int) -> npt.NDArray[np.int64]:
    """The positions of about `most` photos, in order: the same share of every class, evenly spread, at least one of each."""
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
    """Weights (r + 1, classes) along the axes of the basis, the bias last, of features (m, r) along them."""
    from scipy.optimize import minimize

    shape = (features.shape[1] + 1, classes)
    curved = np.maximum(basis.power / classes + l2, 1e-12)  # 0 where features are constant
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
    """Mean cross-entropy + l2 / 2 · the sum of squared weights (without the bias), and its gradient by the weights.

    `weights` are (dim + 1, classes), the bias last; products are computed in float32, sums in float64.
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
