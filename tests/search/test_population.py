"""A lane of a population equals the trial trained alone; a failed lane does not affect others; few programs are compiled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from features.cache.views import Views
from search.heads import HeadConfig
from search.optimizers import SGD, Adam, AdamW
from search.population.sources import zeros_for_cache_lines
from search.population.structure import chunks, structure_of
from search.trial import FeatureParts, TrialConfig
from tests.forks import run_python

BODY = """
import json, sys
from concurrent.futures import ThreadPoolExecutor
import jax, numpy as np
from features.cache.views import Views
from search.population.dropout import random_bits
from features.audit.moments import feature_moments
from search.heads import HeadConfig, build_head, set_head_weights
from search.optimizers import SGD, Adam, AdamW, RMSprop
from search.population.program import Program
from search.population.sources import Features
from search.population.structure import structure_of
from search.schedules import Constant, Triangular
from search.trial import FeatureParts, TrialConfig

random = np.random.default_rng(0)
labels = random.integers(0, 6, 96).astype(np.int32)
features = (random.normal(size=(3, 96, 16)) + 0.5 * np.eye(16)[labels]).astype(np.float16)
val, val_labels = features[0, :40] + np.float16(0.3) * random.normal(size=(40, 16)).astype(np.float16), labels[:40]
moments, raw = feature_moments(features[0]), features
drawn = Features(features, labels, val, val_labels, 6, moments)
data = Features(*map(jax.device_put, (features, labels, val, val_labels)), 6, moments)

def config(seed, rate, dropout, l2, smoothing, decay, copies, cyclical=False):
    schedule = Triangular(learning_rate=rate, half_cycle_epochs=1) if cyclical else Constant(learning_rate=rate)
    head = HeadConfig(units=(8,), dropout=dropout, l2=l2, label_smoothing=smoothing, batch_norm=True)
    return TrialConfig(head=head, schedule=schedule, optimizer=AdamW(weight_decay=decay), batch_size=8,
                       views=Views(copies=copies, clean_share=0.3), epochs=4, seed=seed)

wild = config(9, 10.0, 0.1, 0.0, 0.0, 10.0, 0)  # every step multiplies the weights by -99
configs = [config(1, 1e-2, 0.5, 0.0, 0.0, 0.0, 0), config(2, 3e-3, 0.1, 1e-3, 0.1, 1e-2, 2, True), wild,
           config(3, 3e-2, 0.3, 1e-4, 0.0, 0.1, 2), config(4, 1e-2, 0.5, 0.0, 0.0, 0.0, 1)]

def shown(states):
    return [{"curves": [list(m) for m in s.curves], "best_epoch": s.best_epoch, "failure": s.failure,
             "sum": float(sum(np.abs(a, dtype=np.float64).sum() for a in s.best_trainable))} for s in states]

def run(configs, objective="val_accuracy", side_by_side=1, rungs=(4,), seeds=5):
    states = [program.start(config) for config in configs]
    for until in rungs:
        states = program.train(configs, states, until, objective, seeds, side_by_side)
    return states

program = Program(structure_of(configs[0]), data)
found = {"alone": shown([run([config])[0] for config in configs]), "in_turn": shown(run(configs))}
found["programs_in_turn"] = len(program._epochs)
with ThreadPoolExecutor(2) as pool:
    found["threads"] = shown([states[0] for states in pool.map(lambda config: run([config]), configs)])
found["rungs"] = shown(run(configs, rungs=(1, 3, 4)))
program._epochs.clear()
for lanes in (2, 8):
    found[f"side_by_side_{lanes}"] = shown(run(configs, side_by_side=lanes))
found["shapes"] = sorted([lanes, views] for _, lanes, views, _ in program._epochs)
seeds = (5, 6, 6, 7, 5)
found["seeds"] = {"alone": shown([run([config], seeds=seed)[0] for config, seed in zip(configs, seeds)]),
                  "turns": shown(run(configs, seeds=seeds)), "side": shown(run(configs, side_by_side=8, seeds=seeds))}
found["val_loss"] = {"turns": shown(run(configs, "val_loss")), "side": shown(run(configs, "val_loss", 8))}

pairs = []
for number, activation in enumerate(("relu", "gelu", "silu", "tanh")):
    head = HeadConfig(units=(5, 11), activation=activation, dropout=0.2, l2=1e-3, batch_norm=number % 2 == 0)
    optimizer = (AdamW(weight_decay=0.01), SGD(), RMSprop(), Adam())[number]
    odd = TrialConfig(head=head, batch_size=8, views=Views(copies=1), epochs=4, seed=number, optimizer=optimizer,
                      schedule=Constant(learning_rate=1e-2))
    rounded = structure_of(odd)
    assert rounded.head.units == (8, 16)
    exact = rounded._replace(head=rounded.head.model_copy(update={"units": (5, 11)}))
    both = []
    for structure, features in ((rounded, data), (exact, data), (rounded, drawn.with_zeros(3))):
        own = Program(structure, features)
        state = own.train([odd], [own.start(odd)], 4, "val_loss", 5)[0]
        weights = own.best_weights(odd, state)
        both.append({"curves": [list(m) for m in state.curves], "weights": {k: v.ravel().tolist() for k, v in weights.items()}})
    pairs.append(both)
found["widths"] = pairs

found["parts"] = []
for wanted, columns in (("avg", slice(0, 5)), ("max+covariance:3", slice(5, 16)), ("avg+covariance:3", np.r_[0:5, 10:16])):
    parts, cut = (("avg", 5), ("max", 5), ("covariance:3", 6)), lambda x: np.ascontiguousarray(x[..., columns])
    seen = configs[1].model_copy(update={"features": FeatureParts(parts=wanted)})
    of_its_own = Features(cut(raw), labels, cut(val), val_labels, 6, tuple(cut(m) for m in moments))
    both = []
    joined = Features(raw, labels, val, val_labels, 6, moments, parts=parts)
    for config_, own_data in ((seen, joined), (configs[1], of_its_own)):
        for zeros in (0, 3):
            own = Program(structure_of(config_), own_data.with_zeros(zeros))
            state = own.train([config_], [own.start(config_)], 4, "val_loss", 5)[0]
            weights = own.best_weights(config_, state)
            both.append({"curves": [list(m) for m in state.curves], "shape": list(weights["hidden_1.kernel"].shape)})
    found["parts"].append(both)

state = run(configs[:1])[0]
model = build_head(configs[0].head.model_copy(update={"dropout": 0.0}), (16,), 6, moments)
set_head_weights(model, {k: v for k, v in program.best_weights(configs[0], state).items()})
hits = (np.asarray(model(val.astype(np.float32))).argmax(-1) == val_labels).mean()
found["stock_head"] = [float(hits), state.curves[state.best_epoch - 1].val_accuracy]

streams = np.array([[1, 2], [1, 3], [2, 2]], np.uint32)
bits = np.asarray(jax.vmap(lambda stream: random_bits(stream, (64, 256)))(streams))
assert (bits[0] == np.asarray(random_bits(streams[0], (64, 256)))).all()
ones = np.unpackbits(bits.reshape(3, -1).view(np.uint8), axis=1).astype(np.float64)
found["bits"] = {"ones": ones.mean(1).tolist(), "alike": [float((ones[a] == ones[b]).mean()) for a, b in ((0, 1), (0, 2))],
                 "neighbours": float(np.corrcoef(bits[0, :-1].ravel(), bits[0, 1:].ravel())[0, 1]),
                 "wider": bool((np.asarray(random_bits(streams[0], (64, 300)))[:, :256] == bits[0]).all())}
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found() -> Any:
    """Results of a process on JAX."""
    as_users_compile = {"XLA_FLAGS": ""}
    done = run_python(BODY, folder=Path(__file__).parents[2], environment=as_users_compile)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("how", ["in_turn", "threads", "rungs"])
def test_a_lane_is_bit_by_bit_the_trial_trained_alone(found: Any, how: str) -> None:
    assert found[how] == found["alone"]
    curves = [lane["curves"] for lane in found["alone"] if not lane["failure"]]
    assert all(len(curve) == 4 and curve[-1][1] < curve[0][1] for curve in curves)
    assert len({curve[0][1] for curve in curves}) == len(curves)


@pytest.mark.parametrize("how", ["side_by_side_2", "side_by_side_8"])
def test_lanes_side_by_side_are_the_trials_within_rounding(found: Any, how: str) -> None:
    for lane, alone in zip(found[how], found["alone"], strict=True):
        assert lane["best_epoch"] == alone["best_epoch"]
        assert lane["failure"] == alone["failure"]
        for epoch, wanted in zip(lane["curves"], alone["curves"], strict=True):
            assert (epoch[:2], epoch[3], epoch[6:]) == (
                pytest.approx(wanted[:2], rel=1e-4), pytest.approx(wanted[3], rel=1e-4), pytest.approx(wanted[6:], rel=1e-4)
            )  # fmt: skip
            accuracies, expected = (epoch[2], *epoch[4:6]), (wanted[2], *wanted[4:6])
            assert accuracies == pytest.approx(expected, abs=1.01 / 40)  # rounding may decide a tie of one photo in 40
        if not lane["failure"]:
            # Adam's first steps follow the gradients' signs: weights near zero diverge sooner than losses.
            assert lane["sum"] == pytest.approx(alone["sum"], rel=1e-3)


def test_lanes_may_have_batches_and_views_of_their_own_seed(found: Any) -> None:
    seeds = found["seeds"]
    assert seeds["turns"] == seeds["alone"]
    assert seeds["alone"][0] == found["alone"][0]
    assert seeds["alone"][1] != found["alone"][1]
    for lane, alone in zip(seeds["side"], seeds["alone"], strict=True):
        for epoch, wanted in zip(lane["curves"], alone["curves"], strict=True):
            assert (epoch[1], epoch[3]) == pytest.approx((wanted[1], wanted[3]), rel=1e-4)
            assert epoch[4] == pytest.approx(wanted[4], abs=1.01 / 40)  # rounding may decide a tie of one photo in 40


def test_a_lane_that_fails_says_why_and_when(found: Any) -> None:
    reasons = [lane["failure"] for lane in found["alone"]]
    assert [reason is None for reason in reasons] == [True, True, False, True, True]
    epochs = len(found["alone"][2]["curves"])
    assert epochs < 4
    assert reasons[2] == f"the loss is not finite after epoch {epochs + 1} (learning rate 10)"


def test_few_programs_are_compiled(found: Any) -> None:
    """One when taking turns; side by side, one for each power of two of lanes and of distinct views."""
    assert found["programs_in_turn"] == 1
    assert found["shapes"] == [[1, 1], [2, 2], [8, 4]]


def test_the_best_epoch_is_chosen_by_the_objective_on_the_device_too(found: Any) -> None:
    for lane, side in zip(found["val_loss"]["turns"], found["val_loss"]["side"], strict=True):
        if not lane["failure"]:
            losses = [epoch[3] for epoch in lane["curves"]]
            assert lane["best_epoch"] == side["best_epoch"] == losses.index(min(losses)) + 1
            assert side["sum"] == pytest.approx(lane["sum"], rel=1e-4)


def test_the_best_weights_are_those_of_a_head_of_stock_layers(found: Any) -> None:
    hits, said = found["stock_head"]
    assert hits == pytest.approx(said)


@pytest.mark.parametrize("form", [0, 2], ids=["units", "units and features"])
def test_zeros_that_round_the_widths_change_nothing(found: Any, form: int) -> None:
    for forms in found["widths"]:
        rounded, exact = forms[form], forms[1]
        for epoch, wanted in zip(rounded["curves"], exact["curves"], strict=True):
            assert epoch == pytest.approx(wanted, rel=1e-4)
        assert rounded["weights"].keys() == exact["weights"].keys()
        for name, values in exact["weights"].items():
            assert len(rounded["weights"][name]) == len(values)
            if name.endswith("kernel"):  # the gradient of a bias before a BatchNormalization is only rounding noise
                assert rounded["weights"][name] == pytest.approx(values, rel=1e-2, abs=1e-4)


def test_a_head_on_parts_of_the_features_is_the_head_on_a_cache_of_these(found: Any) -> None:
    for (joined, joined_zeros, alone, alone_zeros), width in zip(found["parts"], (5, 11, 11), strict=True):
        assert joined["shape"] == joined_zeros["shape"] == [width, 8]
        assert joined == alone
        for one, other in ((joined_zeros, alone_zeros), (joined_zeros, joined)):
            for epoch, wanted in zip(one["curves"], other["curves"], strict=True):
                assert epoch == pytest.approx(wanted, rel=1e-4)


def test_random_bits_are_even_and_of_their_stream_alone(found: Any) -> None:
    bits = found["bits"]
    assert bits["ones"] == pytest.approx([0.5] * 3, abs=0.003)
    assert bits["alike"] == pytest.approx([0.5] * 2, abs=0.003)
    assert bits["neighbours"] == pytest.approx(0, abs=0.03)
    assert bits["wider"]


def test_chunks_are_of_one_structure_and_those_that_take_longest_come_first() -> None:
    def width(config: TrialConfig) -> int:
        return 100 if config.features.parts is None else 10

    small, wide = HeadConfig(units=(8,)), HeadConfig(units=(16,))
    configs = [TrialConfig(head=head) for head in (small, wide, wide, small, wide)]
    assert chunks(configs, 8, width, 10) == [[1, 2, 4], [0, 3]]
    assert chunks(configs, 2, width, 10) == [[1, 2], [0, 3], [4]]
    assert chunks(configs, 1, width, 10) == [[1], [2], [4], [0], [3]]
    assert chunks([], 1, width, 10) == []
    small_batches = [TrialConfig(head=wide, batch_size=64), TrialConfig(head=wide, batch_size=16)]
    assert chunks(small_batches, 8, width, 10) == [[1], [0]]
    parts = [TrialConfig(head=wide, features=FeatureParts(parts=name)) for name in ("avg", None, "avg")]
    assert chunks(parts, 8, width, 10) == [[1], [0, 2]]


def test_a_range_of_units_has_few_widths() -> None:
    widths = {structure_of(TrialConfig(head=HeadConfig(units=(units,)))).head.units for units in range(64, 513)}
    assert widths == {(width,) for width in range(64, 513, 64)}
    assert structure_of(TrialConfig(head=HeadConfig(units=(8, 5, 1)))).head.units == (8, 8, 1)


def test_rows_of_features_are_an_odd_number_of_cache_lines() -> None:
    assert [zeros_for_cache_lines((width,)) for width in (16, 1024, 1280, 2000, 2048, 2050)] == [0, 16, 16, 0, 16, 14]
    assert zeros_for_cache_lines((7, 7, 1024)) == 0


def test_what_is_not_a_shape_is_not_structure() -> None:
    one = TrialConfig(head=HeadConfig(units=(8,), dropout=0.1), optimizer=AdamW(weight_decay=0.1), seed=1)
    head = HeadConfig(units=(8,), dropout=0.4, l2=1e-3, label_smoothing=0.1)
    other = TrialConfig(head=head, optimizer=AdamW(weight_decay=0.2), seed=2, epochs=7, views=Views(copies=0))
    assert structure_of(one) == structure_of(other)
    assert structure_of(one) == structure_of(one.model_copy(update={"optimizer": Adam()}))
    linear = {
        HeadConfig(dropout=0.1, batch_norm=norm, activation=name) for norm in (False, True) for name in ("relu", "gelu")
    }
    assert len({structure_of(TrialConfig(head=head)) for head in linear}) == 1
    for changed in (
        one.model_copy(update={"batch_size": 64}),
        one.model_copy(update={"optimizer": SGD()}),
        one.model_copy(update={"head": HeadConfig(units=(8,))}),
    ):
        assert structure_of(changed) != structure_of(one)
