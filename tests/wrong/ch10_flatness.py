"""Planted wrong answers of chapter 10: (exercise, answer, words that its message must hold)."""

import math

import torch
from torch.nn import functional as F

softmax = lambda z: F.softmax(z, 1)

# head_trace


def traced(spread, power=2, after=lambda t: t):
    """A trace of each example, with any of its parts replaced."""
    return lambda logits, features: after(spread(softmax(logits)) * features.norm(dim=1) ** power)


def pairs(p):
    return (p @ (1 - torch.eye(p.shape[1])).to(p) * p).sum(1)


one_minus_squares = traced(lambda p: 1 - p.square().sum(1))
complements = traced(lambda p: (p * (1 - p)).sum(1))
norm_not_squared = traced(pairs, 1)
norm_not_squared_and_cancelling = traced(lambda p: 1 - p.square().sum(1), 1)
features_missing = traced(pairs, 0)
batch_mean = traced(pairs, after=lambda t: t.mean().expand(len(t)))
one_number = traced(pairs, after=torch.mean)
divided_by_n = traced(pairs, after=lambda t: t / len(t))
sum_of_squares = traced(lambda p: p.square().sum(1))
rest_of_the_largest = traced(lambda p: p.sum(1) - p.amax(1))
largest_alone = traced(lambda p: p.amax(1) * (1 - p.amax(1)))
norm_of_lambda = traced(
    lambda p: (torch.diag_embed(p) - p[:, :, None] * p[:, None]).flatten(1).norm(dim=1)
)
pairs_once = traced(lambda p: pairs(p) / 2)
softmax_twice = traced(lambda p: pairs(softmax(p)))


def single_precision(logits, features):
    return pairs(softmax(logits.float())) * features.float().square().sum(1)


def over_the_batch(logits, features):
    return pairs(F.softmax(logits, 0)) * features.square().sum(1)


def norm_of_the_batch(logits, features):
    return pairs(softmax(logits)) * features.norm() ** 2


# kappa


def sharp(size=lambda w: w.square().sum(), rows=None, power=2):
    """κ and κ*, with any of their parts replaced."""

    def answer(weight, features):
        p, square = softmax(features @ weight.T), features.norm(dim=1) ** power
        apart = weight - (p @ weight)[:, None]
        full = (p * apart.square().sum(2)).sum(1) if rows is None else rows(p, weight)
        return size(weight) * pairs(p) * square, full * square

    return answer


unsquared = sharp(torch.linalg.matrix_norm)
spectral = sharp(lambda w: torch.linalg.matrix_norm(w, 2) ** 2)
spectral_unsquared = sharp(lambda w: torch.linalg.matrix_norm(w, 2))
trace_alone = sharp(lambda w: 1.0)
centred = sharp(lambda w: (w - w.mean(0)).square().sum())
length_of_features = sharp(power=1)
no_features = sharp(power=0)
mean_row_kept = sharp(rows=lambda p, w: p @ w.square().sum(1))
plain_mean_row = sharp(rows=lambda p, w: p @ (w - w.mean(0)).square().sum(1))
rows_unweighted = sharp(rows=lambda p, w: (w - (p @ w)[:, None]).square().sum((1, 2)))
pairs_of_rows = sharp(
    rows=lambda p, w: (
        p @ torch.cdist(w, w, compute_mode="donot_use_mm_for_euclid_dist") ** 2 * p
    ).sum(1)
)
batch_mean_row = sharp(rows=lambda p, w: p @ (w - (p @ w).mean(0)).square().sum(1))
mean_row_alone = sharp(rows=lambda p, w: (p @ w).square().sum(1))
kappa_halved = sharp(lambda w: w.square().sum() / 2)
kappa_twice = sharp(rows=lambda p, w: w.square().sum() * pairs(p))
full_first = lambda *args: sharp()(*args)[::-1]
kappa_alone = lambda *args: sharp()(*args)[0]

# repaired_bound


CUBE = math.sqrt(6) / 54


def repaired(first=None, second=1.0, cube=CUBE, size=None, far=None, stretch=1.0):
    """The repaired bound, with any of its parts replaced."""

    def answer(weight, features, y, delta, lipschitz):
        p = softmax(features @ weight.T)
        pull = p - F.one_hot(y, len(weight))
        slope = pull.norm(dim=1) if first is None else first(pull, features, y)
        norm = torch.linalg.matrix_norm(weight) if size is None else size(weight)
        tau = norm * delta * lipschitz**stretch
        third = tau if far is None else far(delta * lipschitz, features)
        return tau * slope + second * pairs(p) * tau**2 / 2 + cube * third**3

    return answer


gradient_dropped = repaired(lambda pull, phi, y: 0)
gradient_of_the_mean = repaired(
    lambda pull, phi, y: (pull.T @ phi / len(phi)).norm() / phi.norm(dim=1)
)
mean_of_the_pulls = repaired(lambda pull, phi, y: pull.mean(0).norm())
loss_was_a_mean = repaired(lambda pull, phi, y: pull.norm(dim=1) / len(phi))
weights_move_by_delta = repaired(far=lambda reach, phi: reach)
weights_move_by_ratio = repaired(far=lambda reach, phi: reach / phi.norm(dim=1))
no_remainder = repaired(cube=0.0)
not_a_sixth = repaired(cube=6 * CUBE)
true_class_alone = repaired(lambda pull, phi, y: -pull.gather(1, y[:, None])[:, 0])
slope_squared = repaired(lambda pull, phi, y: pull.square().sum(1))
half_missing = repaired(second=2.0)
gradient_of_the_sum = repaired(lambda pull, phi, y: (pull.T @ phi).norm() / phi.norm(dim=1))
sum_of_sizes = repaired(lambda pull, phi, y: pull.abs().sum(1))
no_second_term = repaired(second=0.0)
features_twice = repaired(lambda pull, phi, y: pull.norm(dim=1) * phi.norm(dim=1))
lipschitz_missing = repaired(stretch=0)
lipschitz_inverted = repaired(stretch=-1)
spectral_step = repaired(size=lambda w: torch.linalg.matrix_norm(w, 2))


def trace_of_the_hessian(weight, features, y, delta, lipschitz):
    return repaired(second=features.square().sum(1))(weight, features, y, delta, lipschitz)


def kappa_in_the_second(weight, features, y, delta, lipschitz):
    size = features.square().sum(1) * weight.square().sum()
    return repaired(second=size)(weight, features, y, delta, lipschitz)


def tau_by_the_features(weight, features, y, delta, lipschitz):
    by = lambda w: torch.linalg.matrix_norm(w) / features.norm(dim=1)
    return repaired(size=by)(weight, features, y, delta, lipschitz)


def answer_for_label(weight, features, y, delta, lipschitz):
    return repaired()(weight, features, (features @ weight.T).argmax(1), delta, lipschitz)


def printed_remainder(weight, features, y, delta, lipschitz):
    rest = weight.numel() * lipschitz**6 * delta**3 / 24
    return repaired(cube=0.0)(weight, features, y, delta, lipschitz) + rest


def as_printed(weight, features, y, delta, lipschitz):
    return repaired(lambda pull, phi, y: 0, far=lambda reach, phi: reach)(
        weight, features, y, delta, lipschitz
    )


# loss_bound


def risen(t=lambda tau: math.sqrt(2) * tau, p=lambda p: p):
    return lambda p_y, tau: torch.logaddexp(p(p_y).log(), (1 - p(p_y)).log() + t(tau))


tau_alone = risen(lambda tau: tau)
twice_tau = risen(lambda tau: 2 * tau)
swapped = risen(p=lambda p: 1 - p)
downwards = risen(lambda tau: -math.sqrt(2) * tau)
overflows = lambda p_y, tau: (p_y + (1 - p_y) * (math.sqrt(2) * tau).exp()).log()
first_order = lambda p_y, tau: (1 - p_y) * math.sqrt(2) * tau
blind = lambda p_y, tau: math.sqrt(2) * tau
loss_at_the_end = lambda p_y, tau: risen()(p_y, tau) - p_y.log()
larger_summand = lambda p_y, tau: torch.maximum(p_y.log(), (1 - p_y).log() + math.sqrt(2) * tau)
cut_off = lambda p_y, tau: (p_y + (1 - p_y) * (math.sqrt(2) * tau).clamp(max=700).exp()).log()
bound_in_float32 = lambda p_y, tau: risen()(p_y.float(), tau.float())
unweighted = lambda p_y, tau: torch.logaddexp(p_y.log(), math.sqrt(2) * tau)

# loss_radius


def halved(goal=math.expm1, speed=None, weigh=lambda p, y: p, divide=lambda s, lip: s / lip):
    """The radius by halving, with any of its parts replaced."""

    def answer(weight, logits, y, eps, lipschitz):
        p = weigh(softmax(logits), y).scatter(1, y[:, None], 0)
        d = (weight[y][:, None] - weight).norm(dim=2) if speed is None else speed(weight, y)
        low, high = torch.zeros(len(p)).double(), torch.full((len(p),), 1e3).double()
        for _ in range(200):
            s = (low + high) / 2
            inside = torch.logsumexp(p.log() + d * s[:, None], 1).exp() - p.sum(1) <= goal(eps)
            low, high = torch.where(inside, s, low), torch.where(inside, high, s)
        return divide(low, lipschitz)

    return answer


right_radius = halved()
in_features = halved(divide=lambda s, lip: s)
times_lipschitz = halved(divide=lambda s, lip: s * lip)
eps_itself = halved(goal=lambda eps: eps)
exp_eps = halved(goal=math.exp)
single_rows = halved(speed=lambda w, y: w.norm(dim=1).expand(len(y), -1))
squared_speed = halved(speed=lambda w, y: (w[y][:, None] - w).square().sum(2))
odds = halved(weigh=lambda p, y: p / p.gather(1, y[:, None]))


def without_p_y(weight, logits, y, eps, lipschitz):
    p, d = softmax(logits).scatter(1, y[:, None], 0), (weight[y][:, None] - weight).norm(dim=2)
    low, high = torch.zeros(len(p)).double(), torch.full((len(p),), 1e3).double()
    for _ in range(200):
        s = (low + high) / 2
        inside = torch.logsumexp(p.log() + d * s[:, None], 1) <= eps
        low, high = torch.where(inside, s, low), torch.where(inside, high, s)
    return low / lipschitz


def closed(speed, rest=lambda p, y: p.scatter(1, y[:, None], 0).sum(1)):
    def answer(weight, logits, y, eps, lipschitz):
        left = rest(softmax(logits), y)
        return (1 + math.expm1(eps) / left).log() / speed(weight, y) / lipschitz

    return answer


fastest = lambda w, y: (w[y][:, None] - w).norm(dim=2).amax(1)
largest_difference = closed(fastest)
operator_norm = closed(lambda w, y: math.sqrt(2) * torch.linalg.matrix_norm(w, 2))
one_minus_p = closed(fastest, lambda p, y: 1 - p.gather(1, y[:, None])[:, 0])


def p_ignored(weight, logits, y, eps, lipschitz):
    return eps / fastest(weight, y) / lipschitz


def class_by_class(weight, logits, y, eps, lipschitz):
    p, d = softmax(logits), (weight[y][:, None] - weight).norm(dim=2)
    each = (1 + math.expm1(eps) / p).log() / d
    return each.scatter(1, y[:, None], torch.inf).amin(1) / lipschitz


def margin_radius(weight, logits, y, eps, lipschitz):
    gap = logits.gather(1, y[:, None]) - logits
    each = gap / (weight[y][:, None] - weight).norm(dim=2)
    return each.scatter(1, y[:, None], torch.inf).amin(1).clamp_min(0) / lipschitz


def twice_eps(weight, logits, y, eps, lipschitz):
    return 2 * p_ignored(weight, logits, y, eps, lipschitz)


frobenius = closed(lambda w, y: math.sqrt(2) * torch.linalg.matrix_norm(w))


def smallest_difference(weight, logits, y, eps, lipschitz):
    gaps = lambda w, y: (w[y][:, None] - w).norm(dim=2).scatter(1, y[:, None], torch.inf).amin(1)
    return closed(gaps)(weight, logits, y, eps, lipschitz)


def first_order_radius(weight, logits, y, eps, lipschitz):
    d = (weight[y][:, None] - weight).norm(dim=2)
    return eps / (softmax(logits) * d).sum(1) / lipschitz


def runner_up(weight, logits, y, eps, lipschitz):
    j, i = logits.scatter(1, y[:, None], -torch.inf).argmax(1), torch.arange(len(y))
    alone = (1 + math.expm1(eps) / softmax(logits)[i, j]).log()
    return alone / (weight[j] - weight[y]).norm(dim=1) / lipschitz


def too_short(weight, logits, y, eps, lipschitz):
    """Halving, from an upper end of 3: the confident example lies beyond it."""
    return right_radius(weight, logits, y, eps, lipschitz).clamp_max(3 / lipschitz)


# solve_cubic


def cardano(kappa, A, eps, swap=False):
    """x³ + p x² = q, depressed by x = t − p/3, in real numbers."""
    a, b = (kappa / 2, 0 * kappa + A / 24) if swap else (0 * kappa + A / 24, kappa / 2)
    p, q = b / a, eps / a
    P, Q = -(p**2) / 3, 2 * p**3 / 27 - q
    inner = Q**2 / 4 + P**3 / 27
    root = inner.clamp_min(0).sqrt()
    cube = lambda v: v.sign() * v.abs() ** (1 / 3)
    one = cube(root - Q / 2) + cube(-root - Q / 2)
    turn = (1.5 * Q / P * (-3 / P).sqrt()).clamp(-1, 1).acos() / 3
    three = 2 * (-P / 3).sqrt() * turn.cos()
    return torch.where(inner >= 0, one, three) - p / 3


def wrong_way(kappa, A, eps):
    """Δ³ + (a/b)Δ² = ε/b, by halving."""
    low, high = 0 * kappa, 0 * kappa + 1e3
    for _ in range(200):
        x = (low + high) / 2
        inside = x**3 + A / 24 / (kappa / 2) * x**2 <= eps / (kappa / 2)
        low, high = torch.where(inside, x, low), torch.where(inside, high, x)
    return low


def cardano_by_one_formula(kappa, A, eps):
    P, Q = kappa / (2 * eps), A / (24 * eps)
    c = (Q / 2 + (Q**2 / 4 - P**3 / 27).sqrt()) ** (1 / 3)
    return 1 / (c + P / (3 * c))


def cosine_for_all(kappa, A, eps):
    P, Q = kappa / (2 * eps), A / (24 * eps)
    return 1 / (2 * (P / 3).sqrt() * ((Q / 2 * (3 / P) ** 1.5).acos() / 3).cos())


def twenty_halvings(kappa, A, eps):
    low, high = 0 * kappa, 0 * kappa + 3
    for _ in range(20):
        x = (low + high) / 2
        inside = kappa * x**2 / 2 + A * x**3 / 24 <= eps
        low, high = torch.where(inside, x, low), torch.where(inside, high, x)
    return low


def smallest_of_three(kappa, A, eps):
    P, Q = kappa / (2 * eps), A / (24 * eps)
    ratio = Q / 2 * (3 / P) ** 1.5
    turn = ratio.clamp(-1, 1).acos() / 3 + 2 * math.pi / 3
    return torch.where(ratio < 1, 1 / (2 * (P / 3).sqrt() * turn.cos()), cardano(kappa, A, eps))


def u_itself(kappa, A, eps):
    P, Q = kappa / (2 * eps), A / (24 * eps)
    x = P + Q + 1
    for _ in range(300):
        x = x - (x**3 - P * x - Q) / (3 * x**2 - P)
    return x


square_root_law = lambda kappa, A, eps: (2 * eps / kappa).sqrt()
saturated = lambda kappa, A, eps: 0 * kappa + (24 * eps / A) ** (1 / 3)
upper_side = lambda kappa, A, eps: torch.minimum(
    square_root_law(kappa, A, eps), saturated(kappa, A, eps)
)
lower_side = lambda kappa, A, eps: torch.minimum(
    (eps / kappa).sqrt(), 0 * kappa + (12 * eps / A) ** (1 / 3)
)
cube_root_law = lambda kappa, A, eps: (eps / kappa) ** (1 / 3)
eps_forgotten = lambda kappa, A, eps: 1 / u_itself(kappa * eps, A * eps, eps)
one_over_six = lambda kappa, A, eps: 1 / u_itself(kappa, 4 * A, eps)
bare_coefficients = lambda kappa, A, eps: 1 / u_itself(2 * kappa, 24 * A, eps)
half_forgotten = lambda kappa, A, eps: 1 / u_itself(2 * kappa, A, eps)

# equality_case


def moved(way, length=lambda v: v.norm(dim=1, keepdim=True), share=1.0):
    def answer(weight, x, y, delta):
        step = way(weight, y)
        return x + share * delta * step / length(step)

    return answer


apart = lambda w, y: w[1 - y] - w[y]
helps = moved(lambda w, y: w[y] - w[1 - y])
other_row = moved(lambda w, y: w[1 - y])
own_row = moved(lambda w, y: -w[y])
half_way = moved(apart, share=0.5)
stays = moved(apart, share=0.0)
signs = moved(lambda w, y: apart(w, y).sign(), lambda v: 1)
short_signs = moved(lambda w, y: apart(w, y).sign())
one_length_for_all = moved(apart, torch.linalg.matrix_norm)
not_a_unit = moved(apart, lambda v: 1)
step_alone = lambda weight, x, y, delta: moved(apart)(weight, 0 * x, y, delta)


def raw_gradient(weight, x, y, delta):
    p = softmax(x @ weight.T).gather(1, 1 - y[:, None])
    return x + delta * p * apart(weight, y)


def answer_moved(weight, x, y, delta):
    return moved(apart)(weight, x, (x @ weight.T).argmax(1), delta)


def rows_made_units(weight, x, y, delta):
    rows = weight / weight.norm(dim=1, keepdim=True)
    return x + delta * apart(rows, y)


def gradient_of_all(weight, x, y, delta):
    g = raw_gradient(weight, 0 * x + x, y, 1.0) - x
    return x + delta * g / g.norm()


# break_prop8


def world(
    shares=((2, 1, 1), (1, 1, 2)), length=0.8, step=0.002, scale=1.0, away=1.0, turn=None, first=0
):
    """Two orthogonal inputs, each with labels in these shares, and the minimiser of their loss."""

    def answer():
        x = length * torch.eye(2).double()
        rows, labels = [], []
        for point, counts in zip(x, shares, strict=True):
            for label, count in enumerate(counts):
                rows += [point] * count
                labels += [label] * count
        p = torch.tensor(shares).double().clamp_min(1e-300)
        p = p / p.sum(1, keepdim=True)
        weight = scale * (p.log().clamp_min(-100).T @ x) / length**2
        inputs, labels = torch.stack(rows), torch.tensor(labels)
        order = [first, *(i for i in range(len(labels)) if i != first)]
        inputs, labels = inputs[order], labels[order]
        q = softmax(inputs[:1] @ weight.T) - F.one_hot(labels[:1], 3)
        way = (q @ weight)[0] if turn is None else turn
        return inputs, labels, weight, inputs[0] + away * step * way / way.norm()

    return answer


right_world = world()
no_minimiser = world(scale=3.0)
perfect_fit = world(((4, 0, 0), (0, 0, 4)))
one_label = world(((4, 0, 0), (4, 0, 0)))
beyond_the_disc = world(length=1.2)
below_r = world(length=0.505, step=0.1, turn=torch.tensor([-1.0, 0]).double())
downhill = world(away=-1.0)
too_far = world(step=0.19)
nothing_moves = world(step=0.0)
balanced = world(((1, 1, 1), (1, 1, 2)), turn=torch.tensor([0.0, 1]).double())
uniform = world(((1, 1, 1), (1, 1, 1)), step=0.01, turn=torch.tensor([-1.0, 0]).double())  # W = 0


def barely_separable():
    """Two inputs 1.5e-6 apart: the mean gradient is small, and no W is best."""
    inputs = torch.tensor([[0.8, 0]] * 4 + [[0.8, 1.5e-6]]).double()
    shares = torch.tensor([3.0, 1, 1]).double() / 5
    weight = shares.log()[:, None] * torch.tensor([1.25, 0]).double()
    way = (shares - torch.tensor([1.0, 0, 0])) @ weight
    labels = torch.tensor([0, 0, 1, 2, 0])
    return inputs, labels, weight, inputs[0] + 0.001 * way / way.norm()


one_input = lambda: tuple(part[:4] if i < 2 else part for i, part in enumerate(world()()))
without_xi = lambda: world()()[:3]


# flip_with_less_loss


def probabilities(*pair):
    return lambda: tuple(torch.tensor(p).double() for p in pair)


two_classes = probabilities((0.6, 0.4), (0.45, 0.55))
not_right_at_first = probabilities((0.33, 0.34, 0.33), (0.49, 0.509, 0.001))
no_flip = probabilities((0.34, 0.33, 0.33), (0.51, 0.48, 0.01))
sure_at_first = probabilities((0.55, 0.25, 0.2), (0.499, 0.5, 0.001))
with_a_zero = probabilities((0.334, 0.333, 0.333), (0.499, 0.501, 0.0))
from_the_page = probabilities((0.34, 0.33, 0.33), (0.45, 0.549, 0.001))
loss_rises = probabilities((0.4, 0.3, 0.3), (0.3, 0.69, 0.01))
logits_for_probabilities = probabilities((0.6, 0.1, 0.1), (0.6, 0.7, -5.0))
a_tie = probabilities((1 / 3, 1 / 3, 1 / 3), (0.499, 0.5, 0.001))

# robust_flatness


def slopes(loss, weight):
    """Each example's own gradient in the weights."""
    w = weight.expand(len(loss(weight)), *weight.shape).clone().requires_grad_()
    (g,) = torch.autograd.grad(loss(w).sum(), w)
    return w.detach(), g


def minus_the_loss(loss, weight):
    return -loss(weight)


def minus_the_gradient(loss, weight):
    return -slopes(loss, weight)[1].flatten(1).norm(dim=1)


def minus_the_curvature(loss, weight):
    """Second differences along each example's gradient: flatness at the point."""
    w, g = slopes(loss, weight)
    way = 1e-3 * weight.norm() * g / g.flatten(1).norm(dim=1)[:, None, None]
    return -(loss(w + way) - 2 * loss(w) + loss(w - way))


def curvature(loss, weight):
    return -minus_the_curvature(loss, weight)


def step_to_log_2(per_sample=True, relative=False, upwards=1):
    """How far the weights move up the gradient until the loss is log 2."""

    def answer(loss, weight):
        w, g = slopes(loss, weight)
        g = g if per_sample else g.mean(0, keepdim=True).expand_as(g)
        way = upwards * g / g.flatten(1).norm(dim=1)[:, None, None]
        low = torch.zeros(len(w)).double()
        high = 10 * weight.norm() + low
        for _ in range(60):
            s = (low + high) / 2
            right = loss(w + s[:, None, None] * way) < math.log(2)
            low, high = torch.where(right, s, low), torch.where(right, high, s)
        return low / weight.norm() if relative else low

    return answer


absolute_step = step_to_log_2()
mean_gradient = step_to_log_2(per_sample=False, relative=True)
never_flips = step_to_log_2(relative=True, upwards=-1)


def sharpness_aware(loss, weight):
    """The rise of the loss at a fixed absolute step, as in SAM."""
    w, g = slopes(loss, weight)
    return loss(w) - loss(w + 0.05 * g / g.flatten(1).norm(dim=1)[:, None, None])


def relative_sharpness(loss, weight):
    """Minus κ, from the loss and each example's gradient."""
    w, g = slopes(loss, weight)
    rest = -torch.expm1(-loss(w))  # 1 − p, and the gradient has the length √2 (1 − p) ‖φ‖
    return -weight.square().sum() * (1 - rest) * g.flatten(1).norm(dim=1) ** 2 / rest


def relative_step_rise(loss, weight):
    """The loss after one step of a fixed relative length, as in AWP."""
    w, g = slopes(loss, weight)
    return -loss(w + 0.3 * weight.norm() * g / g.flatten(1).norm(dim=1)[:, None, None])


def end_too_near(loss, weight):
    return step_to_log_2(relative=True)(loss, weight).clamp_max(1e-9)


def one_score(loss, weight):
    return torch.zeros(len(loss(weight)))


TRUE_SCALE = ("same", "rises", "rises", "same", "rises")
SURE = ("certain", "open", "certain", "certain", "open")

WRONG = [
    ("guess_scale", ("rises", *TRUE_SCALE[1:]), "a label cannot feel a positive factor"),
    ("guess_scale", ("same", "same", "same", "same", "rises"), "the attack stays where it starts"),
    ("guess_scale", ("same", "rises", "same", "same", "rises"), "float64 does not cure it"),
    ("guess_scale", ("same", "rises", "rises", "rises", "rises"), "confidence read as robustness"),
    ("guess_scale", (*TRUE_SCALE[:4], "falls"), "a wrong answer is more confident, too"),
    ("guess_scale", (0, 1, 1, 0, 1), "each one of 'rises'"),
    ("head_trace", one_minus_squares, "1 − Σ p² cancels"),
    ("head_trace", complements, "half is lost"),
    ("head_trace", norm_not_squared, "‖φ‖ is squared"),
    ("head_trace", norm_not_squared_and_cancelling, "‖φ‖ is squared"),
    ("head_trace", features_missing, "the features are missing"),
    ("head_trace", batch_mean, "the mean of the batch"),
    ("head_trace", one_number, "of each example, not of the batch"),
    ("head_trace", divided_by_n, "divided by n"),
    ("head_trace", sum_of_squares, "the rest of 1 is asked"),
    ("head_trace", rest_of_the_largest, "all classes count"),
    ("head_trace", largest_alone, "the largest class alone"),
    ("head_trace", norm_of_lambda, "the norm of Λ"),
    ("head_trace", pairs_once, "every pair i ≠ j counts twice"),
    ("head_trace", softmax_twice, "softmax twice"),
    ("head_trace", single_precision, "float32 ends at e^−103"),
    ("head_trace", over_the_batch, "softmax over the batch"),
    ("head_trace", norm_of_the_batch, "the norm of the whole batch"),
    ("kappa", unsquared, "‖W‖_F is squared"),
    ("kappa", spectral, "the spectral norm is sharper"),
    ("kappa", spectral_unsquared, "that of Frobenius, squared"),
    ("kappa", trace_alone, "this is the trace alone"),
    ("kappa", centred, "centring its rows is a repair"),
    ("kappa", length_of_features, "‖φ‖ is squared"),
    ("kappa", no_features, "‖φ‖² is missing"),
    ("kappa", mean_row_kept, "the mean row"),
    ("kappa", plain_mean_row, "weighted by p"),
    ("kappa", rows_unweighted, "each row counts with its probability"),
    ("kappa", pairs_of_rows, "each pair comes twice"),
    ("kappa", kappa_twice, "κ* is no multiple"),
    ("kappa", batch_mean_row, "each example has its own mean row"),
    ("kappa", mean_row_alone, "which is to be taken off"),
    ("kappa", kappa_halved, "every pair i ≠ j counts twice"),
    ("kappa", full_first, "the order is kappa, full"),
    ("kappa", kappa_alone, "a tuple (kappa, full)"),
    ("repaired_bound", gradient_dropped, "the gradient is dropped"),
    ("repaired_bound", gradient_of_the_mean, "the gradient of the mean loss"),
    ("repaired_bound", mean_of_the_pulls, "the gradient of the mean loss"),
    ("repaired_bound", loss_was_a_mean, "a mean loss divides each gradient by n"),
    ("repaired_bound", weights_move_by_delta, "‖W‖_F³ belongs in the remainder"),
    ("repaired_bound", weights_move_by_ratio, "‖W‖_F³ belongs in the remainder"),
    ("repaired_bound", as_printed, "the gradient is dropped"),
    ("repaired_bound", no_remainder, "the remainder is missing"),
    ("repaired_bound", not_a_sixth, "a sixth of it counts"),
    ("repaired_bound", true_class_alone, "the other classes count, too"),
    ("repaired_bound", slope_squared, "not its square"),
    ("repaired_bound", trace_of_the_hessian, "Tr Λ, not Tr H"),
    ("repaired_bound", half_missing, "½ is missing"),
    ("repaired_bound", features_twice, "once too often"),
    ("repaired_bound", lipschitz_missing, "the features move by up to L δ"),
    ("repaired_bound", lipschitz_inverted, "not δ / L"),
    ("repaired_bound", spectral_step, "asked for is ‖W‖_F"),
    ("repaired_bound", gradient_of_the_sum, "summed or not"),
    ("repaired_bound", sum_of_sizes, "the sum of the entries' sizes"),
    ("repaired_bound", no_second_term, "the second term is missing"),
    ("repaired_bound", kappa_in_the_second, "Tr Λ, not κ"),
    ("repaired_bound", tau_by_the_features, "‖φ‖ divides the gradient, and not τ"),
    ("repaired_bound", answer_for_label, "y is the label, not the answer"),
    ("repaired_bound", printed_remainder, "‖W‖_F³ belongs in the remainder"),
    ("loss_bound", tau_alone, "τ for √2 τ"),
    ("loss_bound", overflows, "torch.logaddexp"),
    ("loss_bound", swapped, "p and 1 − p are swapped"),
    ("loss_bound", twice_tau, "not 2 τ"),
    ("loss_bound", first_order, "the first order in τ"),
    ("loss_bound", blind, "blind to p_y"),
    ("loss_bound", loss_at_the_end, "its rise is asked"),
    ("loss_bound", unweighted, "weighted with 1 − p_y"),
    ("loss_bound", downwards, "the loss rises"),
    ("loss_bound", larger_summand, "less than the sum"),
    ("loss_bound", cut_off, "where τ is large, too"),
    ("loss_bound", bound_in_float32, "in float64"),
    ("loss_radius", in_features, "divide by L"),
    ("loss_radius", times_lipschitz, "divide by L"),
    ("loss_radius", eps_itself, "e^ε − 1, not ε"),
    ("loss_radius", exp_eps, "not e^ε"),
    ("loss_radius", without_p_y, "p_y is missing in the sum"),
    ("loss_radius", single_rows, "not ‖w_j‖"),
    ("loss_radius", squared_speed, "not its square"),
    ("loss_radius", odds, "not p_j / p_y"),
    ("loss_radius", largest_difference, "every D_j is put at the largest"),
    ("loss_radius", operator_norm, "with D_j for √2‖W‖₂"),
    ("loss_radius", one_minus_p, "1 − p_y is rounded to 0"),
    ("loss_radius", p_ignored, "p_y is ignored"),
    ("loss_radius", class_by_class, "their rises add up"),
    ("loss_radius", margin_radius, "the margin's radius"),
    ("loss_radius", twice_eps, "p_y is ignored"),
    ("loss_radius", frobenius, "with D_j for √2‖W‖_F"),
    ("loss_radius", smallest_difference, "every D_j is put at the smallest"),
    ("loss_radius", first_order_radius, "the first order in δ alone"),
    ("loss_radius", runner_up, "the runner-up alone"),
    ("loss_radius", too_short, "end too early"),
    ("solve_cubic", cardano, "digits are lost"),
    ("solve_cubic", wrong_way, "divided the wrong way"),
    ("solve_cubic", cardano_by_one_formula, "use the cosine"),
    ("solve_cubic", smallest_of_three, "exactly one root is positive"),
    ("solve_cubic", u_itself, "this is u = 1/Δ"),
    ("solve_cubic", square_root_law, "the cubic term is dropped"),
    ("solve_cubic", saturated, "κ is dropped"),
    ("solve_cubic", upper_side, "the upper side of the sandwich"),
    ("solve_cubic", one_over_six, "1/24, not 1/6"),
    ("solve_cubic", bare_coefficients, "½ and 1/24 are missing"),
    ("solve_cubic", half_forgotten, "the second term has ½"),
    ("solve_cubic", lower_side, "the lower side of the sandwich"),
    ("solve_cubic", cube_root_law, "nowhere a law"),
    ("solve_cubic", eps_forgotten, "ε is forgotten"),
    ("solve_cubic", cosine_for_all, "the arccosine is of more than 1"),
    ("solve_cubic", twenty_halvings, "the search stops too early"),
    ("transfer", ("open",) * 5, "transfer read as a finding"),
    ("transfer", ("certain",) * 5, "the bias is not scaled"),
    ("transfer", ("certain", "open", "open", "certain", "open"), "no answer changes"),
    ("transfer", ("certain", "open", "certain", "open", "open"), "differ from input to input"),
    ("transfer", (*SURE[:4], "certain"), "sharpness does not see the label"),
    ("transfer", (1, 0, 1, 1, 0), "each one of 'certain'"),
    ("equality_case", helps, "wrong sign"),
    ("equality_case", other_row, "the difference w_j − w_y"),
    ("equality_case", own_row, "the difference w_j − w_y"),
    ("equality_case", half_way, "half of the radius"),
    ("equality_case", stays, "nothing has moved"),
    ("equality_case", signs, "leaves the ℓ2 ball"),
    ("equality_case", short_signs, "the worst case of ℓ∞"),
    ("equality_case", one_length_for_all, "by its own length"),
    ("equality_case", not_a_unit, "length 1"),
    ("equality_case", raw_gradient, "scaled to the length δ"),
    ("equality_case", step_alone, "add x"),
    ("equality_case", answer_moved, "y is the label, not the answer"),
    ("equality_case", rows_made_units, "divide the difference"),
    ("equality_case", gradient_of_all, "by its own length"),
    ("break_prop8", no_minimiser, "W is no minimiser over S"),
    ("break_prop8", perfect_fit, "no finite minimiser"),
    ("break_prop8", one_label, "no finite minimiser"),
    ("break_prop8", barely_separable, "no finite minimiser"),
    ("break_prop8", beyond_the_disc, "‖x‖ ≤ 1"),
    ("break_prop8", below_r, "r has to hold on all of X"),
    ("break_prop8", downhill, "the loss of this sample falls"),
    ("break_prop8", too_far, "B falls like δ²"),
    ("break_prop8", nothing_moves, "another point"),
    ("break_prop8", uniform, "falls or stays"),
    ("break_prop8", one_input, "two different inputs"),
    ("break_prop8", without_xi, "a tuple (inputs, labels, weight, xi)"),
    ("flip_with_less_loss", two_classes, "with two classes it is impossible"),
    ("flip_with_less_loss", not_right_at_first, "the first answer has to be right"),
    ("flip_with_less_loss", a_tie, "the first answer has to be right"),
    ("flip_with_less_loss", no_flip, "no flip"),
    ("flip_with_less_loss", sure_at_first, "every wrong answer has p_y ≤ ½"),
    ("flip_with_less_loss", with_a_zero, "no softmax gives it"),
    ("flip_with_less_loss", from_the_page, "how low can a right answer's p_y be"),
    ("flip_with_less_loss", loss_rises, "the loss rises here"),
    ("flip_with_less_loss", logits_for_probabilities, "a sum of 1"),
    ("robust_flatness", minus_the_loss, "the loss or the margin follows the scale"),
    ("robust_flatness", minus_the_gradient, "where its answer changes"),
    ("robust_flatness", minus_the_curvature, "answer changes"),
    ("robust_flatness", curvature, "the wrong sign"),
    ("robust_flatness", sharpness_aware, "where its answer changes"),
    ("robust_flatness", mean_gradient, "each example's own gradient"),
    ("robust_flatness", absolute_step, "relative to ‖W‖"),
    ("robust_flatness", relative_sharpness, "sharpness κ follows the scale"),
    ("robust_flatness", relative_step_rise, "where its answer changes"),
    ("robust_flatness", end_too_near, "an end too near"),
    ("robust_flatness", never_flips, "one score for all"),
    ("robust_flatness", one_score, "one score for all"),
]
