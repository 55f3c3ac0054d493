"""Planted wrong answers of chapter 6: (exercise, answer, words that its message must hold)."""

import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching
from torch.nn.functional import cross_entropy, kl_div

from robcourse import models
from robcourse.objectives import adversarial
from robcourse.threat import Threat, margin

P = {"linf": torch.inf, "l2": 2, "l1": 1}


def share(mask):
    return mask.double().mean().item()


# decompose


def flips_are_robust(pred, adv, y):
    natural, robust = share(pred != y), share(adv != y)
    return natural, robust - natural, robust


def robust_by_adv_alone(pred, adv, y):
    return share(pred != y), share((pred == y) & (adv != y)), share(adv != y)


def of_the_right_ones(pred, adv, y):
    natural = share(pred != y)
    boundary = (adv != y)[pred == y].double().mean().item()
    return natural, boundary, natural + boundary


def accuracies(pred, adv, y):
    right = pred == y
    return share(right), share(right & (adv != y)), share(right & (adv == y))


def changed_predictions(pred, adv, y):
    return share(pred != y), share((pred == y) & (adv != y)), share(adv != pred)


def changed_is_boundary(pred, adv, y):
    natural, boundary = share(pred != y), share(adv != pred)
    return natural, boundary, natural + boundary


def risks_that_do_not_sum(pred, adv, y):
    boundary = share((pred == y) & (adv != y))
    return share(pred != y), boundary, boundary


def counts(pred, adv, y):
    wrong, broken = (pred != y).sum().item(), ((pred == y) & (adv != y)).sum().item()
    return wrong, broken, wrong + broken


# robust_accuracy


def evaluate(model, attack, x, y, batch, *, right=None, flips=False, of_means=False, drop=False):
    right = right or (lambda z, b: margin(model(z), b) > 0)
    rows = []
    for a, b in zip(x.split(batch), y.split(batch), strict=True):
        if drop and len(a) < batch:
            continue
        z = attack(model, a, b)
        with torch.no_grad():
            at_x, still = right(a, b), right(z, b)
        rows.append((len(a), at_x.sum().item(), (still if flips else at_x & still).sum().item()))
    n, clean, robust = (torch.tensor(column, dtype=torch.float64) for column in zip(*rows))  # noqa: B905
    if of_means:
        return (clean / n).mean().item(), (robust / n).mean().item()
    return (clean.sum() / n.sum()).item(), (robust.sum() / n.sum()).item()


@torch.no_grad()
def all_without_gradients(model, attack, x, y, batch):
    return evaluate(model, attack, x, y, batch)


def inference_mode(model, attack, x, y, batch):
    with torch.inference_mode():
        return evaluate(model, attack, x, y, batch)


def mean_of_means(*args):
    return evaluate(*args, of_means=True)


def wrong_to_right(*args):
    return evaluate(*args, flips=True)


def argmax_breaks_ties(model, *args):
    return evaluate(model, *args, right=lambda z, b: model(z).argmax(1) == b)


def argmax_and_flips(model, *args):
    return evaluate(model, *args, right=lambda z, b: model(z).argmax(1) == b, flips=True)


def ties_are_right(model, *args):
    return evaluate(model, *args, right=lambda z, b: margin(model(z), b) >= 0)


def short_batch_dropped(*args):
    return evaluate(*args, drop=True)


def all_at_once(model, attack, x, y, batch):
    return evaluate(model, attack, x, y, len(x))


def in_training_mode(model, *args):
    model.train()
    return evaluate(model, *args)


def leaves_gradients(model, attack, x, y, batch):
    cross_entropy(model(x), y).backward()
    return evaluate(model, attack, x, y, batch)


def evaluated_risks(*args):
    clean, robust = evaluate(*args)
    return 1 - clean, 1 - robust


# refute


def world(points, prob, labels, predictions, eps):
    floats = torch.tensor(points), torch.tensor(prob)
    return lambda: (*floats, torch.tensor(labels), torch.tensor(predictions), eps)


bayes_rule = world([0.0, 1.0, 2.0], [0.3, 0.3, 0.4], [0, 1, 0], [0, 1, 0], 1.0)
no_overlap = world([0.0, 5.0], [0.5, 0.5], [0, 1], [0, 1], 1.0)
no_probabilities = world([0.0, 1.0], [0.5, 0.6], [0, 1], [0, 0], 1.0)
below_zero = world([0.0, 1.0], [1.5, -0.5], [0, 1], [0, 0], 1.0)
no_ball = world([0.0, 1.0], [0.5, 0.5], [0, 1], [0, 0], 0.0)
one_place_twice = world([0.0, 0.0], [0.5, 0.5], [0, 1], [0, 0], 1.0)
nearly_bayes = world([0.0, 1.0, 9.0], [0.45, 0.45, 0.1], [0, 1, 0], [0, 1, 1], 1.0)
a_hair = world([0.0, 1.0], [0.9999, 1e-4], [0, 1], [0, 0], 0.5)
half_classes = world([0.0, 1.0], [0.5, 0.5], [0.0, 1.0], [0.0, 0.5], 1.0)


# conflicts


def far(x0, x1, norm):
    return torch.linalg.vector_norm(x0[:, None] - x1, P[norm], dim=2)


def one_ball_moves(x0, x1, eps, norm):
    return far(x0, x1, norm) <= eps


def open_balls(x0, x1, eps, norm):
    return far(x0, x1, norm) < 2 * eps


def always_l2(x0, x1, eps, norm):
    return far(x0, x1, "l2") <= 2 * eps


def always_linf(x0, x1, eps, norm):
    return far(x0, x1, "linf") <= 2 * eps


def transposed(x0, x1, eps, norm):
    return (far(x0, x1, norm) <= 2 * eps).T


def peaceful_pairs(x0, x1, eps, norm):
    return far(x0, x1, norm) > 2 * eps


def no_absolute_value(x0, x1, eps, norm):
    largest = (x0[:, None] - x1).amax(2)
    return (largest if norm == "linf" else far(x0, x1, norm)) <= 2 * eps


def distances(x0, x1, eps, norm):
    return far(x0, x1, norm)


# floor


def matching_size(c):
    partners = maximum_bipartite_matching(csr_array(c.numpy()), perm_type="column")
    return int((partners >= 0).sum())


def edges(c):
    return c.sum().item() / sum(c.shape)


def greedy(c):
    free, pairs = torch.ones(c.shape[1], dtype=torch.bool), 0
    for row in c:
        at = (row & free).nonzero().flatten()
        if len(at):
            free[at[0]] = False
            pairs += 1
    return pairs / sum(c.shape)


def greedy_by_columns(c):
    return greedy(c.T)


def greedy_by_degree(c):
    """The rows with the fewest conflicts first, to the column with the fewest."""
    c = c[c.sum(1).argsort(stable=True)]
    return greedy(c[:, c.sum(0).argsort(stable=True)])


def of_one_class(c):
    return matching_size(c) / len(c)


def of_the_other_class(c):
    return matching_size(c) / c.shape[1]


def all_that_conflict(c):
    return (c.any(0).sum().item() + c.any(1).sum().item()) / sum(c.shape)


def one_side_that_conflicts(c):
    return min(c.any(0).sum().item(), c.any(1).sum().item()) / sum(c.shape)


def both_ends(c):
    return 2 * matching_size(c) / sum(c.shape)


def not_a_share(c):
    return matching_size(c)


# cover_from_matching


def mask(n, at):
    out = torch.zeros(n, dtype=torch.bool)
    out[at] = True
    return out


def nothing(n):
    return torch.zeros(n, dtype=torch.bool)


def left_ends(c, matching):
    return mask(c.shape[0], matching[:, 0]), nothing(c.shape[1])


def right_ends(c, matching):
    return nothing(c.shape[0]), mask(c.shape[1], matching[:, 1])


def all_ends(c, matching):
    return mask(c.shape[0], matching[:, 0]), mask(c.shape[1], matching[:, 1])


def all_conflicting_rows(c, matching):
    return c.any(1), nothing(c.shape[1])


def everybody(c, matching):
    return ~nothing(c.shape[0]), ~nothing(c.shape[1])


def nobody(c, matching):
    return nothing(c.shape[0]), nothing(c.shape[1])


def paths(c, matching, steps):
    reached = ~mask(len(c), matching[:, 0])
    for _ in range(steps):
        hit = c[reached].any(0)
        reached[matching[hit[matching[:, 1]], 0]] = True
    return reached, hit


def one_step(c, matching):
    reached, hit = paths(c, matching, 1)
    return ~reached, hit


def wrong_way_round(c, matching):
    reached, hit = paths(c, matching, len(c) + 1)
    return reached, ~hit


# robust_rule


def phi(t):
    return torch.special.ndtr(torch.as_tensor(t, dtype=torch.float64)).item()


def soft(mu, eps):
    return mu.sign() * (mu.abs() - eps).clamp(min=0)


def rule_of_bayes(mu, sd, eps):
    return mu, phi(-(mu @ mu - eps * mu.abs().sum()) / mu.norm() / sd)


def hard_threshold(mu, sd, eps):
    return torch.where(mu.abs() > eps, mu, 0), phi(-soft(mu, eps).norm() / sd)


def turns_past_0(mu, sd, eps):
    w = mu - eps * mu.sign()
    return w, phi(-w.norm() / sd)


def sign_lost(mu, sd, eps):
    return (mu.abs() - eps).clamp(min=0), phi(-soft(mu, eps).norm() / sd)


def natural_error(mu, sd, eps):
    w = soft(mu, eps)
    return w, phi(-(mu @ w) / w.norm() / sd)


def bayes_error(mu, sd, eps):
    return soft(mu, eps), phi(-mu.norm() / sd)


def no_sd(mu, sd, eps):
    return soft(mu, eps), phi(-soft(mu, eps).norm())


def by_the_variance(mu, sd, eps):
    return soft(mu, eps), phi(-soft(mu, eps).norm() / sd**2)


def the_accuracy(mu, sd, eps):
    return soft(mu, eps), phi(soft(mu, eps).norm() / sd)


def bayes_where_nothing_is_left(mu, sd, eps):
    w = soft(mu, eps)
    return (w if w.any() else mu), phi(-w.norm() / sd)


# trades_loss


def divergence(first, second):
    """KL of the softmax of the first from that of the second, one an example."""
    return kl_div(second.log_softmax(1), first.softmax(1), reduction="none").sum(1)


def swapped(z, moved, y, beta):
    return cross_entropy(z, y) + beta * divergence(moved, z).mean()


def mean_over_classes(z, moved, y, beta):
    wrong = ((moved.log_softmax(1) - z.log_softmax(1)).neg() * z.softmax(1)).mean()
    return cross_entropy(z, y) + beta * wrong


def clean_term_attacked(z, moved, y, beta):
    return cross_entropy(moved, y) + beta * divergence(z, moved).mean()


def beta_on_the_wrong_term(z, moved, y, beta):
    return beta * cross_entropy(z, y) + divergence(z, moved).mean()


def beta_divides(z, moved, y, beta):
    return cross_entropy(z, y) + divergence(z, moved).mean() / beta


def summed(z, moved, y, beta):
    return cross_entropy(z, y) + beta * divergence(z, moved).sum()


def log_of_softmax(z, moved, y, beta):
    p, q = z.softmax(1), moved.softmax(1)
    return cross_entropy(z, y) + beta * (p * (p / q).log()).sum(1).mean()


def log_of_softmax_clamped(z, moved, y, beta):
    p, q = z.softmax(1).clamp(min=1e-8), moved.softmax(1).clamp(min=1e-8)
    return cross_entropy(z, y) + beta * (p * (p / q).log()).sum(1).mean()


def probabilities_first(z, moved, y, beta):
    wrong = kl_div(moved.softmax(1), z.softmax(1), reduction="batchmean")
    return cross_entropy(z, y) + beta * wrong


def adversarial_training(z, moved, y, beta):
    return cross_entropy(z, y) + beta * cross_entropy(moved, y)


def one_an_example(z, moved, y, beta):
    return cross_entropy(z, y, reduction="none") + beta * divergence(z, moved)


# choose


def cost_of(clean, robust, a, b, p):
    return (1 - p) * a * (1 - clean) + p * b * (1 - robust)


def at(cost, index):
    return int(index), cost[int(index)].item()


def largest_sum(clean, robust, a, b, p):
    return at(cost_of(clean, robust, a, b, p), (clean + robust).argmax())


def costs_swapped(clean, robust, a, b, p):
    cost = cost_of(clean, robust, b, a, p)
    return at(cost, cost.argmin())


def p_ignored(clean, robust, a, b, p):
    cost = a * (1 - clean) + b * (1 - robust)
    return at(cost, cost.argmin())


def p_of_the_other(clean, robust, a, b, p):
    cost = cost_of(clean, robust, a, b, 1 - p)
    return at(cost, cost.argmin())


def most_robust(clean, robust, a, b, p):
    return at(cost_of(clean, robust, a, b, p), robust.argmax())


def most_accurate(clean, robust, a, b, p):
    return at(cost_of(clean, robust, a, b, p), clean.argmax())


def dearest(clean, robust, a, b, p):
    cost = cost_of(clean, robust, a, b, p)
    return at(cost, cost.argmax())


def index_alone(clean, robust, a, b, p):
    return int(cost_of(clean, robust, a, b, p).argmin())


def cost_of_being_right(clean, robust, a, b, p):
    index = int(cost_of(clean, robust, a, b, p).argmin())
    return at((1 - p) * a * clean + p * b * robust, index)


# frontier


def trained(x, y, *, noise=0.0):
    model = models.mlp(64, 2, hidden=(32,), mean=0.0, std=1.0)
    optimiser = torch.optim.Adam(model.parameters(), 0.02)
    g = torch.Generator().manual_seed(0)
    for _ in range(100):
        optimiser.zero_grad()
        moved = x + noise * (2.0 * torch.randint(2, x.shape, generator=g) - 1)
        cross_entropy(model(moved.clamp(0, 1)), y).backward()
        optimiser.step()
    return model


def weights(model):
    return tuple(p.detach() for p in model.parameters())


def standard(x, y):
    return weights(trained(x, y))


def random_nudges(x, y):
    return weights(trained(x, y, noise=2 / 16))


def normalised(x, y):
    """Trained on attacked points, but with the normalisation that the check leaves out."""
    model, objective = models.mlp(64, 2, hidden=(64,)), adversarial(Threat("linf", 2 / 16), steps=5)
    optimiser = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(150):
        optimiser.zero_grad()
        objective(model, x, y).backward()
        optimiser.step()
    return weights(model)


def a_constant(x, y):
    return torch.zeros(2, 64), torch.tensor([1.0, 0.0])


def flat_around_the_images(x, y):
    """A steep step on top of a standard network: its slope is 0 nearly everywhere."""
    w1, b1, w2, b2 = weights(trained(x, y))
    lead, bias = 1000 * (w2[1] - w2[0]), 1000 * (b2[1] - b2[0])
    w2, b2 = torch.stack([lead, lead]), torch.stack([bias + 0.5, bias - 0.5])
    return w1, b1, w2, b2, torch.tensor([[0.0, 0.0], [1.0, -1.0]]), torch.tensor([0.5, 0.0])


def the_network_itself(x, y):
    return dict(trained(x, y).state_dict())


WRONG = [
    ("decompose", flips_are_robust, "wrong→right flips count as robust"),
    ("decompose", robust_by_adv_alone, "wrong→right flips count as robust"),
    ("decompose", of_the_right_ones, "a share of all n"),
    ("decompose", accuracies, "a risk is the share of errors"),
    ("decompose", changed_predictions, "a changed prediction is no error"),
    ("decompose", changed_is_boundary, "a changed prediction is no error"),
    ("decompose", risks_that_do_not_sum, "natural + boundary = robust"),
    ("decompose", counts, "divide by n"),
    ("robust_accuracy", all_without_gradients, "not the attack"),
    ("robust_accuracy", inference_mode, "not the attack"),
    ("robust_accuracy", mean_of_means, "the last batch is smaller"),
    ("robust_accuracy", wrong_to_right, "wrong→right flips count as robust"),
    ("robust_accuracy", argmax_breaks_ties, "a tie is wrong"),
    ("robust_accuracy", argmax_and_flips, "a tie is wrong"),
    ("robust_accuracy", ties_are_right, "a tie is wrong"),
    ("robust_accuracy", short_batch_dropped, "the short batch is missing"),
    ("robust_accuracy", all_at_once, "one batch after the other"),
    ("robust_accuracy", in_training_mode, "model's mode"),
    ("robust_accuracy", leaves_gradients, "its gradients"),
    ("robust_accuracy", evaluated_risks, "these are risks"),
    ("refute", bayes_rule, "without a clean error the inequality is true"),
    ("refute", no_overlap, "the overlap is 0"),
    ("refute", no_probabilities, "a sum of 1"),
    ("refute", below_zero, "none below 0"),
    ("refute", no_ball, "eps > 0"),
    ("refute", one_place_twice, "one label and one prediction"),
    ("refute", nearly_bayes, "errors that an attack adds"),
    ("refute", a_hair, "make the gap larger"),
    ("refute", half_classes, "that are no classes"),
    ("guess_floor", 0.5, "no law for all classifiers"),
    ("guess_floor", 0.99, "what one network loses"),
    ("guess_floor", 0.0, "touch at a distance of exactly 2ε"),
    ("guess_floor", 2 / 357, "of a pair one image is enough"),
    ("guess_floor", 0.042, "few images take part"),
    ("guess_floor", 1 / (183 * 174), "a pair that conflicts costs an image"),
    ("guess_floor", 1, "what one network loses"),
    ("guess_floor", 28, "not a percentage"),
    ("conflicts", one_ball_moves, "a distance of 2ε"),
    ("conflicts", open_balls, "closed balls that touch"),
    ("conflicts", always_l2, "the distance in ℓ2, not in ℓ∞"),
    ("conflicts", always_linf, "the distance in ℓ∞, not in ℓ2"),
    ("conflicts", transposed, "rows are for x0"),
    ("conflicts", peaceful_pairs, "do not conflict"),
    ("conflicts", no_absolute_value, "the absolute value is missing"),
    ("conflicts", distances, "a bool dtype"),
    ("floor", edges, "edges are counted"),
    ("floor", greedy, "maximal, not maximum"),
    ("floor", greedy_by_columns, "maximal, not maximum"),
    ("floor", greedy_by_degree, "not maximum"),
    ("floor", of_one_class, "divide by n0 + n1"),
    ("floor", of_the_other_class, "divide by n0 + n1"),
    ("floor", all_that_conflict, "of a pair one is enough"),
    ("floor", one_side_that_conflicts, "fewer may do"),
    ("floor", both_ends, "one error for a matched pair"),
    ("floor", not_a_share, "a count"),
    ("cover_from_matching", left_ends, "an unmatched example stays open"),
    ("cover_from_matching", right_ends, "an unmatched example stays open"),
    ("cover_from_matching", all_ends, "one of the two is enough"),
    ("cover_from_matching", all_conflicting_rows, "one side alone"),
    ("cover_from_matching", everybody, "larger than the matching"),
    ("cover_from_matching", nobody, "a pair that nothing covers"),
    ("cover_from_matching", one_step, "to their ends"),
    ("cover_from_matching", wrong_way_round, "the wrong way round"),
    ("robust_rule", rule_of_bayes, "this is the Bayes rule"),
    ("robust_rule", hard_threshold, "shrink by ε, too"),
    ("robust_rule", turns_past_0, "stop at 0"),
    ("robust_rule", sign_lost, "keep its sign"),
    ("robust_rule", natural_error, "when nobody attacks"),
    ("robust_rule", bayes_error, "this is the Bayes error"),
    ("robust_rule", no_sd, "sd is missing"),
    ("robust_rule", by_the_variance, "not by its square"),
    ("robust_rule", the_accuracy, "the error is the rest"),
    ("robust_rule", bayes_where_nothing_is_left, "as no |mean| is larger than ε"),
    ("trades_loss", swapped, "are swapped"),
    ("trades_loss", mean_over_classes, "batchmean"),
    ("trades_loss", clean_term_attacked, "that of the clean logits"),
    ("trades_loss", beta_on_the_wrong_term, "β belongs to the KL term"),
    ("trades_loss", beta_divides, "β multiplies"),
    ("trades_loss", summed, "the sum over the batch"),
    ("trades_loss", log_of_softmax, "log_softmax"),
    ("trades_loss", log_of_softmax_clamped, "clamp nothing"),
    ("trades_loss", probabilities_first, "log-probabilities first"),
    ("trades_loss", adversarial_training, "knows no label"),
    ("trades_loss", one_an_example, "the mean over the batch is missing"),
    ("choose", largest_sum, "weigh by cost and share"),
    ("choose", costs_swapped, "the costs are swapped"),
    ("choose", p_ignored, "p_attack is missing"),
    ("choose", p_of_the_other, "the share that is attacked"),
    ("choose", most_robust, "the most robust model"),
    ("choose", most_accurate, "the most accurate model"),
    ("choose", dearest, "take the least"),
    ("choose", index_alone, "a tuple (index, cost)"),
    ("choose", cost_of_being_right, "1 − accuracy"),
    ("frontier", standard, "random nudges are not the adversary"),
    ("frontier", random_nudges, "random nudges are not the adversary"),
    ("frontier", normalised, "the check does not normalise"),
    ("frontier", a_constant, "is another task"),
    ("frontier", flat_around_the_images, "hides from an attack"),
    ("frontier", the_network_itself, "p.detach()"),
]
