"""Settings by name, for ``s5-adapters train --config NAME``: one TOML file each, beside this one."""

from importlib.resources import files

from s5_adapters.purejax.run_folder import RunConfig, read_config

_SUFFIX = ".toml"


def preset_names() -> tuple[str, ...]:
    """Return the names, sorted."""
    names = (entry.name for entry in files(__name__).iterdir())
    return tuple(sorted(name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX)))


def read_preset(name: str) -> RunConfig:
    """Return the configuration of a preset.

    Args:
        name: one of ``preset_names``.

    Raises:
        ValueError: one line, where there is no preset of that name.
    """
    return read_config(str(files(__name__).joinpath(name + _SUFFIX)))
