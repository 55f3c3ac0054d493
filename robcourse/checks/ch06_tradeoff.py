"""Checks of chapter 6: the three risks, a false inequality, the floor of a sample, the frontier.

The oracles are counts, closed forms in NumPy and float64, and a linear program for the floor.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import optimize, sparse
from scipy.special import log_softmax, ndtr
from torch import nn
from torch.nn.utils import skip_init  # no draw from the global random state

from robcourse import attacks, data, models
from robcourse.threat import Threat, measure

from . import Accepted, Case, Check
from . import messages as m
from .cases import arrays, generator, numpy_generator
from .plain import NotPlain


def _refuse_mask(value, shape, meaning):
    """As `m.refuse_array` for bool; 0 and 1 of another dtype will do."""
    if isinstance(value, np.ndarray) and value.shape == shape and np.isin(value, (0, 1)).all():
        return None
    return m.refuse_array(value, shape, meaning, dtype="bool")


def _distinct(slips, want) -> bool:
    """Whether slips with different messages give different numbers, and none the right ones."""
    each = [*slips, (want, "right")]
    same = lambda a, b: np.allclose(np.asarray(a, float), np.asarray(b, float), rtol=0, atol=1e-3)
    return not any(same(a, b) for i, (a, one) in enumerate(each) for b, two in each[:i]
                   if one != two)  # fmt: skip


# decompose

RISKS = ("natural", "boundary", "robust")


def decompose_cases(seed):
    g = generator(seed, 1)
    # How many stay right, break, stay wrong, flip from wrong to right, and to another wrong answer.
    # Found by search: each slip of the judge gives other numbers.
    plans = (13, 7, 4, 5, 2), (21, 8, 3, 2, 6)
    return [Case(_predictions(g, plan), "some flip from wrong to right") for plan in plans]


def _predictions(g, counts):
    kinds = torch.repeat_interleave(torch.arange(5), torch.tensor(counts))
    kinds = kinds[torch.randperm(len(kinds), generator=g)]
    y = torch.randint(4, kinds.shape, generator=g)
    pred = torch.where(kinds <= 1, y, (y + 1) % 4)
    adv = torch.stack([y, (y + 1) % 4, pred, y, (y + 2) % 4])[kinds, torch.arange(len(y))]
    return pred, adv, y


def decompose_judge(case, answer):
    pred, adv, y = arrays(*case.args)
    if said := m.refuse_numbers(answer, RISKS, "the risk"):
        return said
    wrong, flipped, n = pred != y, adv != y, len(y)
    natural, boundary = wrong.mean(), (~wrong & flipped).mean()
    robust = natural + boundary
    want = np.array([natural, boundary, robust])
    flips = "wrong→right flips count as robust: who is wrong at x is wrong in the ball"
    changed = "a changed prediction is no error by itself: compare with y"
    moved, found, none = (adv != pred).mean(), flipped.mean(), np.nan
    share, of_all = boundary / (1 - natural), "boundary risk is a share of all n, not of the right"
    slips = [
        (n * want, "these are counts: divide by n"),
        (100 * want, "shares, not percentages"),
        ((natural, found - natural, found), flips),
        ((natural, found, natural + found), flips),
        ((natural, share, natural + share), of_all),
        ((natural, moved, natural + moved), changed),
        ((none, none, moved), changed),
        ((1 - natural, none, 1 - robust), "an accuracy: a risk is the share of errors"),
        ((natural, robust, boundary), "the sum is missing: natural + boundary = robust"),
    ]
    return m.compare_all(RISKS, answer, want, slips, rtol=0.0, atol=1e-6)


# robust_accuracy


@dataclass(frozen=True)
class _Push:
    """An attack that knows no label: one step of eps in ℓ∞ away from the model's own answer."""

    eps: float
    most: int

    def __call__(self, model, x, y):
        # NotPlain: its message becomes the verdict.
        if not torch.is_grad_enabled():
            why = "put only the forward passes under it, not the attack"
            raise NotPlain(m.said("an attack inside torch.no_grad()", "one with gradients", why))
        if len(x) > self.most:
            why = "attack one batch after the other"
            raise NotPlain(m.said(f"{len(x)} inputs at once", f"at most batch = {self.most}", why))
        z = x.detach().clone().requires_grad_()
        logits = model(z)
        top = logits.argmax(1, keepdim=True)
        lead = logits.gather(1, top) - logits.scatter(1, top, -torch.inf).amax(1, keepdim=True)
        (g,) = torch.autograd.grad(lead.sum(), z)
        return x - self.eps * g.sign()


def robust_accuracy_cases(seed):
    g = generator(seed, 2)
    return [_exact_world(g) for _ in range(2)]


def _exact_world(g):
    """Two classes and a linear model of dyadic numbers: each margin is what it was made to be."""
    draw = lambda low, high, *shape: torch.randint(low, high + 1, shape, generator=g)
    w, u = draw(-4, 4, 6) / 4, (2 * draw(0, 1, 6) - 1) * draw(1, 2, 6) / 2
    u[0] = 1.0
    model = nn.Sequential(nn.Flatten(), skip_init(nn.Linear, 6, 2)).eval()
    with torch.no_grad():
        model[1].weight.copy_(torch.stack([w, w + u]))
        model[1].bias.copy_(torch.tensor([0.25, -0.25]))
    # The margin in units of what a step of 1/8 takes off: 3 are ties at x, 2 are ties after it.
    counts = [int(draw(*ends)) for ends in ((6, 9), (3, 5), (2, 4))]
    counts = torch.tensor([*counts, 2, 3, 19 - sum(counts)])
    s = torch.tensor([2, 0.5, -0.5, 1, 0, -2]).repeat_interleave(counts)
    s = torch.cat([s[torch.randperm(24, generator=g)], torch.tensor([-2.0, -2.0])])
    y = draw(0, 1, 26)
    y[s == 1], y[s == 0] = torch.tensor([0, 1]), torch.tensor([0, 0, 1])
    x = draw(-8, 8, 26, 6) / 8
    x[:, 0] = (2 * y - 1) * s * u.abs().sum() / 8 + 0.5 - x[:, 1:] @ u[1:]
    args = (model, _Push(1 / 8, 8), x.view(26, 1, 2, 3), y, 8)
    return Case(args, "some ties, the last batch is short")


def _margin(model, x, y):
    """z_y − max over the other classes, in NumPy."""
    z = model(x).detach().double().numpy()
    rows, y = np.arange(len(z)), y.numpy()
    true = z[rows, y].copy()
    z[rows, y] = -np.inf
    return true - z.max(1)


def robust_accuracy_judge(case, answer):
    model, attack, x, y, batch = case.args
    names = ("clean", "robust_upper")
    if said := m.refuse_numbers(answer, names, "the share"):
        return said
    parts = zip(x.split(batch), y.split(batch), strict=True)
    moved = torch.cat([attack(model, a, b) for a, b in parts])
    pair = _margin(model, x, y), _margin(model, moved, y)
    strict, loose = [a > 0 for a in pair], [a >= 0 for a in pair]
    argmax = [(model(z).argmax(1) == y).numpy() for z in (x, moved)]
    tie = "a tie is wrong: right is a margin > 0, and argmax picks one of the tied"
    flips = "wrong→right flips count as robust: ask for right at x and at x_adv"
    unequal = "a mean of batch means: the last batch is smaller; count, and divide by n"
    want = _shares(*strict)
    slips = [
        (_shares(*strict, flips=True), flips),
        (_shares(*(a[: len(y) // batch * batch] for a in strict)), "the short batch is missing"),
        *((_shares(*a, flips=f), tie) for a in (argmax, loose) for f in (0, 1)),
        *((_by_batch(*a, batch, flips=f), unequal) for a in (strict, argmax) for f in (0, 1)),
        (want[::-1], "the order is clean, robust_upper"),
        (1 - want, "these are risks: return accuracies"),
        (len(y) * want, "these are counts: divide by n"),
        ((want[0], want[1] / want[0]), "robust_upper is a share of all n, not of those right at x"),
    ]
    return m.compare_all(names, answer, want, slips, rtol=0.0, atol=1e-6)


def _shares(right, survives, *, flips=False):
    return np.array([right.mean(), (survives if flips else right & survives).mean()])


def _by_batch(right, survives, batch, **slip):
    at = range(batch, len(right), batch)
    parts = zip(np.split(right, at), np.split(survives, at), strict=True)
    return np.mean([_shares(a, b, **slip) for a, b in parts], axis=0)


# refute


def refute_cases(seed):
    return [Case(label="your own world")]


def refute_judge(case, answer):
    names = ("points", "prob", "labels", "predictions", "eps")
    if said := m.refuse_tuple(answer, names) or _refuse_world(*answer):
        return said
    x, p, y, f = (np.asarray(a, float) for a in answer[:4])
    ball = abs(x[:, None] - x) <= float(answer[4])
    robust = p @ (ball & (f != y[:, None])).any(1)
    risk = p @ (f != y)
    mass = np.stack([np.where(f == c, 0, ball @ (p * (y == c))) for c in np.unique(y)])
    overlap = p @ mass.max(0)
    if robust < risk + overlap - 1e-3:
        return Accepted(f"R_adv = {robust:.4g} < {risk + overlap:.4g} = {risk:.4g} + {overlap:.4g}")
    why = "the left side is larger here: errors that an attack adds count on the left, too"
    if overlap == 0:
        why = "the overlap is 0: put points of two classes within ε of each other"
    elif risk == 0:
        why = "without a clean error the inequality is true (prove it): f must err somewhere"
    elif robust < risk + overlap:
        why = "so close that rounding could have done it: make the gap larger"
    got = f"R_adv = {robust:.4g} against {risk:.4g} + {overlap:.4g} = {risk + overlap:.4g}"
    return m.said(got, "R_adv smaller, by 0.001 at least", why)


def _refuse_world(points, prob, labels, predictions, eps):
    count = len(points) if isinstance(points, np.ndarray) and points.ndim == 1 else 2
    if said := m.refuse_array(points, (count,), "points on a line", whole=True):
        return said
    if not 2 <= len(np.unique(points)) == count <= 1000:
        why = "one point has one label and one prediction, so that the Bayes error is 0"
        return m.said(f"{len(np.unique(points))} different points of {count}", "2 to 1000", why)
    if said := m.refuse_array(prob, (count,), "prob, the probability of each point", whole=True):
        return said
    total = prob.astype(float).clip(-10, 10).sum()
    if not (prob.min() >= 0 and abs(total - 1) <= 1e-5):
        got = f"probabilities from {prob.min():.4g} that sum to {total:.6g}"
        return m.said(got, "none below 0, and a sum of 1")
    for name, value in (("labels", labels), ("predictions", predictions)):
        if not (isinstance(value, np.ndarray) and value.shape == (count,)):
            return m.refuse_array(value, (count,), f"{name}, a class a point", dtype="integer")
        if not np.isin(value, range(count)).all():
            return m.said(f"{name} that are no classes", f"whole numbers from 0 to {count - 1}")
    said = m.refuse_number(eps, "eps")
    if not said and not eps > 0:
        return m.said(f"eps = {float(eps):g}", "eps > 0", "without a ball there is no attack")
    return said


# guess_floor


def guess_floor_cases(seed):
    return [Case(label="digits, 3 against 8, ℓ∞, 4 grey levels")]


def guess_floor_judge(case, answer):
    if said := m.refuse_number(answer, "a share of the images"):
        return said
    guess, (truth, n) = float(answer), _digits_floor()
    if truth / 1.5 <= guess <= truth * 1.5:
        return Accepted(f"Computed: {truth:.4f}, {round(truth * n)} image of {n}")
    if not 0 <= guess <= 1:
        return m.said(f"{guess:.4g}", "a share from 0 to 1", "not a percentage, not a count")
    whys = (
        (0, "two closed balls of radius ε touch at a distance of exactly 2ε"),
        (truth, "a pair that conflicts costs an image, and the share is one of 357 images"),
        (2.2 * truth, "of a pair one image is enough, and it is a share of both classes together"),
        (0.4, "count the pairs within 2ε, which is 8 grey levels: few images take part in any"),
        (0.6, "half is what a constant gets: a training that fails is no law for all classifiers"),
        (1, "an attack shows what one network loses, not what every classifier has to lose"),
    )
    why = next(why for most, why in whys if guess <= most)
    return m.said(f"{guess:.4g}", f"a {'larger' if guess < truth else 'smaller'} share", why)


def _digits_floor():
    """The least robust risk on all images, and their number."""
    d = data.load("digits").only(3, 8)
    x = (16 * torch.cat([d.train_x, d.test_x]).flatten(1)).round().int().numpy()
    y = torch.cat([d.train_y, d.test_y]).numpy()
    near = abs(x[y == 0][:, None] - x[y == 1]).max(2) <= 8
    return _least_cover(near) / len(y), len(y)


# conflicts

_SIGNS = {"linf": "ℓ∞", "l2": "ℓ2", "l1": "ℓ1"}
_ORDERS = {"linf": np.inf, "l2": 2, "l1": 1}


def conflicts_cases(seed):
    g = generator(seed, 4)
    # (−3/2, 2, 0) has the size 2, 5/2 or 7/2: dyadic, so that a tie is one in floating point.
    plans = ("linf", 1.0), ("l2", 1.25), ("l1", 1.75)
    return [Case(_touching(g, eps, p), f"{_SIGNS[p]}, a pair at exactly 2ε") for p, eps in plans]


def _touching(g, eps, norm):
    """Points of a grid on which every slip gives pairs of its own."""
    while True:
        x0, x1 = (torch.randint(-12, 13, (n, 3), generator=g) / 4 for n in (9, 11))
        x1[3] = x0[2] + torch.tensor([-1.5, 2.0, 0.0])
        want, slips = _pairs(*arrays(x0, x1, eps, norm))
        if _distinct(slips, want):
            return x0, x1, eps, norm


def conflicts_judge(case, answer):
    x0, x1, eps, norm = arrays(*case.args)
    shape = (len(x0), len(x1))
    if isinstance(answer, np.ndarray) and answer.shape == shape[::-1]:
        return m.said(f"shape {answer.shape}", f"shape {shape}", "transposed: rows are for x0")
    if said := _refuse_mask(answer, shape, "whether each x0 conflicts with each x1"):
        return said
    want, slips = _pairs(x0, x1, eps, norm)
    return m.compare(answer, want, slips, rtol=0.0, atol=1e-9)


def _pairs(x0, x1, eps, norm):
    """The pairs that conflict, and those that do by each slip."""
    difference = x0[:, None] - x1
    away = {p: np.linalg.norm(difference, order, axis=2) for p, order in _ORDERS.items()}
    mine = away[norm]
    two = "each of the two balls has radius ε, so they meet up to a distance of 2ε"
    peace = "these are the pairs that do not conflict"
    slips = [
        (mine <= eps, two),
        (mine < eps, two),
        (mine < 2 * eps, "closed balls that touch share a point: ≤, not <"),
        (mine > 2 * eps, peace),
        (mine >= 2 * eps, peace),
        *((away[p] <= 2 * eps, f"this is the distance in {_SIGNS[p]}, not in {_SIGNS[norm]}")
          for p in _ORDERS if p != norm),
        (mine <= 4 * eps, "twice too far: two balls of radius ε meet up to 2ε"),
        *([(difference.max(2) <= 2 * eps, "the absolute value is missing")] * (norm == "linf")),
    ]  # fmt: skip
    return mine <= 2 * eps, slips


# floor


def floor_cases(seed):
    rng = numpy_generator(seed, 5)
    star = torch.zeros(4, 7, dtype=torch.bool)
    star[0, :5] = star[1, 4] = True
    plans = ((30, 34, 2.5), (24, 20, 2.0), (60, 50, 3.0))
    fresh = [Case((torch.from_numpy(_graph(rng, *plan)),), "random") for plan in plans]
    return [Case((star,), "one example conflicts with five others, one of these with two"), *fresh]


def _graph(rng, rows, columns, degree):
    """Conflicts on which every slip gives a number of its own."""
    while True:
        c = rng.random((rows, columns)) < degree / max(rows, columns)
        least = (sparse.csgraph.maximum_bipartite_matching(sparse.csr_array(c)) >= 0).sum()
        if _distinct(_floor_slips(c, least), least / sum(c.shape)):
            return c


def _least_cover(c):
    """The fewest examples that touch every conflict: a linear program with a whole optimum."""
    pairs = np.argwhere(c) + np.array([0, len(c)])
    if not len(pairs):
        return 0
    touches = np.zeros((len(pairs), sum(c.shape)))
    np.put_along_axis(touches, pairs, 1, axis=1)
    found = optimize.linprog(np.ones(sum(c.shape)), -touches, -np.ones(len(pairs)), bounds=(0, 1))
    return round(found.fun)


def _greedy(c, *, rows=1, columns=1):
    """How many pairs a first-come matching takes; −1 goes through rows or columns backwards."""
    free, taken = np.ones(c.shape[1], bool), 0
    for row in c[::rows]:
        at = np.flatnonzero(row & free)[::columns]
        if len(at):
            free[at[0]] = False
            taken += 1
    return taken


def _floor_slips(c, least):
    n, ends = sum(c.shape), (c.any(1).sum(), c.any(0).sum())
    few = c[c.sum(1).argsort(kind="stable")][:, c.sum(0).argsort(kind="stable")]
    greedy = "a greedy matching is maximal, not maximum: a true bound, but too low"
    return [
        (c.sum() / n, "edges are counted: who conflicts with many is given up once"),
        *((_greedy(a, rows=r, columns=k) / n, greedy)
          for a in (c, c.T, few, few.T) for r, k in ((1, 1), (-1, 1), (1, -1))),
        *((least / k, "a share of both classes: divide by n0 + n1") for k in c.shape),
        (sum(ends) / n, "not all that conflict must be wrong: of a pair one is enough"),
        *((k / n, "all of one class that conflict will do, but fewer may do") for k in ends),
        (2 * least / n, "one error for a matched pair, not two"),
        (least, "this is a count: divide by n0 + n1"),
    ]  # fmt: skip


def floor_judge(case, answer):
    (c,) = arrays(*case.args)
    if said := m.refuse_number(answer, "the least robust risk"):
        return said
    n, least = sum(c.shape), _least_cover(c)
    low = "too low: is your matching maximal only, and not maximum?"
    slips = [*_floor_slips(c, least), *((k / n, low) for k in range((least + 1) // 2, least))]
    return m.compare(answer, least / n, slips, rtol=0.0, atol=1e-5)


# cover_from_matching


def cover_cases(seed):
    rng = numpy_generator(seed, 6)
    return [*(_matched(rng, 8, 7) for _ in range(3)), _matched(rng, 40, 35)]


def _matched(rng, rows, columns):
    """A graph in which one side's ends cover nothing, and one step of the paths is not enough."""
    while True:
        c = rng.random((rows, columns)) < 1.6 / columns
        of = sparse.csgraph.maximum_bipartite_matching(sparse.csr_array(c), perm_type="column")
        matching = np.stack([np.flatnonzero(of >= 0), of[of >= 0]], 1)
        matching = matching[rng.permutation(len(matching))]
        slips = _cover_slips(c, matching)
        sets = [(np.concatenate(cover), why) for cover, why in slips]
        right = [_covers(c, *cover) and sum(map(sum, cover)) == len(matching) for cover, _ in slips]
        if not any(right) and _distinct(sets, np.full(sum(c.shape), -1)):
            args = (torch.from_numpy(c), torch.from_numpy(matching).long())
            return Case(args, f"random, {rows} and {columns} examples")


def _covers(c, in0, in1):
    return not (c & ~in0[:, None] & ~in1).any()


def _cover_slips(c, matching):
    """Covers that are none, or too large, as a slip makes them."""
    none0, none1 = (np.zeros(k, bool) for k in c.shape)
    left, right = (np.isin(np.arange(k), at) for k, at in zip(c.shape, matching.T, strict=True))
    side = "the matched ends of one side: a conflict of an unmatched example stays open"
    (near0, near1), (all0, all1) = (_reached(c, matching, k) for k in (1, len(c)))
    return [
        ((left, none1), side),
        ((none0, right), side),
        ((left, right), "both ends of each matched pair: one of the two is enough"),
        ((c.any(1), none1), "one side alone: fewer may do"),
        ((none0, c.any(0)), "one side alone: fewer may do"),
        ((~near0, near1), "follow the alternating paths to their ends, not for one step"),
        ((all0, ~all1), "the wrong way round: x0 that are not reached, x1 that are"),
    ]


def _reached(c, matching, steps):
    """What alternating paths reach in some steps that start at unmatched examples of x0."""
    at = ~np.isin(np.arange(len(c)), matching[:, 0])
    for _ in range(steps):
        hit = c[at].any(0)
        at[matching[hit[matching[:, 1]], 0]] = True
    return at, hit


def cover_judge(case, answer):
    c, matching = arrays(*case.args)
    if said := m.refuse_tuple(answer, ("in0", "in1")):
        return said
    for value, k, name in zip(answer, c.shape, ("in0", "in1"), strict=True):
        if said := _refuse_mask(value, (k,), f"{name}, whether each example is in the cover"):
            return said
    in0, in1 = (np.asarray(a).astype(bool) for a in answer)
    size, least = int(in0.sum() + in1.sum()), len(matching)
    covered = _covers(c, in0, in1)
    if covered and size == least:
        return None
    same = lambda cover: np.array_equal(cover[0], in0) and np.array_equal(cover[1], in1)
    slip = next((why for cover, why in _cover_slips(c, matching) if same(cover)), "")
    if not covered:
        i, j = np.argwhere(c & ~in0[:, None] & ~in1)[0]
        got = f"a pair that nothing covers, x0 {i} and x1 {j}"
        return m.said(got, "one end at least of every conflict", slip)
    why = slip or "larger than the matching: one end of each matched pair, no other"
    return m.said(f"a cover of {size}", f"one of {least}, the size of the matching", why)


# robust_rule


def robust_rule_cases(seed):
    g = generator(seed, 7)
    sign = lambda k: 2.0 * torch.randint(2, (k,), generator=g) - 1
    cases = [Case((torch.tensor([4.0, -1.0, 0.5]), 2.0, 1.0), "mean (4, −1, ½), sd 2, ε = 1")]
    for sd in (0.7, 1.6):
        size = torch.cat([0.3 + torch.rand(3, generator=g) * 0.9, torch.rand(5, generator=g) * 0.2])
        size[0] *= -1  # one mean that counts is negative, one is positive
        mean = (sd * size * torch.cat([torch.ones(2), sign(6)]))[torch.randperm(8, generator=g)]
        cases.append(Case((mean, sd, 0.25 * sd), f"random, sd {sd}"))
    lost = 0.3 * torch.rand(4, generator=g) * sign(4)
    return [*cases, Case((lost, 0.5, 0.3), "nothing above ε")]


def robust_rule_judge(case, answer):
    mean, sd, eps = arrays(*case.args)
    if said := m.refuse_tuple(answer, ("w", "error")):
        return said
    w, error = answer
    if said := m.refuse_array(w, mean.shape, "the weights", whole=True):
        return f"w: {said}"
    if said := m.refuse_number(error, "the robust error"):
        return said
    want = np.sign(mean) * np.maximum(abs(mean) - eps, 0)
    unit = lambda v: v / np.linalg.norm(v) if np.any(v) else np.zeros_like(v)
    signs = "a mean below ε is lost: stop at 0, or the weight has the wrong sign"
    slips = [
        (mean, "this is the Bayes rule, best as long as nobody attacks"),
        (np.where(abs(mean) > eps, mean, 0), "hard: the weights that stay shrink by ε, too"),
        (mean - eps * np.sign(mean), signs),
        (np.maximum(abs(mean) - eps, 0), "shrink |mean| and keep its sign"),
        (np.sign(mean), "the sign alone: weights shrink by ε, they do not become equal"),
        (-want, "right size, wrong sign: w points to the class that answers 1"),
    ]
    w = np.clip(np.asarray(w, float), -1e100, 1e100)
    if not np.any(want) and np.any(w):
        return f"w: {m.said('a w that is not 0', 'w = 0, as no |mean| is larger than ε')}"
    each = [(unit(v), why) for v, why in slips if np.any(v)]
    if said := m.compare(unit(w), unit(want), each, what="the direction ", rtol=1e-3, atol=1e-4):
        return f"w: {said}"
    return m.compare(error, *_rule_error(mean, want, sd), what="error ", rtol=1e-3, atol=1e-6)


def _rule_error(mean, w, sd):
    """The robust error of w, and what it is by each slip."""
    size, mu = np.linalg.norm(w), np.linalg.norm(mean)
    slips = [
        (ndtr(size / sd), "this is the robust accuracy; the error is the rest"),
        (ndtr(-size), "sd is missing"),
        (ndtr(-size / sd**2), "divide by sd, not by its square"),
        (ndtr(-mu / sd), "this is the Bayes error, of w = mean when nobody attacks"),
    ]
    if size:
        slips.append((ndtr(-(mean @ w) / size / sd), "of your rule, but when nobody attacks"))
    return ndtr(-size / sd), slips


# trades_loss


def trades_loss_cases(seed):
    g = generator(seed, 8)
    draw = lambda n, k, scale: (scale * torch.randn(n, k, generator=g),
                                scale * torch.randn(n, k, generator=g),
                                torch.randint(k, (n,), generator=g))  # fmt: skip
    large = draw(5, 3, 300.0)
    large[0][0], large[1][0] = torch.tensor([500.0, 0, 0]), torch.tensor([0, 400.0, 0])
    return [
        Case((*draw(6, 4, 1.5), 6.0), "random, β = 6"),
        Case((*draw(9, 3, 1.0), 0.4), "random, β = 0.4"),
        Case((*large, 2.0), "logits of several hundred"),
    ]


def trades_loss_judge(case, answer):
    logits, moved, y, beta = arrays(*case.args)
    large = abs(logits).max() > 100
    unstable = "a softmax of 0 has no logarithm: take log_softmax"
    number = answer.item() if isinstance(answer, np.ndarray) and answer.shape == () else answer
    if large and isinstance(number, float) and not np.isfinite(number):
        return m.said(f"{number}", "a finite loss", unstable)
    if isinstance(answer, np.ndarray) and answer.shape:
        return m.said(m.named(answer), "one number", "the mean over the batch is missing")
    if said := m.refuse_number(answer, "the loss"):
        return said
    n, k = logits.shape
    log_p, log_q = (log_softmax(z, axis=1) for z in (logits, moved))
    p, q = np.exp(log_p), np.exp(log_q)
    ce, ce_moved = (-a[np.arange(n), y].mean() for a in (log_p, log_q))
    kl, reverse = (p * (log_p - log_q)).sum(1).mean(), (q * (log_q - log_p)).sum(1).mean()
    raw = (p * log_p - p * q).sum(1).mean()
    swapped = "the arguments of KL are swapped; kl_div(log q, p) is KL(p ‖ q)"
    classes = "the mean over the classes, too: KL is a sum over them (batchmean)"
    slips = [
        (ce + beta * reverse, swapped),
        (ce + beta * kl / k, classes),
        (ce_moved + beta * kl, "the cross-entropy is that of the clean logits"),
        (beta * ce + kl, "β belongs to the KL term"),
        (ce + kl / beta, "β multiplies: TRADES writes 1/λ for it"),
        (ce + kl, "β is missing"),
        (ce + n * beta * kl, "the sum over the batch where its mean belongs"),
        (n * (ce + beta * kl), "the sum over the batch where its mean belongs"),
        (ce + beta * raw, "kl_div takes log-probabilities first: log_softmax, not softmax"),
        (ce + beta * ce_moved, "the second term is a divergence, and it knows no label"),
    ]
    got = m.compare(answer, ce + beta * kl, slips)
    clamped = large and got and got.count(": ") == 0
    return f"{got}: {unstable}, and clamp nothing" if clamped else got


# choose


def choose_cases(seed):
    rng = numpy_generator(seed, 9)
    return [Case(_frontier(rng, k), f"{k} models") for k in (16, 22, 19)]


def _frontier(rng, count):
    """Models on an arc and a bad one; every slip picks a model of its own."""
    while True:
        t = np.arctan(np.geomspace(0.01, 500, count - 1) * rng.uniform(0.7, 1.4, count - 1))
        clean = np.append(0.99 - 0.3 * (1 - np.cos(t)), 0.6)
        robust = np.append(0.05 + 0.6 * np.sin(t), 0.02)
        order = rng.permutation(count)
        costs = rng.uniform(2, 9), rng.uniform(10, 50), rng.uniform(0.05, 0.2)
        args = (torch.tensor(clean[order]), torch.tensor(robust[order]), *map(float, costs))
        wanted, slips = _choices(*arrays(*args))
        picks = [int(np.argmin(cost)) for cost in (wanted, *(cost for cost, _ in slips))]
        gap = np.diff(np.sort(wanted)[:2])[0]
        if len(set(picks)) == len(picks) and gap > 1e-3 * wanted.min():
            return args


def _choices(clean, robust, cost_clean, cost_attack, p):
    """What each model costs, and what it costs by each slip."""
    a, b = 1 - clean, 1 - robust
    return (1 - p) * cost_clean * a + p * cost_attack * b, [
        (a + b, "the sum of the accuracies is a weight like another: weigh by cost and share"),
        ((1 - p) * cost_attack * a + p * cost_clean * b, "the costs are swapped"),
        (cost_clean * a + cost_attack * b, "p_attack is missing"),
        (p * cost_clean * a + (1 - p) * cost_attack * b, "p_attack is the share that is attacked"),
        ((1 - p) * a + p * b, "the costs are missing"),
        (b, "this is the most robust model, whatever it costs"),
        (a, "this is the most accurate model, whatever an attack costs"),
    ]


def choose_judge(case, answer):
    args = arrays(*case.args)
    if said := m.refuse_numbers(answer, ("index", "cost"), "the model's"):
        return said
    (index, cost), count = answer, len(args[0])
    if not (float(index) == round(float(index)) and 0 <= index < count):
        return m.said(f"index {float(index):.6g}", f"a whole number from 0 to {count - 1}")
    wanted, slips = _choices(*args)
    at, least = int(index), int(np.argmin(wanted))
    if at != least:
        worst = "this is the dearest: take the least" if at == np.argmax(wanted) else ""
        why = next((why for c, why in slips if np.argmin(c) == at), worst)
        got = f"model {at}, at a cost of {wanted[at]:.4g}"
        return m.said(got, f"one at {wanted[least]:.4g}", why)
    clean, robust, cost_clean, cost_attack, p = args
    accuracy = (1 - p) * cost_clean * clean[at] + p * cost_attack * robust[at]
    numbers = [(c[at], why) for c, why in slips]
    numbers.append((accuracy, "errors cost, right answers do not: 1 − accuracy"))
    return m.compare(cost, wanted[least], numbers, what="the right model, cost ")


# frontier

FRONTIER = Threat("linf", 2 / 16)


def frontier_cases(seed):
    d = data.load("digits").only(3, 8)
    x = torch.cat([d.train_x, d.test_x]).flatten(1)
    y = torch.cat([d.train_y, d.test_y])
    g, out = generator(seed, 10), []
    for i in range(3):
        a, b = torch.randperm(len(x), generator=g).tensor_split(2)
        out.append(Case((x[a], y[a]), f"split {i + 1} of 3", kept=(x[b], y[b])))
    return out


def frontier_judge(case, answer):
    want = "a tuple (W1, b1, W2, b2, …), a matrix and a vector a layer, of 1 to 4 layers"
    how = "return tuple(p.detach() for p in model.parameters())"
    if not isinstance(answer, tuple) or len(answer) not in (2, 4, 6, 8):
        return m.said(m.named(answer), want, how)
    width = case.args[0].shape[1]
    for i in range(0, len(answer), 2):
        weight, bias = answer[i : i + 2]
        matrix = isinstance(weight, np.ndarray) and weight.ndim == 2
        rows = 2 if i == len(answer) - 2 else len(weight) if matrix else 16
        at = f"of layer {i // 2 + 1}"
        if said := (m.refuse_array(weight, (rows, width), f"the weights {at}")
                    or m.refuse_array(bias, (rows,), f"the biases {at}")):  # fmt: skip
            return said
        most = max(np.abs(np.asarray(a, float)).max(initial=0) for a in (weight, bias))
        if not (rows <= 512 and most < 1e4):
            got = f"{rows} units, weights up to {most:.3g} {at}"
            return m.said(got, "at most 512 units, weights below 1e4")
        width = rows
    return None


def frontier_together(cases, answers):
    """Clean and robust accuracy on held-out images, in the mean over the splits."""
    clean, robust, flat = _measured(cases, answers)
    if not (clean >= 0.95 and robust >= 0.8):
        normalised = _measured(cases, answers, models.Normalize().double())
        if normalised[0] >= 0.95 and normalised[1] >= 0.8:
            got = f"clean accuracy {clean:.3f}, robust accuracy of at most {robust:.3f}"
            why = "the check does not normalise: models.mlp(…, mean=0.0, std=1.0)"
            return m.said(got, "at least 0.95 and 0.8", why)
    if not clean >= 0.95:
        why = "robustness bought with accuracy is another task"
        return m.said(f"clean accuracy {clean:.3f}", "at least 0.95", why)
    if not flat <= 0.05:
        got = f"no slope at {100 * flat:.0f} % of the images"
        return m.said(got, "a slope", "a flat network hides from an attack, it does not resist it")
    if not robust >= 0.8:
        why = "train on the points that PGD finds: random nudges are not the adversary"
        return m.said(f"robust accuracy of at most {robust:.3f}", "at least 0.8", why)
    return Accepted(f"objective: robust accuracy of at most {robust:.3f}, clean {clean:.3f}")


def _measured(cases, answers, *before):
    """Held-out accuracy, clean and under attack, and the share of images at which the margin has
    no slope, so that gradients find nothing; means over the splits."""
    rows = []
    for case, answer in zip(cases, answers, strict=True):
        layers = []
        for weight, bias in zip(answer[::2], answer[1::2], strict=True):
            layer = skip_init(nn.Linear, weight.shape[1], len(weight))
            for parameter, value in ((layer.weight, weight), (layer.bias, bias)):
                parameter.data = torch.from_numpy(np.array(value, float))
            layers += [layer, nn.ReLU()]
        model = nn.Sequential(*before, *layers[:-1]).eval()
        (x, y), (xt, yt) = case.args, case.kept
        x, xt = x.double(), xt.double()
        z = xt.clone().requires_grad_()
        (slope,) = torch.autograd.grad((model(z)[:, 1] - model(z)[:, 0]).sum(), z)
        found = attacks.pgd(model, xt, yt, FRONTIER, steps=40, restarts=3, loss="margin").success
        # Points made for another rule need no slope of this one: that of the class means.
        line = x[y == 1].mean(0) - x[y == 0].mean(0)
        aside = FRONTIER.project(xt - FRONTIER.eps * (2 * yt - 1)[:, None] * line.sign(), xt)
        found |= measure(model, aside, xt, yt, FRONTIER).success
        shares = _margin(model, xt, yt) > 0, ~found.numpy(), (slope == 0).all(1).numpy()
        rows.append([share.mean() for share in shares])
    return np.mean(rows, axis=0)


CHECKS = {
    name: Check(f"06_tradeoff.{name}", points, cases, judge, tuple(teaches))
    for name, points, cases, judge, *teaches in (
        ("decompose", 1, decompose_cases, decompose_judge, "risk.decompose"),
        ("robust_accuracy", 2, robust_accuracy_cases, robust_accuracy_judge, "threat.measure"),
        ("refute", 3, refute_cases, refute_judge),
        ("guess_floor", 1, guess_floor_cases, guess_floor_judge, "risk.optimal_transport"),
        ("conflicts", 2, conflicts_cases, conflicts_judge, "risk.optimal_transport"),
        ("floor", 3, floor_cases, floor_judge, "risk.optimal_transport"),
        ("cover_from_matching", 2, cover_cases, cover_judge, "risk.optimal_transport"),
        ("robust_rule", 2, robust_rule_cases, robust_rule_judge, "data.two_gaussians",
         "Gaussians.direction", "Gaussians.bayes_risk"),
        ("trades_loss", 2, trades_loss_cases, trades_loss_judge, "training.trades",
         "objectives.trades"),
        ("choose", 2, choose_cases, choose_judge),
        ("frontier", 3, frontier_cases, frontier_judge, "data.load", "sys._getframe"),
    )
}  # fmt: skip
CHECKS["frontier"] = replace(CHECKS["frontier"], together=frontier_together)
