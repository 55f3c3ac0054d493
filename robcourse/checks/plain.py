"""Answers as plain data: one pair of functions for the notebook and for the grader.

`encode` runs where the student's code runs; `decode` runs where it is judged, often in another
process. Only JSON passes between them, so nothing that comes back is executed, and no object of
the student's can answer questions about itself.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

#: More entries than this in one answer, or more levels of nesting, are refused on both sides.
MOST_NUMBERS, MOST_LEVELS, MOST_LETTERS = 2_000_000, 8, 10_000

_DTYPES = {
    name: np.dtype(name)
    for name in (
        *("bool", "uint8", "int8", "int16", "int32", "int64"),
        *("float16", "float32", "float64"),
    )
}
_SCALARS = tuple(d.type for d in _DTYPES.values())
_SPECIAL = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


class NotPlain(TypeError):
    """An answer that is not of the kinds that `encode` knows; the message is for the student."""


@dataclass(frozen=True)
class Record:
    """What a frozen dataclass becomes: its name and its fields. `AttackResult`, `Threat`, …"""

    name: str
    fields: dict[str, Any]


def encode(value) -> dict:
    """JSON-safe plain data for None, bool, number, text, array, or a tuple, list, dict or frozen
    dataclass of these.

    Only these very types are taken, no subclass of them, so that no method of the student's is
    asked what the value is. Tensors and NumPy arrays become the same thing; bfloat16 is widened.

    Raises:
        NotPlain: anything else; the message names it and the likely slip.
    """
    return _encode(value, MOST_LEVELS)


def decode(data) -> Any:
    """The value: None, bool, int, float, str, `np.ndarray`, tuple, list, dict or `Record`.

    Raises:
        ValueError: data that `encode` cannot have written.
    """
    return _decode(data, MOST_LEVELS)


def _encode(value, levels):
    kind = type(value)
    if levels < 0:
        raise NotPlain(f"got an answer nested more than {MOST_LEVELS} levels deep")
    if value is None:
        return {"none": True}
    if kind is bool or kind is np.bool_:
        return {"bool": bool(value)}
    if kind is int or kind is float or kind in _SCALARS:
        return _number(value)
    if kind is str:
        if len(value) > MOST_LETTERS:
            raise NotPlain(f"got a text of {len(value)} letters: more than {MOST_LETTERS}")
        return {"text": value}
    if kind in (torch.Tensor, torch.nn.Parameter):
        return _array(value)
    if kind is np.ndarray:
        return _array(value)
    if kind in (tuple, list):
        return {kind.__name__: [_encode(v, levels - 1) for v in value]}
    if kind is dict:
        return {"dict": [[_key(k), _encode(v, levels - 1)] for k, v in value.items()]}
    return _record(value, kind, levels)


def _number(value):
    value = value if type(value) in (int, float) else value.item()
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise NotPlain("got a whole number of more than 64 bits")
        return {"int": value}
    return {"float": value if math.isfinite(value) else str(value)}


def _array(value):
    count = value.numel() if isinstance(value, torch.Tensor) else value.size
    if count > MOST_NUMBERS:
        raise NotPlain(f"got an array of {count} numbers: more than {MOST_NUMBERS}")
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().resolve_conj().resolve_neg()
        value = value.to_dense() if value.layout is not torch.strided else value
        value = (value.float() if value.dtype is torch.bfloat16 else value).numpy()
    if str(value.dtype) not in _DTYPES:
        raise NotPlain(f"got an array of dtype {value.dtype}: expected one of {', '.join(_DTYPES)}")
    values = value.ravel().tolist()
    if value.dtype.kind == "f":
        values = [v if math.isfinite(v) else str(v) for v in values]
    return {"array": values, "shape": list(value.shape), "dtype": str(value.dtype)}


def _key(key):
    if type(key) is not str:
        raise NotPlain(f"got a dict with a key of type {type(key).__name__}: expected texts")
    return key


def _record(value, kind, levels):
    if kind is Record:
        return {"record": value.name, "fields": _encode(value.fields, levels)["dict"]}
    parameters = getattr(kind, "__dataclass_params__", None)
    if parameters is None or not parameters.frozen:
        raise NotPlain(_refusal(value, kind))
    fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(kind)}
    return {"record": kind.__name__, "fields": _encode(fields, levels)["dict"]}


def _refusal(value, kind):
    if kind.__name__ == "coroutine":
        value.close()
        return "got a coroutine / expected a value: write `def`, not `async def`"
    slips = {
        "generator": "your function yields: use `return`, not `yield`",
        "ellipsis": "the `...` of the stub is still there",
        "function": "you returned the function itself: call it",
        "set": "a set has no order: use a tuple",
        "map": "turn it into a tensor or a tuple first",
        "complex": "the answer is real",
    }
    why = slips.get(kind.__name__, "answer with a number, a tensor, or a tuple of these")
    article = "an" if kind.__name__[:1] in "aeiouAEIO" else "a"
    return f"got {article} {kind.__name__} / expected plain data: {why}"


def _decode(data, levels):
    if levels < 0 or type(data) is not dict:
        raise ValueError("not an encoded answer")
    match data:
        case {"none": True, **rest} if not rest:
            return None
        case {"bool": bool(v), **rest} if not rest:
            return v
        case {"int": int(v), **rest} if not rest and type(v) is int:
            return v
        case {"float": v, **rest} if not rest:
            return _float(v)
        case {"text": str(v), **rest} if not rest and len(v) <= MOST_LETTERS:
            return v
        case {"tuple": list(v), **rest} if not rest:
            return tuple(_decode(e, levels - 1) for e in v)
        case {"list": list(v), **rest} if not rest:
            return [_decode(e, levels - 1) for e in v]
        case {"dict": list(v), **rest} if not rest:
            return _fields(v, levels)
        case {"record": str(name), "fields": list(v), **rest} if not rest:
            return Record(name, _fields(v, levels))
        case {"array": list(v), "shape": list(shape), "dtype": str(dtype), **rest} if not rest:
            return _ndarray(v, shape, dtype)
    raise ValueError(f"not an encoded answer: fields {sorted(map(str, data))[:4]}")


def _float(v):
    if type(v) is float and math.isfinite(v):
        return v
    if type(v) is str and v in _SPECIAL:
        return _SPECIAL[v]
    raise ValueError("not an encoded number")


def _fields(pairs, levels):
    out = {}
    for pair in pairs:
        if type(pair) is not list or len(pair) != 2 or type(pair[0]) is not str or pair[0] in out:
            raise ValueError("not an encoded dict")
        out[pair[0]] = _decode(pair[1], levels - 1)
    return out


def _ndarray(values, shape, dtype):
    if dtype not in _DTYPES or len(values) > MOST_NUMBERS or len(shape) > 32:
        raise ValueError("not an encoded array")
    if not all(type(n) is int and n >= 0 for n in shape) or math.prod(shape) != len(values):
        raise ValueError("an encoded array whose shape is not that of its values")
    want = {"b": bool, "f": float}.get(_DTYPES[dtype].kind, int)
    if want is float:
        values = [_float(v) for v in values]
    elif not all(type(v) is want for v in values):
        raise ValueError("an encoded array whose values are not of its dtype")
    try:
        with np.errstate(over="ignore"):
            return np.array(values, dtype=_DTYPES[dtype]).reshape(shape)
    except OverflowError:
        raise ValueError("an encoded array whose values do not fit its dtype") from None
