"""What arrives: the bytes of each value, in each place where one may be, in each shell."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowq.commands.values import fill
from flowq.texts import to_bytes
from tests.unit.command_shells import NASTY, SHELLS, SMALL, WORST, execute, find_program

pytestmark = pytest.mark.skipif(os.name == "nt", reason="commands of a POSIX shell")

IF_ANY = "any"
END = "\nprintf '\\0\\0END\\0'\n"
SHOW = "show() { printf '%s\\0' \"$@\"; }\n"
SHOW_IN_MKSH = """printf() {
  local format=$1
  shift
  [[ $format != -- ]] || { format=$1; shift; }
  case "$format" in
    '%s-%%\\0') print -rn -- "$1-%"; print -n '\\0' ;;
    '%s.') for each; do print -rn -- "$each."; done ;;
    '%s\\0') for each; do print -rn -- "$each"; print -n '\\0'; done ;;
    *) print -n -- "$format" ;;
  esac
}
"""
"""Its own is a program, and takes most of the time here."""

EVERYWHERE: dict[str, tuple[str, tuple[str, ...]]] = {
    "a word": ("show §", ("{}",)),
    "a part of a word": ("show a§'b'\"c\" --opt=§", ("a{}bc", "--opt={}")),
    "within quotes": ('show "a § b" "§"', ("a {} b", "{}")),
    "beside what is escaped": (r'show \"§\$ "\"§\\"', ('"{}$', '"{}\\')),
    "within a substitution": ("x=$(printf '%s.' §); show \"$x\"", ("{}.",)),
    "in a substitution in quotes": ('show "a $(printf \'%s.\' § "b §")"', ("a {}.b {}.",)),
    "assigned": ('a=§; show "$a"; a="x §"y; show "$a"', ("{}", "x {}y")),
    "a variable of a command": ('A=§ sh -c \'printf "%s\\0" "$A"\'', ("{}",)),
    "in the list of a loop": ('for i in § "q §"; do show "$i"; done', ("{}", "q {}")),
    "in a case": ('x=§; case § in "$x") show yes;; *) show no;; esac', ("yes",)),
    "a pattern of a case": ('x=§; case "$x" in §) show yes;; *) show no;; esac', ("yes",)),
    "a longer pattern": ('x=a§b; case "$x" in a"§"b) show yes;; *) show no;; esac', ("yes",)),
    "in a here-document": (
        "cat <<EOF\n§|\"§\"|'§'|$(printf '%s.' §)\nEOF\nshow ''",
        ("{}|\"{}\"|'{}'|{}.\n",),
    ),
    "in one with tabs": ("cat <<-E_1\n\ta §\n\tE_1\nshow ''", ("a {}\n",)),
    "compared": ('x=§; [ § = "$x" ] && show yes; [ "$x" != "§" ] || show no', ("yes", "no")),
    "tested": (
        "if [ -n § ]; then show any; fi; test -z § || show any",
        (IF_ANY, IF_ANY),
    ),
    "tested alone": (
        "if [ § ]; then show any; fi; if ! [ ! § ]; then show any; fi",
        (IF_ANY, IF_ANY),
    ),
    "compared with itself": ("test § = § && show yes; [ ! § = § ] || show yes", ("yes", "yes")),
    "an argument of a function": ('f() { show "$2" §; }; f a §', ("{}", "{}")),
    "in a function": ("f() { show §; }; f", ("{}",)),
    "in groups": ("{ show §; }; (show §); if :; then show §; fi", ("{}", "{}", "{}")),
    "in a loop": ("until show §; do :; done; while show §; do break; done", ("{}", "{}")),
    "in a pipeline": ("show § | cat; ! show § && :; true || show; false || show §", ("{}",) * 3),
    "in the background": ("show § & wait", ("{}",)),
    "behind a command that starts others": ('env A=§ sh -c \'printf "%s\\0" "$A"\'', ("{}",)),
    "an argument of a script": ('sh -c \'printf "%s\\0" "$1"\' _ §', ("{}",)),
    "beside a comment": ("show a # it's §\nshow b", ("a", "b")),
    "printed": ("printf '%s\\0' §; printf -- '%s-%%\\0' \"§\"", ("{}", "{}-%")),
    "in a command that ran before": ("command printf '%s\\0' §", ("{}",)),
    "after a change of what separates words": ("IFS=ab; show §; IFS=' '", ("{}",)),
    "after options": ("set -f; set -u; show §; set +f", ("{}",)),
}
IN_LARGE_SHELLS: dict[str, tuple[str, tuple[str, ...]]] = {
    "appended": ('a=x; a+=§; show "$a"', ("x{}",)),
    "in double brackets": (
        'x=§; [[ § == "$x" ]] && show yes; [[ $x = § ]] && show yes',
        ("yes", "yes"),
    ),
    "alone in double brackets": ("if [[ -n § && ( § ) ]]; then show any; fi", (IF_ANY,)),
    "a part of a pattern": ('x=a§b; [[ $x == a§* ]] && [[ ! $x != a"§"b ]] && show yes', ("yes",)),
    "a here-string": ("cat <<< §; show ''", ("{}\n",)),
    "in an array": ('a=(§ "b §"); show "${a[@]}"', ("{}", "b {}")),
}
WITH_PROCESSES: dict[str, tuple[str, tuple[str, ...]]] = {
    "in a process": ("cat <(printf '%s.' §); show ''", ("{}.",)),
}


WITH_ALL = (
    "a word",
    "within quotes",
    "assigned",
    "in a here-document",
    "an argument of a function",
)
"""The places that are tried with all values; the others with the worst ones, to save time."""


def places_of(shell: str) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    for places in (EVERYWHERE, IN_LARGE_SHELLS, WITH_PROCESSES):
        if places is IN_LARGE_SHELLS and shell in SMALL:
            return
        if places is WITH_PROCESSES and shell == "mksh":
            return
        for name, (text, expected) in places.items():
            yield name, text, expected


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    name: str = request.param
    program = find_program(name, tmp_path)
    if program is None:
        pytest.skip(f"{name} is not on this machine")
    return name, program


def test_every_byte_of_a_value_arrives_in_every_place(
    shell: tuple[str, str], tmp_path: Path
) -> None:
    name, program = shell
    start = (SHOW_IN_MKSH if name == "mksh" else "") + SHOW
    for place, text, shown in places_of(name):
        nasty = NASTY if place in WITH_ALL else WORST
        values = {f"v{number}": value for number, value in enumerate(nasty)}
        lines = [text.replace("§", f"${{{{ {key} }}}}") + END for key in values]
        done = execute(program, start + "".join(lines), values, tmp_path)
        found = done.stdout.split(b"\0\0END\0")
        assert len(found) == len(nasty) + 1, (place, done.stderr)
        for value, output in zip(nasty, found, strict=False):
            wanted = [part.replace("{}", value) for part in shown if value or part != IF_ANY]
            assert output == b"".join(to_bytes(part) + b"\0" for part in wanted), (place, value)
    assert not (tmp_path / "CANARY").exists()


# Around the values -------------------------------------------------------------------------------


def test_large_values_arrive_by_a_file_that_has_no_name(
    shell: tuple[str, str], tmp_path: Path
) -> None:
    _, program = shell
    values = {"large": "a'b\n\"$(touch CANARY)\\ \udce9''" * 6_000, "small": "x y'"}
    text = 'cat <<EOF\n${{ large }}\nEOF\nx="${{ small }}"; echo "$x"; cat; echo $# $0'
    done = execute(program, text, values, tmp_path)
    assert done.stdout.startswith(to_bytes(values["large"]) + b"\nx y'\n0 "), done.stderr
    assert [path.name for path in tmp_path.iterdir() if path.name != "ash"] == []


def test_programs_get_no_variables_that_hold_values(shell: tuple[str, str], tmp_path: Path) -> None:
    _, program = shell
    done = execute(program, 'env; sh -c env; echo "${{ v }}"', {"v": "s3cr3t-value"}, tmp_path)
    assert done.stdout.count(b"s3cr3t-value") == 1
    assert b"flowq_value" not in done.stdout.lower()


def test_the_names_of_variables_are_those_of_nobody_else(tmp_path: Path) -> None:
    text = 'flowq_value_0=mine; echo "$flowq_value_0" "$FLOWQ_VALUE__0" ${{ v }}'
    filled = fill(["flowq_value_0=a; echo ", None], ["v"], "w", {"FLOWQ_VALUE__1": "x"})
    assert list(filled.variables) == ["FLOWQ_VALUE____0"]
    done = execute("sh", f"FLOWQ_VALUE__0=; {text}", {"v": "value"}, tmp_path)
    assert done.stdout == b"mine  value\n"


def test_a_value_with_nul_is_refused() -> None:
    with pytest.raises(ValueError, match="NUL"):
        fill(["echo ", None], ["a\0b"], "w", {})


def test_lines_keep_their_numbers_and_options_their_meaning(tmp_path: Path) -> None:
    text = 'set -eu\nx=${{ v }}\necho "$LINENO $x"\nunset nothing; echo "$nothing"\necho no'
    done = execute("bash", text, {"v": "-e"}, tmp_path)
    assert done.stdout == b"3 -e\n"
    assert b"line 4: nothing: unbound" in done.stderr
