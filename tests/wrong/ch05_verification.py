"""Planted wrong answers of chapter 5: (exercise, answer, words that its message must hold)."""

import torch
from torch import nn

# interval_affine


def ends_go_through(weight, bias, lower, upper):
    return weight @ lower + bias, weight @ upper + bias


def ends_sorted(weight, bias, lower, upper):
    a, b = ends_go_through(weight, bias, lower, upper)
    return torch.minimum(a, b), torch.maximum(a, b)


def affine(middle=lambda w: w, spread=torch.abs, half=0.5, moved=1, widened=0):
    """Interval arithmetic, with any of its parts replaced."""

    def answer(weight, bias, lower, upper):
        centre = middle(weight) @ ((lower + upper) / 2) + moved * bias
        radius = spread(weight) @ ((upper - lower) * half) + widened * bias.abs()
        return centre - radius, centre + radius

    return answer


absolute_centre = affine(middle=torch.abs)
no_bias = affine(moved=0)
bias_in_the_radius = affine(widened=1)
double_radius = affine(half=1)


def positive_weights_alone(weight, bias, lower, upper):
    pos = weight.clamp(min=0)
    return pos @ lower + bias, pos @ upper + bias


def upper_first(weight, bias, lower, upper):
    return affine()(weight, bias, lower, upper)[::-1]


def ends_of_the_wrong_sign(weight, bias, lower, upper):
    pos, neg = weight.clamp(min=0), weight.clamp(max=0)
    return pos @ upper + neg @ lower + bias, pos @ lower + neg @ upper + bias


# ibp_margin


def boxed(units=1.0, cut=True, normal=True, relu=True, signed=True, early=False, moved=1):
    """The box before the last layer, with any of its parts replaced."""

    def answer(model, x, threat):
        norm, eps = model[0], units * threat.eps
        if normal:
            low, high = x - eps, x + eps
            low, high = (norm(e.clamp(0, 1) if cut else e) for e in (low, high))
        else:
            low, high = norm(x) - eps, norm(x) + eps
        if early:
            low, high = low.relu(), high.relu()
        for layer in [m for m in model if isinstance(m, nn.Linear)][:-1]:
            if signed:
                centre = (low + high) / 2 @ layer.weight.T + moved * layer.bias
                radius = (high - low) / 2 @ layer.weight.abs().T
                low, high = centre - radius, centre + radius
            else:
                low, high = layer(low), layer(high)
            if relu:
                low, high = low.relu(), high.relu()
        return low, high

    return answer


def folded(box, *, side=-1, choose=torch.amin, fill=torch.inf, signed=True, moved=1):
    @torch.no_grad()
    def answer(model, x, y, threat):
        low, high = box(model, x, threat)
        last = model[-1]
        rows = last.weight[y][:, None] - last.weight
        offset = moved * (last.bias[y][:, None] - last.bias)
        centre, radius = (low + high)[:, None] / 2, (high - low)[:, None] / 2
        each = (rows * centre + side * rows.abs() * radius).sum(2) + offset
        if not signed:
            each = (rows * low[:, None]).sum(2) + offset
        return choose(each.scatter(1, y[:, None], fill), 1)

    return answer


box_ignored = folded(boxed(cut=False))
eps_after_normalize = folded(boxed(normal=False))
eps_over_255 = folded(boxed(units=1 / 255))
eps_in_grey_levels = folded(boxed(units=1 / 16))
half_of_eps = folded(boxed(units=1 / 2))
relu_first = folded(boxed(early=True))
no_relu = folded(boxed(relu=False))
negative_weights_forgotten = folded(boxed(signed=False), signed=False)
largest_difference = folded(boxed(), choose=torch.amax, fill=-torch.inf)
upper_bound = folded(boxed(), side=1)
no_hidden_bias = folded(boxed(moved=0))
no_last_offset = folded(boxed(), moved=0)


@torch.no_grad()
def differenced_after_bounding(model, x, y, threat):
    low, high = boxed()(model, x, threat)
    centre = model[-1]((low + high) / 2)
    radius = (high - low) / 2 @ model[-1].weight.abs().T
    own = (centre - radius).gather(1, y[:, None])[:, 0]
    return own - (centre + radius).scatter(1, y[:, None], -torch.inf).amax(1)


@torch.no_grad()
def runner_up_at_x(model, x, y, threat):
    each = folded(boxed(), choose=lambda a, d: a)(model, x, y, threat)
    second = model(x).scatter(1, y[:, None], -torch.inf).argmax(1)
    return each.gather(1, second[:, None])[:, 0]


@torch.no_grad()
def margin_at_x(model, x, y, threat):
    z = model(x)
    own = z.gather(1, y[:, None])[:, 0]
    return own - z.scatter(1, y[:, None], -torch.inf).amax(1)


# triangle


def lines(lower, upper):
    """Slope and intercept; right wherever it is not 0/0."""
    unstable = (lower < 0) & (upper > 0)
    slope = torch.where(unstable, upper / (upper - lower), (upper > 0).double())
    return unstable, slope, torch.where(unstable, -slope * lower, 0.0)


def with_intercept(change):
    def answer(lower, upper):
        unstable, slope, right = lines(lower, upper)
        return slope, torch.where(unstable, change(lower, upper, right), right)

    return answer


intercept_l = with_intercept(lambda lo, up, right: lo)
intercept_minus_l = with_intercept(lambda lo, up, right: -lo)
intercept_negative = with_intercept(lambda lo, up, right: -right)
intercept_missing = with_intercept(lambda lo, up, right: 0.0)


def divides_by_zero(lower, upper):
    slope = upper / (upper - lower)
    return slope, -slope * lower


def lines_for_stable_neurons(lower, upper):
    slope = upper / (upper - lower + 1e-12)
    return slope, -slope * lower


def lower_lines(lower, upper):
    return (upper > -lower).double(), torch.zeros_like(lower)


def sum_of_the_ends(lower, upper):
    unstable, slope, intercept = lines(lower, upper)
    return torch.where(unstable, upper / (upper + lower), slope), intercept


def itself(lower, upper):
    return (upper > 0).double(), torch.zeros_like(lower)


def level(lower, upper):
    return torch.zeros_like(lower), upper.clamp(min=0)


# crown_step


def relaxed(rule=lambda lo, up: (up > -lo).double(), *, swap=False, rest=None, all_unstable=False):
    """A step of CROWN, with any of its parts replaced."""

    def answer(A, lower, upper):
        unstable = (lower < 0) & (upper > 0) | all_unstable
        on = (lower >= 0).double()
        above = torch.where(unstable, upper / (upper - lower), on)
        below = torch.where(unstable, rule(lower, upper), on)
        intercept = torch.where(unstable, -above * lower, 0.0)
        used = A.clamp(min=0) if swap else A.clamp(max=0)
        constant = used @ intercept if rest is None else rest(A, intercept)
        return A * torch.where((A < 0) if swap else (A >= 0), below, above), constant

    return answer


lines_swapped = relaxed(swap=True)
slope_0 = relaxed(lambda lo, up: torch.zeros_like(lo))
slope_1 = relaxed(lambda lo, up: torch.ones_like(lo))
parallel = relaxed(lambda lo, up: up / (up - lo))
rule_inverted = relaxed(lambda lo, up: (up < -lo).double())
intercept_lost = relaxed(rest=lambda A, t: 0 * A[:, 0])
intercept_added = relaxed(rest=lambda A, t: A.clamp(max=0).abs() @ t)
intercept_of_all = relaxed(rest=lambda A, t: A @ t)
intercept_without_its_coefficient = relaxed(rest=lambda A, t: (A < 0).double() @ t)
stable_neurons_relaxed = relaxed(all_unstable=True)


def always_the_lower_line(A, lower, upper):
    unstable = (lower < 0) & (upper > 0)
    slope = torch.where(unstable, (upper > -lower).double(), (lower >= 0).double())
    return A * slope, 0 * A[:, 0]


# crown_curve


def crown(
    step=None,
    *,
    inner=lambda e, eps: e,
    outer=1.0,
    cut=(True, True),
    side=-1,
    ball=None,
    box=False,
    moved=1,
):
    """CROWN's bound at each ε, with any of its parts replaced."""
    step = step or relaxed()

    def answer(weight, bias, v, c, x, eps):
        def ends(e, clamp):
            low, high = x - e, x + e
            return (low.clamp(0, 1), high.clamp(0, 1)) if clamp else (low, high)

        out = []
        for e in eps:
            low, high = ends(inner(e, eps), cut[0])
            middle = weight @ (low + high) / 2 + bias
            spread = weight.abs() @ (high - low) / 2
            A, rest = step(v[None], middle - spread, middle + spread)
            back, rest = A[0] @ weight, moved * (A[0] @ bias) + rest[0] + c
            low, high = ends(outer * e, cut[1])
            if ball:
                out.append(back @ x + rest - e * torch.linalg.vector_norm(back, ball))
            elif box:
                low, high = (middle - spread).relu(), (middle + spread).relu()
                out.append(v.clamp(min=0) @ low + v.clamp(max=0) @ high + c)
            else:
                least = back @ (low + high) / 2 + side * back.abs() @ (high - low) / 2
                out.append(least + rest)
        return torch.stack(out)

    return answer


bounds_of_the_smallest_eps = crown(inner=lambda e, eps: eps[0])
bounds_of_the_largest_eps = crown(inner=lambda e, eps: eps[-1])
no_box = crown(cut=(False, False))
no_box_inside = crown(cut=(False, True))
no_box_at_the_end = crown(cut=(True, False))
grey_levels = crown(inner=lambda e, eps: e / 16, outer=1 / 16)
pixels_of_255 = crown(inner=lambda e, eps: e / 255, outer=1 / 255)
no_last_step = crown(outer=0.0)
largest_value = crown(side=1)
interval_bound = crown(box=True)
bias_forgotten = crown(moved=0)
norm_of_order_2 = crown(cut=(False, False), ball=2)
best_of_both = lambda *args: torch.maximum(crown()(*args), interval_bound(*args))
crown_slope_0 = crown(slope_0)
crown_slope_1 = crown(slope_1)
crown_swapped = crown(lines_swapped)
crown_intercept_lost = crown(intercept_lost)
crown_stable_neurons_relaxed = crown(stable_neurons_relaxed)


# big_m


def rows_of(*, on, off, inverted=False, keep=(0, 1, 2, 3)):
    """The four rows with these M for the two cases."""

    def answer(lower, upper):
        a, b = on(lower, upper), off(lower, upper)
        rows = [[0, -1, 0], [1, -1, 0], [0, 1, -a], [-1, 1, b]]
        right = [0, 0, 0, b]
        if inverted:
            rows[2:], right[2:] = [[0, 1, a], [-1, 1, -b]], [a, 0]
        rows, right = ([part[k] for k in keep] for part in (rows, right))
        return torch.tensor(rows).double(), torch.tensor(right).double()

    return answer


high = lambda lo, up: up
low = lambda lo, up: -lo
hundred = rows_of(on=lambda lo, up: 100.0, off=lambda lo, up: 100.0)
largest_end = rows_of(on=lambda lo, up: max(up, -lo), off=lambda lo, up: max(up, -lo))
too_small = rows_of(on=lambda lo, up: up / 2, off=low)
ends_swapped = rows_of(on=low, off=high)
sign_of_l = rows_of(on=high, off=lambda lo, up: lo)
binary_inverted = rows_of(on=high, off=low, inverted=True)
no_row_for_off = rows_of(on=high, off=low, keep=(0, 1, 3))
no_row_for_on = rows_of(on=high, off=low, keep=(0, 1, 2))
no_lower_rows = rows_of(on=high, off=low, keep=(2, 3))


def triangle_alone(lower, upper):
    slope = upper / (upper - lower)
    rows = [[0, -1, 0], [1, -1, 0], [-slope, 1, 0]]
    return torch.tensor(rows).double(), torch.tensor([0, 0, -slope * lower]).double()


def rows_on_z(lower, upper):
    rows = [[0, -1, 0], [1, -1, 0], [1, 0, -upper], [-1, 0, -lower]]
    return torch.tensor(rows).double(), torch.tensor([0, 0, 0, -lower]).double()


def big_m_below(lower, upper):
    rows = [[0, -1, 0], [1, -1, upper - lower], [0, 1, -upper], [-1, 1, -lower]]
    return torch.tensor(rows).double(), torch.tensor([0, upper - lower, 0, -lower]).double()


# hull


def mixed(left, top, middle=None):
    def answer(lower, upper, z, h):
        a, b = left(lower, upper, z, h), top(lower, upper, z, h)
        return torch.stack([a, 1 - a - b if middle is None else middle * z, b], 1)

    return answer


left_weight = lambda lo, up, z, h: (z - h) / lo
top_weight = lambda lo, up, z, h: h / up
order_reversed = mixed(top_weight, left_weight)
chord = mixed(lambda lo, up, z, h: (up - z) / (up - lo), lambda lo, up, z, h: (z - lo) / (up - lo))
negative_left = mixed(lambda lo, up, z, h: (z - h) / -lo, top_weight)
no_middle = mixed(left_weight, top_weight, 0)
height_not_taken_off = mixed(lambda lo, up, z, h: z / lo, top_weight)
width_for_height = mixed(left_weight, lambda lo, up, z, h: z / up)


def on_the_relu(lower, upper, z, h):
    return mixed(lambda *_: (z / lower).clamp(min=0), lambda *_: (z / upper).clamp(min=0))(
        lower, upper, z, h
    )


# verdict


def decided(
    safe=lambda b, t, done: b > t,
    unsafe=lambda b, m, ok, t: ok and m <= 0,
    unfinished=True,
):
    """A verdict for each run, with any of its tests replaced."""

    def answer(bound, margin, allowed, finished, tolerance):
        said = []
        for b, m, ok, done in zip(bound, margin.tolist(), allowed, finished, strict=True):
            no = bool(unsafe(b, m, ok, tolerance))
            said.append((bool(safe(b, tolerance, done)) and not no, no))
            if not (done or unfinished):
                said[-1] = False, False
        return tuple(torch.tensor(said).T)

    return answer


nothing_found = decided(safe=lambda b, t, done: True)
finished_is_safe = decided(safe=lambda b, t, done: bool(done))
time_limit_is_safe = decided(safe=lambda b, t, done: b > t or not done)
time_limit_is_unknown = decided(unfinished=False)
bound_at_the_limit_is_unknown = decided(safe=lambda b, t, done: b > t and bool(done))
no_tolerance = decided(safe=lambda b, t, done: b > 0)
generous_tolerance = decided(safe=lambda b, t, done: b >= -t)
any_point = decided(unsafe=lambda b, m, ok, t: m <= 0)
bound_for_attack = decided(unsafe=lambda b, m, ok, t: b <= 0)
tie_is_right = decided(unsafe=lambda b, m, ok, t: ok and m < 0)
point_with_tolerance = decided(unsafe=lambda b, m, ok, t: ok and m < -t)
almost_wrong = decided(unsafe=lambda b, m, ok, t: ok and m <= t)
nan_is_safe = decided(safe=lambda b, t, done: not b <= t)


def safe_alone(bound, margin, allowed, finished, tolerance):
    return torch.tensor(bound) > tolerance


def both_at_once(bound, margin, allowed, finished, tolerance):
    safe = torch.tensor(bound) > tolerance
    return safe, safe | allowed & (margin <= 0)


# needle


def stays_at_x(model, x, y, threat):
    return x.clone()


def random_points(model, x, y, threat):
    g = torch.Generator().manual_seed(0)
    step = threat.eps * (2 * torch.rand(2000, x.shape[1], generator=g) - 1)
    points = (x + step).clamp(0, 1)
    logits = model(points).detach()
    return points[(logits[:, 0] - logits[:, 1]).argmin()][None]


def centre_of(place):
    """The middle of one of the three regions, read from the weights."""

    def answer(model, x, y, threat):
        first, second, last = (m for m in model if isinstance(m, nn.Linear))
        gain = (last.weight[0] - last.weight[1]).detach()
        which = gain.argsort(descending=True)[place]
        rows = second.weight[which].detach() != 0
        weight, bias = first.weight.detach()[rows].double(), first.bias.detach()[rows].double()
        return torch.linalg.lstsq(weight, -bias[:, None]).solution.T

    return answer


deepest_of_all = centre_of(2)  # outside the box
beyond_the_ball = centre_of(1)


def projected_at_the_end(model, x, y, threat):
    return threat.project(deepest_of_all(model, x, y, threat).to(x.dtype), x)


def without_the_batch(model, x, y, threat):
    return centre_of(0)(model, x, y, threat)[0]


# close_the_gap


def pinned(value):
    return lambda chain, box, given: (given[0] * 0 + value, given[2] * 0 + value)


all_0, all_1, halves = pinned(0.0), pinned(1.0), pinned(0.5)
above_1 = pinned(1.5)


def adaptive(chain, box, given):
    return tuple((up > -lo).double() for lo, up in (given[:2], given[2:]))


def parallel_lines(chain, box, given):
    pairs = given[:2], given[2:]
    return tuple(torch.where((lo < 0) & (up > 0), up / (up - lo), 0.0) for lo, up in pairs)


def one_row_for_all(chain, box, given):
    return tuple(s[0] for s in adaptive(chain, box, given))


def layers_swapped(chain, box, given):
    return adaptive(chain, box, given)[::-1]


def first_layer_only(chain, box, given):
    return adaptive(chain, box, given)[0]


WRONG = [
    ("guess_ibp_vs_crown", ("crown",) * 4, "no theorem says that CROWN never loses"),
    ("guess_ibp_vs_crown", ("ibp",) * 4, "neither always"),
    ("guess_ibp_vs_crown", ("equal",) * 4, "neither always"),
    ("guess_ibp_vs_crown", ("crown", "equal", "equal", "crown"), "the box stops at 0"),
    ("guess_ibp_vs_crown", ("crown", "ibp", "equal", "crown"), "two unstable neurons"),
    ("guess_ibp_vs_crown", ("ibp", "ibp", "equal", "ibp"), "boxes forget that both see one x"),
    ("guess_ibp_vs_crown", (1, 0, 0, -1), "each one of 'ibp'"),
    ("interval_affine", ends_go_through, "negative weights swap the ends"),
    ("interval_affine", ends_sorted, "two corners of many"),
    ("interval_affine", absolute_centre, "|W| belongs to the radius"),
    ("interval_affine", no_bias, "the bias is missing"),
    ("interval_affine", bias_in_the_radius, "leaves the radius"),
    ("interval_affine", double_radius, "half of upper − lower"),
    ("interval_affine", positive_weights_alone, "the negative weights are missing"),
    ("interval_affine", upper_first, "the order is lower, upper"),
    ("interval_affine", ends_of_the_wrong_sign, "positive weights took the upper end"),
    ("ibp_margin", box_ignored, "box ignored"),
    ("ibp_margin", eps_after_normalize, "Normalize divides it by std"),
    ("ibp_margin", eps_over_255, "ε is in input units"),
    ("ibp_margin", eps_in_grey_levels, "ε is in input units"),
    ("ibp_margin", half_of_eps, "not x ± ε/2"),
    ("ibp_margin", relu_first, "ReLU before the first affine layer"),
    ("ibp_margin", no_relu, "ReLU is missing"),
    ("ibp_margin", negative_weights_forgotten, "negative weights swap"),
    ("ibp_margin", largest_difference, "the smallest of the margins"),
    ("ibp_margin", upper_bound, "an upper bound returned as a lower one"),
    ("ibp_margin", no_hidden_bias, "the offsets of the hidden layers"),
    ("ibp_margin", no_last_offset, "b_y − b_j is missing"),
    ("ibp_margin", differenced_after_bounding, "fold the last layer first"),
    ("ibp_margin", runner_up_at_x, "need not have the least bound"),
    ("ibp_margin", margin_at_x, "or not at all"),
    ("triangle", intercept_l, "the intercept is −ul/(u − l)"),
    ("triangle", intercept_minus_l, "the intercept is −ul/(u − l)"),
    ("triangle", intercept_negative, "is positive, as l < 0"),
    ("triangle", intercept_missing, "cuts the triangle's tip off"),
    ("triangle", divides_by_zero, "0/0"),
    ("triangle", lines_for_stable_neurons, "a stable neuron has no triangle"),
    ("triangle", lower_lines, "these are lower lines"),
    ("triangle", sum_of_the_ends, "u − l: l is negative"),
    ("triangle", itself, "no upper bound of ReLU(z)"),
    ("triangle", level, "this is the box"),
    ("crown_step", lines_swapped, "the lines are swapped"),
    ("crown_step", slope_0, "sound, but looser: the lower slope is 1 where u > |l|"),
    ("crown_step", slope_1, "sound, but looser: the lower slope is 0 where u ≤ |l|"),
    ("crown_step", parallel, "a parallel lower line is sound"),
    ("crown_step", rule_inverted, "the rule is inverted"),
    ("crown_step", intercept_lost, "the intercept is lost"),
    ("crown_step", intercept_added, "the intercept has the wrong sign"),
    ("crown_step", intercept_of_all, "an intercept belongs to the upper line only"),
    ("crown_step", intercept_without_its_coefficient, "multiplied by its coefficient"),
    ("crown_step", stable_neurons_relaxed, "a stable neuron has no triangle"),
    ("crown_step", always_the_lower_line, "a negative coefficient takes the upper line"),
    ("crown_curve", bounds_of_the_smallest_eps, "those of a smaller one are false here"),
    ("crown_curve", bounds_of_the_largest_eps, "reused from another ε: sound, but loose"),
    ("crown_curve", no_box, "box ignored: inputs stay"),
    ("crown_curve", no_box_inside, "box ignored in the intermediate bounds"),
    ("crown_curve", no_box_at_the_end, "box ignored in the last step"),
    ("crown_curve", grey_levels, "do not divide it by 16"),
    ("crown_curve", pixels_of_255, "do not divide it by 255"),
    ("crown_curve", no_last_step, "the last step is missing"),
    ("crown_curve", largest_value, "an upper bound returned as a lower one"),
    ("crown_curve", interval_bound, "this is IBP"),
    ("crown_curve", norm_of_order_2, "the dual"),
    ("crown_curve", bias_forgotten, "A @ bias is missing"),
    ("crown_curve", best_of_both, "asked for is CROWN alone"),
    ("crown_curve", crown_slope_0, "the lower slope is 1 where u > |l|"),
    ("crown_curve", crown_slope_1, "the lower slope is 0 where u ≤ |l|"),
    ("crown_curve", crown_swapped, "the lines are swapped"),
    ("crown_curve", crown_intercept_lost, "the intercept is lost"),
    ("crown_curve", crown_stable_neurons_relaxed, "a stable neuron has no triangle"),
    ("big_m", hundred, "the relaxation is loose"),
    ("big_m", largest_end, "the relaxation is loose"),
    ("big_m", too_small, "M is too small"),
    ("big_m", ends_swapped, "M is too small"),
    ("big_m", sign_of_l, "or a sign is wrong"),
    ("big_m", binary_inverted, "the binary is inverted"),
    ("big_m", no_row_for_off, "two rows have to bound h"),
    ("big_m", no_row_for_on, "two rows have to bound h"),
    ("big_m", rows_on_z, "two rows have to bound h"),
    ("big_m", no_lower_rows, "are rows, too"),
    ("big_m", triangle_alone, "the binary decides nothing"),
    ("big_m", big_m_below, "whatever a is"),
    ("hull", order_reversed, "the order of the corners"),
    ("hull", chord, "the corner (0, 0) is left out"),
    ("hull", negative_left, "l is negative"),
    ("hull", no_middle, "the weights sum to 1"),
    ("hull", height_not_taken_off, "μu is taken off z"),
    ("hull", width_for_height, "the height decides"),
    ("hull", on_the_relu, "h is not used"),
    ("verdict", nothing_found, "no counterexample found is no proof"),
    ("verdict", finished_is_safe, "its bound is"),
    ("verdict", time_limit_is_safe, "a time limit proves nothing"),
    ("verdict", time_limit_is_unknown, "stays proved"),
    ("verdict", bound_at_the_limit_is_unknown, "stays proved"),
    ("verdict", no_tolerance, "within the solver's tolerance"),
    ("verdict", generous_tolerance, "within the solver's tolerance"),
    ("verdict", any_point, "not in ball and box"),
    ("verdict", bound_for_attack, "may be loose"),
    ("verdict", tie_is_right, "equality counts as an error"),
    ("verdict", point_with_tolerance, "no tolerance"),
    ("verdict", almost_wrong, "no tolerance"),
    ("verdict", nan_is_safe, "NaN proves nothing"),
    ("verdict", safe_alone, "a tuple (safe, unsafe)"),
    ("verdict", both_at_once, "got both for run"),
    ("needle", stays_at_x, "not by its slope"),
    ("needle", random_points, "not by its slope"),
    ("needle", projected_at_the_end, "not by its slope"),
    ("needle", deepest_of_all, "clamp to the box"),
    ("needle", beyond_the_ball, "at most ε"),
    ("needle", without_the_batch, "a dimension of 1"),
    ("close_the_gap", adaptive, "no better than the adaptive rule"),
    ("close_the_gap", all_0, "gap closed"),
    ("close_the_gap", all_1, "no better than the adaptive rule"),
    ("close_the_gap", halves, "gap closed"),
    ("close_the_gap", parallel_lines, "gap closed"),
    ("close_the_gap", above_1, "only slopes from 0 to 1"),
    ("close_the_gap", one_row_for_all, "expected shape (6, 16)"),
    ("close_the_gap", layers_swapped, "expected shape (6, 16)"),
    ("close_the_gap", first_layer_only, "a tuple (first, second)"),
]
