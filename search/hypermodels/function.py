"""The `build(hp)` named by `search.hypermodel: module:name`: a function, a keras_tuner.HyperModel class, or an instance."""

from __future__ import annotations

import ast
import hashlib
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from features.runtime.errors import HeadhuntError, UsageError
from features.runtime.nearest import suggest as near
from features.runtime.workers.engine import start_keras

NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


class CombinationError(Exception):
    """A combination of hyperparameters gives no trainable model; the message says why. Only its trial fails."""


class Hypermodel:
    """A `build(hp)` by its name, `module:name`.

    Its module is searched for among the installed packages, then in `folder`. Raises UsageError if it is not found.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self._folder = folder
        self._module, self._found = _find(name, folder)
        self._build_function = _builder(name, self._found)

    def build(self, hp: Any) -> Any:
        """The model returned by `build(hp)`; CombinationError if it fails or does not return a compiled keras.Model.

        Raises UsageError for keras_tuner.errors.FatalError, with which a function says that no combination can work.
        """
        import keras
        import keras_tuner

        def combination() -> str:  # complete only after the function has asked for its values
            return ", ".join(f"{key}={value!r}" for key, value in hp.values.items()) or "no hyperparameters"

        try:
            model = self._build_function(hp)
        except HeadhuntError:
            raise
        except keras_tuner.errors.FatalError as error:
            raise UsageError(f"search.hypermodel: {self.name} ends the search: {error}") from error
        except Exception as error:
            raise CombinationError(
                f"{self.name} failed with {combination()}: {type(error).__name__}: {error}"
            ) from error
        if isinstance(model, keras.Model) and model.compiled:
            return model
        found = "a model that is not compiled" if isinstance(model, keras.Model) else type(model).__name__
        raise CombinationError(
            f"{self.name} must return a compiled keras.Model, but returned {found} with {combination()}"
        )

    @property
    def note(self) -> str | None:
        """One sentence on the part of the hypermodel that is not used, or None."""
        import keras_tuner

        kind: Any = self._found if inspect.isclass(self._found) else type(self._found)
        if not issubclass(kind, keras_tuner.HyperModel) or kind.fit is keras_tuner.HyperModel.fit:
            return None
        return f"{self.name} defines its own `fit`, which is not used: trials are trained with Keras's, one epoch at a time."

    def digest(self, parameters: object) -> str:
        """sha256 (hex) of the source of its module, of the modules it imports from the same folder, and of the parameters."""
        sources = sorted(_own_sources(self._module, self._folder).items())
        return hashlib.sha256(repr((self.name, sources, parameters)).encode()).hexdigest()

    def earlier_digest(self, parameters: object) -> str:
        """The digest stored by earlier versions: of the function's own source and the parameters only."""
        try:
            source = inspect.getsource(self._found)
        except (OSError, TypeError):
            source = ""
        return hashlib.sha256(repr((source, parameters)).encode()).hexdigest()


def _find(name: str, folder: Path) -> tuple[ModuleType, Any]:
    if not NAME.fullmatch(name):
        raise UsageError(
            f"search.hypermodel: received {name!r}; it must be module:function, e.g. `models:build` for the function build in "
            "models.py."
        )
    module_name, _, attribute = name.partition(":")
    if "keras" not in sys.modules:
        start_keras("jax")
    if str(folder) not in sys.path:
        sys.path.append(str(folder))  # last: a search.py or train.py there must not shadow our packages
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and module_name.startswith(error.name):
            there = sorted(path.stem for path in folder.glob("*.py"))
            raise UsageError(
                f"search.hypermodel: there is no module {module_name!r} in {folder} or among the installed packages."
                f"{near(module_name, there)}"
            ) from None
        raise UsageError(
            f"search.hypermodel: {module_name} imports {error.name}, which is not installed. Install it."
        ) from error
    except Exception as error:
        raise UsageError(
            f"search.hypermodel: importing {module_name} failed: {type(error).__name__}: {error}."
        ) from error
    found = getattr(module, attribute, None)
    if found is None:
        public = [each for each, value in vars(module).items() if not each.startswith("_") and _can_build(value)]
        raise UsageError(
            f"search.hypermodel: {module_name} ({getattr(module, '__file__', 'built in')}) has no function {attribute!r}."
            f"{near(attribute, public)}"
        )
    return module, found


def _builder(name: str, found: Any) -> Callable[[Any], Any]:
    if inspect.isclass(found) and _is_hypermodel(found):
        try:
            found = found()
        except Exception as error:
            raise UsageError(
                f"search.hypermodel: the class {name} cannot be created without arguments ({type(error).__name__}: {error}). "
                "Create an instance in its module and name that instead."
            ) from error
    if _is_hypermodel(found):
        return found.build  # type: ignore[no-any-return]
    if not callable(found) or inspect.isclass(found):
        raise UsageError(
            f"search.hypermodel: {name} is {found!r}; it must be a function build(hp), a keras_tuner.HyperModel class or an "
            "instance of one."
        )
    return found  # type: ignore[no-any-return]


def _is_hypermodel(found: Any) -> bool:
    import keras_tuner

    return issubclass(found if inspect.isclass(found) else type(found), keras_tuner.HyperModel)


def _can_build(value: Any) -> bool:
    return inspect.isfunction(value) or _is_hypermodel(value)


def _own_sources(module: ModuleType, folder: Path) -> dict[str, str]:
    """The sources, by name, of a module and of those it imports, directly or indirectly, from the same folder or below. For an
    installed package, only the module itself."""
    found, waiting = dict[str, str](), [(module.__name__, Path(str(getattr(module, "__file__", ""))))]
    is_beside = _is_below(module, folder)
    while waiting:
        name, file = waiting.pop()
        if name in found:
            continue
        try:
            found[name] = file.read_text(encoding="utf-8")
        except OSError:
            found[name] = ""
        if is_beside:
            package = name if file.name == "__init__.py" else name.rpartition(".")[0]
            waiting += _beside(_imported(found[name], package), folder)
    return found


def _imported(source: str, package: str) -> Iterator[str]:
    """The full names of everything a source imports: modules, and names that may be modules of a package."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            place = ".".join(filter(None, [*parents, node.module]))
            yield from filter(None, (place, *(f"{place}.{alias.name}".strip(".") for alias in node.names)))


def _beside(names: Iterable[str], folder: Path) -> Iterator[tuple[str, Path]]:
    """The names and files of those modules that lie in `folder` or below, including their parent packages."""
    for name in names:
        parts = name.split(".")
        for depth in range(1, len(parts) + 1):
            place = folder.joinpath(*parts[:depth])
            files = [file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()]
            yield from ((".".join(parts[:depth]), file) for file in files[:1])


def _is_below(module: ModuleType, folder: Path) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and "site-packages" not in file and Path(file).resolve().is_relative_to(folder.resolve())
