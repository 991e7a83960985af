"""A network fixed in inference mode: nested networks are flattened, and layers that only act in training are left out.

Keras's random layers are active when an enclosing network trains, and its image augmentation layers also when `training` is not
given. A backbone is frozen, so none of them may be active in any stage: caching, fine-tuning or export.
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
"""Most layers that a message lists."""


class InferenceNetwork:
    """The graph of a loaded network rebuilt on a new input, with new layers that compute in `policy` and have the same weights.

    `input` and `output` are its ends. `tensors` maps the path of each layer (`conv`, or `inner/conv` in a nested network) to its
    outputs, in execution order; several outputs if the layer is called several times.

    Layers keep their names; if a name is taken already, the layer is named by its path with _ for /. A layer's path is its
    `backbone_path`. Layers that do nothing in inference (dropout, noise, random augmentation) are left out; their path maps to
    their input. Other layers that behave differently in training always run in inference mode.
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
        """The output of the layer at a path; the name alone is enough if it is unique. Raises UsageError for any other cut."""
        wanted = path_of(cut, list(self.tensors))
        found = self.tensors[wanted]
        if len(found) > 1:
            raise UsageError(
                f"features.cut: the layer {wanted!r} is used {len(found)} times, so its output is ambiguous. Choose a layer "
                "after it."
            )
        if not hasattr(found[0], "shape"):
            raise UsageError(f"features.cut: the layer {wanted!r} has several outputs. Choose a layer with one output.")
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
        named.pop("training", None)  # a graph stores the value it was built with
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
                if hasattr(part, "finalize_state"):  # Normalization computes constants from its weights
                    part.finalize_state()
            _stay_in_inference(clone)
        return found


def is_network(layer: Any) -> bool:
    """Whether Keras knows the layer's graph: a Sequential, or a Functional that does not override `call`."""
    import keras

    if isinstance(layer, keras.Sequential):
        return True
    is_functional = isinstance(layer, keras.Model) and isinstance(layer, keras.Function)
    return is_functional and type(layer).call.__module__.startswith("keras.")


def path_of(cut: str, paths: Sequence[str]) -> str:
    """The path that a cut names: itself, or the only one that ends in it. Raises UsageError with similar paths for any other."""
    if cut in paths:
        return cut
    ends = [path for path in paths if path.endswith(f"/{cut}")]
    if len(ends) == 1:
        return ends[0]
    if ends:
        raise UsageError(f"features.cut: {cut!r} is a layer in several networks. Choose one of {some(ends)}.")
    raise UsageError(f"features.cut: the backbone has no layer {cut!r}.{near(cut, paths)}")


def near(name: str, paths: Sequence[str]) -> str:
    """A sentence with the paths most similar to a wrong name, or with the last paths if none is similar."""
    by_end = {path.rpartition("/")[2]: path for path in paths}
    close = nearest(name, paths) + [by_end[end] for end in nearest(name.rpartition("/")[2], by_end)]
    found = list(dict.fromkeys(close))[:3]
    return f" Did you mean {' or '.join(found)}?" if found else f" Its last layers: {', '.join(paths[-LISTED:])}."


def copy_of(layer: Any, policy: str) -> Any:
    """An unbuilt copy of a layer that computes in `policy`. Plain operations, which have no dtype, are copied too."""
    import keras

    if not isinstance(layer, keras.layers.Layer):
        return type(layer).from_config(layer.get_config())
    copied = type(layer).from_config(_in_policy(layer.get_config(), policy))
    for part in parts_of(copied):
        if not part.built:  # created by a custom layer, with the process's default policy
            part.dtype_policy = policy
    return copied


def _in_policy(config: Any, policy: str) -> Any:
    """A layer's configuration with this dtype policy, including nested layers."""
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
    """Whether a layer without weights that takes `training` is the identity in inference; tested on random input."""
    import keras

    if named or len(inputs) != 1 or not hasattr(inputs[0], "shape") or not isinstance(layer, keras.layers.Layer):
        return False
    if layer.weights or not _asks_if_it_trains(layer):
        return False
    shape = [min(size or 8, 16) for size in inputs[0].shape[1:-1]]
    sample = np.random.default_rng(0).normal(0, 300, (1, *shape, inputs[0].shape[-1])).astype(np.float32)
    try:
        given = np.asarray(copy_of(layer, "float32")(sample, training=False))
    except (ValueError, TypeError, ArithmeticError):  # it needs other input: keep it
        return False
    return np.array_equal(given, sample)


def _asks_if_it_trains(layer: Any) -> bool:
    return "training" in inspect.signature(layer.call).parameters


def _stay_in_inference(layer: Any) -> None:
    """Makes a layer and its nested layers ignore `training` and run in inference mode. When saved, it is still a stock layer."""
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
