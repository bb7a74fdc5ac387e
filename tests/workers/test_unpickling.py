"""What a pickle may do to a worker with `--allow` while it is read: make data, and nothing else."""

from __future__ import annotations

import datetime
import fractions
import ipaddress
import pathlib
import pickle
import pickletools
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from allowed_shop import models
from rq import Retry
from rq.serializers import PickleSerializer

from flowq import allowed
from flowq.allowed import Allowed
from flowq.runtime import unpickling
from flowq.runtime.waiting import Wait

SHOP = Allowed(("allowed_shop.*",))


@pytest.fixture(autouse=True)
def restricted() -> Iterator[None]:
    loads: Callable[..., Any] = PickleSerializer.loads
    unpickling.restrict(SHOP)
    yield
    allowed.restrict(None)
    PickleSerializer.loads = staticmethod(loads)


def written(*opcodes: bytes) -> bytes:
    return b"".join([pickle.PROTO + b"\x04", *opcodes, pickle.STOP])


def text(value: str) -> bytes:
    return pickle.SHORT_BINUNICODE + bytes([len(value)]) + value.encode()


def named(module: str, name: str) -> bytes:
    return text(module) + text(name) + pickle.STACK_GLOBAL


def called(function: bytes, *arguments: bytes) -> bytes:
    return function + pickle.MARK + b"".join(arguments) + pickle.TUPLE + pickle.REDUCE


def made(function: bytes, *arguments: bytes) -> bytes:
    return function + pickle.MARK + b"".join(arguments) + pickle.TUPLE + pickle.NEWOBJ


STATE = pickle.NONE + pickle.EMPTY_DICT + text("price") + text("bad") + pickle.SETITEM
READONLY = b"\x98"  # READONLY_BUFFER
BUILD = STATE + pickle.TUPLE2 + pickle.BUILD
ONE = pickle.BININT1 + b"\x01"
ORDER = named("allowed_shop.models", "Order")
RED = called(named("allowed_shop.models", "Color"), text("red"))
AGAIN = pickle.MEMOIZE + pickle.POP + pickle.BINGET + b"\x00"
ZONES = called(named("builtins", "getattr"), named("zoneinfo", "ZoneInfo"), text("_unpickle"))


@pytest.mark.parametrize(
    "data",
    {
        "a class that is admitted": ORDER + BUILD,
        "one of RQ": named("rq.job", "Retry") + BUILD,
        "one of flowq": named("flowq.runtime.waiting", "Wait") + BUILD,
        "a plain one": named("fractions", "Fraction") + BUILD,
        "a path": named("pathlib", "PurePath") + BUILD,
        "an address": named("ipaddress", "IPv4Address") + BUILD,
        "by the memo": ORDER + AGAIN + BUILD,
        "a copy on the stack": ORDER + pickle.DUP + BUILD + pickle.POP,
        "in the old way": b"callowed_shop.models\nOrder\n" + BUILD,
        "append": ORDER + ONE + pickle.APPEND,
        "extend": ORDER + pickle.MARK + ONE + pickle.APPENDS,
        "set an item": ORDER + ONE + ONE + pickle.SETITEM,
        "add": ORDER + pickle.MARK + ONE + pickle.ADDITEMS,
        "a member of an enum": RED + BUILD,
        "a member by the memo": RED + AGAIN + BUILD,
        "a member in the old way": b"(" + text("red") + b"iallowed_shop.models\nColor\n" + BUILD,
        "a member of a plain enum": called(named("uuid", "SafeUUID"), b"K\x00") + BUILD,
        "a member by a view of it": RED + READONLY + BUILD,
        "a buffer from elsewhere": b"\x97" + ORDER,
        "a function": ZONES + BUILD,
        "the registry of extensions": pickle.EXT1 + b"\x01" + ORDER,
    }.items(),
    ids=lambda case: case[0],
)
def test_no_class_function_or_enum_member_is_changed(data: tuple[str, bytes]) -> None:
    with pytest.raises((pickle.UnpicklingError, ValueError)):
        PickleSerializer.loads(written(data[1]))
    shared = [models.Order, models.Color.RED, Retry, Wait, fractions.Fraction, pathlib.PurePath]
    assert not any("price" in vars(each) for each in [*shared, ipaddress.IPv4Address])


SIZE = pickle.LONG1 + b"\x05\x00\x00\x00\x00\x01"  # 2**32
RANGE = called(named("builtins", "range"), SIZE)
EXPONENT = text("1e999999999")
DECIMAL = called(named("decimal", "Decimal"), EXPONENT)


@pytest.mark.parametrize(
    "data",
    [
        called(named("builtins", "bytearray"), SIZE),
        made(named("builtins", "bytearray"), SIZE),
        named("builtins", "bytearray") + AGAIN + SIZE + pickle.TUPLE1 + pickle.REDUCE,
        called(named("builtins", "bytearray"), RANGE),
        called(named("builtins", "bytes"), SIZE),
        b"(cbuiltins\nbytes\n" + SIZE + pickle.OBJ,
        b"(" + SIZE + b"ibuiltins\nbytes\n",
        called(named("builtins", "list"), RANGE),
        made(named("builtins", "tuple"), RANGE),
        called(named("builtins", "set"), RANGE),
        called(named("collections", "deque"), RANGE),
        called(named("collections", "Counter"), RANGE),
        called(named("builtins", "int"), DECIMAL),
        called(named("fractions", "Fraction"), EXPONENT),
        called(named("fractions", "Fraction"), DECIMAL),
    ],
    ids=range(15),
)
def test_plain_types_are_called_only_as_they_write_themselves(data: bytes) -> None:
    with pytest.raises(pickle.UnpicklingError, match="a way of its own"):
        PickleSerializer.loads(written(data))


def test_a_pickle_that_is_cut_short_raises_an_error_of_pickle() -> None:
    whole = pickle.dumps([models.Order(1), fractions.Fraction(1, 3), {"a": [models.Color.RED]}])
    for end in range(len(whole)):
        with pytest.raises((pickle.UnpicklingError, EOFError)):
            PickleSerializer.loads(whole[:end])


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_what_was_made_is_filled_wherever_it_stands(protocol: int) -> None:
    order = models.Order(1)
    value = [order, order, {"a": (order, fractions.Fraction(-1, 3), bytearray(), bytearray(b"x"))}]
    assert PickleSerializer.loads(pickle.dumps(value, protocol)) == value


DATE = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
MANY: list[Any] = [
    [1, 300, 70_000, -1, 2**40, 2**3000, None, True, False, 1.5, "a", "a" * 300, b"b", b"b" * 300],
    [list(range(3000)), list("KMJG" * 300), datetime.date(2020, 1, 1)],
    [DATE, datetime.timedelta(1), DATE, DATE.replace(year=2021)],
    [models.Order(each) for each in range(300)],
    {"a": models.Color.RED, 1: {2, 3}, (): ((1,), (1, 2), (1, 2, 3), (1, 2, 3, 4))},
    [fractions.Fraction(1, 3), bytearray(b"x"), frozenset({1}), ValueError("x"), pathlib.Path("a")],
]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("value", MANY, ids=range(len(MANY)))
def test_the_short_ways_see_what_each_opcode_does(value: Any, protocol: int) -> None:
    data = pickle.dumps(value, protocol)
    short, long = unpickling._Scan(data), unpickling._Scan(data)
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name != "STOP":
            long._step(opcode, argument)
    short.find_changed()
    assert short._changed == long._changed
    assert len(short._stack) == len(long._stack) == 1
    assert [*map(kind, short._memo.items())] == [*map(kind, long._memo.items())]


def kind(entry: tuple[int, Any]) -> tuple[int, Any]:
    number, trace = entry
    is_plain = trace is unpickling._OTHER or isinstance(trace, bytes | int | float | tuple)
    return number, type(trace) if isinstance(trace, tuple) else None if is_plain else trace


def test_plain_data_beside_a_date_is_read_in_good_time() -> None:
    data = pickle.dumps([datetime.date(2020, 1, 1), list(range(500_000))])
    started = time.process_time()
    PickleSerializer.loads(data)
    assert time.process_time() - started < 1  # 0.2 s; 1.3 s when each opcode is a step of its own
