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

#: What one answer may hold, however it is nested: numbers in its arrays, values and containers,
#: letters in its texts and names. More are refused on both sides, as are more levels of nesting and
#: a longer name of a record or a field.
MOST = {"numbers": 2_000_000, "values": 50_000, "letters": 10_000}
MOST_LEVELS, MOST_IN_A_NAME = 8, 100

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
    return _encode(value, MOST_LEVELS, _Budget(NotPlain, "got"))


def decode(data) -> Any:
    """The value: None, bool, int, float, str, `np.ndarray`, tuple, list, dict or `Record`.

    Raises:
        ValueError: data that `encode` cannot have written.
    """
    return _decode(data, MOST_LEVELS, _Budget(ValueError, "not an encoded answer:"))


class _Budget:
    """What one answer may still hold, however it is nested."""

    def __init__(self, error, opening):
        self.error, self.opening = error, opening
        self.left = dict(MOST)

    def spend(self, count, kind):
        self.left[kind] -= count
        if self.left[kind] < 0:
            raise self.error(f"{self.opening} more than {MOST[kind]} {kind}")

    def name(self, text):
        self.spend(len(text), "letters")
        if len(text) > MOST_IN_A_NAME:
            raise self.error(f"{self.opening} a name of {len(text)} letters")
        return text


def _encode(value, levels, budget):
    kind = type(value)
    budget.spend(1, "values")
    if levels < 0:
        raise NotPlain(f"got an answer nested more than {MOST_LEVELS} levels deep")
    if value is None:
        return {"none": True}
    if kind is bool or kind is np.bool_:
        return {"bool": bool(value)}
    if kind is int or kind is float or kind in _SCALARS:
        return _number(value)
    if kind is str:
        budget.spend(len(value), "letters")
        return {"text": value}
    if kind in (torch.Tensor, torch.nn.Parameter, np.ndarray):
        return _array(value, budget)
    if kind in (tuple, list):
        return {kind.__name__: [_encode(v, levels - 1, budget) for v in value]}
    if kind is dict:
        pairs = value.items()
        return {"dict": [[_key(k, budget), _encode(v, levels - 1, budget)] for k, v in pairs]}
    return _record(value, kind, levels, budget)


def _number(value):
    value = value if type(value) in (int, float) else value.item()
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise NotPlain("got a whole number of more than 64 bits")
        return {"int": value}
    return {"float": value if math.isfinite(value) else str(value)}


def _array(value, budget):
    budget.spend(value.numel() if isinstance(value, torch.Tensor) else value.size, "numbers")
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


def _key(key, budget):
    if type(key) is not str:
        raise NotPlain(f"got a dict with a key of type {type(key).__name__}: expected texts")
    return budget.name(key)


def _record(value, kind, levels, budget):
    if kind is Record:
        fields = _encode(value.fields, levels, budget)["dict"]
        return {"record": budget.name(value.name), "fields": fields}
    parameters = getattr(kind, "__dataclass_params__", None)
    if parameters is None or not parameters.frozen:
        raise NotPlain(_refusal(value, kind))
    fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(kind)}
    fields = _encode(fields, levels, budget)["dict"]
    return {"record": budget.name(kind.__name__), "fields": fields}


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
    name = kind.__name__[:MOST_IN_A_NAME]
    article = "an" if name[:1] in "aeiouAEIO" else "a"
    return f"got {article} {name} / expected plain data: {why}"


def _decode(data, levels, budget):
    budget.spend(1, "values")
    if levels < 0 or type(data) is not dict:
        raise ValueError("not an encoded answer")
    match data:
        case {"none": True, **rest} if not rest:
            return None
        case {"bool": bool(v), **rest} if not rest:
            return v
        case {"int": int(v), **rest} if not rest and type(v) is int and -(2**63) <= v < 2**63:
            return v
        case {"float": v, **rest} if not rest:
            return _float(v)
        case {"text": str(v), **rest} if not rest:
            budget.spend(len(v), "letters")
            return v
        case {"tuple": list(v), **rest} if not rest:
            return tuple(_decode(e, levels - 1, budget) for e in v)
        case {"list": list(v), **rest} if not rest:
            return [_decode(e, levels - 1, budget) for e in v]
        case {"dict": list(v), **rest} if not rest:
            return _fields(v, levels, budget)
        case {"record": str(name), "fields": list(v), **rest} if not rest:
            budget.spend(1, "values")
            return Record(budget.name(name), _fields(v, levels, budget))
        case {"array": list(v), "shape": list(shape), "dtype": str(dtype), **rest} if not rest:
            budget.spend(len(v), "numbers")
            return _ndarray(v, shape, dtype)
    raise ValueError(f"not an encoded answer: fields {[str(f)[:20] for f in list(data)[:4]]}")


def _float(v):
    if type(v) is float and math.isfinite(v):
        return v
    if type(v) is str and v in _SPECIAL:
        return _SPECIAL[v]
    raise ValueError("not an encoded number")


def _fields(pairs, levels, budget):
    out = {}
    for pair in pairs:
        if type(pair) is not list or len(pair) != 2 or type(pair[0]) is not str or pair[0] in out:
            raise ValueError("not an encoded dict")
        out[budget.name(pair[0])] = _decode(pair[1], levels - 1, budget)
    return out


def _ndarray(values, shape, dtype):
    if dtype not in _DTYPES or len(shape) > 32:
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
