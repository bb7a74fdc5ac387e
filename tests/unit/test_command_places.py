"""Where a value may stand in a command, and where not, with the reason."""

from __future__ import annotations

import pytest

from flowq.commands.places import find_places, with_places
from flowq.spec import Shell

X = "${{ inputs.v }}"

ARITHMETIC = """
echo $((§))
echo $(( § + 1 ))
echo "$((§))"
echo $(( $(echo §) ))
((§))
echo $[ § ]
a[§]=1
echo ${a[§]}
echo ${x:§}
echo ${x:0:§}
for ((i=0; i<§; i++)); do :; done
[[ § -eq 1 ]]
[[ 1 -lt § && x ]]
[[ x || § -ge 2 ]]
[ § -eq 1 ]
[ 1 -ne "§" ]
test § -gt 1
let x=§
let "x = §"
declare -i n; n=§
typeset -i n=1; n=§
integer n; n=§
(( n = 1 )); n=§
n=§; echo $((n + 1))
n=§; (( n++ ))
n=§; let x=n+1
n=§; [[ n -eq 1 ]]
n=§; [[ $n -eq 1 ]]
n=§; printf '%s %d\\n' a "$n"
n=§; printf %d n
a=§; n=$a; echo $((n))
a=§; for n in "x$a"; do echo $((n)); done
f() { echo $(( $1 + 1 )); }; f §
f() { local n=$1; [[ $n -gt 1 ]]; }; f §
g() { f "$@"; }; f() { echo $(( $2 )); }; g a §
n=§; echo ${a[n]}
n=§; echo ${a:n}
for n in §; do echo $((n)); done
RANDOM=§
SECONDS=§
shift §
return §
break §
ulimit -n §
printf %d §
echo a$[§]
echo "$[ § ]"
echo "a$((§))b"
x=$[§]
: $[ $(echo §) ]
echo $((1 + $((§))))
echo "${x:$((§))}"
echo a"$((§))"
repeat § ls
printf %d §
printf '%*s' § x
printf "%s %x" a §
"""
BUILTINS = """
eval §
eval "echo §"
eval "$(echo §)"
trap § EXIT
trap "echo §" EXIT
source §
. §
. ./§
read §
unset §
unset "a[§]"
export A=§
export §
declare A=§
declare "A=§"
typeset A=§
local A=§
readonly A=§
printf -v x '%s' §
printf §
printf "§\\n"
printf "$format" §
test -v §
[ -v § ]
[[ -v § ]]
[[ -o § ]]
[[ a =~ § ]]
[ § = a -o § = b ]
[ -n § -a x ]
[ § § § ]
test § § §
set -- §
set §
alias x=§
mapfile -C § a
getopts § x
command eval §
builtin eval §
command . §
\\eval §
'eval' §
ev""al §
print §
A=x; eval § "$A"
PS4=§
PROMPT_COMMAND=§
BASH_ENV=§ bash x.sh
IFS=§
x=§; eval "$x"
x=§; trap "$x" EXIT
x=§; echo "${!x}"
x=§; echo ${x@P}
x=§; export $x
x=§; declare "$x=1"
x=§; unset "$x"
x=§; read $x
x=§; y="ls $x"; eval "$y"
f() { eval "$1"; }; f §
source /dev/stdin <<< §
"""
INTERPRETERS = """
sh -c §
sh -c "echo §"
bash -lc "ls §"
bash -euo pipefail -c "echo §"
bash -co pipefail §
/bin/sh -c "§"
zsh -c "§"
fish -c "§"
busybox sh -c "§"
sh -c "$(cat §)"
sh §
sh <<EOF
bash <<< §
ssh host §
ssh host "ls §"
su -c § user
su user -c "§"
sudo §
sudo sh -c "§"
doas ls §
docker exec box sh -c "§"
docker exec box ls §
docker run --rm image sh -c "§"
docker compose exec box ls §
podman exec box ls §
kubectl exec pod -- ls §
ls | xargs rm §
xargs -I{} sh -c "§"
parallel echo §
watch ls §
python -c "print('§')"
python3 -c "§"
python3.11 -W ignore -c "§"
python3 §
perl -e "§"
perl -ne "§" file
ruby -e "§"
node -e "§"
node --eval="§"
php -r "§"
lua -e "§"
awk "§"
awk "/§/" file
gawk -v a=§ b
sed "s/a/§/" file
sed -i s/a/§/ file
sed -n p §
jq ".a = §"
psql -c "select §"
psql -h host --command="§"
mysql -e "§"
sqlite3 db "§"
env sh -c "§"
env §
env -S "§"
nohup bash -c "§"
timeout 5 sh -c "§"
time sh -c "§"
exec sh -c "§"
nice -n 5 bash -c "§"
setsid bash -c "§"
find . -exec sh -c "§" \\;
find . -exec sed "§" {} +
"$SHELL" -c "§"
$PYTHON -c "§"
${RUN:-sh} -c "§"
§ -c §
echo § | sh
echo § | bash -s
printf '%s' § | python3
echo § | ssh host
echo § | sudo sh
echo "§" | { sh; }
cat <<< § | sh
"""
QUOTES = """
echo '§'
echo 'a'§'b §'
echo "it's" '§'
echo $'§'
echo $'it\\'s §'
echo \\§
echo "\\§"
echo `echo §`
echo "`echo §`"
echo ${x:-§}
echo "${x:-§}"
echo ${x#§}
echo ${x#"§"}
echo "${x#'§'}"
echo "${x/§/b}"
x=${y:=§}
cat >&§
cat <&§
§() { echo; }
function § { echo; }
echo *(e:§:)
echo ${(e)§}
select x in §; do echo; done
echo "§
if true; then echo §
coproc cat §
"""
DOCUMENTS = [
    "a=§; sh <<EOF\n$a\nEOF",
    "a=§; cat <<EOF | sh\n$a\nEOF",
    "cat <<'EOF'\n§\nEOF",
    'cat <<"EOF"\n§\nEOF',
    "cat <<\\EOF\n§\nEOF",
    "cat <<E\\OF\n§\nEOF",
    "cat <<'E F'\n§\nE F",
    "cat <<E.F\n§\nE.F",
    "cat <<$END\n§\n$END",
    "cat <<§\nx\n§",
    "cat <<EOF\n$((§))\nEOF",
    "cat <<EOF\n`echo §`\nEOF",
    "cat <<EOF\na `\n§\n`\nEOF",
    "cat <<EOF\n$[§]\nEOF",
    "cat <<EOF\n${a[§]}\nEOF",
    "cat <<EOF\n$(( $(echo §) ))\nEOF",
    'cat <<EOF\n"$((§))"\nEOF',
    "cat <<EOF\n\\\\$((§))\nEOF",
    "cat <<EOF\n${x:-§}\nEOF",
    "cat <<EOF\n\\§\nEOF",
    "cat <<EOF\nEOFX\n§\nEOF",
    "cat <<EOF\nx\nEOFX\n§",
    "cat <<EOF\nx\n EOF\n§",
    "cat <<A <<B\nx\nA\n§\nB",
    "cat <<EOF\n§",
    "cat <<EOF | sh\n§\nEOF",
    "cat <<EOF | bash -s\n§\nEOF",
    "sh <<EOF\n§\nEOF",
    "sh -s <<EOF\necho §\nEOF",
    "ssh host <<EOF\necho §\nEOF",
    "sudo sh <<EOF\necho §\nEOF",
    "docker exec -i box sh <<EOF\necho §\nEOF",
    "python3 - <<EOF\nprint('§')\nEOF",
    "psql <<EOF\nselect '§'\nEOF",
    "sh <<EOF\n§\nEOF",
    "cat <<EOF\n$(eval §)\nEOF",
    "alias ls=eval\nls §",
    "cat <<EOF > >(sh)\n§\nEOF",
    "> >(sh) cat <<EOF\n§\nEOF",
    "echo $((\n§))",
]
REFUSED = [
    *(line for line in (ARITHMETIC + BUILTINS + INTERPRETERS + QUOTES).split("\n") if "§" in line),
    *DOCUMENTS,
]


@pytest.mark.parametrize("text", REFUSED)
def test_a_value_is_refused_where_it_could_become_code(text: str) -> None:
    command = text.replace("§", X)
    places = find_places(command, "bash")
    assert any(place.refusal for place in places)
    assert "x" in with_places(Shell(command)).places
    for place in places:
        assert place.refusal is None or place.refusal.instead


ALLOWED = """
echo §
echo "Hello §"
ls -l § > § 2>> §
> § echo §
> >(cat) echo §
2> >(tee log) ls §
curl -o x "https://example.org/§?q=§" | tee §
if grep -q § file; then echo §; elif [ -f § ]; then exit 1; fi
while read -r line; do echo "§ $line"; done < §
for x in § 'a' "b §"; do echo "$x"; done
case § in a|§) echo yes;; *) exit 1;; esac
x=§ y="a §" && echo "$x$y"
A=§ make all
make VERSION=§ all
git commit -m § && git tag "v§"
docker build -t app:§ . && docker run --rm -e A=§ app:§
docker run image sh -c 'echo "$1"' _ §
sh -c 'echo "$1"' _ §
bash -euo pipefail -c 'echo "$1"' _ §
sh ./§
sh script.sh §
bash -x script.sh --name=§
python3 script.py § -c §
python3 -m build --outdir §
perl script.pl §
./deploy § -c §
§ --help
./§.sh
$SUDO ls §
"$PYTHON" script.py §
env A=§ B=1 ls §
timeout 5 curl §
nohup ./server --port § &
find § -name "*.§" -exec rm {} +
find . -name §
grep -c § file
cp § "$SERVED" && ls "$SERVED"
cat <(sort §) <<< §
[[ -n § && ( § == a* || ! -f § ) ]]
[[ $x = § ]]
[ § ] || test -z §
a=(§ "b §"); a+=(§)
kill -9 §
cd § && pwd
curl https://example.org/§ | sh
psql -h § -d §
printf '%s %-5s %b\\n' § a §
{ echo §; } | ( cat; echo § )
f() { echo "$1" §; }; f §
true # it's §
n=§; echo "$n" ${#n} ${n%.*}
n=2; x=$((1 << n)); echo §
echo "$(cat § | wc -l)" $(basename "§")
echo ${x:-a} "${x#"a"}" §
! echo §
time ls §
export A; A=§
a=§; export B="$a" "C=$a"; local d=$a; echo ${!b} ${#a}
a=§; n=${#a}; n=$(echo "$a" | wc -c); echo $((n))
retry() { for ((i=0; i<3; i++)); do "$@" && return 0; n=$((n+1)); done; }; retry curl §
g() { echo $(( $1 )); }; f() { echo "$1"; }; f §; g 2
say() { print -r -- "$1"; }; say §
s=§; printf '%s\\n' "$s"
f() { printf '%s\\n' "$@"; }; f §
echo § | "$TOOL" x
echo § | while read -r line; do echo "$line"; done
echo § | xargs -I{} cp {} x
echo § | xargs sh -c 'rm "$1"' _
name=§; set -- "$name"; echo "$1"
t=$(mktemp); echo § > "$t"; cat "$t"
x=$(echo §); for i in $x; do echo $i; done
n=$(wc -l < §); echo $((n + 1))
git commit -m § && git checkout § -- file
tar -C § -xzf a.tgz && rsync -e ssh § b && scp -i key § host:
host=§; ping "$host" && git commit -m "$host"
"""


@pytest.mark.parametrize("text", [line for line in ALLOWED.split("\n") if line])
def test_a_value_is_allowed_where_it_is_nothing_but_a_word(text: str) -> None:
    places = find_places(text.replace("§", X), "bash")
    assert [place.refusal for place in places if place.refusal] == []


@pytest.mark.parametrize(
    "text",
    [
        "n=2; x=$((1<<n))\necho §",
        "n=2; let 'x = 1 << n'\necho §",
        "# don't\necho §",
        "echo a#b §",
        'echo "it\'s" §',
        "echo 'say \"hi' §",
        "cat <<EOF\nit's\nEOF\necho §",
        "cat <<'EOF'\n`don't`\nEOF\necho §",
        "cat <<-EOF\n\tit's\n\tEOF\necho §",
        'cat <<"EOF"\nit\'s\nEOF\necho §',
        'x="$(echo "a" §)"; echo $x',
        "x=abc; echo ${#x} §",
        "echo $# §",
        "echo 'a\\' §",
        'echo "a\\"" §',
        "sed 's/\\\\/x/' /etc/hostname; echo §",
        '[[ abc =~ ^[\\"] ]] || echo §',
        "echo 'a`b' §",
        "echo \\` §",
        'echo "\\\n§"',
        'echo "a\\\n§" "\\\n\\\n  §"',
        'echo "$(basename "\\\n§")"',
        "curl -s \\\n  §",
        "for i in 1 2; do\n  echo $i § # it's fine\ndone\necho §",
        "cat <<EOF\n§\nEOF\n",
        "cat <<EOF > out && echo §\n§\nEOF\necho §",
        "while read l; do echo §; done <<EOF\n§\nEOF",
    ],
)
def test_what_is_around_a_value_does_not_matter(text: str) -> None:
    places = find_places(text.replace("§", X), "bash")
    assert [place.refusal for place in places if place.refusal] == []


@pytest.mark.parametrize(
    ("text", "shells", "others"),
    [
        ("cat <<< §", "bash ksh ksh93 mksh zsh", "sh dash ash"),
        ("[[ § == a ]]", "bash ksh ksh93 mksh zsh", "sh dash ash"),
        ("a=(§)", "bash ksh ksh93 mksh zsh", "sh dash ash"),
        ("cat <(echo §)", "bash ksh93 zsh", "sh dash ash mksh"),
        ("ls &> §", "bash zsh", "sh dash ash mksh ksh"),
        ("echo $'a' §", "bash ksh mksh zsh", "sh dash ash"),
        ("exit §", "bash sh dash ash", "ksh ksh93 mksh zsh"),
        ("echo §", "bash /bin/sh dash ash ksh93 /opt/mksh zsh bash.exe", ""),
    ],
)
def test_what_a_shell_does_not_have_holds_no_value_there(
    text: str, shells: str, others: str
) -> None:
    for shell in (shells + " " + others).split():
        (place,) = find_places(text.replace("§", X), shell)
        assert bool(place.refusal) is (shell in others.split()), shell


def test_a_part_that_cannot_be_read_refuses_no_others() -> None:
    places = find_places(f"echo {X}\ncat < a <<< {X}\necho {X}", "bash")
    assert [bool(place.refusal) for place in places] == [False, True, True]


@pytest.mark.parametrize(
    ("before", "after"), [('"$(', ')"'), ("{ ", "; }"), ("if a; then ", "; fi"), ("( ", " )")]
)
def test_a_value_may_stand_deep_but_not_too_deep(before: str, after: str) -> None:
    for depth, is_refused in ((40, False), (300, True)):
        command = f"echo a; {before * depth}echo {X}{after * depth}"
        (place,) = find_places(command, "bash")
        assert bool(place.refusal) is is_refused
    (place,) = find_places(f"echo {X} | {before * 300}cat{after * 300}", "bash")


def test_a_plan_knows_its_places_and_asks_nobody_again(monkeypatch: pytest.MonkeyPatch) -> None:
    planned = with_places(Shell(f'echo {X} "a {X}" # {X}', "dash"))
    assert planned.places == "wqq"
    monkeypatch.setattr("flowq.commands.trees._parser", None)
    assert with_places(planned) is planned
    assert with_places(Shell("echo")) == Shell("echo")
    assert with_places(Shell(("echo", X))) == Shell(("echo", X))
    assert with_places(Shell(f"echo {X}", "fish")).places == ""
