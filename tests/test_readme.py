"""The README and docs/: commands exist, snippets run, links lead somewhere, pages and exports are listed."""

import importlib
import re
import subprocess
from pathlib import Path
from typing import Any

import jax
import pytest

from s5_adapters.core import ActorCritic, ActorCriticConfig, Discrete
from s5_adapters.core.files.weights import Policy, save_policy
from tests.documents import CHECKOUT, DOCS, python_blocks

README = (CHECKOUT / "README.md").read_text()
TEST_COMMAND = "make test"
PAGES = sorted(str(page.relative_to(CHECKOUT)) for page in DOCS.rglob("*.md"))


def snippets(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def snippet_with(text: str) -> str:
    """The one Python snippet that holds ``text``."""
    (found,) = (snippet for snippet in snippets("python") if text in snippet)
    return found


def test_every_make_command_is_a_target() -> None:
    named = set(re.findall(r"make ([a-z][a-z-]*)", "\n".join(snippets("sh"))))
    assert {"demo", "test"} <= named
    result = subprocess.run(
        ["make", "--dry-run", *sorted(named)], cwd=CHECKOUT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr


def test_ci_runs_the_test_command_of_the_readme() -> None:
    assert f"{TEST_COMMAND}\n" in snippets("sh")
    lines = (CHECKOUT / ".ci" / "run").read_text().splitlines()
    assert [line for line in lines if line.startswith(f"{TEST_COMMAND} ")]


def test_jitted_trainer_snippet_runs(capsys: pytest.CaptureFixture[str]) -> None:
    source = snippet_with("make_train(PPOConfig(")
    small = source.replace('memory="s5")', 'memory="s5", num_envs=4, num_steps=8, total_steps=64)')
    assert small != source
    exec(compile(small, "README.md", "exec"), {})
    assert len(capsys.readouterr().out.strip("[] \n").split()) == 8


def test_memory_snippet_runs() -> None:
    names: dict[str, object] = {}
    exec(compile(snippet_with("make_memory("), "README.md", "exec"), names)
    assert names["y"].shape == (100, 8, 64)  # type: ignore[attr-defined]


def test_environment_snippet_runs() -> None:
    names: dict[str, object] = {}
    exec(compile(snippet_with("s5_envs.make("), "README.md", "exec"), names)
    assert names["env"] is not None


def test_policy_snippet_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    sizes = {"d_model": 8, "d_state": 8, "n_layers": 1}
    config = ActorCriticConfig(obs_shape=(4,), action=Discrete(4), memory="s5", memory_config=sizes)
    policy = Policy(config, ActorCritic(config).init(jax.random.key(0)))
    save_policy(tmp_path / "runs" / "demo" / "policy.safetensors", policy)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(snippet_with("load_policy("), "README.md", "exec"), names)
    assert names["action"].shape == (8,)


def test_the_guides_setting_of_memory_length_is_the_one_that_reproduce_runs() -> None:
    from s5_adapters.reproduce.experiments.memory_length import entries

    (block,) = (block for block in python_blocks("trainer.md") if "published = A2CConfig(" in block)
    names: dict[str, Any] = {}
    exec(compile(block, "docs/trainer.md", "exec"), names)
    label = f"MemoryChain-{names['length']}/s5/published"
    (entry,) = (entry for entry in entries("small") if entry.label == label)
    assert names["published"].completed().to_dict() == entry.work["config"]


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", *PAGES])
def test_relative_links_lead_somewhere(page: str) -> None:
    file = CHECKOUT / page
    targets = re.findall(r"\]\(([^)#]+)", file.read_text())
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (file.parent / target).exists()] == []


def test_every_page_is_in_the_navigation_once() -> None:
    named = re.findall(r": ([a-z0-9_/-]+\.md)$", (CHECKOUT / "mkdocs.yml").read_text(), flags=re.MULTILINE)
    assert sorted(f"docs/{name}" for name in named) == PAGES


@pytest.mark.parametrize(
    "module",
    [*(f"s5_adapters.{name}" for name in ("core", "purejax", "sb3", "rllib", "torch_bridge")), "s5_envs"],
)
def test_every_export_is_in_the_api_reference(module: str) -> None:
    reference = "\n".join(page.read_text() for page in (DOCS / "api").glob("*.md"))
    entries = set(re.findall(r"^::: (\S+)$", reference, flags=re.MULTILINE))
    exports = importlib.import_module(module).__all__
    assert [name for name in exports if f"{module}.{name}" not in entries] == []


def commands() -> str:
    """Every call of the command line in the README and in docs/."""
    texts = [README, *(page.read_text() for page in DOCS.glob("*.md"))]
    return "\n".join(
        re.findall(r"^s5-adapters (?!bench report|envs).*", "\n".join(texts), flags=re.MULTILINE)
    )


@pytest.mark.parametrize("option", sorted(set(re.findall(r" (--[a-z-]+)", commands()))))
def test_command_line_options_exist(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    from s5_adapters.cli import main

    helps = []
    names = ("train", "evaluate", "status", "plot", "export", "clone", "bench run", "reproduce")
    for command in map(str.split, names):
        with pytest.raises(SystemExit) as ended:
            main([*command, "--help"])
        assert ended.value.code == 0
        helps.append(capsys.readouterr().out)
    assert option in "".join(helps)
