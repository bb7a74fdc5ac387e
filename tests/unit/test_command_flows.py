"""Values that get to other places of a command, by way of variables, functions and pipes."""

from __future__ import annotations

import sys

import pytest

from flowq.commands.flows import MAX_NESTED
from flowq.commands.places import find_places

X = "${{ inputs.v }}"

FOLLOWED = r"""
echo § > >(sh)
> >(sh) echo §
2> >(sh) echo § >&2
x=1 > >(sh) echo §
< <(echo §) sh
> >(sh) cat <<< §
cat <<< § > >(sh)
echo § | > >(sh) cat
a=§; > >(sh) echo "$a"
a=§; echo "$a" > >(sh)
coproc sh; echo § >&${COPROC[1]}
coproc { sh; }; echo § >&${COPROC[1]}
a=§; coproc P { sh; }; echo "$a" >&${P[1]}
echo § | tee >(sh)
echo § | tee >(bash) > /dev/null
echo § | "$SHELL"
echo "§" | ${SHELL:-sh}
a=§; bash <<< $a
a=§; bash <<< "x $a"
a=§; echo "$a" | sh
a=§; printf '%s\n' "$a" | tr a b | sh
a=$(echo §); eval $a
b=§; a=$(echo "$b"); eval "$a"
a=$(printf %s §); [ "$a" -eq 1 ]
a=$(echo §); echo $((a))
PS4=$a; a=§; set -x
e=eval; $e §
e=eval; a=§; $e "$a"
x="sh -x"; echo § | $x
$(echo §) x
a=§; $a
echo § | xargs -I{} sh -c {}
echo § | xargs -I % sh -c 'rm %'
echo § | xargs sh -c
echo § | parallel
echo § | while read -r x; do eval "$x"; done
echo § | { read -r n; [ "$n" -gt 3 ]; }
read -r x <<< §; eval "$x"
read -r x < <(echo §); eval "$x"
mapfile -t x <<< §; eval "${x[0]}"
cat <(echo §) | sh
bash < <(echo §)
f() { sh; }; echo § | f
f() { echo "$1" | sh; }; f §
a=§; ssh host "$a"
a=§; awk "$a" file
a=§; sudo $a
LD_PRELOAD=§ ls
LD_PRELOAD=§; export LD_PRELOAD
a=§; export LD_PRELOAD="$a"
a=§; env LD_PRELOAD="$a" ls
env GIT_SSH_COMMAND=§ git fetch
GIT_SSH_COMMAND="ssh -i §" git fetch
PATH="§:$PATH"
a=§; PATH=$a:$PATH
BASH_ENV=§ bash script.sh
PERL5OPT=§ perl x
git -c § status
git bisect run §
git submodule foreach §
git rebase -x §
tar --to-command=§ -xf x
tar -cf x -I § y
rsync -e § a b
rsync --rsh="§" a b
scp -o § a b
make --eval=§
"""
"""What reads a value as code by way of a variable, a pipe, or an option."""

ROUNDABOUT = r"""
n=§; x='n+1'; echo $((x))
n=§; x=n; echo $((x))
n=§; for x in n; do echo $((x)); done
declare -i x; n=§; x=n
n=§; nameref r=n; echo $((r))
n=§; a=([n]=5)
n=§; a+=([$n]=5)
n=§; unset 'a[n]'
n=§; read 'a[n]' <<< x
n=§; declare 'a[n]=1'
n=§; exec {a[n]}>/dev/null
n=§; echo $a[n]
n=§; echo "$a[$n]"
n=§; y=abc; echo ${y:$n:1}
n=§; echo "${y:(n)}"
n=§; for i in 1; do break $n; done
n=§; ulimit -n $n
n=§; bye $n
n=§; [ $n ]
n=§; [ ! $n ]
n=§; [ $n = a ] && echo yes
n=§; test $n
n=§; op=-v; x=op; [ "$x" "$n" ]
f() { [ $1 = a ]; }; f §
n=§; command $n
n=§; time $n
n=§; timeout 5 $n
n=§; env A=1 $n
sleep 0 & wait -n -p §
jobs -x eval §
n=§; jobs -x eval "$n"
f() { eval "$1"; }; time f §
f() { eval "$1"; }; noglob f §
f() { eval "$1"; }; g=$(echo f); $g §
f() { eval "$1"; }; for g in f; do $g §; done
f() { "$@"; }; f eval §
f() { shift; "$@"; }; f a eval §
g() { echo $(( $1 )); }; f() { "$@"; }; f g §
f() { echo "${!1}"; }; f §
f() { echo "${@@P}"; }; f §
f() { for a; do echo $((a)); done; }; f §
f() { getopts n: o; echo $((OPTARG)); }; f -n§
x=§; echo "${!x:-a}"
x=(§); echo "${x[0]@P}"
x=(§); echo "${!x[0]}"
echo §; eval "$_"
echo §; echo $((_))
: §; [[ $_ -eq 1 ]]
n=§; set -- "$n"; eval "$1"
n=§; set -- "$n"; echo $(( $1 ))
n=§; set -A a -- "$n"; echo $((a[0]))
read -r <<< §; eval "$REPLY"
echo § | while read; do echo $((REPLY)); done
mapfile <<< §; echo $((MAPFILE[0]))
g() { read x; echo $((x)); }; echo § | g
g() { while read -r x; do eval "$x"; done; }; g <<< §
n=§; read y <<< "$n"; eval "$y"
n=§; while read -r y; do eval "$y"; done < <(echo "$n")
n=§; : ${y:=$n}; echo $((y))
n=§; export "y=$n"; eval "$y"
echo § | bash /dev/stdin
echo § | bash -x /proc/self/fd/0
bash /dev/stdin <<< §
echo § | xargs -0I% sh -c 'rm %'
echo § | xargs --replace=% sh -c 'rm %'
echo § | xargs env
x=§; trap 'echo $((x))' EXIT
x=§; eval 'let y=x'
x=§; eval "echo \$((x))"
x=§; eval echo '$((x))'
x=§; PS4='$((x))'; set -x; ls
x=§; eval "eval 'eval \"eval eval eval ls\"'"
x=§; echo ${(e)x}
x=§; echo ${(l:x:)y}
command_not_found_handle() { eval "$1"; }; no-such-program §
for e in eval ls; do $e §; done
e=(eval); "${e[@]}" §
"""
"""… by way of names in other names, defaults of builtins, `$_`, code in quotes, and syntax that the
grammar does not know. Each of them executed a value in one shell or more."""


THROUGH_SEVERAL = r"""
f() { g "$@"; }; g() { "$@"; }; f eval §
f() { g "$@"; }; g() { h "$@"; }; h() { "$@"; }; f eval §
f() { command "$@"; }; f eval §
f() { builtin "$@"; }; f eval §
f() { time "$@"; }; h() { eval "$1"; }; f h §
f() { x=("$@"); "${x[@]}"; }; f eval §
f() { "$@"; }; $(echo f) eval §
f() { if true; then g x "$@"; fi; }; g() { shift; "$@"; }; f eval §
exec 3< <(echo §); source /dev/fd/3
exec <<< §; . /dev/stdin
exec <<< §; sh
exec <<< §; read -r x; eval "$x"
a=§; exec <<< "$a"; . /dev/stdin
command exec <<< §; sh
e=exec; $e <<< §; sh
eval 'exec < <(echo "$a")'; a=§; sh
f() { exec <<< "$1"; }; f §; sh
exec > >(sh); echo §
exec 3> >(sh); echo § >&3
exec {fd}> >(sh); echo § >&$fd
exec &> >(sh); echo §
exec 2> >(sh); echo § >&2
> >(sh) exec; echo §
f() { exec > >(sh); }; f; echo §
command exec > >(sh); echo §
a=§; exec > >(sh); echo "$a"
a=§; exec > >(sh); printenv; declare -p a
eval 'exec > >(sh)'; echo §
exec > >(tee >(sh)); echo §
exec > >(g); g() { sh; }; echo §
f() { g; }; g() { sh; }; echo § | f
f() { g; }; g() { h; }; h() { sh; }; echo § | f
f() { g; }; g() { read x; eval "$x"; }; echo § | f
f() { echo "$(sh)"; }; echo § | f
echo § | echo $(sh)
echo § | echo "$(sh)"
echo § | A=$(sh) ls
echo § | cat <(sh)
echo § | eval sh
echo § | eval 'sh'
echo § | { trap sh EXIT; }
echo § | { trap sh EXIT; exit; }
echo § | eval "$(cat)"
echo § | { x=$(cat); eval "$x"; }
echo § | { x=$(</dev/stdin); eval "$x"; }
echo § | echo $(( $(cat) ))
echo § | { [[ $(cat) -eq 1 ]]; }
f() { echo §; } > >(sh); f
command echo § | sh
builtin echo § | sh
/bin/echo § | sh
env echo § | sh
f() { echo "$@"; }; f § | sh
f() { echo "$@"; }; x=$(f §); eval "$x"
f() { cat <<< "$1"; }; f § | sh
f() { printf %s "$1"; }; g() { f "$1"; }; g § | sh
x=$(cat <<< §); eval "$x"
x=$(echo § | cat); eval "$x"
x=$(true; echo §); eval "$x"
x=sh; echo § | xargs -I{} $x -c {}
set -- eval; "$@" §
x=eval; y=$x; $y §
echo § | sh -c 'sh'
echo § | sh -c sh
echo § | bash -c '. /dev/stdin'
bash < <(cat <<< §)
sh -c "$(cat)" <<< §
echo § | sh -c "$(cat)"
bash -c 'echo $(($1))' x §
bash -c 'eval "$1"' x §
sh -c '$1' x §
f() { echo §; }; f | sh
f() { echo §; }; f > >(sh)
f() { echo §; }; x=$(f); eval "$x"
a=§; f() { echo "$a"; }; f | sh
f() { echo §; }; g() { f; }; g | sh
f() { echo §; }; g() { "$@"; }; g f | sh
f() { x=$(g "$1"); echo "$x"; }; g() { echo "$1"; }; y=$(f §); eval "$y"
x=$(if true; then echo §; fi); eval "$x"
x=$(command echo §); eval "$x"
sh -c 'sh -c "echo \$((\$1))" y "$1"' x §
sh -c '"$@"' x eval §
sh -c 'f() { eval "$1"; }; f "$1"' x §
exec 3>&1; exec 1> >(bash); echo §
"""
"""… by way of functions that call functions, `exec` that redirects what follows, what functions
print, and programs that read the input of the command around them."""

DOCUMENTS = [
    "exec <<E\n§\nE\nsh",
    "exec 3<<E\n§\nE\n. /dev/fd/3",
    "echo § | cat <<E\n$(sh)\nE",
    'x=$(cat <<E\n§\nE\n); eval "$x"',
    'a=§; x=$(cat <<E\n$a\nE\n); eval "$x"',
    "n=§; cat <<E\n$((n))\nE",
    "n=§; cat <<E\n$[n]\nE",
    "n=§; cat <<E\n`eval $n`\nE",
]

REFUSED = [*filter(None, (FOLLOWED + ROUNDABOUT + THROUGH_SEVERAL).split("\n")), *DOCUMENTS]


@pytest.mark.parametrize("text", REFUSED)
def test_a_value_is_refused_where_something_later_executes_it(text: str) -> None:
    places = find_places(text.replace("§", X), "bash")
    refusals = [place.refusal for place in places if place.refusal]
    assert refusals
    assert all(refusal.instead for refusal in refusals)


ALLOWED = r"""
n=§; [ "$n" = a ] && [ -n "$n" ] && test "$n" != b
n=§; timeout 5 curl $n; env A=1 ls $n; time ls $n
n=§; [ -n "$n" -a -d x ]
a=(§ b); for i in "${!a[@]}"; do echo "${a[$i]}"; done
n=§; i=0; i=$((i+1)); echo "$n $i"
n=§; trap 'rm -f "$n"' EXIT; trap - INT
n=§; x=abc; echo "$n" ${x:1:2} ${x:-$n}
log() { echo "$(date) $*" >&2; }; log §
retry() { local i; for i in 1 2; do "$@" && break; done; }; retry git push §
while getopts v: o; do echo "$OPTARG"; done; echo §
read -r _ x < file; echo §
exec 2>&1; echo §
exec >log.txt; echo §
exec > >(tee log.txt) 2>&1; echo §
exec 3>&1; echo § >&3
exec < file; sort; echo §
exec ./server --name §
exec <<< §; read -r x; echo "$x"
exec 3< <(cut -f 1 file); while read -r x <&3; do echo "$x §"; done
sh -c 'echo "$1"' x §
a=§; sh -c 'echo "$1"' x "$a"
a=§; sh -c 'exec "$@"' x ls "$a"
sh -c 'cd x && "$@"' _ make §
f() { g "$@"; }; g() { "$@"; }; f git push §
retry() { timeout 5 "$@"; }; retry curl §
log() { echo "$*" >&2; }; retry() { "$@" || log "again $1"; }; n=$(retry curl §); [ "$n" -gt 3 ]
n=$(grep -c § file || true); [ "$n" -gt 3 ]
n=$(echo § | wc -c); [ "$n" -gt 3 ]
n=$(cat §); [ "$n" -gt 3 ]
count() { local n; n=$(wc -l < "$1"); echo "$n"; }; n=$(count §); [ "$n" -gt 3 ]
curl https://example.org/§/install.sh | sh
echo § | docker login -u "$(whoami)" --password-stdin
echo § | tee "$(mktemp)"
echo § | { n=$(wc -c); echo "$n"; }
trap 'rm -f x' EXIT; echo § | cat
echo § | f; f() { g; }; g() { cat; }
sum=$(echo § | sha256sum | cut -c1-8); echo "$sum"
echo § | while read -r x; do n=$((n+1)); echo "$x"; done
n=$(date +%s); echo $((n + 1)); echo § | cat
"""


@pytest.mark.parametrize("text", [line for line in ALLOWED.split("\n") if line])
def test_a_value_is_allowed_where_all_that_gets_it_leaves_it_a_text(text: str) -> None:
    places = find_places(text.replace("§", X), "bash")
    assert [place.refusal for place in places if place.refusal] == []


def test_what_has_the_name_without_quotes_is_told_to_quote_it() -> None:
    (place,) = find_places(f"n={X}; [ $n = prod ] && ./deploy", "bash")
    assert place.refusal is not None
    assert place.refusal.instead == 'write it as "$n" there'


def test_code_within_code_is_followed_as_deep_as_is_said_and_refused_below() -> None:
    for depth, is_refused in ((MAX_NESTED, False), (MAX_NESTED + 2, True)):
        (place,) = find_places(f"{'eval ' * depth} ls; echo {X}", "bash")
        assert bool(place.refusal) is is_refused


def test_a_long_command_is_read_in_a_time_that_grows_with_its_length() -> None:
    functions = (f'f{i}() {{ f{i + 1} "$@"; }}; $x a{i}' for i in range(400))
    (place,) = find_places("\n".join([f"y={X}", *functions]), "bash")
    assert place.refusal is None


VALUE = "${{ inputs.n }}"
LARGE = 2_000


@pytest.mark.parametrize(
    "command",
    {
        "a command that starts another, which starts another": "timeout " * LARGE + VALUE,
        "the same in code": "eval " + "timeout " * LARGE + '"$x"\necho ' + VALUE,
        "many words": "echo " + "a " * LARGE + VALUE,
        "many words of variables": "f " + "a$x " * LARGE + VALUE,
        "many values": "echo " + f"{VALUE} " * LARGE,
        "many redirections": f"echo {VALUE}" + " < a" * LARGE,
        "a name that may be many": "g=a\n" * LARGE + "$g x\n" * LARGE + f"$g {VALUE}",
        "deep substitutions": "echo $(" * LARGE + VALUE + ")" * LARGE,
        "deep quotes": 'echo "$(' * LARGE + VALUE + ')"' * LARGE,
    }.items(),
    ids=lambda case: case[0],
)
def test_a_large_command_is_judged_in_a_bounded_number_of_steps(command: tuple[str, str]) -> None:
    steps = 0

    def count(*_: object) -> None:
        nonlocal steps
        steps += 1
        assert steps < 4_000_000

    sys.setprofile(count)
    try:
        assert find_places(command[1], "bash")
    finally:
        sys.setprofile(None)


def test_a_value_stands_in_no_command_with_very_many_words_or_wrappers() -> None:
    for count, start, reason in ((600, "echo", "500 words"), (9, "timeout 5", "8 commands")):
        (place,) = find_places(f"{f'{start} ' * count}{VALUE}", "bash")
        assert place.refusal is not None
        assert reason in place.refusal.reason
    (place,) = find_places("timeout 5 nice -n 3 cat " + VALUE, "bash")
    assert place.refusal is None
