"""What the README promises: its commands are there, its JAX snippets run, its links lead somewhere."""

import re
import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
README = (CHECKOUT / "README.md").read_text()
TEST_COMMAND = "make test"


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


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/index.md"])
def test_relative_links_lead_somewhere(page: str) -> None:
    file = CHECKOUT / page
    targets = re.findall(r"\]\(([^)#]+)", file.read_text())
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (file.parent / target).exists()] == []


@pytest.mark.parametrize("option", sorted(set(re.findall(r" (--[a-z-]+)", "\n".join(snippets("sh"))))))
def test_command_line_options_exist(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    from s5_adapters.cli import main

    helps = []
    for command in (["train"], ["evaluate"], ["plot"], ["export"], ["bench", "run"]):
        with pytest.raises(SystemExit) as ended:
            main([*command, "--help"])
        assert ended.value.code == 0
        helps.append(capsys.readouterr().out)
    assert option in "".join(helps)
