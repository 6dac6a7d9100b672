"""A pickle read as data: a machine of its own for the opcodes that checkpoints use, with a cap on everything.

Python's unpickler imports what a file names and calls it. This one has neither import nor getattr: a name of the file
is looked up in a table of inert stand-ins (`zoo.formats.names`), and a name that is not in it ends the reading.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from zoo.errors import WeightsError
from zoo.formats.inert import Context, Global
from zoo.formats.names import build, find

NEWEST = 5                   # protocol
MOST_OPCODES = 1_000_000     # of all pickles in a file; a training checkpoint of a large GAN has 100,000
MOST_MARKS = 500             # open containers
LONGEST_INTEGER = 64         # bytes
_END = 1 << 62

# Opcodes of the format that no checkpoint needs: by name, for the message.
REFUSED = {
    "P": "PERSID", "I": "INT", "L": "LONG", "F": "FLOAT", "S": "STRING", "V": "UNICODE", "g": "GET",
    "p": "PUT", "0": "POP", "1": "POP_MARK", "2": "DUP", "i": "INST", "o": "OBJ", "d": "DICT", "l": "LIST",
    "\x82": "EXT1", "\x83": "EXT2", "\x84": "EXT4", "\x92": "NEWOBJ_EX", "\x97": "NEXT_BUFFER",
    "\x98": "READONLY_BUFFER",
}  # fmt: skip


@dataclass
class Budget:
    """How many opcodes a file may still spend, over all the pickles in it."""

    opcodes: int = MOST_OPCODES


class Machine:
    """Reads the pickle that begins at `position`; afterwards `position` is the byte behind it.

    Args:
        data: the file, or the part of it that holds the pickle.
        context: what persistent identifiers and nested files mean here.
        budget: shared by all pickles of a file.
        position: where the pickle begins.
    """

    def __init__(self, data: memoryview, context: Context, budget: Budget, position: int = 0):
        self.data, self.context, self.budget, self.position = data, context, budget, position
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []        # the stacks below each open mark
        self.memo: dict[int, Any] = {}
        self.frame_end = _END

    def run(self) -> Any:
        """Return what the pickle describes.

        Raises:
            WeightsError: it is malformed, too large, or names something that is not data.
        """
        start = self.position
        try:
            while self._step():
                pass
            if self.marked or len(self.stack) != 1:
                raise WeightsError("its pickle ends with unfinished values.")
            return self.stack[0]
        except (IndexError, KeyError, TypeError, ValueError, OverflowError, struct.error) as error:
            raise WeightsError(
                f"its pickle is malformed near byte {self.position - start} ({type(error).__name__}): it is damaged."
            ) from error

    def _step(self) -> bool:
        """Execute one opcode; return whether another follows."""
        at = self.position
        if at >= self.frame_end:
            if at > self.frame_end:
                raise WeightsError("a frame of its pickle is shorter than its opcodes: the file is damaged.")
            self.frame_end = _END
        if at >= len(self.data):
            raise WeightsError("its pickle ends before the STOP opcode: the file is cut short.")
        self.budget.opcodes -= 1
        if self.budget.opcodes < 0:
            raise WeightsError(f"its pickle has more than {MOST_OPCODES:,} opcodes; no checkpoint has.")
        code = self.data[at]
        self.position = at + 1
        if code == 0x2E:
            if self.frame_end not in (_END, self.position):
                raise WeightsError("a frame of its pickle is longer than its opcodes: the file is damaged.")
            return False
        action = _ACTIONS.get(code)
        if action is None:
            name = REFUSED.get(chr(code), "")
            raise WeightsError(f"its pickle uses the opcode {name or hex(code)}, which no checkpoint needs.")
        action(self)
        return True

    def take(self, count: int) -> memoryview:
        """Return the next bytes, without copying."""
        if count < 0 or count > len(self.data) - self.position:
            raise WeightsError(f"its pickle promises {count:,} bytes that the file lacks: it is cut or altered.")
        self.position += count
        return self.data[self.position - count : self.position]

    def number(self, count: int) -> int:
        """Return the next unsigned little-endian integer of `count` bytes."""
        return int.from_bytes(self.take(count), "little")

    def line(self) -> str:
        """Return the text up to the next newline."""
        longest = bytes(self.data[self.position : self.position + 300])
        text, newline, _ = longest.partition(b"\n")
        if not newline:
            raise WeightsError("its pickle names something with more than 300 characters.")
        self.position += len(text) + 1
        return text.decode()

    def push(self, value: Any) -> None:
        """Put a value on the stack as it is now: an argument may have closed a mark."""
        self.stack.append(value)

    def since_mark(self) -> list[Any]:
        """Return the values above the newest mark and take both off."""
        items, self.stack = self.stack, self.marked.pop()
        return items

    # Actions, one an opcode or a family of them.

    def protocol(self) -> None:
        version = self.number(1)
        if version > NEWEST:
            raise WeightsError(f"its pickle is of protocol {version}; the newest is {NEWEST}.")

    def frame(self) -> None:
        length = self.number(8)
        if self.frame_end != _END or length > len(self.data) - self.position:
            raise WeightsError("a frame of its pickle is longer than the file: it is cut or altered.")
        self.frame_end = self.position + length

    def mark(self) -> None:
        if len(self.marked) >= MOST_MARKS:
            raise WeightsError(f"its pickle is nested more than {MOST_MARKS} levels deep.")
        self.marked.append(self.stack)
        self.stack = []

    def integer(self, length: int) -> None:
        if length > LONGEST_INTEGER:
            raise WeightsError(f"its pickle holds an integer of {length:,} bytes.")
        self.stack.append(int.from_bytes(self.take(length), "little", signed=True))

    def text(self, length: int) -> None:
        self.stack.append(str(self.take(length), "utf-8"))

    def old_text(self, length: int) -> None:
        """Python 2's str: text in checkpoints."""
        raw = self.take(length)
        try:
            self.stack.append(str(raw, "utf-8"))
        except UnicodeDecodeError:
            self.stack.append(str(raw, "latin-1"))

    def tuple_of(self, count: int) -> None:
        if len(self.stack) < count:
            raise IndexError
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def items(self, pairs: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or len(pairs) % 2:
            raise WeightsError("its pickle sets items of something that is no dictionary.")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            target[_key(key)] = value

    def append(self, values: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise WeightsError("its pickle appends to something that is no list.")
        self.stack[-1].extend(values)

    def named(self, module: object, name: object) -> None:
        self.stack.append(find(module, name))

    def call(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, Global) or not isinstance(arguments, tuple):
            raise WeightsError("its pickle calls something that is no function.")
        self.stack.append(function(self.context, *arguments))

    def state(self) -> None:
        state = self.stack.pop()
        build(self.stack[-1], state)

    def persistent(self) -> None:
        if self.context.persistent is None:
            raise WeightsError("its pickle refers to tensors outside of it, and this kind of file has none.")
        self.stack.append(self.context.persistent(self.stack.pop()))

    def put(self, index: int) -> None:
        if index > len(self.data):
            raise WeightsError(f"its pickle uses the memo index {index:,}: the file is altered.")
        self.memo[index] = self.stack[-1]


def _key(key: object) -> object:
    if isinstance(key, Global):
        return key.name
    if not (key is None or isinstance(key, str | int | float)):
        raise WeightsError(f"its pickle has a dictionary key of type {type(key).__name__}.")
    return key


_ACTIONS: dict[int, Callable[[Machine], None]] = {
    0x80: Machine.protocol,
    0x95: Machine.frame,
    ord("("): Machine.mark,
    ord("N"): lambda m: m.push(None),
    0x88: lambda m: m.push(True),
    0x89: lambda m: m.push(False),
    ord("K"): lambda m: m.push(m.number(1)),
    ord("M"): lambda m: m.push(m.number(2)),
    ord("J"): lambda m: m.integer(4),
    0x8A: lambda m: m.integer(m.number(1)),
    0x8B: lambda m: m.integer(m.number(4)),
    ord("G"): lambda m: m.push(struct.unpack(">d", m.take(8))[0]),
    0x8C: lambda m: m.text(m.number(1)),
    ord("X"): lambda m: m.text(m.number(4)),
    0x8D: lambda m: m.text(m.number(8)),
    ord("U"): lambda m: m.old_text(m.number(1)),
    ord("T"): lambda m: m.old_text(m.number(4)),
    ord("C"): lambda m: m.push(m.take(m.number(1))),
    ord("B"): lambda m: m.push(m.take(m.number(4))),
    0x8E: lambda m: m.push(m.take(m.number(8))),
    0x96: lambda m: m.push(m.take(m.number(8))),          # BYTEARRAY8
    ord(")"): lambda m: m.push(()),
    0x85: lambda m: m.tuple_of(1),
    0x86: lambda m: m.tuple_of(2),
    0x87: lambda m: m.tuple_of(3),
    ord("t"): lambda m: m.push(tuple(m.since_mark())),
    ord("]"): lambda m: m.push([]),
    ord("a"): lambda m: m.append([m.stack.pop()]),
    ord("e"): lambda m: m.append(m.since_mark()),
    ord("}"): lambda m: m.push({}),
    ord("s"): lambda m: m.items([m.stack.pop(-2), m.stack.pop()]),
    ord("u"): lambda m: m.items(m.since_mark()),
    0x8F: lambda m: m.push([]),                           # EMPTY_SET: a list, as all sets
    0x90: lambda m: m.append(m.since_mark()),                     # ADDITEMS
    0x91: lambda m: m.push(m.since_mark()),               # FROZENSET
    ord("c"): lambda m: m.named(m.line(), m.line()),
    0x93: lambda m: m.named(m.stack.pop(-2), m.stack.pop()),
    ord("R"): Machine.call,
    0x81: Machine.call,                                           # NEWOBJ
    ord("b"): Machine.state,
    ord("Q"): Machine.persistent,
    ord("q"): lambda m: m.put(m.number(1)),
    ord("r"): lambda m: m.put(m.number(4)),
    0x94: lambda m: m.put(len(m.memo)),
    ord("h"): lambda m: m.push(m.memo[m.number(1)]),
    ord("j"): lambda m: m.push(m.memo[m.number(4)]),
}
