"""The options of ``s5-adapters train``: a run's fields, with their documentation and defaults."""

import ast
import dataclasses
import inspect
import itertools
import json
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import tyro
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from s5_adapters.core import checks
from s5_adapters.core.files.weights import as_policy
from s5_adapters.presets import preset_names, read_preset
from s5_adapters.purejax.algorithms.algorithm import algorithm_class, algorithm_names
from s5_adapters.purejax.algorithms.ppo import PPOConfig
from s5_adapters.purejax.run_folder import ALGORITHM, RunConfig, RunOptions, read_config
from s5_adapters.purejax.start import network_settings

PAPER = "paper"


@dataclasses.dataclass(frozen=True)
class Settings:
    """The options as they were given, and the configuration that they start from."""

    base: RunConfig
    """The defaults of the options."""
    values: Mapping[str, Any]
    """All fields of a run by name; the mappings among them hold what was given alone."""

    @property
    def changed(self) -> dict[str, Any]:
        """The fields that differ from ``base``."""
        base = self.base.to_dict()
        return {name: value for name, value in self._merged().items() if value != base[name]}

    def resolve(self) -> RunConfig:
        """Return the configuration that the options make of ``base``.

        Raises:
            ValueError: one line, for a value out of range.
        """
        return RunConfig.from_dict(self._merged())

    def _merged(self) -> dict[str, Any]:
        base = self.base.to_dict()
        values = {
            name: list(value) if isinstance(value, tuple) else value for name, value in self.values.items()
        }
        if values["memory"] != base["memory"]:
            base["memory_config"] = _accepted(base["memory"], base["memory_config"], self.values["memory"])
        if values["env_id"] != base["env_id"]:
            base["env_kwargs"] = {}
        for name in _MAPPINGS:
            values[name] = base[name] | values[name]
        return values


def load_base(config: str | None, weights: str | None = None, algorithm: str | None = None) -> RunConfig:
    """Find the configuration that options start from: the defaults, the published setting, or a file's.

    Args:
        config: a file, the folder of a run, "paper", or a preset's name.
        weights: a policy file whose network, and where no ``config`` is given whose environment, replace
            the configuration's.
        algorithm: where it is another than the configuration's, the fields that both have stay; without
            ``config``, all are the algorithm's own defaults.

    Raises:
        ValueError: one line, where a file cannot be read or does not hold what it should.
    """
    base = RunConfig()
    if config is not None:
        base = _read_named(config)
    if algorithm is not None:
        base = _with_algorithm(base, algorithm, keep=config is not None)
    if weights is None:
        return base
    policy = as_policy(weights)
    changes = network_settings(policy)
    if config is None and policy.env_id is not None:
        changes |= {"env_id": policy.env_id, "env_kwargs": policy.env_kwargs}
    return dataclasses.replace(base, training=dataclasses.replace(base.training, **changes))


def _read_named(config: str) -> RunConfig:
    if config == PAPER:
        return RunConfig(PPOConfig.paper())
    presets = preset_names()
    if config in presets:
        return read_preset(config)
    if not (Path(config).suffix or Path(config).exists()):
        known = checks.nearest_names(config, [PAPER, *presets])
        raise ValueError(f"{config}: no such file or folder, and no preset: those are {known}")
    return read_config(config)


def settings_registry(base: RunConfig) -> ConstructorRegistry:
    """Teach tyro to read ``Settings`` on top of ``base``."""
    registry = ConstructorRegistry()
    registry.struct_rule(lambda info: _settings_rule(info, base))
    return registry


def _settings_rule(info: StructTypeInfo, base: RunConfig) -> StructConstructorSpec | None:
    if info.type is not Settings:
        return None
    defaults = base.to_dict()
    docs = f"Learning algorithm: {', '.join(algorithm_names())}, or one that --import registers."
    specs = [StructFieldSpec(ALGORITHM, str, defaults[ALGORITHM], docs)]
    for cls in (type(base.training), RunConfig, RunOptions):
        described, hints = field_docs(cls), get_type_hints(cls)
        for field in dataclasses.fields(cls):
            if field.name in defaults and field.name != "devices":  # the machine's, an option of its own
                default = defaults[field.name]
                if field.name in _MAPPINGS:
                    kind: Any = Annotated[dict, pairs(default)]
                    default = {}
                else:
                    kind = _KINDS.get(field.name, hints[field.name])
                    default = tuple(default) if isinstance(default, list) else default
                specs.append(StructFieldSpec(field.name, kind, default, described.get(field.name, "")))
    return StructConstructorSpec(lambda **values: Settings(base, values), tuple(specs))


def field_docs(cls: type) -> dict[str, str]:
    """Return the string below each field of a dataclass, as one line; without one, that of a base class."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if dataclasses.is_dataclass(base):
            docs |= _docs_in(base)
    return docs


def _docs_in(cls: type) -> dict[str, str]:
    try:
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    except (OSError, TypeError):  # made where there is no file, as in an interpreter
        return {}
    assert isinstance(definition, ast.ClassDef)
    docs = {}
    for field, after in itertools.pairwise(definition.body):
        match field, after:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                docs[name] = " ".join(text.split()).replace("``", "")
    return docs


def pairs(base: Mapping[str, Any]) -> PrimitiveConstructorSpec[dict[str, Any]]:
    """Teach tyro to read a mapping as NAME=VALUE words, which come on top of ``base``."""
    return PrimitiveConstructorSpec(
        nargs="*",
        metavar="NAME=VALUE",
        instance_from_str=_parse_pairs,
        is_instance=lambda value: isinstance(value, dict),
        str_from_instance=lambda value: [
            f"{name}={json.dumps(item)}" for name, item in (dict(base) | value).items()
        ],
    )


def _parse_pairs(words: Sequence[str]) -> dict[str, Any]:
    pairs = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name:
            raise ValueError(f"got {word!r}, expected NAME=VALUE")
        try:
            pairs[name.replace("-", "_")] = json.loads(text)
        except ValueError:
            pairs[name.replace("-", "_")] = text
    return pairs


def _parse_count(words: Sequence[str]) -> int:
    number = float(words[0])
    if not number.is_integer():
        raise ValueError(f"got {words[0]!r}, expected a whole number")
    return int(number)


_COUNT = PrimitiveConstructorSpec(
    nargs=1,
    metavar="INT",
    instance_from_str=_parse_count,
    is_instance=lambda value: isinstance(value, int),
    str_from_instance=lambda value: [str(value)],
)
_MAPPINGS = ("env_kwargs", "memory_config", "lr_scales")
_KINDS: dict[str, Any] = {
    "env_id": Annotated[str, tyro.conf.arg(name="env", aliases=("--env-id",))],
    "total_steps": Annotated[int, _COUNT],
}


def _with_algorithm(base: RunConfig, name: str, keep: bool) -> RunConfig:
    cls = algorithm_class(name)
    if name == base.training.name:
        return base
    known = {field.name for field in dataclasses.fields(cls)} if keep else set()
    values = {field: value for field, value in base.training.to_dict().items() if field in known}
    return dataclasses.replace(base, training=cls.from_dict(values))


def _accepted(memory: str, memory_config: dict[str, Any], other: str) -> dict[str, Any]:
    """Return the settings of one memory that another takes over."""
    from s5_adapters.core.memories.defaults import carry_over

    try:
        return carry_over(memory, memory_config, other)
    except ValueError:  # an unknown memory or argument: building the network says so
        return memory_config
