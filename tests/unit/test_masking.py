"""What is hidden of a secret: all spellings, wherever a text is cut, in every part of an error."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
from secret_jobs import Odd, spell

from flowq.runtime.masking import Mask
from flowq.runtime.masking.errors import hiding_in_errors

TOKEN = "hunter2/Zq9 'Xk\"Lm+é=="
LINES = "first line\nnext\nthe third line\n"


def make(*values: str) -> Mask:
    mask = Mask()
    mask.add(values)
    return mask


# In text and bytes -------------------------------------------------------------------------------


def test_every_spelling_is_hidden_in_text_and_in_bytes() -> None:
    mask = make(TOKEN)
    for text in spell(TOKEN):
        for shown in (mask.hide(text), mask.hide_bytes(text.encode()).decode()):
            assert "***" in shown, text
            assert "hunter2" not in shown, text
            assert "Zq9" not in shown, text


@pytest.mark.parametrize("before", [b"", b"u", b"us", b"use", b"user:"])
def test_base64_is_hidden_wherever_in_longer_data_the_secret_stands(before: bytes) -> None:
    mask = make("hunter2-Zq9XkLm")
    for after in (b"", b"\n", b"more"):
        written = base64.b64encode(before + b"hunter2-Zq9XkLm" + after)
        left = mask.hide_bytes(written).replace(b"***", b"").replace(b"=", b"")
        assert len(left) <= (4 * (len(before) + len(after)) + 11) // 3 + 2, written


def test_lines_of_eight_characters_and_more_are_hidden_alone_and_shorter_ones_with_the_rest() -> (
    None
):
    mask = make(LINES)
    assert mask.hide("a first line b") == "a *** b"
    assert mask.hide("next") == "next"
    assert mask.hide(f"[{LINES.strip()}]") == "[***]"
    assert mask.hide(repr(LINES)) == "'***'"


def test_a_secret_of_less_than_four_characters_is_not_hidden() -> None:
    mask = make("abc", "")
    assert not mask
    assert mask.hide("abc") == "abc"
    mask.add(["abcdefg"], 8)
    assert not mask


def test_the_longest_of_several_values_is_hidden_as_one() -> None:
    mask = make("abcd", "abcdefgh", "efgh")
    assert mask.hide("abcdefgh abcde efghi") == "*** ***e ***i"
    assert mask.hide_begun(b"x abcd") == (b"x ", 2)
    assert mask.hide_begun(b"x abcdx") == (b"x ***x", 7)


def test_the_beginning_of_a_secret_that_a_message_has_cut_is_hidden_in_text() -> None:
    mask = make("hunter2-Zq9XkLm-and-more-of-it")
    assert mask.hide("'hunter2-Zq9…'") == "'***…'"
    assert mask.hide("hunter2-Zq9XkLm-and-mor0") == "***0"
    assert mask.hide("hunter2-Zebra hunter") == "hunter2-Zebra hunter"


def test_output_that_comes_in_parts_is_hidden_wherever_it_is_cut_and_held_back_no_longer() -> None:
    mask = make(TOKEN, LINES)
    text = f"oh {TOKEN} {LINES}, {TOKEN}{TOKEN[:3]} hunt".encode()
    whole = mask.hide_bytes(text[:-5])
    for cut in range(len(text) - 5):
        first, used = mask.hide_begun(text[:cut])
        rest, more = mask.hide_begun(text[used : len(text) - 5])
        assert first + rest + mask.hide_bytes(text[used + more : -5]) == whole, cut
    for harmless in (b"", b"plain\n", b"first lime"):
        assert mask.hide_begun(harmless) == (harmless, len(harmless))


def test_where_data_ends_in_the_middle_of_a_secret_that_is_hidden_and_what_goes_beyond_a_part() -> (
    None
):
    mask = make("hunter2-Zq9XkLm")
    text = b"a hunter2-Zq9XkLm b hunter2"
    assert mask.hide_bytes(text) == b"a *** b ***"
    assert mask.hide_bytes(b"a hun") == b"a hun"
    for begin in range(2, 17):
        assert mask.hide_bytes(text, begin, 19) == b"*** b"
        assert mask.hide_bytes(text, 0, begin + 1) == b"a ***"


def test_bytes_that_are_no_text_are_hidden_and_many_values_do_not_take_long() -> None:
    mask = make("caf\udce9 au lait", *(f"{at:04}-{at * 7919:08}" for at in range(300)))
    assert mask.hide_bytes(b"a caf\xe9 au lait b") == b"a *** b"
    assert mask.hide_bytes(b"." * 100_000 + b"0299-02367781") == b"." * 100_000 + b"***"


# In errors ---------------------------------------------------------------------------------------


def raise_all(token: str) -> None:
    cause = ValueError({"k": [token, token.encode()], token: 1}, (Path(token),), {token})
    cause.add_note(f"note {token}")
    errors = [
        subprocess.CalledProcessError(1, ["curl", token], token, token.encode()),
        OSError(2, token, f"/a/{token}", None, f"/b/{token}"),
        SystemExit(token),
        Odd(token),
    ]
    try:
        try:
            raise cause
        except ValueError:
            raise KeyError(token)  # noqa: B904 - the context is what is tested
    except KeyError as error:
        raise BaseExceptionGroup(f"of {token}", errors) from error


def test_nothing_of_an_error_says_a_secret_and_its_classes_stay() -> None:
    with pytest.raises(BaseExceptionGroup) as caught, hiding_in_errors(make(TOKEN)):
        raise_all(TOKEN)
    group = caught.value
    text = "".join(traceback.format_exception(group))
    assert "hunter2" not in text
    assert [type(each).__name__ for each in group.exceptions] == [
        *("CalledProcessError", "FileNotFoundError", "SystemExit", "Odd")
    ]
    failed, missing, *_ = group.exceptions
    assert isinstance(failed, subprocess.CalledProcessError)
    assert isinstance(missing, OSError)
    assert (failed.cmd, failed.output, failed.stderr) == (["curl", "***"], "***", b"***")
    assert (missing.filename, missing.errno) == ("/a/***", 2)
    assert isinstance(group.__cause__, KeyError)
    cause = group.__cause__.__context__
    assert isinstance(cause, ValueError)
    assert cause.args == ({"k": ["***", b"***"], "***": 1}, ("***",), {"***"})
    for error in (group, group.__cause__, cause):
        frame = error.__traceback__
        while frame is not None:
            if frame.tb_frame.f_code is raise_all.__code__:
                assert frame.tb_frame.f_locals == {}
            frame = frame.tb_next


def test_the_context_of_an_error_that_another_one_replaces_is_not_the_unmasked_one() -> None:
    with pytest.raises(Exception, match=r"odd \*\*\*") as caught, hiding_in_errors(make(TOKEN)):
        raise Odd(TOKEN)
    assert type(caught.value).__name__ == "Odd"
    assert isinstance(caught.value, Odd)
    assert caught.value.__context__ is None


def test_an_error_that_cannot_be_masked_is_not_shown() -> None:
    error = ValueError(TOKEN)
    for _ in range(2_000):
        outer = RuntimeError(TOKEN)
        outer.__context__ = error
        error = outer  # type: ignore[assignment]
    with pytest.raises(RuntimeError) as caught, hiding_in_errors(make(TOKEN)):
        raise error
    assert "could not be masked" in str(caught.value)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_an_error_without_a_secret_in_it_and_one_without_secrets_stay_themselves() -> None:
    given = OSError(2, os.strerror(2), "/nowhere")
    for mask in (make(TOKEN), Mask()):
        with pytest.raises(OSError, match="nowhere") as caught, hiding_in_errors(mask):
            raise given
        assert caught.value is given


@pytest.mark.skipif(sys.platform != "linux", reason="the bash of macOS quotes in ways of its own")
def test_what_shells_make_of_a_secret_when_they_quote_it_is_hidden() -> None:
    program = 'printf "%q\n" "$1"; X=$1; declare -p X; set -x; : "$1"'
    for token in (TOKEN, 'a\tb\'c \\ "d" $e `f` é', "~#x,y!{z}^[w] | * ? <> ;&()"):
        for locale in ("C", "C.UTF-8"):
            done = subprocess.run(
                ["bash", "-c", program, "-", token],
                capture_output=True,
                check=True,
                env={**os.environ, "LC_ALL": locale},
            )
            shown = make(token).hide_bytes(done.stdout + done.stderr)
            words = shown.replace(b"declare -- X=", b"").replace(b"+ : ", b"").split(b"\n")
            assert {word.strip(b"$'\"") for word in words} <= {b"***", b""}, (shown, locale)
