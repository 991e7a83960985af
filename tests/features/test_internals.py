"""The private APIs of Keras and Ray that Headhunt uses still exist and still behave the same."""

from __future__ import annotations

import inspect
import subprocess
import sys

import keras
import ray

from features.runtime.workers.keras_internals import learning_rate_variable, parts_of

KERAS = (
    f"Keras {keras.__version__} has changed inside: mend features/runtime/workers/keras_internals.py, and only there, or lower "
    "the upper bound of keras in pyproject.toml."
)
RAY = (
    f"Ray {ray.__version__} has changed inside: mend features/runtime/workers/ray_internals.py, and only there, or lower the "
    "upper bound of ray in pyproject.toml."
)


def test_the_layers_in_a_layer_are_found_at_any_depth() -> None:
    inner = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, name="deep")], name="inner")
    outer = keras.Sequential([keras.Input((2,)), inner], name="outer")
    assert {part.name for part in parts_of(outer)} >= {"outer", "inner", "deep"}, KERAS
    assert "outer" not in {part.name for part in parts_of(outer, with_itself=False)}, KERAS


def test_the_variable_of_a_learning_rate_is_one_of_the_optimisers() -> None:
    optimizer = keras.optimizers.Adam(0.25)
    optimizer.build([keras.Variable([0.0])])
    variable = learning_rate_variable(optimizer)
    assert float(keras.ops.convert_to_numpy(variable)) == 0.25, KERAS
    assert any(variable is one for one in optimizer.variables), KERAS


def test_keras_on_jax_serialises_a_layer_without_tensorflow() -> None:
    body = (
        "import os, sys; os.environ['KERAS_BACKEND'] = 'jax'\n"
        "import keras\n"
        "from features.runtime.workers.keras_internals import hide_tensorflow\n"
        "hide_tensorflow()\n"
        "keras.layers.Dense(2, kernel_regularizer=keras.regularizers.L2(0.1)).get_config()\n"
        "print('tensorflow' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", body], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False", KERAS


def test_what_is_used_of_ray_is_there() -> None:
    """Its behaviour is tested on running clusters in tests/end_to_end/test_nodes.py."""
    from ray._private import worker
    from ray._private.node import Node
    from ray.core.generated import gcs_pb2

    assert hasattr(worker, "_global_node") and callable(worker.print_to_stdstream), RAY
    assert callable(Node.kill_all_processes) and hasattr(Node, "raylet_socket_name") and hasattr(Node, "gcs_address"), (
        RAY
    )
    assert "worker.gcs_client =" in inspect.getsource(worker.connect), RAY
    assert gcs_pb2.GcsNodeInfo.ALIVE == 0, RAY
