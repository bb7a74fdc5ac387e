"""Commands of random pieces: a value is refused, or arrives as it is, and is never executed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from flowq.commands.places import find_places
from tests.unit.command_shells import execute

pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="commands of a POSIX shell"),
    pytest.mark.skipif(shutil.which("bash") is None, reason="bash says what is right"),
]

PLAIN = "Zq0Z"
EVIL = "a[$(touch${IFS}CANARY)]'\"\\`touch${IFS}CANARY`);touch${IFS}CANARY;#"
"""Without characters that separate words, so that an author's own `$(…)` does not cut it."""

SHOW = "set -f; show() { printf '<%s>' \"$@\"; }\n"
PIECES = [
    "§",
    "§",
    "§",
    "show ",
    "show ",
    "a",
    " ",
    " ",
    ";",
    "\n",
    "'",
    '"',
    '"',
    "`",
    "$(",
    "$(show ",
    ")",
    "${x",
    "${x:-",
    "${x#",
    "}",
    "$((",
    "((",
    "))",
    "$[",
    "]",
    "\\",
    "#",
    "$'",
    "cat <<EOF\n",
    "cat <<'EOF'\n",
    "cat <<-EOF\n",
    "<<EOF;",
    "\nEOF\n",
    "\n\tEOF\n",
    "EOFX\n",
    "x=",
    "x[",
    "[[ ",
    " ]]",
    "[ ",
    " ]",
    " -eq ",
    " == ",
    " && ",
    " | cat",
    "{ ",
    "; }",
    "( ",
    "case § in ",
    " esac",
    "for i in ",
    "; do ",
    "; done",
    "if ",
    "; then ",
    "; fi",
    "let x=",
    "declare -i x\n",
    "eval ",
    "$x",
    "$i",
    "x=(",
    "<<<",
    "> /dev/null ",
    "!",
    "@(",
]


def words() -> st.SearchStrategy[str]:
    """Return commands that are made as a grammar would make them, deeply nested."""
    word = st.sampled_from(["§", "a§", '"§"', "'a b'", '"a § b"', "--x=§", '"$x"', "b\\ c", "§§"])
    line = st.lists(word, min_size=1, max_size=3).map(lambda found: "show " + " ".join(found))

    def nest(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        return st.one_of(
            inner.map(lambda text: f'show "b $( {text} ) §"'),
            inner.map(lambda text: f'x="$( {text} )"; show "$x"'),
            inner.map(lambda text: f"if show §; then {text}; fi"),
            inner.map(lambda text: f'for i in § "a §"; do {text}; show "$i"; done'),
            inner.map(lambda text: f"( {text} ) | cat"),
            inner.map(lambda text: f"{{ {text}; }} > out; cat out"),
            inner.map(lambda text: f'f() {{ {text}; show "$1"; }}; f §'),
            inner.map(lambda text: f"case a in a) {text};; *) show §;; esac"),
            inner.map(_in_here_document),
            inner.map(lambda text: f"cat <<'E'\n$( \" ' `\nE\n{text}"),
            inner.map(lambda text: f"# it's §\n{text}"),
            inner.map(lambda text: f"y=§ z='(' ; {text}; show \"$y\""),
            st.tuples(inner, inner).map(" && ".join),
            st.tuples(inner, inner).map("\n".join),
        )

    return st.recursive(line, nest, max_leaves=6)


def _in_here_document(text: str) -> str:
    end = (
        f"EOF{text.count('EOF')}"  # one for each level: the same end twice can be read in two ways
    )
    return f"cat <<{end}\n§ \"$( {text} )\" '§'\n{end}\nshow b"


def output_of(command: str, value: str, folder: Path) -> tuple[int, bytes]:
    done = execute("bash", SHOW + command, {"v": value}, folder)
    return done.returncode, done.stdout


def is_refused(command: str) -> bool:
    return any(place.refusal for place in find_places(SHOW + command, "bash"))


def check(text: str, folder: Path) -> None:
    """Compare what a command prints with a plain value, and with one that would do harm."""
    command = text.replace("§", "${{ v }}")
    code, plain = output_of(command, PLAIN, folder)
    assert not (folder / "CANARY").exists()
    evil_code, evil = output_of(command, EVIL, folder)
    assert not (folder / "CANARY").exists(), "the value was executed"
    if code == 0:
        assert (evil_code, evil) == (code, plain.replace(PLAIN.encode(), EVIL.encode()))


QUICK = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@QUICK
@given(words())
def test_a_value_arrives_in_commands_that_are_nested_at_random(tmp_path: Path, text: str) -> None:
    assert not is_refused(text.replace("§", "${{ v }}"))
    check(text, tmp_path)


@QUICK
@given(st.lists(st.sampled_from(PIECES), min_size=3, max_size=14).map("".join))
@example("cat <<EOF\n$((§))\nEOF\n")
@example("cat <<EOF\n`show §`\nEOF\n")
@example("cat <<EOF;show §\n\nEOF\n")
def test_a_value_is_never_executed_wherever_it_stands(tmp_path: Path, text: str) -> None:
    command = f"show §\n{text}"
    if not is_refused(command.replace("§", "${{ v }}")):
        check(command, tmp_path)
