"""Chapter 3. Randomized smoothing: a proof for any classifier, at the price of samples.

The smoothed classifier answers with the class that a base classifier gives most often to
x + N(0, sigma²·I). If that class has probability p > ½, no ℓ2 change shorter than sigma·Φ⁻¹(p)
alters the answer. p is not known; it is bounded from below by counting, so a certificate fails
with probability at most alpha. One set of draws chooses the class, another one counts it.

What is certified is the classifier that runs: with its arithmetic, its ties and float32 noise.
The theorem speaks of real numbers; noise of finitely many values can be attacked in principle
(Voráček & Hein, "Sound randomized smoothing in floating-point arithmetic", ICLR 2023), and nothing
here rules it out.
"""

import contextlib
import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, wait
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int
from scipy.special import ndtri
from scipy.stats import binomtest
from torch import Tensor
from tqdm.auto import tqdm

from .intervals import clopper_pearson_lower
from .runtime import quiet, validate
from .threat import Certificate

#: Draws come in blocks of this size. What a block holds depends on (seed, image, block) alone.
BLOCK = 100


def radius(
    p_a: float | Float[Tensor, "..."], sigma: float, p_b: float | Float[Tensor, "..."] | None = None
) -> Float64[Tensor, "..."]:
    """The ℓ2 radius within which the class of probability p_a stays ahead; ≤ 0: nothing.

    sigma·Φ⁻¹(p_a) if only p_a is known, sigma/2·(Φ⁻¹(p_a) − Φ⁻¹(p_b)) if every other class has
    at most p_b. Lower bounds of p_a and upper bounds of p_b give lower bounds of the radius. It is
    infinite at p_a = 1, which no count can show (0 if p_b says the contrary).

    Raises:
        ValueError: sigma ≤ 0, or a probability outside [0, 1].

    Source: Cohen, Rosenfeld & Kolter, "Certified adversarial robustness via randomized smoothing"
    (ICML 2019), theorem 1.
    """
    _positive(sigma=sigma)
    known = {"p_a": p_a} if p_b is None else {"p_a": p_a, "p_b": p_b}
    tensors = [torch.as_tensor(p, dtype=torch.float64) for p in known.values()]
    for name, p in zip(known, tensors, strict=True):
        if not ((p >= 0) & (p <= 1)).all():
            raise ValueError(f"{name} is {p.flatten()[:3].tolist()}; expected probabilities")
    quantiles = [torch.as_tensor(ndtri(p.cpu().numpy())).to(p.device) for p in tensors]
    if p_b is None:
        return sigma * quantiles[0]
    return (sigma / 2 * (quantiles[0] - quantiles[1])).nan_to_num(0.0, torch.inf, -torch.inf)


@dataclass(frozen=True)
class Counted:
    """What was drawn at one image: the class that was chosen, and how often it came.

    Attributes:
        image: its number.
        label: the class that came most often in the first draws.
        hits: how many of the later draws gave it.
        drawn: how many later draws there were: n, or fewer where no certificate was possible
            any more.
    """

    image: int
    label: int
    hits: int
    drawn: int


def certify(
    model: Callable,
    x: Float[Tensor, " m *s"],
    *,
    sigma: float,
    classes: int,
    n0: int = 100,
    n: int = 10_000,
    alpha: float = 1e-3,
    batch: int = 1000,
    seed: int = 0,
    images: Sequence[int] | None = None,
    executor: Executor | None = None,
    on_image: Callable[[Counted], None] | None = None,
) -> Certificate:
    """Certify the smoothed classifier at each x: label, ℓ2 radius, abstention.

    n0 draws choose the class, n others count it; the radius is sigma·Φ⁻¹ of the one-sided lower
    bound of Clopper and Pearson at level 1 − alpha, and where that bound is ½ or less it abstains.
    An image at which too many draws have missed for any certificate is given up early; that
    changes no certificate and no level.

    Args:
        model: the base classifier, logits `[b, *s] -> [b, classes]`, in evaluation mode; it is
            given noisy inputs, which leave the box, images channels-last if it takes them so.
        x: the images, on the device where the draws are to be made.
        sigma: the standard deviation of the noise, in units of x.
        classes: of the model.
        n0, n: draws for choosing, and for counting.
        alpha: the probability, for each image, that its certificate is wrong.
        batch: draws in a forward pass, in hundreds; they fill up across images.
        seed: with an image's number and a block's, it fixes the block's draws.
        images: the numbers of the images, each once; 0, 1, … if None.
        executor: shares out the images, eight at a time: a process pool, or a Dask client's.
        on_image: called with each image's counts as soon as they are there, in any order.

    Raises:
        ValueError: sigma ≤ 0, n or n0 below 1, alpha outside (0, 1), a batch below 100, another
            number of classes, NaN logits, or what `runtime.validate` refuses.
    """
    plan = Plan(sigma, classes, n0, n, alpha, batch, seed)
    numbers = range(len(x)) if images is None else images
    found = {}
    for counted in count(model, x, plan, numbers, executor):
        found[counted.image] = counted
        if on_image is not None:
            on_image(counted)
    return certificate([found[int(i)] for i in numbers], plan, x.device)


@dataclass(frozen=True)
class Plan:
    """The settings of `certify`, and what follows from them.

    Raises:
        ValueError: a setting out of range.
    """

    sigma: float
    classes: int
    n0: int = 100
    n: int = 10_000
    alpha: float = 1e-3
    batch: int = 1000
    seed: int = 0

    def __post_init__(self):
        _positive(sigma=self.sigma)
        _whole(n0=self.n0, n=self.n, batch=self.batch, classes=self.classes)
        if type(self.seed) is not int or self.seed < 0:
            raise ValueError(f"seed is {self.seed!r}; expected a whole number, 0 or more")
        if not 0 < self.alpha < 1:
            raise ValueError(f"alpha is {self.alpha}; expected a probability, between 0 and 1")
        if self.classes < 2:
            raise ValueError(f"classes is {self.classes}; expected 2 or more")
        if self.batch < BLOCK:
            raise ValueError(f"batch is {self.batch}; draws come in blocks of {BLOCK}")

    def fewest(self) -> int:
        """The fewest hits of n that certify anything; n + 1 if even n do not."""
        low, high = 0, self.n + 1
        while low < high:  # the bound rises with the count
            middle = (low + high) // 2
            if clopper_pearson_lower(middle, self.n, self.alpha).item() > 0.5:
                high = middle
            else:
                low = middle + 1
        return low


def certificate(
    counted: Sequence[Counted], plan: Plan, device: str | torch.device = "cpu"
) -> Certificate:
    """What the counts prove, an image each."""
    hits, drawn, label = (
        torch.tensor([getattr(c, name) for c in counted], dtype=torch.int64, device=device)
        for name in ("hits", "drawn", "label")
    )
    p = clopper_pearson_lower(torch.where(drawn == plan.n, hits, 0), plan.n, plan.alpha)
    proved = p > 0.5
    safe = torch.where(proved, radius(p, plan.sigma) * (1 - 1e-12), 0.0)  # rounded down
    return Certificate(label, safe, "l2", plan.alpha, ~proved)


@dataclass(frozen=True)
class Prediction:
    """The smoothed classifier's answers, without a radius.

    Attributes:
        label: the class that came most often.
        abstain: True where the two most frequent classes cannot be told apart at level alpha.
        counts: [m, k], of n draws.
        failure_prob: the probability, for each image, that an answer not abstained is not the
            smoothed classifier's.
    """

    label: Int[Tensor, " m"]
    abstain: Bool[Tensor, " m"]
    counts: Int[Tensor, "m k"]
    failure_prob: float


def predict(
    model: Callable,
    x: Float[Tensor, " m *s"],
    *,
    sigma: float,
    classes: int,
    n: int = 1000,
    alpha: float = 1e-3,
    batch: int = 1000,
    seed: int = 0,
) -> Prediction:
    """What the smoothed classifier answers, or that n draws do not tell.

    Arguments and errors are those of `certify`.

    Source: Cohen, Rosenfeld & Kolter 2019, section 3.2.1 (after Hung & Fithian 2019).
    """
    _whole(n=n)
    plan = Plan(sigma, classes, n, 1, alpha, batch, seed)
    x = _look(model, x, plan)
    counts = torch.zeros(len(x), classes, dtype=torch.int64)
    pieces = (Piece(i, i, 0, *block) for i in range(len(x)) for block in _blocks(n))
    while some := list(islice(pieces, batch // BLOCK)):
        seen = _seen(_draw(model, x, plan, some), some)
        counts.index_add_(0, torch.tensor([p.row for p in some]), seen)
    (first, second), label = counts.topk(2).values.T, counts.argmax(1)
    pairs = zip(first.tolist(), second.tolist(), strict=True)
    abstain = torch.tensor([binomtest(a, a + b, 0.5).pvalue for a, b in pairs]) > alpha
    return Prediction(label.to(x.device), abstain.to(x.device), counts.to(x.device), alpha)


def count(
    model: Callable,
    x: Float[Tensor, " m *s"],
    plan: Plan,
    numbers: Sequence[int],
    executor: Executor | None = None,
) -> Iterator[Counted]:
    """The counts behind `certify`, image by image as they are finished, in any order.

    With an executor the images travel in shares of eight; what a share draws does not depend on
    who draws it, so on one kind of machine the counts are the same bits.

    Raises:
        ValueError: at once, what `certify` refuses; later, NaN.
    """
    x = _look(model, x, plan)
    return _watched(model, x, plan, _numbers(numbers, x), executor)


def _watched(model, x, plan, numbers, executor) -> Iterator[Counted]:
    with tqdm(total=len(x), unit="image", disable=quiet()) as bar:
        for counted in _shared(model, x, plan, numbers, executor):
            bar.update()
            yield counted


#: Images that travel together, and how many such shares are under way at most.
_SHARE, _AHEAD = 8, 200


def _shared(model, x, plan, numbers, executor) -> Iterator[Counted]:
    if executor is None:
        yield from _count(model, x, plan, numbers)
        return
    starts, under_way = iter(range(0, len(x), _SHARE)), set()
    try:
        while True:
            for i in islice(starts, _AHEAD - len(under_way)):
                part = slice(i, i + _SHARE)  # cloned: pickled, a view takes all images along
                share = executor.submit(_listed, model, x[part].clone(), plan, numbers[part])
                under_way.add(share)
            if not under_way:
                return
            finished, under_way = wait(under_way, return_when=FIRST_COMPLETED)
            for share in finished:
                yield from share.result()
    finally:
        for share in under_way:
            share.cancel()


def _listed(model, x, plan, numbers) -> list[Counted]:
    """One share's work, in whatever process; one of a pool takes one core.

    (With more, a process that was forked off one that had used several would wait for ever.)
    """
    if multiprocessing.parent_process() is not None:
        torch.set_num_threads(1)
    return list(_count(model, x, plan, numbers))


@dataclass(frozen=True)
class Piece:
    """A block of draws: of the image in this row, in the first stage (0) or the second (1)."""

    row: int
    image: int
    stage: int
    block: int
    size: int


def _count(model: Callable, x: Tensor, plan: Plan, numbers: list[int]) -> Iterator[Counted]:
    """Choose, then count; what the images in hand leave of a pass goes to new ones.

    The counts of a pass are looked at after the next one has been sent off, so that a GPU never
    waits for this loop.
    """
    waiting = deque(range(len(x)))
    todo: dict[int, Iterator[Piece]] = {}
    tally = _Tally(plan, numbers, todo)
    under_way: list[tuple[list[Piece], Tensor]] = []
    while waiting or todo:
        some = _fill(plan, numbers, waiting, todo)
        if some:
            under_way.append((some, _draw(model, x, plan, some)))
        if len(under_way) > 1 or not some:
            pieces, drawn = under_way.pop(0)
            for piece, seen in zip(pieces, _seen(drawn, pieces), strict=True):
                yield from tally.add(piece, seen)


class _Tally:
    """What was drawn so far of the images in hand."""

    def __init__(self, plan: Plan, numbers: list[int], todo: dict):
        self.plan, self.numbers, self.todo = plan, numbers, todo
        self.spare = plan.n - plan.fewest()  # misses that a certificate survives
        self.votes: dict[int, Tensor] = {}  # of the first draws
        self.state: dict[int, tuple[int, int, int]] = {}  # label, hits, drawn

    def add(self, piece: Piece, seen: Tensor) -> Iterator[Counted]:
        """Take a block in; the image, if that was the last one that it needed."""
        i, plan = piece.row, self.plan
        if piece.stage == 0:
            self.votes[i] = self.votes.get(i, 0) + seen
            if self.votes[i].sum() == plan.n0:
                self.state[i] = int(self.votes.pop(i).argmax()), 0, 0
                self.todo[i] = _pieces(i, self.numbers[i], 1, plan.n)
        elif i in self.state:  # else it is finished, and this block was one too many
            label, hits, drawn = self.state[i]
            hits, drawn = hits + int(seen[label]), drawn + piece.size
            self.state[i] = label, hits, drawn
            if drawn == plan.n or drawn - hits > self.spare:
                del self.state[i], self.todo[i]
                yield Counted(self.numbers[i], label, hits, drawn)


def _blocks(n: int) -> Iterator[tuple[int, int]]:
    """(number, size) of the blocks that n draws come in."""
    return ((b, min(BLOCK, n - b * BLOCK)) for b in range(-(-n // BLOCK)))


def _pieces(row: int, image: int, stage: int, n: int) -> Iterator[Piece]:
    return (Piece(row, image, stage, *block) for block in _blocks(n))


def _fill(plan: Plan, numbers: list[int], waiting: deque, todo: dict) -> list[Piece]:
    """As many pieces as a pass holds."""
    some: list[Piece] = []
    room = plan.batch // BLOCK
    for pieces in todo.values():
        some += islice(pieces, room - len(some))
    while waiting and len(some) < room:
        i = waiting.popleft()
        todo[i] = _pieces(i, numbers[i], 0, plan.n0)
        some += islice(todo[i], room - len(some))
    return some


@torch.no_grad()
def _draw(model: Callable, x: Tensor, plan: Plan, pieces: list[Piece]) -> Int[Tensor, "p k1"]:
    """One pass of the model: how often each piece's draws got each answer; last, how many NaN."""
    sizes, like = [p.size for p in pieces], {"dtype": x.dtype, "device": x.device}
    noisy = torch.empty(sum(sizes), *x.shape[1:], memory_format=_layout(x), **like)
    for part, p in zip(noisy.split(sizes), pieces, strict=True):
        gen = torch.Generator(x.device).manual_seed(_seed(plan.seed, p))
        drawn = torch.empty(part.shape, **like).normal_(0.0, plan.sigma, generator=gen)
        part.copy_(drawn.add_(x[p.row].contiguous()))  # the same draws in any layout
    logits = model(noisy)
    k = plan.classes
    if logits.shape != (len(noisy), k):
        raise ValueError(
            f"the model gave {tuple(logits.shape)} for {len(noisy)} draws; expected "
            f"({len(noisy)}, {k}): is classes right?"
        )
    answer = torch.where(logits.isnan().any(1), k, logits.argmax(1))
    first = torch.arange(len(pieces)).repeat_interleave(torch.tensor(sizes)) * (k + 1)
    seen = torch.zeros(len(pieces) * (k + 1), dtype=torch.int64, device=x.device)
    seen.scatter_add_(0, answer + first.to(x.device), torch.ones_like(answer))
    return seen.view(len(pieces), k + 1)


def _seen(drawn: Tensor, pieces: list[Piece]) -> Int[Tensor, "p k"]:
    """The counts of a pass, once it is there.

    Raises:
        ValueError: some logits were NaN.
    """
    drawn = drawn.cpu()
    for piece, bad in zip(pieces, drawn[:, -1].tolist(), strict=True):
        if bad:
            raise ValueError(f"the model gave NaN for image {piece.image} under noise")
    return drawn[:, :-1]


def _seed(seed: int, piece: Piece) -> int:
    """The seed of a block's draws: 32 bits, all that torch's generator on a CPU takes in.

    A one-to-one scramble of (image's start + block), so no two blocks of an image are the same;
    blocks of different images may be, by chance, which leaves each image's level as it is.
    """
    start = int(np.random.SeedSequence([seed, piece.image]).generate_state(1)[0])
    h = (start + piece.stage * 0x80000000 + piece.block) & 0xFFFFFFFF
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):  # MurmurHash3's finaliser
        h = ((h ^ (h >> shift)) * factor) & 0xFFFFFFFF
    return h ^ (h >> 16)


def _look(model: Callable, x: Tensor, plan: Plan) -> Tensor:
    """x, channels-last if the model takes that; before anything is drawn, what is wrong is refused.

    On CPUs, convolutions of colour images take about two thirds of the time in that layout.
    """
    validate(model, x, box=(0.0, 1.0) if x.ndim == 4 else None)
    with torch.no_grad():
        k = model(x[:1]).shape[1]
        if k != plan.classes:
            raise ValueError(f"classes is {plan.classes}; the model has {k}")
        if x.ndim == 4:
            with contextlib.suppress(Exception):  # a `view` fails, say
                last = x.contiguous(memory_format=torch.channels_last)
                model(last[:1])
                return last
    return x


def _layout(x: Tensor) -> torch.memory_format:
    last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def _numbers(numbers: Sequence[int], x: Tensor) -> list[int]:
    """The images' numbers, each once."""
    found = [int(i) for i in numbers]
    if len(found) != len(x):
        raise ValueError(f"there are {len(found)} numbers of images; x has {len(x)} images")
    if len(set(found)) != len(found) or min(found) < 0:
        raise ValueError(f"the images' numbers are {found[:5]} …; expected each once, from 0 up")
    return found


def _positive(**values: int | float) -> None:
    for name, value in values.items():
        if not 0 < value < float("inf"):
            raise ValueError(f"{name} is {value}; expected a number > 0")


def _whole(**values: int) -> None:
    for name, value in values.items():
        if type(value) is not int or value < 1:
            raise ValueError(f"{name} is {value!r}; expected a whole number, 1 or more")
