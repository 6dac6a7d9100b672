"""Checkpoints that attack whoever reads them: pickles that run code, containers that lie, bombs. Built byte by byte."""

from __future__ import annotations

import io
import json
import pickle
import pickletools
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable

import torch

STOP = b"."


def text(value: str) -> bytes:
    """BINUNICODE."""
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def short(value: str) -> bytes:
    """SHORT_BINUNICODE."""
    return b"\x8c" + bytes([len(value.encode())]) + value.encode()


def called(module: str, name: str, *arguments: bytes) -> bytes:
    """A pickle, without its STOP, that calls module.name."""
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + b"(" + b"".join(arguments) + b"tR"


def saved(content: object, **options: object) -> bytes:
    """The bytes that torch.save writes."""
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def unzipped(raw: bytes) -> dict[str, bytes]:
    """Name -> content of an archive."""
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(contents: dict[str, bytes] | list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    """An archive with these entries, in order; a name may come twice."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")                               # a name that comes twice is meant
        for name, content in contents.items() if isinstance(contents, dict) else contents:
            entry = zipfile.ZipInfo(name)
            entry.filename = name                                     # as it is, also where zipfile would tidy it up
            entry.compress_type = method
            archive.writestr(entry, content)
    return file.getvalue()


def torch_file(pickled: bytes) -> bytes:
    """An honest archive of one tensor of four numbers, but for its pickle."""
    return zipped(unzipped(saved({"a": torch.ones(4)})) | {"archive/data.pkl": pickled})


def honest_pickle() -> bytes:
    """The pickle inside the honest archive."""
    return unzipped(saved({"a": torch.ones(4)}))["archive/data.pkl"]


def altered(old: bytes, new: bytes) -> bytes:
    """The honest archive with a part of its pickle exchanged."""
    honest = honest_pickle()
    assert honest.count(old) == 1, f"{old!r} is {honest.count(old)} times in the pickle"
    return torch_file(honest.replace(old, new))


# Payloads that run code in a plain loader: name -> (canary file) -> bytes. Numbers are those of the threat catalogue.


def _shell(canary: str) -> bytes:
    return text(f"echo ran > '{canary}'")


def _python(canary: str) -> bytes:
    return text(f"open({canary!r}, 'w').close()")


def _chain(canary: str) -> bytes:
    module = called("builtins", "__import__", text("os"))[2:]
    return b"\x80\x02" + called("builtins", "getattr", module, text("system"))[2:] + _shell(canary) + b"\x85R" + STOP


def _memo(canary: str) -> bytes:
    names = short("os") + b"\x940" + short("system") + b"\x940"       # MEMOIZE and POP, each
    return b"\x80\x04" + names + b"h\x00h\x01\x93" + _shell(canary) + b"\x85R" + STOP


def _setstate(canary: str) -> bytes:
    state = b"}" + text("__setstate__") + b"cos\nsystem\nsb"
    return b"\x80\x02cargparse\nNamespace\n)\x81" + state + _shell(canary) + b"b" + STOP


def _persistent(canary: str) -> bytes:
    meta = {"type": "class", "version": 6, "class_name": "Generator", "state": {}}
    pairs = b"".join(text(name) + pickle.dumps(value, 2)[2:-1] for name, value in meta.items())
    meta_raw = b"}(" + pairs + text("module_src") + _python(canary) + b"u"
    return called("torch_utils.persistence", "_reconstruct_persistent_obj", meta_raw) + STOP


def _legacy(canary: str, part: int) -> bytes:
    """torch's old container with one of its five pickles exchanged."""
    raw = saved({"a": torch.ones(4)}, _use_new_zipfile_serialization=False)
    file, ends = io.BytesIO(raw), [0]
    for _ in range(5):
        for _ in pickletools.genops(file):
            pass
        ends.append(file.tell())
    return raw[: ends[part]] + called("os", "system", _shell(canary)) + STOP + raw[ends[part + 1] :]


def _loaded_from_bytes(canary: str) -> bytes:
    inner = called("os", "system", _shell(canary)) + STOP
    return called("torch.storage", "_load_from_bytes", b"B" + struct.pack("<I", len(inner)) + inner) + STOP


LIVE: dict[str, Callable[[str], bytes]] = {
    "44 os.system": lambda canary: called("os", "system", _shell(canary)) + STOP,
    "45 posix.system": lambda canary: called("posix", "system", _shell(canary)) + STOP,
    "46 STACK_GLOBAL": lambda c: b"\x80\x04" + short("os") + short("system") + b"\x93" + _shell(c) + b"\x85R" + STOP,
    "47 INST": lambda canary: b"\x80\x02(" + _shell(canary) + b"ios\nsystem\n" + STOP,
    "48 OBJ": lambda canary: b"\x80\x02(cos\nsystem\n" + _shell(canary) + b"o" + STOP,
    "49 dotted name": lambda c: (
        b"\x80\x04" + short("torch") + short("os.system") + b"\x93" + _shell(c) + b"\x85R" + STOP
    ),
    "50 names through the memo": _memo,
    "51 builtins.exec": lambda canary: called("builtins", "exec", _python(canary)) + STOP,
    "52 pkgutil.resolve_name": lambda canary: (
        called("pkgutil", "resolve_name", text("os:system")) + _shell(canary) + b"\x85R" + STOP
    ),
    "53 timeit.timeit": lambda canary: called("timeit", "timeit", text("pass"), _python(canary)) + STOP,
    "54 profile.run": lambda canary: called("profile", "run", _python(canary)) + STOP,
    "55 numpy's runstring": lambda c: called("numpy.testing._private.utils", "runstring", _python(c), b"}") + STOP,
    "56 getattr chain": _chain,
    "57 __setstate__ in the state": _setstate,
    "58 torch file inside": _loaded_from_bytes,
    "59 source of a module": _persistent,
    "60 before broken opcodes": lambda canary: called("os", "system", _shell(canary)) + b"\xff\xff\xff",
    "61 second pickle": lambda canary: pickle.dumps({"a": 1}, 2) + called("os", "system", _shell(canary)) + STOP,
    "85 in torch's archive": lambda canary: torch_file(called("os", "system", _shell(canary)) + STOP),
    "85 as magic number of the old container": lambda canary: _legacy(canary, 0),
    "85 as object of the old container": lambda canary: _legacy(canary, 3),
    "85 as keys of the old container": lambda canary: _legacy(canary, 4),
}


# Pickles that are malformed, bombs, or say what no checkpoint says.


def _laughs() -> bytes:
    value: list[object] = ["ha"]
    for _ in range(60):
        value = [value, value]
    return pickle.dumps(value, 2)


def _itself() -> bytes:
    value: list[object] = []
    value.append(value)
    return pickle.dumps(value, 2)


def _frame(length: int) -> bytes:
    body = b"}" + short("a") + b"K\x01s" + STOP
    return b"\x80\x04\x95" + struct.pack("<Q", len(body) + length) + body


def _strided(shape: tuple[int, ...], strides: tuple[int, ...]) -> bytes:
    return saved({"a": torch.ones(4).as_strided(shape, strides)})


def _array(code: str, shape: tuple[int, ...], raw: bytes) -> bytes:
    """A numpy array as it pickles itself."""
    new = b"\x80\x04cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85C\x01bt R".replace(b"t R", b"tR")
    kind = b"cnumpy\ndtype\n(" + short(code) + b"\x89\x88tR"
    content = b"C" + bytes([len(raw)]) + raw
    sizes = pickle.dumps(shape, 2)[2:-1].replace(b"q\x00", b"")
    return new + b"(K\x01" + sizes + kind + b"\x89" + content + b"tb" + STOP


MALFORMED: dict[str, Callable[[], bytes]] = {
    "62 EXT1": lambda: b"\x80\x02\x82\x01.",
    "62 EXT2": lambda: b"\x80\x02\x83\x01\x00.",
    "62 EXT4": lambda: b"\x80\x02\x84\x01\x00\x00\x00.",
    "63 memo index": lambda: b"\x80\x02]r\xff\xff\xff\x7f.",
    "64 BINBYTES8 of 2^50": lambda: b"\x80\x04\x8e" + struct.pack("<Q", 2**50) + b"abc.",
    "64 BYTEARRAY8 of 2^63": lambda: b"\x80\x05\x96" + struct.pack("<Q", 2**63) + b"abc.",
    "64 BINUNICODE of 2^32 - 1": lambda: b"\x80\x02X\xff\xff\xff\xffabc.",
    "65 LONG4 of 2^31 - 1": lambda: b"\x80\x02\x8b\xff\xff\xff\x7f.",
    "65 LONG4 that is there": lambda: b"\x80\x02\x8b" + struct.pack("<I", 10**6) + b"\x7f" * 10**6 + STOP,
    "66 INT of a million digits": lambda: b"\x80\x02I" + b"9" * 10**6 + b"\n.",
    "67 a million tuples": lambda: b"\x80\x02)" + b"\x85" * 10**6 + STOP,
    "67 900,000 tuples": lambda: b"\x80\x02)" + b"\x85" * 900_000 + STOP,
    "67 a million marks": lambda: b"\x80\x02" + b"(" * 10**6 + b"t" * 10**6 + STOP,
    "67 101 lists": lambda: b"\x80\x02" + b"]" * 101 + b"a" * 100 + STOP,
    "68 billion laughs": _laughs,
    "68 itself": _itself,
    "69 frame too long": lambda: _frame(1),
    "69 frame too short": lambda: _frame(-3),
    "69 frame of 2^63": lambda: _frame(2**63),
    "70 protocol 9": lambda: b"\x80\x09}.",
    "71 persistent id, text": lambda: torch_file(b"\x80\x02Pstorage\n."),
    "71 persistent id, str": lambda: torch_file(b"\x80\x02" + text("storage") + b"Q."),
    "71 persistent id where none is": lambda: b"\x80\x02" + text("storage") + b"Q.",
    "72 stride 0": lambda: _strided((10**6, 10**6), (0, 0)),
    "72 overlap": lambda: _strided((3, 2), (1, 1)),
    "73 shape out of storage": lambda: altered(b"K\x04\x85", b"K\x05\x85"),
    "73 stride out of storage": lambda: altered(b"K\x01\x85", b"K\x02\x85"),
    "73 offset out of storage": lambda: altered(b"QK\x00", b"QK\x01"),
    "73 negative offset": lambda: altered(b"QK\x00", b"QJ\xff\xff\xff\xff"),
    "73 negative shape": lambda: altered(b"K\x04\x85", b"J\xfc\xff\xff\xff\x85"),
    "73 shape of floats": lambda: altered(b"K\x04\x85", b"G" + struct.pack(">d", 4.0) + b"\x85"),
    "73 shape beyond 64 bits": lambda: altered(b"K\x04\x85", b"\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00\x01\x85"),
    "74 SETITEMS on a tensor": lambda: torch_file(
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
        b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQK\x00K\x04\x85K\x01\x85\x89}tR(K\x00K\x01u."
    ),
    "74 BUILD on a tensor": lambda: altered(b"tq\x07Q", b"tq\x07Q}b"),
    "75 more elements than bytes": lambda: altered(b"K\x04tq", b"K\x05tq"),
    "75 fewer elements than bytes": lambda: altered(b"K\x04tq", b"K\x03tq"),
    "75 wider elements": lambda: altered(b"ctorch\nFloatStorage\n", b"ctorch\nDoubleStorage\n"),
    "75 storage that is missing": lambda: altered(b"X\x01\x00\x00\x000", b"X\x01\x00\x00\x001"),
    "75 key of a path": lambda: altered(b"X\x01\x00\x00\x000", b"X\x0a\x00\x00\x00../version"),
    "76 homoglyph": lambda: called("оs", "system", text("true")) + STOP,
    "76 homoglyph of torch": lambda: altered(b"ctorch\nFloatStorage\n", "ctоrch\nFloatStorage\n".encode()),
    "77 empty": lambda: b"",
    "78 truncated": lambda: pickle.dumps({"a": [1, 2, 3]}, 4)[:-4],
    "no values": lambda: b"\x80\x02.",
    "two values": lambda: b"\x80\x02}}.",
    "open mark": lambda: b"\x80\x02(}.",
    "unhashable key": lambda: b"\x80\x02}]K\x01s.",
    "key of bytes": lambda: b"\x80\x04}C\x01aK\x01s.",
    "not UTF-8": lambda: b"\x80\x02X\x02\x00\x00\x00\xff\xfe.",
    "half a character": lambda: b"\x80\x02X\x03\x00\x00\x00\xed\xa0\x80.",
    "call of a type": lambda: b"\x80\x02ctorch\nFloatStorage\n)R.",
    "call with too much": lambda: b"\x80\x02cargparse\nNamespace\nK\x01\x85R.",
    "set of a number": lambda: b"\x80\x02c__builtin__\nset\nK\x01\x85R.",
    "dictionary of lists": lambda: b"\x80\x02ccollections\nOrderedDict\n](]]]eb\x85R.",
    "array cut short": lambda: _array("f4", (2, 2), bytes(12)),
    "array of objects": lambda: _array("O8", (1,), bytes(8)),
    "array of a negative shape": lambda: _array("f4", (-1,), bytes(4)),
    "array of truth values neither 0 nor 1": lambda: _array("b1", (2,), b"\x02\x01"),
    "files inside files": lambda: _nested(5),
    "900,000 dictionaries": lambda: b"\x80\x02(" + b"}" * 900_000 + b"t" + STOP,
    "3 million opcodes": lambda: b"\x80\x02" + b"N" * 3_000_000 + STOP,
    "one tensor a thousand times": lambda: _thousand(),
}


def _nested(levels: int) -> bytes:
    raw = pickle.dumps({"a": 1}, 2)
    for _ in range(levels):
        raw = called("torch.storage", "_load_from_bytes", b"B" + struct.pack("<I", len(raw)) + raw) + STOP
    return raw


def _thousand() -> bytes:
    tensor = torch.zeros(2**16)
    return saved([tensor[:] for _ in range(1000)])


# torch's archive, altered.


def _patched(raw: bytes, *changes: tuple[bytes, int, bytes]) -> bytes:
    """An archive with bytes exchanged: (signature of a header, place in it, what to write), in the last such header."""
    made = bytearray(raw)
    for signature, place, new in changes:
        at = made.rindex(signature) + place
        made[at : at + len(new)] = new
    return bytes(made)


def _rebuilt(**changes: bytes | None) -> dict[str, bytes]:
    contents = unzipped(saved({"a": torch.ones(4)}))
    return contents | {f"archive/{name}": content for name, content in changes.items() if content is not None}


def _honest() -> bytes:
    return zipped(_rebuilt())


def _many(count: int) -> bytes:
    """An archive with that many empty entries."""
    names = [b"a/data/%07d" % number for number in range(count)]
    local = struct.pack("<4s5H3I2H", b"PK\3\4", 20, 0, 0, 0, 0, 0, 0, 0, 14, 0)
    places = range(0, count * 44, 44)
    directory = b"".join(
        struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, 20, 0, 0, 0, 0, 0, 0, 0, 14, 0, 0, 0, 0, 0, at) + name
        for at, name in zip(places, names, strict=True)
    )
    body = b"".join(local + name for name in names)
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    large = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(directory), len(body))
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, len(body) + len(directory), 1)
    return body + directory + large + locator + end


LOCAL, CENTRAL, END = b"PK\3\4", b"PK\1\2", b"PK\5\6"
ARCHIVES: dict[str, Callable[[], bytes]] = {
    "79 zip bomb": lambda: zipped(_rebuilt() | {"archive/data/0": bytes(2**26)}, zipfile.ZIP_DEFLATED),
    "79 compressed as a whole": lambda: zipped(_rebuilt(), zipfile.ZIP_DEFLATED),
    "80 parent folder": lambda: zipped(_rebuilt() | {"../../x": b"x"}),
    "80 parent folder inside": lambda: zipped(_rebuilt() | {"archive/../x": b"x"}),
    "80 absolute": lambda: zipped(_rebuilt() | {"/etc/x": b"x"}),
    "80 absolute on Windows": lambda: zipped(_rebuilt() | {"C:/x": b"x"}),
    "80 backslash": lambda: zipped(_rebuilt() | {"archive\\x": b"x"}),
    "80 control character": lambda: zipped(_rebuilt() | {"archive/\x1b[2J": b"x"}),
    "81 two data.pkl": lambda: zipped([*_rebuilt().items(), ("archive/data.pkl", honest_pickle())]),
    "81 two folders": lambda: zipped(_rebuilt() | {"other/data.pkl": honest_pickle()}),
    "82 checksum": lambda: _honest().replace(b"\x00\x00\x80?" * 4, b"\x00\x00\x80?" * 3 + b"\x00\x00\x80>"),
    "82 checksum in the directory": lambda: _patched(_honest(), (CENTRAL, 16, b"\1\2\3\4")),
    "82 flags": lambda: _patched(_honest(), (LOCAL, 6, b"\x20\x00"), (CENTRAL, 8, b"\x20\x00")),
    "82 flags in one place": lambda: _patched(_honest(), (CENTRAL, 8, b"\x08\x00")),
    "82 method in one place": lambda: _patched(_honest(), (LOCAL, 8, b"\x08\x00")),
    "82 size in one place": lambda: _patched(_honest(), (LOCAL, 22, b"\x01\x00\x00\x00")),
    "83 names differ": lambda: _patched(_honest(), (LOCAL, 30, b"archivf")),
    "84 encrypted": lambda: _patched(_honest(), (LOCAL, 6, b"\x01\x00"), (CENTRAL, 8, b"\x01\x00")),
    "85 a pickle under another extension": lambda: zipped(_rebuilt() | {"archive/picture.jpg": b"cos\nsystem\n."}),
    "86 TorchScript": lambda: zipped(_rebuilt() | {"archive/constants.pkl": b"\x80\x02)."}),
    "86 TorchScript's code": lambda: zipped(_rebuilt() | {"archive/code/__torch__.py": b"op_version_set = 1"}),
    "87 a million entries": lambda: _many(10**6),
    "no data.pkl": lambda: zipped({name: raw for name, raw in _rebuilt().items() if not name.endswith("pkl")}),
    "bytes before": lambda: b"PK\3\4" + bytes(26) + _honest(),
    "bytes behind": lambda: _honest() + b"\x80\x02}.",
    "comment": lambda: _patched(_honest() + b"abc", (END, 20, b"\3\0")),
    "cut": lambda: _honest()[:-30],
    "big-endian": lambda: zipped(_rebuilt(byteorder=b"big")),
    "bytes behind its pickle": lambda: torch_file(honest_pickle() + b"cos\nsystem\n."),
    "truth value neither 0 nor 1": lambda: zipped(
        unzipped(saved({"a": torch.ones(4).bool()})) | {"archive/data/0": b"\1\1\2\0"}
    ),
    "entries that overlap": lambda: _overlapping(),
    "directory only": lambda: _patched(_honest()[-22:], (END, 12, bytes(8))),
}


def _overlapping() -> bytes:
    """The directory names one entry twice, the second time under another name."""
    one = zipped({"a/data.pkl": b"\x80\x02}."})
    start = one.index(CENTRAL)
    directory = one[start:-22]
    twice = directory + directory.replace(b"a/data.pkl", b"a/data/abc")
    end = struct.pack("<4s4H2IH", END, 0, 0, 2, 2, len(twice), start, 0)
    return one[:start] + twice + end


# safetensors.


def tensors(header: object, body: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file with this header: JSON, or bytes as they are."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + body


def one(name: str = "a", dtype: object = "F32", shape: object = (2,), span: object = (0, 8), **more: object) -> dict:
    """A header of one tensor."""
    return {name: {"dtype": dtype, "shape": shape, "data_offsets": span, **more}}


_TWICE = json.dumps(one())[:-1].encode() + b", " + json.dumps(one())[1:].encode()
SAFETENSORS: dict[str, Callable[[], bytes]] = {
    "01 empty": lambda: b"",
    "02 4 bytes": lambda: b"\0\0\0\0",
    "03 header of 2^63": lambda: tensors(one(), bytes(8), 2**63),
    "04 header of 100,000,001": lambda: tensors(one(), bytes(8), 100_000_001),
    "04 header that is that long": lambda: tensors(b"{" + b" " * (2**24) + b"}"),
    "05 header longer than the file": lambda: tensors(one(), bytes(8), 1000),
    "06 header cut": lambda: tensors(json.dumps(one()).encode()[:20]),
    "07 not UTF-8": lambda: tensors(b'{"\xff": 1}'),
    "08 overlap": lambda: tensors(one("a") | one("b", span=(4, 12)), bytes(12)),
    "09 hole": lambda: tensors(one("a") | one("b", span=(12, 20)), bytes(20)),
    "10 trailing bytes": lambda: tensors(one(), bytes(9)),
    "10 zip behind": lambda: tensors(one(), bytes(8)) + _honest(),
    "11 cut": lambda: tensors(one(), bytes(7)),
    "12 end before begin": lambda: tensors(one(span=(8, 0)), bytes(8)),
    "13 shape and bytes": lambda: tensors(one(shape=(3,)), bytes(8)),
    "14 overflow": lambda: tensors(one(shape=(2**33, 2**33)), bytes(8)),
    "15 negative": lambda: tensors(one(shape=(-2, -1)), bytes(8)),
    "16 dtype": lambda: tensors(one(dtype="F31"), bytes(8)),
    "16 dtype that is a list": lambda: tensors(one(dtype=["F32"]), bytes(8)),
    "17 metadata that is no text": lambda: tensors(one() | {"__metadata__": {"a": 1}}, bytes(8)),
    "17 metadata that is a list": lambda: tensors(one() | {"__metadata__": []}, bytes(8)),
    "18 deep JSON": lambda: tensors(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "19 float offsets": lambda: tensors(one(span=(0.0, 8.0)), bytes(8)),
    "19 truth values": lambda: tensors(one(shape=(True,), span=(False, 4)), bytes(4)),
    "20 F4": lambda: tensors(one(dtype="F4", shape=(3,), span=(0, 2)), bytes(2)),
    "21 pickle": lambda: called("os", "system", text("true")) + STOP,
    "22 duplicate key": lambda: tensors(_TWICE, bytes(8)),
    "23 leading spaces": lambda: tensors(b"  " + json.dumps(one()).encode(), bytes(8)),
    "24 unknown field": lambda: tensors(one(pickle="x"), bytes(8)),
    "25 huge axis without elements": lambda: tensors(one(shape=(0, 2**62), span=(0, 0))),
    "26 zero-size tensor inside another": lambda: tensors(one() | one("b", shape=(0,), span=(4, 4)), bytes(8)),
    "27 rank 5000": lambda: tensors(one(shape=(1,) * 5000, span=(0, 4)), bytes(4)),
    "29 name of a megabyte": lambda: tensors(one("a" * 2**20), bytes(8)),
    "29 no name": lambda: tensors(one(""), bytes(8)),
    "30 NUL in a name": lambda: tensors(one("a\0b"), bytes(8)),
    "30 ESC in a name": lambda: tensors(one("\x1b[2Jgone"), bytes(8)),
    "30 half a character": lambda: tensors(b'{"\\ud800": {"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', bytes(8)),
    "33 metadata only": lambda: tensors({"__metadata__": {"format": "pt"}}),
    "34 200,000 tensors": lambda: tensors({str(i): one(shape=(0,), span=(0, 0))["a"] for i in range(200_000)}),
    "record that is a list": lambda: tensors({"a": []}),
    "header that is a list": lambda: tensors([]),
    "NaN for a number": lambda: tensors(b'{"a": {"dtype":"F32","shape":[NaN],"data_offsets":[0,8]}}', bytes(8)),
    "number of 5,000 digits": lambda: tensors(b'{"a": {"dtype":"F32","shape":[' + b"9" * 5000 + b"]}}", bytes(8)),
    "truth value neither 0 nor 1": lambda: tensors(one(dtype="BOOL", span=(0, 2)), b"\1\2"),
}


# Other things that lie where a checkpoint should.
OTHERS: dict[str, tuple[Callable[[], bytes], str]] = {
    "tar": (lambda: bytes(257) + b"ustar\x0000" + bytes(248), "tar file"),
    "web page": (lambda: b"\n<!DOCTYPE html><html>sign in</html>", "web page"),
    "Git LFS": (lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "Git LFS"),
    "gzip": (lambda: b"\x1f\x8b\x08" + zlib.compress(b"x"), "gzip"),
    "text": (lambda: b"weights", "no torch or safetensors file"),
    "zeros": (lambda: bytes(4096), "no torch or safetensors file"),
}
