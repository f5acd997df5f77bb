"""Reads a pickle as plain data: nothing in it is imported, called or built.

Dictionaries, lists, tuples, texts and numbers come out as themselves. A class or function that the
pickle names becomes a `Global`, and whatever it is called on a `Standin`: both are only names and
values. What a caller knows how to build (a tensor, an ordered dictionary) it says by name in
`builders`. The work is bounded: an unpickler that builds nothing can still be made to count to 2^60
by a key of tuples in tuples, so no value but a plain one is ever a key.
"""

from __future__ import annotations

import codecs
import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

MAX_OPCODES = 2_000_000
"""A training state with every optimizer's tensors takes a tenth of this; two seconds."""

MAX_COPIED_BYTES = 256 * 2**20
"""Of what builders make anew: one large text may be named a million times."""

ENTRY_BYTES = 64
"""A dictionary's entry in memory, about."""

Builder = Callable[..., Any]
_PLAIN_KEYS = (str, int, float, bool, bytes, type(None))
_MARK = object()

# Nobody's weights need these. They would not run here either, but whoever gave such a file away
# meant them to run somewhere, and its owner should know.
_CODE_MODULES = frozenset((
    "ctypes", "importlib", "nt", "os", "posix", "pty", "runpy", "shutil", "socket", "subprocess",
    "sys", "webbrowser",
))  # fmt: skip
_CODE_BUILTINS = frozenset((
    "__import__", "breakpoint", "compile", "eval", "exec", "execfile", "input", "open",
))  # fmt: skip


class PickleError(ValueError):
    """The pickle is damaged, too large, or not what it should be; the text says which."""


class CodeInPickle(PickleError):
    """The pickle calls a function that acts on the machine; the text is its name."""


@dataclass(frozen=True)
class Global:
    """A class or function by its name, such as "numpy.dtype"; never the thing itself."""

    name: str


@dataclass(eq=False)
class Standin:
    """An object that was not built.

    kind      name of the class or function, "" where that itself is a stand-in
    state     what would have been set on the object, as pickled
    items     entries, where it is a kind of dictionary
    elements  what was appended, where it is a kind of list or set
    """

    kind: str
    arguments: tuple[Any, ...] = ()
    state: Any = None
    items: dict[Any, Any] = field(default_factory=dict)
    elements: list[Any] = field(default_factory=list)


@dataclass
class Budget:
    """What reading may still cost; shared by the pickles of one file."""

    opcodes: int = field(default_factory=lambda: MAX_OPCODES)
    copied_bytes: int = field(default_factory=lambda: MAX_COPIED_BYTES)

    def step(self) -> None:
        """Raises PickleError where it was the last step."""
        self.opcodes -= 1
        if self.opcodes < 0:
            raise PickleError(f"it takes more than {MAX_OPCODES:,} steps to read")

    def copy(self, arguments: tuple[Any, ...]) -> None:
        """Raises PickleError where arguments of a builder are too large, with those before."""
        for each in arguments:
            if isinstance(each, str | bytes | bytearray):
                self.copied_bytes -= len(each)
            elif isinstance(each, dict | list | tuple):
                self.copied_bytes -= ENTRY_BYTES * len(each)
        if self.copied_bytes < 0:
            raise PickleError("it unfolds to more than any checkpoint holds")


def read_pickle(
    file: BinaryIO,
    builders: Mapping[str, Builder],
    persistent: Callable[[Any], Any] | None = None,
    budget: Budget | None = None,
) -> Any:
    """The value of the pickle at the file's position, which is left behind its end.

    builders    name -> what is called with the pickled arguments; a ValueError or TypeError of it
                means that they do not fit
    persistent  what stands for a persistent id; without it there may be none
    Raises PickleError for a damaged pickle and one beyond the limits, CodeInPickle for code.
    """
    budget = budget or Budget()
    machine = _Machine(builders, persistent, budget)
    try:
        for opcode, argument, _ in pickletools.genops(file):
            budget.step()
            if opcode.name == "STOP":
                return machine.pop()
            machine.step(opcode.name, argument)
    except PickleError:
        raise
    except RecursionError as error:
        raise PickleError("it is nested too deeply") from error
    except (ValueError, TypeError, IndexError, KeyError, OverflowError, AttributeError) as error:
        raise PickleError(str(error).partition("\n")[0] or type(error).__name__) from error
    raise PickleError("it ends without a STOP")


class _Machine:
    """The stack machine of pickles, with stand-ins in place of objects."""

    def __init__(
        self,
        builders: Mapping[str, Builder],
        persistent: Callable[[Any], Any] | None,
        budget: Budget,
    ) -> None:
        self.builders, self.persistent, self.budget = builders, persistent, budget
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        if name in _LITERALS:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in _STEPS:
            _STEPS[name](self, argument)
        elif name not in ("PROTO", "FRAME"):
            raise PickleError(f"it uses the step {name}, which no checkpoint needs")

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise PickleError("a mark stands where a value belongs")
        return value

    def pop_to_mark(self) -> list[Any]:
        for place in range(len(self.stack) - 1, -1, -1):
            if self.stack[place] is _MARK:
                found = self.stack[place + 1 :]
                del self.stack[place:]
                return found
        raise PickleError("a mark is missing")

    def top(self) -> Any:
        if not self.stack or self.stack[-1] is _MARK:
            raise PickleError("the stack is empty")
        return self.stack[-1]

    def call(self, function: Any, arguments: Any) -> None:
        given = arguments if isinstance(arguments, tuple) else (arguments,)
        name = function.name if isinstance(function, Global) else ""
        _refuse_code(name)
        build = self.builders.get(name)
        if build:
            self.budget.copy(given)
        self.stack.append(build(*given) if build else Standin(name, given))

    def set_items(self, pairs: list[Any]) -> None:
        target = self.top()
        entries = target.items if isinstance(target, Standin) else target
        if not isinstance(entries, dict):
            raise PickleError(f"it sets an item of a {type(target).__name__}")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if isinstance(key, _PLAIN_KEYS):
                entries[key] = value

    def append(self, values: list[Any]) -> None:
        target = self.top()
        elements = target.elements if isinstance(target, Standin) else target
        if not isinstance(elements, list):
            raise PickleError(f"it appends to a {type(target).__name__}")
        elements.extend(values)

    def set_state(self) -> None:
        state, target = self.pop(), self.top()
        if isinstance(target, Standin):
            target.state = state

    def persistent_value(self) -> None:
        identity = self.pop()
        if self.persistent is None:
            raise PickleError("it refers to data outside of it")
        self.stack.append(self.persistent(identity))

    def tuple_of(self, count: int) -> None:
        if count > len(self.stack):
            raise PickleError("the stack is empty")
        values = [self.pop() for _ in range(count)]
        self.stack.append(tuple(reversed(values)))

    def keyword_call(self) -> None:
        keywords, arguments, function = self.pop(), self.pop(), self.pop()
        self.call(function, (*arguments, keywords))


def _refuse_code(name: str) -> None:
    module, _, function = name.rpartition(".")
    root = module.partition(".")[0]
    if root in ("builtins", "__builtin__"):
        if function in _CODE_BUILTINS:
            raise CodeInPickle(name)
    elif root in _CODE_MODULES:
        raise CodeInPickle(name)


def _global(machine: _Machine, argument: str) -> None:
    module, _, name = argument.partition(" ")
    machine.stack.append(Global(f"{module}.{name}"))


def _stack_global(machine: _Machine, _: Any) -> None:
    name, module = machine.pop(), machine.pop()
    if not isinstance(name, str) or not isinstance(module, str):
        raise PickleError("a name is no text")
    machine.stack.append(Global(f"{module}.{name}"))


def _instance(machine: _Machine, argument: str) -> None:
    module, _, name = argument.partition(" ")
    machine.call(Global(f"{module}.{name}"), tuple(machine.pop_to_mark()))


def _object(machine: _Machine, _: Any) -> None:
    function, *arguments = machine.pop_to_mark()
    machine.call(function, tuple(arguments))


def _call(machine: _Machine, _: Any) -> None:
    arguments, function = machine.pop(), machine.pop()
    machine.call(function, arguments)


def _one_item(machine: _Machine, _: Any) -> None:
    value, key = machine.pop(), machine.pop()
    machine.set_items([key, value])


def _dictionary(machine: _Machine, _: Any) -> None:
    pairs = machine.pop_to_mark()
    machine.stack.append({})
    machine.set_items(pairs)


def _one_element(machine: _Machine, _: Any) -> None:
    value = machine.pop()
    machine.append([value])


def _memoize(machine: _Machine, _: Any) -> None:
    machine.memo[len(machine.memo)] = machine.top()


def _put(machine: _Machine, place: int) -> None:
    machine.memo[place] = machine.top()


def _get(machine: _Machine, place: int) -> None:
    machine.stack.append(machine.memo[place])


def _set_of(machine: _Machine, _: Any) -> None:
    machine.stack.append(Standin("builtins.frozenset", tuple(machine.pop_to_mark())))


_LITERALS = frozenset((
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
    "BYTEARRAY8", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8",
))  # fmt: skip
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": lambda: Standin("builtins.set"),
    "MARK": lambda: _MARK,
}
_STEPS: dict[str, Callable[[_Machine, Any], Any]] = {
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "REDUCE": _call,
    "NEWOBJ": _call,
    "NEWOBJ_EX": lambda machine, _: machine.keyword_call(),
    "INST": _instance,
    "OBJ": _object,
    "BUILD": lambda machine, _: machine.set_state(),
    "BINPERSID": lambda machine, _: machine.persistent_value(),
    "SETITEM": _one_item,
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_to_mark()),
    "DICT": _dictionary,
    "APPEND": _one_element,
    "APPENDS": lambda machine, _: machine.append(machine.pop_to_mark()),
    "ADDITEMS": lambda machine, _: machine.append(machine.pop_to_mark()),
    "LIST": lambda machine, _: machine.stack.append(machine.pop_to_mark()),
    "FROZENSET": _set_of,
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.pop_to_mark())),
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "MEMOIZE": _memoize,
    "PUT": _put,
    "BINPUT": _put,
    "LONG_BINPUT": _put,
    "GET": _get,
    "BINGET": _get,
    "LONG_BINGET": _get,
    "DUP": lambda machine, _: machine.stack.append(machine.top()),
    "POP": lambda machine, _: machine.stack.pop(),
    "POP_MARK": lambda machine, _: machine.pop_to_mark(),
}


def ordered_dictionary(entries: Any = (), *_: Any) -> dict[Any, Any]:
    """A dictionary of pickled entries: another dictionary, or a list of pairs."""
    if isinstance(entries, Standin):
        entries = entries.items
    pairs = entries.items() if isinstance(entries, dict) else entries
    found: dict[Any, Any] = {}
    for key, value in pairs:
        if isinstance(key, _PLAIN_KEYS):
            found[key] = value
    return found


def _encoded(text: Any, encoding: Any = "utf-8") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "utf-8"):
        raise PickleError("bytes in an unknown encoding")
    return codecs.encode(text, encoding)


PLAIN_BUILDERS: dict[str, Builder] = {
    "collections.OrderedDict": ordered_dictionary,
    "collections.defaultdict": lambda _=None, entries=(), *more: ordered_dictionary(entries),
    "collections.Counter": ordered_dictionary,
    "builtins.dict": ordered_dictionary,
    "__builtin__.dict": ordered_dictionary,
    "_codecs.encode": _encoded,
}
"""The collections that a checkpoint may wrap its weights in."""
