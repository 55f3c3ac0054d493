"""Planted wrong answers of chapter 1: (exercise, answer, words that its message must hold)."""

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from robcourse import linear
from robcourse.threat import Threat, margin

DUAL = {"linf": 1, "l2": 2, "l1": torch.inf}
OWN = {"linf": torch.inf, "l2": 2, "l1": 1}
size = torch.linalg.vector_norm


# distance


def the_p_norm(w, b, x, norm):
    return (x @ w + b).abs() / size(w, OWN[norm])


def no_bias(w, b, x, norm):
    return (x @ w).abs() / size(w, DUAL[norm])


def norm_squared(w, b, x, norm):
    return (x @ w + b).abs() / size(w, DUAL[norm]) ** 2


def signed_distance(w, b, x, norm):
    return (x @ w + b) / size(w, DUAL[norm])


def forgotten_return(w, b, x, norm):
    (x @ w + b).abs() / size(w, DUAL[norm])


def changes_its_input(w, b, x, norm):
    x *= w
    return (x.sum(1) + b).abs() / size(w, DUAL[norm])


def a_column(w, b, x, norm):
    return (x @ w[:, None] + b).abs() / size(w, DUAL[norm])


def a_list(w, b, x, norm):
    return ((x @ w + b).abs() / size(w, DUAL[norm])).tolist()


def from_the_text(w, b, x, norm):
    return {"linf": torch.tensor([5 / 7, 5 / 7]), "l2": torch.ones(2), "l1": torch.ones(2) * 1.25}[
        norm
    ]


def signed_weights(w, b, x, norm):
    q = {"linf": w.sum().abs(), "l2": w.norm(), "l1": w.max()}[norm]
    return (x @ w + b).abs() / q


def minus_bias(w, b, x, norm):
    return (x @ w - b).abs() / size(w, DUAL[norm])


def always_l2(w, b, x, norm):
    return (x @ w + b).abs() / w.norm()


def bias_for_each_input(w, b, x, norm):
    return (x * w + b).sum(1).abs() / size(w, DUAL[norm])


def in_a_tuple(w, b, x, norm):
    return ((x @ w + b).abs() / size(w, DUAL[norm]),)


def enormous(w, b, x, norm):
    return torch.full((len(x),), 1e308, dtype=torch.float64)


# worst_case


def worst_case(w, x, y, threat, *, clamp=True, sign=-1.0, unit=True):
    step = sign * y[:, None] * w
    step = threat.steepest(step) if unit or threat.norm == "linf" else step
    z = x + threat.eps * step
    return z if threat.box is None or not clamp else z.clamp(*threat.box)


def outside_the_box(w, x, y, threat):
    return worst_case(w, x, y, threat, clamp=False)


def helps(w, x, y, threat):
    return worst_case(w, x, y, threat, sign=1.0)


def step_not_normalised(w, x, y, threat):
    return worst_case(w, x, y, threat, unit=False)


def clamped_full_step(w, x, y, threat):
    return worst_case(w, x, y, threat)


def equal_steps(w, x, y, threat):
    if threat.norm != "l2":
        return linear.worst_case(w, x, y, threat)
    z = x - threat.eps * y[:, None] * w.sign() / len(w) ** 0.5
    return z if threat.box is None else z.clamp(*threat.box)


def halved_between_0_and_1(w, x, y, threat):
    if threat.norm != "l2":
        return linear.worst_case(w, x, y, threat)
    low, high = threat.box or (-torch.inf, torch.inf)
    away = -y[:, None] * w
    room = torch.where(away > 0, high - x, x - low)
    near, far = torch.zeros(len(x), 1), torch.ones(len(x), 1)
    for _ in range(50):
        t = (near + far) / 2
        fits = torch.minimum(t * w.abs(), room).norm(dim=1, keepdim=True) <= threat.eps
        near, far = torch.where(fits, t, near), torch.where(fits, far, t)
    return x + away.sign() * torch.minimum(near * w.abs(), room)


def only_delta(w, x, y, threat):
    return linear.worst_case(w, x, y, threat) - x


def every_input_by_eps(w, x, y, threat):
    return into(x - threat.eps * y[:, None] * w.sign(), threat)


def far_away(w, x, y, threat):
    return torch.full_like(x, 1e308, dtype=torch.float64)


# sign_shifts


def coin(m, d, seed):
    return 2.0 * torch.randint(0, 2, (m, d), generator=torch.Generator().manual_seed(seed)) - 1


def as_a_random_walk(w, eps, m, seed):
    return eps * w.norm().item(), eps * coin(m, len(w), seed) @ w


def one_sign_for_all(w, eps, m, seed):
    return eps * w.abs().sum().item(), eps * coin(m, 1, seed)[:, 0] * w.sum()


def zeros_and_ones(w, eps, m, seed):
    return eps * w.abs().sum().item(), eps * (coin(m, len(w), seed) + 1) / 2 @ w


def normal_numbers(w, eps, m, seed):
    z = torch.randn(m, len(w), generator=torch.Generator().manual_seed(seed))
    return eps * w.abs().sum().item(), eps * z @ w


def uniform_numbers(w, eps, m, seed):
    u = torch.rand(m, len(w), generator=torch.Generator().manual_seed(seed))
    return eps * w.abs().sum().item(), eps * (2 * u - 1) @ w


def no_signs_at_all(w, eps, m, seed):
    gen = torch.Generator().manual_seed(seed)
    z = torch.randn(m, generator=gen)
    z = z.sign() if torch.count_nonzero(w) == 1 else z
    return eps * w.abs().sum().item(), eps * w.norm() * z


def one_seed_for_all(w, eps, m, seed):
    return eps * w.abs().sum().item(), eps * coin(m, len(w), 7) @ w


def another_seed_each_time(w, eps, m, seed):
    gen = torch.Generator()
    gen.seed()
    signs = 2.0 * torch.randint(0, 2, (m, len(w)), generator=gen) - 1
    return eps * w.abs().sum().item(), eps * signs @ w


def no_rise_below_0(w, eps, m, seed):
    return eps * w.abs().sum().item(), (eps * coin(m, len(w), seed) @ w).abs()


def global_seed(w, eps, m, seed):
    torch.manual_seed(seed)
    return eps * w.abs().sum().item(), eps * (2.0 * torch.randint(0, 2, (m, len(w))) - 1) @ w


# robust_risk


def signed(w, b, x, y):
    return y * (x @ w + b)


def open_ball(w, b, x, y, eps, norm):
    return (signed(w, b, x, y) < eps * size(w, DUAL[norm])).double().mean().item()


def robustly_wrong(w, b, x, y, eps, norm):
    return (signed(w, b, x, y).abs() <= eps * size(w, DUAL[norm])).double().mean().item()


def a_count(w, b, x, y, eps, norm):
    return (signed(w, b, x, y) <= eps * size(w, DUAL[norm])).sum().item()


def the_accuracy(w, b, x, y, eps, norm):
    return (signed(w, b, x, y) > eps * size(w, DUAL[norm])).double().mean().item()


def risk_by_the_p_norm(w, b, x, y, eps, norm):
    return (signed(w, b, x, y) <= eps * size(w, OWN[norm])).double().mean().item()


def risk_without_bias(w, b, x, y, eps, norm):
    return (y * (x @ w) <= eps * size(w, DUAL[norm])).double().mean().item()


# fgsm


def gradient(model, x, y, reduction="sum"):
    z = x.clone().requires_grad_()
    return torch.autograd.grad(cross_entropy(model(z), y, reduction=reduction), z)[0]


def into(z, threat):
    return z if threat.box is None else z.clamp(*threat.box)


def fgsm_without_clamp(model, x, y, threat):
    return x + threat.eps * threat.steepest(gradient(model, x, y))


def fgsm_downhill(model, x, y, threat):
    return into(x - threat.eps * threat.steepest(gradient(model, x, y)), threat)


def fgsm_raw_gradient(model, x, y, threat):
    g = gradient(model, x, y, "mean")
    return into(x + threat.eps * (g.sign() if threat.norm == "linf" else g), threat)


def fgsm_one_norm_for_all(model, x, y, threat):
    g = gradient(model, x, y)
    return into(x + threat.eps * (g.sign() if threat.norm == "linf" else g / g.norm()), threat)


def fgsm_in_training_mode(model, x, y, threat):
    model.train()
    return into(x + threat.eps * threat.steepest(gradient(model, x, y)), threat)


def fgsm_backward(model, x, y, threat):
    z = x.clone().requires_grad_()
    cross_entropy(model(z), y, reduction="sum").backward()
    return into(x + threat.eps * threat.steepest(z.grad), threat)


def fgsm_on_the_input(model, x, y, threat):
    x.requires_grad_()
    (g,) = torch.autograd.grad(cross_entropy(model(x), y, reduction="sum"), x)
    return into(x + threat.eps * threat.steepest(g), threat)


def fgsm_only_delta(model, x, y, threat):
    return threat.eps * threat.steepest(gradient(model, x, y))


def fgsm_sign_everywhere(model, x, y, threat):
    return into(x + threat.eps * gradient(model, x, y).sign(), threat)


def fgsm_of_the_prediction(model, x, y, threat):
    step = threat.steepest(gradient(model, x, model(x).argmax(1)))
    return into(x + threat.eps * step, threat)


def fgsm_softmax_first(model, x, y, threat):
    step = threat.steepest(gradient(lambda z: model(z).softmax(1), x, y))
    return into(x + threat.eps * step, threat)


def fgsm_in_double(model, x, y, threat):
    step = threat.steepest(gradient(model.double(), x.double(), y))
    return into(x + threat.eps * step, threat)


def fgsm_leaves_a_hook(model, x, y, threat):
    model[-1].register_forward_hook(lambda *_: None)
    return into(x + threat.eps * threat.steepest(gradient(model, x, y)), threat)


# project_l1


def rescaled(delta, eps):
    return delta * (eps / delta.abs().sum(1, keepdim=True)).clamp(max=1)


def clipped(delta, eps):
    return delta.clamp(-eps, eps)


def shared_among_all(delta, eps):
    lam = (delta.abs().sum(1, keepdim=True) - eps).clamp(min=0) / delta.shape[1]
    return delta.sign() * (delta.abs() - lam).clamp(min=0)


def signs_lost(delta, eps):
    return Threat("l1", eps, None).project(delta, torch.zeros_like(delta)).abs()


def inside_moves_too(delta, eps):
    return delta * eps / delta.abs().sum(1, keepdim=True)


# pgd


def pgd(model, x, y, threat, steps, step, *, centre="x", last=False, sign=1, project=True):
    z, best, least = x, x.clone(), margin(model(x), y).detach()
    for _ in range(steps):
        moved = z + sign * step * threat.steepest(gradient(model, z, y))
        around = x if centre == "x" else z
        z = threat.project(moved, around) if project else into(moved, threat)
        m = margin(model(z), y).detach()
        best, least = torch.where((m < least)[:, None], z, best), torch.minimum(m, least)
    return z if last else best


def pgd_drifts(*args):
    return pgd(*args, centre="z")


def pgd_projects_at_the_end(model, x, y, threat, steps, step):
    z = pgd(model, x, y, threat, steps, step, project=False, last=True)
    return threat.project(z, x)


def pgd_last_point(*args):
    return pgd(*args, last=True)


def pgd_downhill(*args):
    return pgd(*args, sign=-1, last=True)


def pgd_one_step(model, x, y, threat, steps, step):
    return pgd(model, x, y, threat, 1, threat.eps)


def pgd_step_ignored(model, x, y, threat, steps, step):
    return pgd(model, x, y, threat, steps, threat.eps)


def pgd_a_step_short(model, x, y, threat, steps, step):
    return pgd(model, x, y, threat, steps - 1, step)


def pgd_twenty_steps(model, x, y, threat, steps, step):
    return pgd(model, x, y, threat, 20, threat.eps / 4)


def pgd_gradients_add_up(model, x, y, threat, steps, step):
    z, total, best, least = x, 0, x.clone(), margin(model(x), y).detach()
    for _ in range(steps):
        total = total + gradient(model, z, y)
        z = threat.project(z + step * threat.steepest(total), x)
        m = margin(model(z), y).detach()
        best, least = torch.where((m < least)[:, None], z, best), torch.minimum(m, least)
    return best


def pgd_without_x(model, x, y, threat, steps, step):
    z, best, least = x, x, torch.full((len(x),), torch.inf)
    for _ in range(steps):
        z = threat.project(z + step * threat.steepest(gradient(model, z, y)), x)
        m = margin(model(z), y).detach()
        best, least = torch.where((m < least)[:, None], z, best), torch.minimum(m, least)
    return best


# holder_witness


def sign_for_all(w, norm):
    return w.sign() / size(w.sign(), OWN[norm])


def one_coordinate_for_all(w, norm):
    return Threat("l1", 1.0, None).steepest(w[None])[0]


def not_of_size_one(w, norm):
    return w.sign() if norm == "linf" else w


def negative_witness(w, norm):
    return -Threat(norm, 1.0, None).steepest(w[None])[0]


# more_radius, best_linear


def usual(x, y, **options):
    from sklearn.linear_model import LogisticRegression

    rule = LogisticRegression(max_iter=2000, **options).fit(x.double(), y)
    return torch.tensor(rule.coef_[0]), float(rule.intercept_[0])


def ten_times(x, y):
    w, b = usual(x, y)
    return 10 * w, 10 * b


def too_sparse(x, y):
    w, b = linear.fit(x, y, Threat("linf", 0.3), steps=300)
    return w, b.item()


def flipped(x, y):
    w, b = linear.fit(x, y, Threat("linf", 0.08), steps=300)
    return -w, -b.item()


def bias_in_a_tensor(x, y):
    w, b = usual(x, y)
    return w, torch.tensor([b])


def random_nudges(x, y):
    many = torch.cat([(x + coin(*x.shape, i) / 4).clamp(0, 1) for i in range(5)])
    return usual(many, y.repeat(5))


def as_usual(x, y):
    return usual(x, y)


def overflowing(x, y):
    w, b = usual(x, y)
    w, b = (np.clip(np.asarray(v) * 4e307, -1.7e308, 1.7e308) for v in (w, b))
    return w, float(b)


def vanishing(x, y):
    w, b = usual(x, y)
    return 1e-320 * w, 1e-320 * b


def only_the_bias(x, y):
    return torch.zeros(x.shape[1]), 1.0


WRONG = [
    ("distance", the_p_norm, "dual"),
    ("distance", no_bias, "b is missing"),
    ("distance", norm_squared, "squared where the norm belongs"),
    ("distance", signed_distance, "absolute value"),
    ("distance", forgotten_return, "is a `return` missing?"),
    ("distance", changes_its_input, "in place"),
    ("distance", a_column, "expected shape (2,)"),
    ("distance", a_list, "torch.tensor"),
    ("distance", signed_weights, "|w_i|: the sign of w must not matter"),
    ("distance", minus_bias, "b is added, not taken off"),
    ("distance", always_l2, "whatever the norm"),
    ("distance", bias_for_each_input, "once to the sum"),
    ("distance", in_a_tuple, "return the tensor alone"),
    ("distance", enormous, "got 1e+308"),
    ("worst_case", halved_between_0_and_1, "t stops too early"),
    ("worst_case", only_delta, "return x + δ"),
    ("worst_case", every_input_by_eps, "like |w_i|"),
    ("worst_case", far_away, "‖δ‖ = 1e+308"),
    ("worst_case", outside_the_box, "clamp to the box"),
    ("worst_case", helps, "wrong sign"),
    ("worst_case", step_not_normalised, "normalise it"),
    ("worst_case", clamped_full_step, "leaves budget unspent"),
    ("worst_case", equal_steps, "equal steps"),
    ("sign_shifts", as_a_random_walk, "random walk"),
    ("sign_shifts", one_sign_for_all, "a sign of its own"),
    ("sign_shifts", zeros_and_ones, "not 0 and 1"),
    ("sign_shifts", normal_numbers, "not normal numbers"),
    ("sign_shifts", uniform_numbers, "off by √3"),
    ("sign_shifts", no_signs_at_all, "not normal numbers"),
    ("sign_shifts", one_seed_for_all, "use `seed`"),
    ("sign_shifts", another_seed_each_time, "from `seed`"),
    ("sign_shifts", no_rise_below_0, "a rise may be negative"),
    ("sign_shifts", global_seed, "global random state"),
    ("robust_risk", open_ball, "equality counts"),
    ("robust_risk", robustly_wrong, "keep the sign of the margin"),
    ("robust_risk", a_count, "off by exactly n"),
    ("robust_risk", the_accuracy, "this is the robust accuracy"),
    ("robust_risk", risk_by_the_p_norm, "dual"),
    ("robust_risk", risk_without_bias, "b is missing"),
    ("fgsm", fgsm_only_delta, "return x + δ"),
    ("fgsm", fgsm_sign_everywhere, "in ℓ2 it is g/‖g‖"),
    ("fgsm", fgsm_of_the_prediction, "not the predicted class"),
    ("fgsm", fgsm_softmax_first, "cross_entropy takes logits"),
    ("fgsm", fgsm_in_double, "another model"),
    ("fgsm", fgsm_leaves_a_hook, "another model"),
    ("fgsm", fgsm_without_clamp, "clamp to the box"),
    ("fgsm", fgsm_downhill, "wrong sign"),
    ("fgsm", fgsm_raw_gradient, "normalise it"),
    ("fgsm", fgsm_one_norm_for_all, "whole batch"),
    ("fgsm", fgsm_in_training_mode, "model's mode"),
    ("fgsm", fgsm_backward, "gradients"),
    ("fgsm", fgsm_on_the_input, "clone().requires_grad_()"),
    ("project_l1", rescaled, "the same λ"),
    ("project_l1", clipped, "ℓ∞ ball"),
    ("project_l1", shared_among_all, "stops paying"),
    ("project_l1", signs_lost, "signs are lost"),
    ("project_l1", inside_moves_too, "inside the ball stay"),
    ("pgd", pgd_drifts, "around x and not around the last point"),
    ("pgd", pgd_projects_at_the_end, "one projection at the end"),
    ("pgd", pgd_last_point, "keep the best"),
    ("pgd", pgd_downhill, "wrong sign"),
    ("pgd", pgd_one_step, "this is FGSM"),
    ("pgd", pgd_step_ignored, "the step is eps, not step"),
    ("pgd", pgd_a_step_short, "one step too few"),
    ("pgd", pgd_twenty_steps, "as you are told"),
    ("pgd", pgd_gradients_add_up, "add up"),
    ("pgd", pgd_without_x, "x itself is a candidate"),
    ("random_vs_chosen", {"random": (0.98, 0.99), "chosen": (0.25, 0.35)}, "nothing here"),
    ("random_vs_chosen", {"random": (0.85, 1.0), "chosen": (0.3, 0.4)}, "close, but not inside"),
    ("random_vs_chosen", {"random": (0.85, 0.92), "chosen": (0.2, 0.4)}, "a higher interval"),
    ("random_vs_chosen", {"random": (0.2, 0.35), "chosen": (0.2, 0.35)}, "random signs cancel"),
    ("random_vs_chosen", {"random": (0.9, 1.0), "chosen": (0.85, 1.0)}, "random walk"),
    ("random_vs_chosen", {"random": (0.98, 1.0), "chosen": (0.2, 0.35)}, "nothing here can raise"),
    ("random_vs_chosen", {"random": (0.9, 1.0), "chosen": (0.0, 0.1)}, "some scores are larger"),
    ("random_vs_chosen", {"random": (90, 100), "chosen": (20, 35)}, "not a percentage"),
    ("random_vs_chosen", {"random": (0.0, 1.0), "chosen": (0.0, 1.0)}, "commit yourself"),
    ("holder_witness", sign_for_all, "not extremal"),
    ("holder_witness", one_coordinate_for_all, "extreme point of the ℓ1 ball"),
    ("holder_witness", not_of_size_one, "scale δ"),
    ("holder_witness", negative_witness, "wrong sign"),
    ("more_radius", ten_times, "does not change with ‖w‖"),
    ("more_radius", too_sparse, "accuracy is lost"),
    ("more_radius", flipped, "wrong sign"),
    ("more_radius", as_usual, "does not change with ‖w‖"),
    ("more_radius", overflowing, "|w| from 1e-6 to 1e6"),
    ("more_radius", vanishing, "|w| from 1e-6 to 1e6"),
    ("best_linear", as_usual, "this is the usual rule"),
    ("best_linear", overflowing, "|w| from 1e-6 to 1e6"),
    ("more_radius", bias_in_a_tensor, ".item()"),
    ("best_linear", random_nudges, "random nudges are not the adversary"),
    ("best_linear", too_sparse, "another task"),
    ("best_linear", only_the_bias, "w = 0"),
]
