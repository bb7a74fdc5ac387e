"""The files in deploy/ are those that the page shows, and the commands in them exist."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
import yaml

from flowq.cli.main import commands
from tests.docs.pages import DOCS, ROOT

PAGE = (DOCS / "how-to" / "deploy.md").read_text("utf-8")
FILES = sorted((ROOT / "deploy").iterdir())


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_page_shows_the_file(file: Path) -> None:
    assert f"\n{file.read_text('utf-8')}```" in PAGE


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_options_of_commands_exist(file: Path) -> None:
    text = file.read_text("utf-8")
    context = click.Context(commands)
    for name, words in re.findall(r"flowq[\", ]+(workers?)\b[\", ]*([^>\]\n]*)", text):
        command = commands.get_command(context, name)
        assert command is not None
        known = {option for each in command.params for option in each.opts}
        assert set(re.findall(r"(?<!\S)-{1,2}[a-z-]+", words)) <= known


def test_the_probe_is_the_health_check_of_the_container() -> None:
    *_, manifest = yaml.safe_load_all((ROOT / "deploy" / "kubernetes.yaml").read_text("utf-8"))
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    *_, probe = container["livenessProbe"]["exec"]["command"]
    assert probe in (ROOT / "deploy" / "Dockerfile").read_text("utf-8")
