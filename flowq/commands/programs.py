"""What commands do with their arguments, if a value among them could become code.

A list of programs cannot be complete. This one has the builtins of all supported shells (a builtin
that is not known to be harmless is refused), and well-known programs that read arguments as code.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a command.

    Shape: `text` is the word, or None if parts of it are known only to the shell; `prefix` is the
    known beginning; `has_value` says whether it contains an expression.
    """

    text: str | None
    prefix: str = ""
    has_value: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a value may not stand in a place (part of a sentence), and what to write instead."""

    reason: str
    instead: str


ENV = "env"
LIST = "list"
"""Hints that contain the expression; `flowq.checks.commands` writes them."""


def names(text: str) -> frozenset[str]:
    """Return the words of a text."""
    return frozenset(text.split())


SPECIAL = names(
    """
    _ ARGC ARGV BASHPID BASH_ENV BASHOPTS BASH_ALIASES BASH_ARGV0 BASH_CMDS BASH_COMPAT
    BASH_XTRACEFD CDPATH COLUMNS COMP_POINT COMP_TYPE COMP_WORDBREAKS CPUTYPE DIRSTACK DIRSTACKSIZE
    EDITOR EGID ENV EPOCHREALTIME EPOCHSECONDS ERRNO EUID FCEDIT FIGNORE FPATH FUNCNAME FUNCNEST GID
    GLOBIGNORE GROUPS HISTCHARS HISTCMD HISTFILE HISTFILESIZE HISTSIZE IFS IGNOREEOF JOBMAX
    KEYBOARD_HACK KEYTIMEOUT KSHEGID KSHGID KSHUID KSH_VERSION LINENO LINES LISTMAX LOGCHECK
    MAILCHECK MAPFILE NULLCMD OLDPWD OPTARG OPTIND OPTERR PATHEXT PGRP PIPESTATUS POSIXLY_CORRECT
    PPID PROMPT PROMPT2 PROMPT3 PROMPT4 PROMPT_COMMAND PROMPT_DIRTRIM PS0 PS1 PS2 PS3 PS4 RANDOM
    READNULLCMD REPLY RPROMPT RPS1 SAVEHIST SECONDS SHELLOPTS SHLVL SPROMPT SRANDOM STTY TIMEFMT
    TMOUT TRY_BLOCK_ERROR TRY_BLOCK_INTERRUPT TTYIDLE UID USERNAME USER_ID VISUAL ZDOTDIR
    ZSH_EVAL_CONTEXT ZSH_SUBSHELL fpath histchars module_path path cdpath prompt psvar status
    pipestatus aliases commands functions options parameters builtins modules nameddirs userdirs
    """
)
"""Variables that shells read as numbers, commands, options or prompts."""

EXECUTED = names(
    """
    BROWSER DYLD_INSERT_LIBRARIES DYLD_LIBRARY_PATH GIT_ASKPASS GIT_CONFIG_GLOBAL
    GIT_CONFIG_PARAMETERS GIT_CONFIG_SYSTEM GIT_EDITOR GIT_EXEC_PATH GIT_EXTERNAL_DIFF GIT_PAGER
    GIT_PROXY_COMMAND GIT_SEQUENCE_EDITOR GIT_SSH GIT_SSH_COMMAND GNUMAKEFLAGS JAVA_TOOL_OPTIONS
    JDK_JAVA_OPTIONS LD_AUDIT LD_LIBRARY_PATH LD_PRELOAD LESSCLOSE LESSOPEN MAKEFLAGS MANPAGER
    NODE_OPTIONS NODE_PATH PAGER PATH PERL5DB PERL5LIB PERL5OPT PYTHONHOME PYTHONPATH
    PYTHONSTARTUP RSYNC_RSH RUBYLIB RUBYOPT RUSTC_WRAPPER SHELL SSH_ASKPASS SUDO_ASKPASS
    TAR_OPTIONS _JAVA_OPTIONS
    """
)
"""Variables that name programs, or code, which the programs that get them execute."""

READ_AS_CODE = names(
    """
    . alias autoload bind bindkey compctl compgen complete compound emulate enable enum eval
    fc functions hash hist jobs mapfile readarray sched source trap vared wait zcompile zle zmodload
    zparseopts zstyle zformat zregexparse print r compadd compcall compfiles compgroups
    compquote compset comptags comptry compvalues pushln echotc echoti comparguments
    compdescribe
    """
)
VARIABLES = names(
    """
    declare export float getln getopts integer local nameref private read readonly typeset
    unset vared
    """
)
NUMBERS = names("break bye continue exit let limit log repeat return shift ulimit unlimit")
_SETTINGS = names(
    """
    builtins compopt disable disown foreach function select help history logout rehash rename
    set setopt shopt stop suspend ttyctl unalias unfunction unhash unsetopt caller coproc
    global mknod redirect
    """
)
SHADOWED = (NUMBERS | _SETTINGS) - names("break continue exit return set shift")
"""Commands that a function of the same name replaces in every shell."""

_TEXTS = names("awk gawk mawk nawk original-awk sed gsed ssed jq gojq jaq yq")
_COMMANDS = names(
    """
    at batch chroot crontab doas expect flock lxc-attach mosh nsenter parallel rsh runuser
    screen script ssh autossh sshpass su sudo systemd-run tmux unshare watch xargs pkexec
    """
)
_LANGUAGES = names(
    """
    bc dc ed ex vi vim nvim m4 gdb gnuplot sqlite3 pwsh powershell cmd nu xonsh elvish
    osascript csh tcsh tclsh wish
    """
)
_EXECUTING = {
    **dict.fromkeys(names("docker podman nerdctl kubectl oc docker-compose lxc"), names("exec")),
    "git": names("bisect filter-branch foreach"),
}
"""Programs that execute the arguments after one of these words."""

_OPTIONS_WITH_CODE = {
    "psql": ("c", "command"),
    "mysql": ("e", "execute", "init-command"),
    "mariadb": ("e", "execute", "init-command"),
    "duckdb": ("c", "cmd"),
    "clickhouse-client": ("q", "query"),
    "sqlcmd": ("q", "Q"),
    "git": ("c", "x", "config-env", "exec", "extcmd", "receive-pack", "upload-pack"),
    "make": ("eval",),
    "gmake": ("eval",),
    "man": ("P", "pager"),
    "rsync": ("e", "rsh", "rsync-path"),
    "scp": ("o", "S"),
    "sftp": ("o", "S"),
    "sort": ("compress-program",),
    "split": ("filter",),
    **dict.fromkeys(
        ("tar", "gtar", "bsdtar"),
        (
            *("F", "I", "checkpoint-action", "info-script", "new-volume-script", "rmt-command"),
            *("rsh-command", "to-command", "use-compress-program"),
        ),
    ),
}
"""Options of programs whose argument is code, or the name of a command."""

WRAPPERS = names(
    """
    builtin busybox chrt command coproc env exec find gtimeout ionice nice nocorrect noglob
    nohup - setsid stdbuf strace taskset time timeout toybox uv uvx unbuffer poetry pipenv
    """
)
"""Commands that start the command among their arguments."""


@dataclass(frozen=True, slots=True)
class _Runner:
    """A program that runs a script, or code in an argument.

    Shape: letters of options; `is_last` says whether everything after the code is data.
    """

    code: str
    takes_argument: str = ""
    long_code: tuple[str, ...] = ()
    is_last: bool = False


_SHELL = _Runner("c", "oO", ("command", "init-command", "rcfile", "init-file"), is_last=True)
_RUNNERS = {
    **dict.fromkeys(names("sh bash dash ash ksh mksh lksh oksh loksh yash posh rbash zsh"), _SHELL),
    "fish": _Runner("cC", "", ("command", "init-command")),
    "python": _Runner("c", "WXQ", is_last=True),
    "pypy": _Runner("c", "WXQ", is_last=True),
    "ipython": _Runner("c"),
    "perl": _Runner("eEMm", "I"),
    "ruby": _Runner("e", "ICEr"),
    "node": _Runner("ep", "rC", ("eval", "print")),
    "nodejs": _Runner("ep", "rC", ("eval", "print")),
    "bun": _Runner("ep", "r", ("eval", "print")),
    "deno": _Runner("", "", ("eval",)),
    "php": _Runner("rBRE", "dczt", ("run", "process-begin", "process-code", "process-end")),
    "lua": _Runner("e", "l"),
    "luajit": _Runner("ej", "l"),
    "julia": _Runner("eE", "", ("eval", "print")),
    "Rscript": _Runner("e"),
    "R": _Runner("e"),
    "guile": _Runner("c"),
    "racket": _Runner("e", "", ("eval",)),
    "groovy": _Runner("e"),
    "elixir": _Runner("e", "", ("eval",)),
}
_READS_CODE = _LANGUAGES | {"ssh", "su", "psql", "mysql", "mariadb", "at", "batch", "crontab"}

_DEVICES = ("/dev/", "/proc/")
_CODE_OPTION = re.compile(r"-[A-Za-z]*[ceE]|--(?:command|eval|execute|exec|print|run)")
_REPLACED = re.compile(r"(?:-[0a-z]*[IiJ]|--replace=?)(.*)")
_PLAIN_FORMAT = re.compile(r"(?:[^%]|%%|%-?[0-9]*(?:\.[0-9]+)?[sbqc])*")
_PLAIN_PRINTS = (["-n", "--"], ["-r", "--"], ["-rn", "--"])
_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=", re.ASCII)
TEST_OF_ONE = frozenset({f"-{letter}" for letter in "nzfedrwxsLhbcpSOGugk"})
TEST_OF_TWO = frozenset({"=", "==", "!=", "-nt", "-ot", "-ef"})
"""Operators of texts and files; others could read a value as arithmetic, or as a name."""


MAX_WORDS = 500
"""The limit of a command with values; the work is quadratic in its words."""


def find_refusal(words: Sequence[Word], at: int) -> Refusal | None:
    """Return why the word at `at` may hold no value.

    Shape: the first word is the command's name; `at` is the place of another one.
    """
    if len(words) > MAX_WORDS:
        return Refusal(f"is in a command with more than {MAX_WORDS} words", ENV)
    name = _name_of(words[0])
    if name is None:
        return _for_unknown(words, at)
    if name == "printf":
        return _for_printf(words, at)
    if name in ("test", "["):
        return _for_test([word for word in words[1:] if word.text != "]" or name == "test"])
    if found := _for_always(name, words):
        return found
    if name in _RUNNERS:
        return _for_runner(name, words, at, is_strict=True)
    if name in _OPTIONS_WITH_CODE and (found := _for_options(name, words, at)):
        return found
    if name in WRAPPERS:
        return _for_wrapper(name, words, at)
    return _for_arguments(words, at)


def reads_code(words: Sequence[Word]) -> bool:
    """Whether a command reads code from its standard input."""
    name = _name_of(words[0])
    if name is None:  # "$SHELL", unless it gets operands
        return all((word.text or word.prefix).startswith("-") for word in words[1:])
    if name in ("xargs", "parallel") and _makes_code(words):
        return True
    if name in (".", "source"):
        return any(word.text is None or word.text.startswith(_DEVICES) for word in words[1:])
    if name in WRAPPERS or name in _COMMANDS or name in _EXECUTING:
        if name in _READS_CODE:
            return True
        rest = (words[i:] for i in range(1, len(words)))
        return any(reads_code(each) for each in rest if _name_of(each[0]) in _KNOWN_READERS)
    if name in _RUNNERS:
        first = [word.text or word.prefix for word in words[1:]]
        is_device = any(each.startswith(_DEVICES) for each in first)
        return is_device or all(each.startswith("-") for each in first) or "-s" in first
    return name in _READS_CODE


def _makes_code(words: Sequence[Word]) -> bool:
    """Whether `xargs` or `parallel` puts its input into the code of an interpreter.

    `xargs sh -c` and `xargs -I{} sh -c 'rm {}'` do; `xargs sh -c 'rm "$1"' sh` does not.
    """
    texts = [word.text for word in words]
    marks = ["{}"]
    for text, following in zip(texts, [*texts[1:], None], strict=True):
        if found := _REPLACED.fullmatch(text or ""):
            marks.append(found[1] or following or "{}")
    for place, word in enumerate(words[1:], 1):
        if word.text is not None and _name_of(word) not in _RUNNERS:
            continue
        options = (i for i in range(place, len(words)) if _CODE_OPTION.fullmatch(texts[i] or ""))
        if (at := next(options, None)) is not None:
            code = texts[at + 1] if at + 1 < len(texts) else None
            return code is None or any(mark in code for mark in marks)
    if len(words) > 1 and _name_of(words[-1]) in WRAPPERS | _COMMANDS:
        return True
    return words[0].text == "parallel" and all((text or "").startswith("-") for text in texts[1:])


def takes_code(words: Sequence[Word], at: int) -> bool:
    """Whether the word at `at` is read as code, by the shell or by another interpreter."""
    if at == 0 or _name_of(words[0]) in _NOT_CODE or _is_plain_print(words):
        return False
    return find_refusal(words, at) is not None


def runs_code(words: Sequence[Word]) -> bool:
    """Whether a command reads its arguments as code or as names: `eval`, `read`."""
    name = _name_of(words[0]) if words else None
    if _is_plain_print(words):
        return False
    return name in READ_AS_CODE or name in VARIABLES


def _is_plain_print(words: Sequence[Word]) -> bool:
    """Whether `print` of ksh or zsh prints its arguments unchanged."""
    is_print = bool(words) and words[0].text == "print"
    return is_print and [word.text for word in words[1:3]] in _PLAIN_PRINTS


def find_shell_code(words: Sequence[Word]) -> int | None:
    """Return the place of the code of `sh -c`, anywhere in a command."""
    for start, word in enumerate(words):
        if _RUNNERS.get(_name_of(word) or "") is not _SHELL:
            continue
        has_code = skips = False
        for place in range(start + 1, len(words)):
            text = words[place].text
            if skips:
                skips = False
            elif text is None or not text.startswith(("-", "+")) or text == "-":
                if has_code:
                    return place
                break
            elif text.startswith("--"):
                has_code = has_code or text[2:] in _SHELL.long_code
            else:
                is_code, skips = _read_cluster(text[1:], _SHELL)
                has_code = has_code or is_code
    return None


def find_code(words: Sequence[Word], at: int) -> Refusal | None:
    """Return why the word at `at` may hold no value, in a command without a shell.

    Only programs that read an argument as code matter here: `sh -c`, `python -c`, also behind `env`
    or `docker exec`.
    """
    for place in range(at):
        name = _name_of(words[place])
        if name in _RUNNERS:
            found = _for_runner(name, words[place:], at - place, is_strict=False)
            if found is not None:
                return found
    return None


def find_assigned(prefix: str) -> str:
    """Return the variable that a word with this prefix assigns; "" for none."""
    found = _ASSIGNMENT.match(prefix)
    return found[1] if found else ""


def has_open_operator(words: Sequence[Word]) -> bool:
    """Whether the operator of a test is known only to the shell: `[ "$op" "$x" ]`."""
    rest = [word.text for word in words[1:] if word.text not in ("!", "]")]
    if len(rest) == 2:
        return rest[0] is None
    return rest[1] is None if len(rest) == 3 else (None, None) in itertools.pairwise(rest)


def is_known(name: str) -> bool:
    """Whether a command is in the tables."""
    return _known_name(name) in _ALL


def count_before_command(words: Sequence[Word]) -> int:
    """Return the place of the last word that may be the name of the command that is started.

    That is the first word, and the third one of `timeout 5 ls`; of `test` it may be any word.
    """
    if not words or words[0].text == "test":
        return len(words)
    for place, word in enumerate(words):
        text = word.text or word.prefix
        may_precede = text in WRAPPERS or text[:1] in ("-", *"0123456789") or find_assigned(text)
        if not may_precede:
            return place
    return len(words) - 1


def hides_command(words: Sequence[Word]) -> bool:
    """Whether a wrapper starts a command that only the shell knows: `time "$@"`."""
    if words[0].text not in WRAPPERS:
        return False
    return any(word.text is None for word in words[: count_before_command(words) + 1])


_KNOWN_READERS = _READS_CODE | set(_RUNNERS)


def _name_of(word: Word) -> str | None:
    """Return the name of a command in the tables: `python` for `/usr/bin/python3.11`."""
    return None if word.text is None else _known_name(word.text)


@lru_cache(maxsize=4096)  # each word is examined once for each later word
def _known_name(text: str) -> str:
    name = PurePosixPath(text).name if text.strip("/.") else text
    name = name.removesuffix(".exe")
    return name if name in _ALL else re.sub(r"(?<![-.\d])[-.\d]+$", "", name) or name


def _for_always(name: str, words: Sequence[Word]) -> Refusal | None:
    """Return the refusal of a command that accepts no values at all."""
    if name in READ_AS_CODE:
        return Refusal(f"is an argument of `{name}`, which could read it as code", ENV)
    if name in VARIABLES:
        advice = "assign it to a variable on a line of its own: NAME={}; then `export NAME`"
        return Refusal(f"is an argument of `{name}`, which reads names and arithmetic", advice)
    if name in NUMBERS:
        return Refusal(f"is an argument of `{name}`, which is arithmetic in some shells", COMPUTE)
    if name in _SETTINGS:
        return Refusal(f"is an argument of `{name}`, which changes the shell", ENV)
    if name in _TEXTS or name in _LANGUAGES:
        return Refusal(f"is an argument of `{name}`, which could read it as a program", LIST)
    executing = _EXECUTING.get(name, ())
    starting = [word.text for word in words[1:] if word.text in executing] if executing else []
    if name in _COMMANDS or starting:
        shown = " ".join(filter(None, [name, *starting]))
        return Refusal(f"is an argument of `{shown}`, which builds a command from them", LIST)
    return None


COMPUTE = "compute"
COMPARE_BY_TEST = {
    test: f"compare {operator}"
    for test, operator in (
        *(("-eq", "=="), ("-ne", "!="), ("-lt", "<")),
        *(("-le", "<="), ("-gt", ">"), ("-ge", ">=")),
    )
}
"""Hints that contain the expression, with its operator for an operator of a test."""


def _for_printf(words: Sequence[Word], at: int) -> Refusal | None:
    advice = "write printf '%s\\n' {}"
    start = 2 if len(words) > 1 and words[1].text == "--" else 1
    if at <= start or words[start].text is None:
        return Refusal("is part of the format of `printf`, or stands beside one", advice)
    text = words[start].text or ""
    if text.startswith("-") and start == 1:
        return Refusal("is an argument of `printf` with options", advice)
    if not _PLAIN_FORMAT.fullmatch(text):
        return Refusal("is an argument of `printf` with a format for numbers", advice)
    return None


def _for_test(words: Sequence[Word]) -> Refusal | None:
    """Judge `test`: only forms in which the place of the operator is fixed are harmless."""
    rest = list(words)
    if rest and rest[0].text == "!":
        rest = rest[1:]
    operators = [word.text for word in rest]
    if len(rest) == 1:
        return None
    if len(rest) == 2 and operators[0] in TEST_OF_ONE:
        return None
    if len(rest) == 3 and operators[1] in TEST_OF_TWO:
        return None
    if len(rest) == 3 and (instead := COMPARE_BY_TEST.get(operators[1] or "")):
        return Refusal(f"is compared with {operators[1]}, which is arithmetic", instead)
    return Refusal("is in a test that is not a plain one", TEST_ADVICE)


TEST_ADVICE = "write one comparison of texts, as in [ {} = yes ], and join several with && or ||"


def _for_runner(name: str, words: Sequence[Word], at: int, *, is_strict: bool) -> Refusal | None:
    """Judge a program that runs a script or code: values may only follow these.

    Not `is_strict`: the program's name is an argument of another program.
    """
    runner, has_code, skips = _RUNNERS[name], False, False
    refused = Refusal(f"is code for `{name}`, or could be one of its options", LIST)
    for word in words[1:at]:
        text = word.text
        if skips:
            skips = False
        elif text is None or not text.startswith(("-", "+")) or text == "-":
            if has_code and not runner.is_last:
                return refused
            return None  # the script, or the code; what follows are its arguments
        elif text == "--":
            return refused if has_code else None
        elif text.startswith("--"):
            has_code = has_code or text[2:].partition("=")[0] in runner.long_code
        else:
            is_code, skips = _read_cluster(text[1:], runner)
            has_code = has_code or is_code
    if has_code or skips:
        return refused
    is_script = bool(words[at].prefix) and not words[at].prefix.startswith(("-", "+"))
    return None if is_script or not is_strict else refused


def _read_cluster(letters: str, runner: _Runner) -> tuple[bool, bool]:
    """Return whether a cluster of options includes code, and whether it takes the next word."""
    for place, letter in enumerate(letters):
        if letter in runner.takes_argument:
            # `sh -co` takes the name of an option first, then the code.
            return "c" in letters and runner is _SHELL, place == len(letters) - 1
        if letter in runner.code:
            if runner is not _SHELL:
                return True, False
            return True, letters[-1] in runner.takes_argument
    return False, False


def _for_options(name: str, words: Sequence[Word], at: int) -> Refusal | None:
    """Judge a program with options whose argument is code."""
    options = _OPTIONS_WITH_CODE[name]
    refused = Refusal(f"is code for `{name}`", LIST)
    for place, word in enumerate(words[1 : at + 1], 1):
        shown = word.text if word.text is not None else word.prefix
        for option in options:
            dashed = f"-{option}" if len(option) == 1 else f"--{option}"
            is_joined = place == at and shown.startswith(dashed)
            is_before = place == at - 1 and (
                shown == dashed or (len(option) == 1 and re.fullmatch(rf"-\w*{option}", shown))
            )
            if is_joined or is_before:
                return refused
    return None


MAX_WRAPPERS = 8
"""Each wrapper may start any later one, so one more doubles the work."""


def _for_wrapper(name: str, words: Sequence[Word], at: int) -> Refusal | None:
    """Judge a command that starts another one like the latter, wherever its name stands."""
    if sum(_name_of(word) in WRAPPERS for word in words[:at]) > MAX_WRAPPERS:
        return Refusal(f"follows more than {MAX_WRAPPERS} commands that start others", ENV)
    for place in range(1, at):
        if words[place].text is None:
            continue
        inner = _name_of(words[place])
        is_command = name != "find" or (words[place - 1].text or "").startswith(("-exec", "-ok"))
        if is_command and inner in _ALL and (found := find_refusal(words[place:], at - place)):
            return found
    if name == "env":
        assigned = _ASSIGNMENT.match(words[at].prefix)
        if assigned and assigned[1] in SPECIAL | EXECUTED:
            return Refusal(f"is assigned to {assigned[1]}, which programs execute", ENV)
        has_split = any((word.text or "").startswith(("-S", "--s")) for word in words[1:at])
        before = (word.text or word.prefix for word in words[1:at])
        is_after = any(
            text and not text.startswith("-") and not _ASSIGNMENT.match(text) for text in before
        )
        if has_split or not (is_after or assigned):
            return Refusal("could be an option of `env`, or its command", ENV)
    return _for_arguments(words, at)


def _for_unknown(words: Sequence[Word], at: int) -> Refusal | None:
    """Judge a command whose name only the shell knows: `"$PYTHON" -c …`."""
    if _CODE_OPTION.fullmatch(words[at - 1].text or "") or words[at].prefix.startswith("-c"):
        return Refusal("could be code for that command", LIST)
    return _for_arguments(words, at)


def _for_arguments(words: Sequence[Word], at: int) -> Refusal | None:
    """Judge any other command: one of its arguments may be the name of an interpreter."""
    for place in range(1, at):
        if words[place].text is None:
            continue
        name = _name_of(words[place])
        if name in _RUNNERS and (
            found := _for_runner(name, words[place:], at - place, is_strict=False)
        ):
            return found
    return None


_NOT_CODE = NUMBERS | _SETTINGS | {"printf", "test", "["}
"""Commands that accept no values although they read no code: they read numbers or names."""

_ALL = (
    READ_AS_CODE
    | VARIABLES
    | NUMBERS
    | _SETTINGS
    | _TEXTS
    | _COMMANDS
    | _LANGUAGES
    | set(_EXECUTING)
    | WRAPPERS
    | set(_RUNNERS)
    | set(_OPTIONS_WITH_CODE)
    | {"printf", "test", "["}
)
