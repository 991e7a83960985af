"""A network as it is in inference, whatever is around it: networks in it are laid open, and layers that only train are left out.

A random layer of Keras acts when a network around it trains, and those that change images also when nobody says whether it
trains. A backbone is frozen, so that none of them may act in any stage: not in the cache, not in fine-tuning, not in an export.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import numpy as np

from features.runtime.errors import UsageError, some
from features.runtime.nearest import nearest
from features.runtime.workers.engine import keep_tensorflow_out
from features.runtime.workers.keras_internals import parts_of

LISTED = 5
"""Layers that a message lists, at most."""


class InferenceNetwork:
    """The graph of a loaded network on one new input, with layers of its own that compute in `policy` and hold its weights.

    `input` and `output` are its ends. `tensors` has what each layer gives, by its path: `conv`, `inner/conv` for one in a network
    in it, in the order in which they run; more than one tensor where a layer is called several times.

    Layers keep their names, but for those whose name another network has, too: their name is the path, with _ for /. A layer's
    path is its `backbone_path`. What does nothing in inference (dropout, noise, random augmentation) is left out: its path has
    what enters it. Other layers that train differently always run as in inference.
    """

    def __init__(self, network: Any, image_size: tuple[int, int], policy: str) -> None:
        import keras

        keep_tensorflow_out()
        self._policy = policy
        self._clones: dict[int, Any] = {}
        self._names: set[str] = set()
        self.tensors: dict[str, list[Any]] = {}
        self.input = keras.Input((*image_size, 3), dtype="float32", name="preprocessed")
        self.output = self._run(network, "", self.input)

    def tensor(self, cut: str) -> Any:
        """What the layer at a path gives; a name alone is enough where one network has it. UsageError for any other cut."""
        wanted = path_of(cut, list(self.tensors))
        found = self.tensors[wanted]
        if len(found) > 1:
            raise UsageError(
                f"features.cut: the layer {wanted!r} is used {len(found)} times, so its output is ambiguous. Choose a layer "
                "behind it."
            )
        if not hasattr(found[0], "shape"):
            raise UsageError(f"features.cut: the layer {wanted!r} gives several arrays. Choose a layer that gives one.")
        return found[0]

    def _run(self, network: Any, prefix: str, *arguments: Any) -> Any:
        import keras

        if isinstance(network, keras.Sequential):
            (x,) = arguments
            for layer in network.layers:
                x = self._call(layer, prefix, x)
            return x

        def call(layer: Any, *inputs: Any, **named: Any) -> Any:
            return self._call(layer, prefix, *inputs, **named)

        found = network._run_through_graph(arguments, call_fn=call)
        return found[0] if isinstance(found, list) and len(found) == 1 else found

    def _call(self, layer: Any, prefix: str, *inputs: Any, **named: Any) -> Any:
        import keras

        path = f"{prefix}{layer.name}"
        named.pop("training", None)  # written into a graph when it was made
        if is_network(layer):
            given = [value for name, value in named.items() if name != "mask"]
            found = self._run(layer, f"{path}/", *inputs, *given)
        elif isinstance(layer, keras.layers.Pipeline):
            (found,) = inputs
            for inner in layer.layers:
                found = self._call(inner, f"{path}/", found)
        elif _does_nothing(layer, inputs, named):
            (found,) = inputs
        else:
            found = self._cloned(layer, path, inputs, named)
        self.tensors.setdefault(path, []).append(found)
        return found

    def _cloned(self, layer: Any, path: str, inputs: Sequence[Any], named: dict[str, Any]) -> Any:
        known = self._clones.get(id(layer))
        if known is not None:
            return known(*inputs, **named)
        clone = self._clones[id(layer)] = copy_of(layer, self._policy)
        name, count = layer.name, 1
        while name in self._names:
            name, count = path.replace("/", "_") + (f"_{count}" if count > 1 else ""), count + 1
        self._names.add(name)
        clone.name = name
        clone.backbone_path = path
        found = clone(*inputs, **named)
        if hasattr(clone, "set_weights"):
            clone.set_weights(layer.get_weights())
            for part in parts_of(clone):
                if hasattr(part, "finalize_state"):  # Normalization's constants are made of its weights
                    part.finalize_state()
            _stay_in_inference(clone)
        return found


def is_network(layer: Any) -> bool:
    """Whether it is a network whose graph Keras knows: Sequential, or Functional with the call of that class."""
    import keras

    if isinstance(layer, keras.Sequential):
        return True
    is_functional = isinstance(layer, keras.Model) and isinstance(layer, keras.Function)
    return is_functional and type(layer).call.__module__.startswith("keras.")


def path_of(cut: str, paths: Sequence[str]) -> str:
    """The path that a cut names: itself, or the only one that ends in it. UsageError with near ones for any other."""
    if cut in paths:
        return cut
    ends = [path for path in paths if path.endswith(f"/{cut}")]
    if len(ends) == 1:
        return ends[0]
    if ends:
        raise UsageError(f"features.cut: {cut!r} is a layer of several networks: {some(ends)}. Name one of these.")
    raise UsageError(f"features.cut: the backbone has no layer {cut!r}.{near(cut, paths)}")


def near(name: str, paths: Sequence[str]) -> str:
    """A sentence with the paths that are like a wrong name, or with the last ones."""
    by_end = {path.rpartition("/")[2]: path for path in paths}
    close = nearest(name, paths) + [by_end[end] for end in nearest(name.rpartition("/")[2], by_end)]
    found = list(dict.fromkeys(close))[:3]
    return f" Did you mean {' or '.join(found)}?" if found else f" Its last layers: {', '.join(paths[-LISTED:])}."


def copy_of(layer: Any, policy: str) -> Any:
    """A layer like this one, not yet built, that computes in `policy`; also a plain operation, which has no dtype."""
    import keras

    if not isinstance(layer, keras.layers.Layer):
        return type(layer).from_config(layer.get_config())
    copied = type(layer).from_config(_in_policy(layer.get_config(), policy))
    for part in parts_of(copied):
        if not part.built:  # made by a layer of one's own, in the policy of the process
            part.dtype_policy = policy
    return copied


def _in_policy(config: Any, policy: str) -> Any:
    """A layer's configuration with this dtype policy, also for layers in it."""
    if isinstance(config, list | tuple):
        return type(config)(_in_policy(each, policy) for each in config)
    if not isinstance(config, dict):
        return config
    return {
        name: policy if name == "dtype" and _is_policy(value) else _in_policy(value, policy)
        for name, value in config.items()
    }


def _is_policy(value: Any) -> bool:
    return isinstance(value, dict) and "DTypePolicy" in str(value.get("class_name"))


def _does_nothing(layer: Any, inputs: Sequence[Any], named: dict[str, Any]) -> bool:
    """Whether a layer without weights that asks if it trains gives back what it is given when it does not: tried out on noise."""
    import keras

    if named or len(inputs) != 1 or not hasattr(inputs[0], "shape") or not isinstance(layer, keras.layers.Layer):
        return False
    if layer.weights or not _asks_if_it_trains(layer):
        return False
    shape = [min(size or 8, 16) for size in inputs[0].shape[1:-1]]
    sample = np.random.default_rng(0).normal(0, 300, (1, *shape, inputs[0].shape[-1])).astype(np.float32)
    try:
        given = np.asarray(copy_of(layer, "float32")(sample, training=False))
    except (ValueError, TypeError, ArithmeticError):  # it has needs: it stays as it is
        return False
    return np.array_equal(given, sample)


def _asks_if_it_trains(layer: Any) -> bool:
    return "training" in inspect.signature(layer.call).parameters


def _stay_in_inference(layer: Any) -> None:
    """Lets a layer, and those in it, run as in inference whatever they are called with. As saved it is a stock layer still."""
    for part in parts_of(layer):
        if _asks_if_it_trains(part):
            part.call = _in_inference(part.call)


def _in_inference(call: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(call)

    @wraps(call)
    def inferred(*inputs: Any, **named: Any) -> Any:
        bound = signature.bind(*inputs, **named)
        bound.arguments["training"] = False
        return call(*bound.args, **bound.kwargs)

    return inferred
