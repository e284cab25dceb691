"""What is shipped: both packages from the wheel, lazy exports, what each layer may import, what is pinned."""

import ast
import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import s5_adapters

CHECKOUT = Path(__file__).resolve().parents[1]
PACKAGES = {"s5_adapters": CHECKOUT / "s5_adapters", "s5_envs": CHECKOUT / "envs" / "s5_envs"}
FRAMEWORKS = frozenset({"torch", "stable_baselines3", "sb3_contrib", "ray"})

# Put before a program: packages named here cannot be imported by it.
FORBID = """
import sys
class Forbid:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {forbidden!r}:
            raise ModuleNotFoundError(f"{{name}} is forbidden in this test", name=name)
sys.meta_path.insert(0, Forbid())
"""


def run(program: str, cwd: Path, path: Path | None = None, forbidden: Iterable[str] = ()) -> str:
    """Run a Python program in a fresh interpreter and return what it printed; its failure fails the test."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    source = FORBID.format(forbidden=sorted(forbidden)) + program
    result = subprocess.run(
        [sys.executable, "-c", source], cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


# --- the wheel ------------------------------------------------------------------------------------


def shipped_files() -> set[str]:
    """Every file of both packages, named as in the wheel; what Python or an editor left there aside."""
    return {
        f"{name}/{file.relative_to(folder).as_posix()}"
        for name, folder in PACKAGES.items()
        for file in folder.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts and not file.name.startswith(".")
    }


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source distribution as a package index would get it."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(CHECKOUT)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nothing but the wheel's contents, as pip installs them."""
    folder = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    result = subprocess.run([*command, "--target", str(folder), str(wheel)], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


def test_wheel_holds_both_packages_whole_and_nothing_else(wheel: Path) -> None:
    shipped = shipped_files()
    contents = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert contents == shipped
    assert {
        "s5_adapters/py.typed",
        "s5_envs/py.typed",
        "s5_adapters/core/recurrence/scan_table.json",
    } <= contents


def test_both_packages_import_from_the_wheel_outside_the_checkout(installed: Path, tmp_path: Path) -> None:
    program = """
import importlib.metadata, s5_adapters, s5_adapters.core, s5_envs
from s5_adapters import make_memory
print(s5_adapters.__file__, s5_adapters.core.__file__, s5_envs.__file__, sep="\\n")
print(s5_adapters.__version__, importlib.metadata.version("s5-adapters"))
assert make_memory("s5", d_model=8, d_state=8, n_layers=1).initial_state(2)
env, params = s5_envs.make("RepeatPreviousEasy")
"""
    *files, versions = run(program, cwd=tmp_path, path=installed).splitlines()
    assert [Path(file) for file in files] == [
        installed / "s5_adapters" / "__init__.py",
        installed / "s5_adapters" / "core" / "__init__.py",
        installed / "s5_envs" / "__init__.py",
    ]
    assert versions.split() == [s5_adapters.__version__] * 2


def test_metadata_says_what_is_true(installed: Path) -> None:
    (folder,) = installed.glob("s5_adapters-*.dist-info")
    metadata = (folder / "METADATA").read_text()
    assert "License-Expression: MIT" in metadata
    assert "Requires-Python: >=3.11" in metadata
    assert (folder / "licenses" / "LICENSE").read_text() == (CHECKOUT / "LICENSE").read_text()
    citation = (CHECKOUT / "CITATION.cff").read_text()
    assert f"\nversion: {s5_adapters.__version__}\n" in citation


def test_command_line_is_installed(installed: Path, tmp_path: Path) -> None:
    program = """
from importlib.metadata import distribution
(command,) = distribution("s5-adapters").entry_points.select(group="console_scripts")
assert command.name == "s5-adapters"
assert callable(command.load())
"""
    run(program, cwd=tmp_path, path=installed)


# --- what importing costs -------------------------------------------------------------------------


def test_importing_the_package_alone_loads_no_library(tmp_path: Path) -> None:
    program = """
before = set(sys.modules)
import s5_adapters
s5_adapters.__version__, dir(s5_adapters)
loaded = {name.partition(".")[0] for name in set(sys.modules) - before}
print(*sorted(loaded - set(sys.stdlib_module_names)))
"""
    assert run(program, cwd=tmp_path).split() == ["s5_adapters"]


def test_core_needs_only_jax_flax_and_numpy(tmp_path: Path) -> None:
    forbidden = FRAMEWORKS | {"gymnasium", "gymnax", "optax", "orbax", "safetensors", "s5_envs"}
    program = """
import jax, jax.numpy as jnp
from s5_adapters.core import ActorCritic, ActorCriticConfig, Discrete
sizes = {"d_model": 8, "d_state": 8, "n_layers": 1}
net = ActorCritic(ActorCriticConfig(obs_shape=(3,), action=Discrete(2), memory="s5", memory_config=sizes))
params, state = jax.jit(net.init)(jax.random.key(0)), net.initial_state(2)
_, dist_inputs, value = jax.jit(net.apply)(params, state, jnp.ones((4, 2, 3)), jnp.zeros((4, 2), bool))
print(dist_inputs.shape, value.shape)
"""
    assert run(program, cwd=tmp_path, forbidden=forbidden).strip() == "(4, 2, 2) (4, 2)"


def test_environments_need_no_learner_and_no_extra(tmp_path: Path) -> None:
    forbidden = FRAMEWORKS | {"s5_adapters", "optax", "orbax", "xminigrid", "mujoco_playground"}
    program = "import s5_envs; print(s5_envs.make('RepeatPreviousEasy') is not None)"
    assert run(program, cwd=tmp_path, forbidden=forbidden).strip() == "True"


# --- lazy exports ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", s5_adapters.__all__)
def test_export_resolves_and_is_listed(name: str) -> None:
    assert getattr(s5_adapters, name) is not None
    assert name in dir(s5_adapters)


def test_type_checkers_see_the_same_exports() -> None:
    tree = ast.parse((PACKAGES["s5_adapters"] / "__init__.py").read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {}
    for statement in block.body:
        assert isinstance(statement, ast.ImportFrom)
        seen |= {alias.asname: statement.module for alias in statement.names}
    assert seen == s5_adapters._HOMES


def test_unknown_export_is_an_attribute_error_that_names_it() -> None:
    with pytest.raises(
        AttributeError, match=r"'s5_adapters' has no attribute 'make_memry'; it exports .*make_memory"
    ):
        s5_adapters.make_memry  # noqa: B018


# --- which layer may import which -----------------------------------------------------------------


class Layer(NamedTuple):
    """What the modules under one name may import: of this project, and of the frameworks."""

    own: frozenset[str]
    frameworks: frozenset[str]


# The rooms of core, each after those that it may import.
ROOMS = {
    "s5_adapters.core.checks": Layer(frozenset(), frozenset()),
    "s5_adapters.core.registry": Layer(frozenset({"s5_adapters.core.checks"}), frozenset()),
    "s5_adapters.core.shapes": Layer(frozenset(), frozenset()),
    "s5_adapters.core.xla": Layer(frozenset({"s5_adapters.core.shapes"}), frozenset()),
    "s5_adapters.core.recurrence": Layer(
        frozenset({f"s5_adapters.core.{name}" for name in ("checks", "shapes", "xla")}), frozenset()
    ),
}
for room in ("memories", "network", "files"):
    ROOMS[f"s5_adapters.core.{room}"] = Layer(frozenset(ROOMS), frozenset())

# Modules under none of these names (command line, demo, benchmark) are the top: they may import everything.
LAYERS = {
    **ROOMS,
    "s5_adapters.core": Layer(frozenset(), frozenset()),
    "s5_adapters.torch_bridge": Layer(frozenset({"s5_adapters.core"}), frozenset({"torch"})),
    # Algorithms know what they learn from, and nothing of what runs them.
    "s5_adapters.purejax.algorithms": Layer(
        frozenset({"s5_adapters.core"})
        | {f"s5_adapters.purejax.{name}" for name in ("config", "fields", "problem", "rollout", "split")},
        frozenset(),
    ),
    "s5_adapters.sweeps": Layer(frozenset({"s5_adapters.core"}), frozenset()),
    "s5_adapters.onnx": Layer(frozenset({"s5_adapters.core"}), frozenset()),
    "s5_adapters.purejax": Layer(frozenset({"s5_adapters.core", "s5_envs"}), frozenset()),
    "s5_adapters.sb3": Layer(
        frozenset({"s5_adapters.core", "s5_adapters.torch_bridge", "s5_envs"}),
        frozenset({"torch", "stable_baselines3", "sb3_contrib"}),
    ),
    "s5_adapters.rllib": Layer(
        frozenset({"s5_adapters.core", "s5_adapters.torch_bridge", "s5_envs"}), frozenset({"torch", "ray"})
    ),
    "s5_envs": Layer(frozenset(), frozenset()),
}


def is_under(module: str, name: str) -> bool:
    return module == name or module.startswith(name + ".")


def modules() -> Iterator[tuple[str, Path]]:
    """Every module of both packages: its dotted name and its file."""
    for package, folder in PACKAGES.items():
        for file in sorted(folder.rglob("*.py")):
            parts = file.relative_to(folder).with_suffix("").parts
            yield ".".join((package, *(part for part in parts if part != "__init__"))), file


def imports(module: str, file: Path) -> Iterator[str]:
    """Dotted names of everything a module imports: at its top, in functions, for types only."""
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_text(), str(file))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            origin = ".".join([*base, *filter(None, [node.module])])
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def violations(module: str, names: Iterable[str]) -> list[str]:
    """Those of the imported names that the module's layer may not import."""
    name = next((name for name in LAYERS if is_under(module, name)), None)
    if name is None:
        return []
    layer = LAYERS[name]
    allowed = {name, *layer.own, *layer.frameworks, "s5_adapters.__version__", "s5_adapters.lazy"}
    watched = {*PACKAGES, *FRAMEWORKS}
    return [
        imported
        for imported in names
        if any(is_under(imported, root) for root in watched)
        and not any(is_under(imported, root) for root in allowed)
    ]


def test_every_module_imports_only_what_its_layer_may() -> None:
    found = {module: violations(module, imports(module, file)) for module, file in modules()}
    assert {module: names for module, names in found.items() if names} == {}


def test_core_imports_no_third_party_but_jax_flax_and_numpy() -> None:
    found = {
        (module, top)
        for module, file in modules()
        if is_under(module, "s5_adapters.core")
        for top in {imported.partition(".")[0] for imported in imports(module, file)}
        if top not in {"s5_adapters", "jax", "flax", "numpy", *sys.stdlib_module_names}
    }
    # The policy files' module is not part of what `import s5_adapters.core` loads.
    assert found <= {("s5_adapters.core.files.weights", "safetensors")}


@pytest.mark.parametrize(
    ("module", "source", "expected"),
    [
        ("s5_adapters.core.recurrence.scan", "from ...sb3 import policies", ["s5_adapters.sb3.policies"]),
        ("s5_adapters.core.recurrence.scan", "def f():\n    import torch.nn", ["torch.nn"]),
        ("s5_adapters.core.memories.s5", "from . import lru\nfrom s5_adapters import __version__", []),
        ("s5_adapters.core.recurrence.scan", "from ..memories import s5", ["s5_adapters.core.memories.s5"]),
        ("s5_adapters.purejax.trainer", "from s5_adapters import rllib", ["s5_adapters.rllib"]),
        (
            "s5_adapters.purejax.algorithms.ppo",
            "from s5_adapters.purejax import rollout, trainer",
            ["s5_adapters.purejax.trainer"],
        ),
        ("s5_adapters.sb3", "import ray, torch, s5_envs", ["ray"]),
        ("s5_envs.wrappers", "from s5_adapters.core import scan", ["s5_adapters.core.scan"]),
        ("s5_adapters.cli", "from s5_adapters import sb3\nimport ray", []),
    ],
)
def test_layer_rule_sees_what_it_should(
    module: str, source: str, expected: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "module.py"
    file.write_text(source)
    assert violations(module, imports(module, file)) == expected


# --- what is declared and pinned --------------------------------------------------------------------


def closure(root: str) -> set[str]:
    """Canonical names of the installed distributions that a requirement brings along on this platform."""
    seen: set[tuple[str, str]] = set()
    queue = [Requirement(root)]
    while queue:
        requirement = queue.pop()
        for extra in {"", *requirement.extras}:
            name = canonicalize_name(requirement.name)
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            try:
                declared = distribution(name).requires or []
            except PackageNotFoundError:  # of an extra that is not installed here
                continue
            wanted = (Requirement(line) for line in declared)
            queue += [r for r in wanted if r.marker is None or r.marker.evaluate({"extra": extra})]
    return {name for name, _ in seen}


# In its folder thirdparty_files; the tools of the documentation install one of them too.
CARRIED_BY_RAY = frozenset({"colorama", "psutil"})
LIST_INSTALLED = "import importlib.metadata as m, json; print(json.dumps(m.packages_distributions()))"


@pytest.mark.parametrize(
    ("requirement", "program"),
    [
        ("s5-adapters", "import s5_adapters.cli, s5_adapters.demo, s5_adapters.purejax, s5_envs"),
        ("s5-adapters[sb3]", "import s5_adapters.sb3"),
        ("s5-adapters[rllib]", "import s5_adapters.rllib"),
    ],
)
def test_what_is_declared_suffices_to_import(requirement: str, program: str, tmp_path: Path) -> None:
    declared = closure(requirement)
    # Asked in a fresh interpreter: once Ray is imported, the packages that it carries look installed.
    installed = json.loads(run(LIST_INSTALLED, cwd=tmp_path))
    undeclared = {
        top
        for top, owners in installed.items()
        if declared.isdisjoint(canonicalize_name(owner) for owner in owners)
    }
    assert {"pytest", "hypothesis"} <= undeclared
    if "ray" in declared:
        undeclared -= CARRIED_BY_RAY
    run(program, cwd=tmp_path, forbidden=undeclared)


def pins() -> dict[str, str]:
    lines = (CHECKOUT / "constraints.txt").read_text().splitlines()
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    exact = re.compile(r"==[0-9.]+(\.post[0-9]+)?")
    assert all(exact.fullmatch(str(requirement.specifier)) for requirement in requirements)
    assert not any(requirement.url or requirement.marker for requirement in requirements)
    found = {canonicalize_name(r.name): str(r.specifier).removeprefix("==") for r in requirements}
    assert len(found) == len(requirements)
    return found


def test_everything_that_the_tests_install_is_pinned() -> None:
    platform_specific = re.compile(r"nvidia-|cuda-|triton")
    needed = {name for name in closure("s5-adapters[all,dev]") if not platform_specific.match(name)}
    assert needed - set(pins()) - {"s5-adapters"} == set()
