"""Planted wrong answers of chapter 3: (exercise, answer, words that its message must hold)."""

import math

import torch
from scipy import stats

PHI = torch.special.ndtr
QUANTILE = torch.special.ndtri


def tensor(array):
    return torch.as_tensor(array, dtype=torch.float64)


def beta_bound(k, n, alpha):
    """The lower bound; at k = 0 it is 0."""
    k = torch.as_tensor(k).double()
    found = tensor(stats.beta.ppf(alpha, k.clamp(min=1).numpy(), (n - k + 1).numpy()))
    return torch.where(k > 0, found, 0.0)


# vote


def counted(model, z):
    logits = model(z).detach()
    return torch.bincount(logits.argmax(1), minlength=logits.shape[1])


def variance_for_deviation(model, x, noise, sigma):
    return counted(model, x + sigma**2 * noise)


def unit_noise(model, x, noise, sigma):
    return counted(model, x + noise)


def noise_alone(model, x, noise, sigma):
    return counted(model, sigma * noise)


def clipped_to_the_box(model, x, noise, sigma):
    return counted(model, (x + sigma * noise).clamp(0, 1))


def mean_of_logits(model, x, noise, sigma):
    mean = model(x + sigma * noise).detach().mean(0)
    return len(noise) * torch.nn.functional.one_hot(mean.argmax(), len(mean))


def answer_at_x(model, x, noise, sigma):
    return len(noise) * counted(model, x[None])


def soft_votes(model, x, noise, sigma):
    return model(x + sigma * noise).detach().softmax(1).sum(0)


def shares_of_votes(model, x, noise, sigma):
    return counted(model, x + sigma * noise) / len(noise)


def classes_that_came(model, x, noise, sigma):
    return torch.bincount(model(x + sigma * noise).argmax(1))


def a_class_a_draw(model, x, noise, sigma):
    return model(x + sigma * noise).argmax(1)


# lower_bound


def plug_in(k, n, alpha):
    return k / n


def two_sided(k, n, alpha):
    return beta_bound(k, n, alpha / 2)


def other_quantile(k, n, alpha):
    return beta_bound(k, n, 1 - alpha)


def upper_bound(k, n, alpha):
    return 1 - beta_bound(n - k, n, alpha)


def normal_approximation(k, n, alpha):
    p = k.double() / n
    return (p + stats.norm.ppf(alpha).item() * (p * (1 - p) / n).sqrt()).clamp(min=0)


def hoeffding(k, n, alpha):
    return (k / n - math.sqrt(math.log(1 / alpha) / (2 * n))).clamp(min=0)


def always_one_in_a_thousand(k, n, alpha):
    return beta_bound(k, n, 0.001)


def scipy_at_its_word(k, n, alpha):
    return tensor(stats.beta.ppf(alpha, k.numpy(), (n - k + 1).numpy()))


def wrong_parameters(k, n, alpha):
    found = tensor(stats.beta.ppf(alpha, (k + 1).numpy(), (n - k).clamp(min=1).numpy()))
    return torch.where(k < n, found, 1.0)


def wilson(k, n, alpha):
    z = -stats.norm.ppf(alpha).item()
    p = k.double() / n
    middle = p + z**2 / (2 * n)
    return (middle - z * (p * (1 - p) / n + z**2 / (4 * n**2)).sqrt()) / (1 + z**2 / n)


def inverted_power(k, n, alpha):
    return torch.where(k < n, beta_bound(k, n, alpha), alpha**n)


def jeffreys(k, n, alpha):
    k = k.double()
    return tensor(stats.beta.ppf(alpha, (k + 0.5).numpy(), (n - k + 0.5).numpy()))


# radius


def certified(p_a, sigma, p_b=None):
    difference = QUANTILE(p_a) * 2 if p_b is None else QUANTILE(p_a) - QUANTILE(p_b)
    return sigma / 2 * difference


def below_0(p_a, sigma, p_b):
    return certified(p_a, sigma, p_b)


def for_an_abstention(p_a, sigma, p_b):
    return certified(p_a, sigma, p_b).abs()


def half_of_it(p_a, sigma, p_b):
    return (certified(p_a, sigma, p_b) / (2 if p_b is None else 1)).clamp(min=0)


def no_sigma(p_a, sigma, p_b):
    return certified(p_a, 1.0, p_b).clamp(min=0)


def sigma_squared(p_a, sigma, p_b):
    return certified(p_a, sigma**2, p_b).clamp(min=0)


def phi_for_its_inverse(p_a, sigma, p_b):
    return sigma * PHI(p_a)


def without_p_b(p_a, sigma, p_b):
    return certified(p_a, sigma).clamp(min=0)


def where_a_falls_to_p_b(p_a, sigma, p_b):
    return (certified(p_a, sigma, p_b) * (1 if p_b is None else 2)).clamp(min=0)


def p_b_alone(p_a, sigma, p_b):
    return (-sigma * QUANTILE(1 - p_a if p_b is None else p_b)).clamp(min=0)


def majority_wanted(p_a, sigma, p_b):
    p_b = 1 - p_a if p_b is None else p_b
    full = (sigma / 2 * (QUANTILE(p_a) - QUANTILE(p_b))).clamp(min=0)
    return torch.where(p_a > 0.5, full, 0.0)


def cut_off_first(p_a, sigma, p_b):
    p_b = 1 - p_a if p_b is None else p_b
    return (sigma / 2 * (QUANTILE(p_a).clamp(min=0) - QUANTILE(p_b))).clamp(min=0)


def quantile_of_the_difference(p_a, sigma, p_b):
    if p_b is None:
        return certified(p_a, sigma).clamp(min=0)
    return sigma / 2 * QUANTILE((p_a - p_b).clamp(min=1e-12)).clamp(min=0)


# worst_classifier


def wall(x, w, p_a, scale):
    return w, (scale * QUANTILE(tensor(p_a)) - w @ x).item()


def through_x(x, p_a, sigma, delta):
    return -delta, (delta @ x).item()


def along_delta(x, p_a, sigma, delta):
    return wall(x, delta, p_a, sigma * delta.norm())


def across_delta(x, p_a, sigma, delta):
    return wall(x, -delta.sign(), p_a, sigma * len(x) ** 0.5)


def other_side(x, p_a, sigma, delta):
    return wall(x, -delta, 1 - p_a, sigma * delta.norm())


def at_the_origin(x, p_a, sigma, delta):
    return wall(0 * x, -delta, p_a, sigma * delta.norm())


def sigma_forgotten(x, p_a, sigma, delta):
    return wall(x, -delta, p_a, delta.norm())


def length_forgotten(x, p_a, sigma, delta):
    return wall(x, -delta, p_a, sigma)


def variance_in_the_wall(x, p_a, sigma, delta):
    return wall(x, -delta, p_a, sigma**2 * delta.norm())


def through_the_shifted_point(x, p_a, sigma, delta):
    return -delta, (delta @ (x + delta)).item()


# ceiling


def both_ways(n, radius, sigma, alpha, level=None):
    level = alpha if level is None else level
    most = sigma * QUANTILE(level ** (1 / n.double())).clamp(min=0)
    return most, (math.log(level) / PHI(radius / sigma).log()).ceil()


def power_inverted(n, radius, sigma, alpha):
    share = PHI(radius / sigma).log()
    most = sigma * QUANTILE(tensor(alpha) ** n.clamp(max=90)).clamp(min=0)
    return most, (share / math.log(alpha)).ceil()


def rounded_down(n, radius, sigma, alpha):
    most, draws = both_ways(n, radius, sigma, alpha)
    return most, draws - 1


def not_rounded(n, radius, sigma, alpha):
    most, _ = both_ways(n, radius, sigma, alpha)
    return most, math.log(alpha) / PHI(radius / sigma).log()


def to_the_nearest(n, radius, sigma, alpha):
    most, exact = not_rounded(n, radius, sigma, alpha)
    return most, exact.round()


def halved_level(n, radius, sigma, alpha):
    return both_ways(n, radius, sigma, alpha, alpha / 2)


def complement_of_the_level(n, radius, sigma, alpha):
    return both_ways(n, radius, sigma, alpha, 1 - alpha)


def fixed_level(n, radius, sigma, alpha):
    return both_ways(n, radius, sigma, alpha, 0.001)


def in_units_of_sigma(n, radius, sigma, alpha):
    most, draws = both_ways(n, radius, 1.0, alpha)
    return most, draws


def unanimous_means_certain(n, radius, sigma, alpha):
    return torch.full(n.shape, torch.inf), both_ways(n, radius, sigma, alpha)[1]


def negative_for_three(n, radius, sigma, alpha):
    return sigma * QUANTILE(alpha ** (1 / n.double())), both_ways(n, radius, sigma, alpha)[1]


def by_hoeffding(n, radius, sigma, alpha):
    share = 1 - (math.log(1 / alpha) / (2 * n.double())).sqrt()
    gap = 1 - PHI(radius / sigma)
    draws = (math.log(1 / alpha) / (2 * gap**2)).ceil()
    return sigma * QUANTILE(share.clamp(min=0.5)), draws


def for_large_n(n, radius, sigma, alpha):
    share = (1 - math.log(1 / alpha) / n.double()).clamp(min=0.5)
    return sigma * QUANTILE(share), both_ways(n, radius, sigma, alpha)[1]


def brackets_forgotten(n, radius, sigma, alpha):
    most = sigma * QUANTILE(alpha**1 / n.double())
    return most.clamp(min=0), both_ways(n, radius, sigma, alpha)[1]


def draws_first(n, radius, sigma, alpha):
    return both_ways(n, radius, sigma, alpha)[::-1]


# certify


def scheme(choose=0, count=1, level=lambda a: a, bound=beta_bound, n=None, sigma=None):
    """A certificate, with any of its parts replaced; 2 stands for all draws."""

    def answer(first, second, classes, noise, alpha):
        draws = first, second, torch.cat([first, second], 1)
        votes = [torch.nn.functional.one_hot(d, classes).sum(1) for d in draws]
        label = votes[choose].argmax(1)
        hits = votes[count].gather(1, label[:, None])[:, 0]
        number = draws[count if n is None else n].shape[1]
        p = bound(hits, number, level(alpha))
        found = (noise if sigma is None else sigma(noise)) * QUANTILE(tensor(p))
        return label, torch.where(p > 0.5, found, 0.0), p <= 0.5

    return answer


def share(hits, number, level):
    return hits.double() / number


one_draw_for_both = scheme(1, 1)
first_draws_for_both = scheme(0, 0)
all_draws_for_both = scheme(2, 2)
counts_all_draws = scheme(0, 2)
chooses_from_all_draws = scheme(2, 1)
stages_swapped = scheme(1, 0)
n0_for_n = scheme(0, 0, n=1)
n0_and_n = scheme(0, 1, n=2)
no_confidence_bound = scheme(bound=share)
two_sided_level = scheme(level=lambda a: a / 2)
level_unused = scheme(level=lambda a: 0.001)
bonferroni = scheme(level=lambda a: a / 7)
sigma_left_out = scheme(sigma=lambda s: 1.0)
sigma_twice = scheme(sigma=lambda s: s**2)
half_a_radius = scheme(sigma=lambda s: s / 2)


def median_class(first, second, classes, sigma, alpha):
    label = first.median(1).values
    p = beta_bound((second == label[:, None]).sum(1), second.shape[1], alpha)
    return label, torch.where(p > 0.5, sigma * QUANTILE(p), 0.0), p <= 0.5


def radius_last(first, second, classes, sigma, alpha):
    label, radius, abstain = scheme()(first, second, classes, sigma, alpha)
    return label, abstain, radius


def no_number_for_an_abstention(first, second, classes, sigma, alpha):
    label, radius, abstain = scheme()(first, second, classes, sigma, alpha)
    return label, torch.where(abstain, torch.nan, radius), abstain


def radius_for_an_abstention(first, second, classes, sigma, alpha):
    label, _, abstain = scheme()(first, second, classes, sigma, alpha)
    hits = (second == label[:, None]).sum(1)
    return label, sigma * QUANTILE(beta_bound(hits, second.shape[1], alpha)), abstain


def never_abstains(first, second, classes, sigma, alpha):
    label, radius, _ = scheme()(first, second, classes, sigma, alpha)
    return label, radius, torch.zeros(len(label), dtype=torch.bool)


def minus_one(first, second, classes, sigma, alpha):
    label, radius, abstain = scheme()(first, second, classes, sigma, alpha)
    return torch.where(abstain, -1, label), radius, abstain


def radius_of_the_share(first, second, classes, sigma, alpha):
    label, _, abstain = scheme()(first, second, classes, sigma, alpha)
    p = (second == label[:, None]).double().mean(1)
    return label, torch.where(abstain, 0.0, sigma * QUANTILE(p.clamp(max=1 - 1e-16))), abstain


def abstains_by_the_share(first, second, classes, sigma, alpha):
    label, radius, _ = scheme()(first, second, classes, sigma, alpha)
    return label, radius, (second == label[:, None]).double().mean(1) <= 0.5


def of_the_wrong_class(first, second, classes, sigma, alpha):
    label = torch.nn.functional.one_hot(first, classes).sum(1).argmax(1)
    hits = torch.nn.functional.one_hot(second, classes).sum(1).amax(1)
    p = beta_bound(hits, second.shape[1], alpha)
    return label, torch.where(p > 0.5, sigma * QUANTILE(p), 0.0), p <= 0.5


# predict


def compared(number, sides=2, sign=1):
    """Abstains where the top class's lead over `number(first, second, all)` is no proof."""

    def answer(counts, alpha):
        (first, second), n = counts.topk(2).values.T, counts.sum(1)
        p = tensor(stats.binom.sf(first.numpy() - 1, number(first, second, n).numpy(), 0.5))
        return counts.argmax(1), sign * sides * p > sign * alpha

    return answer


one_sided_test = compared(lambda a, b, n: a + b, sides=1)
of_all_draws = compared(lambda a, b, n: n)
halved_and_doubled = compared(lambda a, b, n: a + b, sides=4)
mask_inverted = compared(lambda a, b, n: a + b, sign=-1)


def exactly_so_many(counts, alpha):
    first, second = counts.topk(2).values.T.numpy()
    return counts.argmax(1), tensor(2 * stats.binom.pmf(first, first + second, 0.5)) > alpha


def complement_in_the_test(counts, alpha):
    return compared(lambda a, b, n: a + b)(counts, 1 - alpha)


def top_class_always(counts, alpha):
    return counts.argmax(1), torch.zeros(len(counts), dtype=torch.bool)


def needs_a_majority(counts, alpha):
    return counts.argmax(1), beta_bound(counts.amax(1), counts.sum(1), alpha) <= 0.5


def fixed_at_a_thousandth(counts, alpha):
    return compared(lambda a, b, n: a + b)(counts, 0.001)


def absent_label(counts, alpha):
    label, abstain = compared(lambda a, b, n: a + b)(counts, alpha)
    return torch.where(abstain, -1, label), abstain


# certified_accuracy


def accuracy(hit, among=None):
    return hit.double().sum(1) / (hit.shape[1] if among is None else among.sum())


def closed_ball(label, radius, abstain, y, eps):
    return accuracy((radius >= eps[:, None]) & (label == y) & ~abstain)


def any_label(label, radius, abstain, y, eps):
    return accuracy((radius > eps[:, None]) & ~abstain)


def abstentions_count(label, radius, abstain, y, eps):
    return accuracy((radius > eps[:, None]) & (label == y))


def abstentions_dropped(label, radius, abstain, y, eps):
    return accuracy((radius > eps[:, None]) & (label == y) & ~abstain, ~abstain)


def among_the_right(label, radius, abstain, y, eps):
    return accuracy((radius > eps[:, None]) & (label == y) & ~abstain, label == y)


def only_abstentions(label, radius, abstain, y, eps):
    return accuracy((radius > eps[:, None]) & (label == y) & abstain)


def shorter_radii(label, radius, abstain, y, eps):
    return accuracy((radius <= eps[:, None]) & (label == y) & ~abstain)


# other_norms


def scaled(root, one=lambda d: 1.0):
    """ℓ∞ by root(x) and ℓ1 by one(d)."""
    return lambda radius, x: (radius / root(x), radius * one(x[0].numel()))


no_root_of_d = scaled(lambda x: 1.0)
d_itself = scaled(lambda x: x[0].numel())
multiplied = scaled(lambda x: x[0].numel() ** -0.5)
one_channel = scaled(lambda x: x[0, 0].numel() ** 0.5)
whole_batch = scaled(lambda x: x.numel() ** 0.5)
dual_for_l1 = scaled(lambda x: x[0].numel() ** 0.5, lambda d: d**0.5)
smaller_for_l1 = scaled(lambda x: x[0].numel() ** 0.5, lambda d: d**-0.5)


number_of_images = scaled(lambda x: len(x) ** 0.5)


def swapped(radius, x):
    return radius, radius / x[0].numel() ** 0.5


# pick_sigma


def honest(hits, n, sigmas, alpha):
    return sigmas * QUANTILE(beta_bound(hits, n, alpha)).clamp(min=0)


def first_sigma(hits, n, sigmas, alpha):
    return honest(hits, n, sigmas, alpha)[:, 0]


def last_sigma(hits, n, sigmas, alpha):
    return honest(hits, n, sigmas, alpha)[:, -1]


def smallest(hits, n, sigmas, alpha):
    return honest(hits, n, sigmas, alpha).amin(1)


def mean_radius(hits, n, sigmas, alpha):
    return honest(hits, n, sigmas, alpha).mean(1)


def breaks_the_bound(hits, n, sigmas, alpha):
    return (sigmas * QUANTILE(hits / n)).amax(1)


def changes_alpha(hits, n, sigmas, alpha):
    return honest(hits, n, sigmas, 0.05).amax(1)


def most_hits(hits, n, sigmas, alpha):
    return honest(hits, n, sigmas, alpha).gather(1, hits.argmax(1, keepdim=True))[:, 0]


# average_radius


def trained(x, y, sigma, noise, hidden=64, seed=0):
    torch.manual_seed(seed)
    inner = [torch.nn.Linear(64, hidden), torch.nn.ReLU()] if hidden else []
    model = torch.nn.Sequential(*inner, torch.nn.Linear(hidden or 64, 10))
    optimiser = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(100):
        optimiser.zero_grad()
        z = x + noise * torch.randn(x.shape)
        torch.nn.functional.cross_entropy(model(z), y).backward()
        optimiser.step()
    return sigma, *model.parameters()


def clean_training(x, y):
    return trained(x, y, 0.35, 0.0)


def too_little_noise(x, y):
    return trained(x, y, 0.1, 0.1)


def too_much_noise(x, y):
    return trained(x, y, 1.0, 1.0)


def one_plane(x, y):
    return trained(x, y, 0.2, 0.2, hidden=0)


def a_sigma_for_each_image(x, y):
    return torch.full((len(x),), 0.35), *trained(x, y, 0.35, 0.35)[1:]


def layers_in_a_list(x, y):
    sigma, *layers = trained(x, y, 0.35, 0.35)
    return sigma, layers


def weights_the_other_way(x, y):
    sigma, *layers = trained(x, y, 0.35, 0.35)
    return sigma, *(p.T if p.ndim == 2 else p for p in layers)


WRONG = [
    ("guess_naive_share", (0.9, 0.97, 0.99, 0.999), "the probability of one vote"),
    ("guess_naive_share", (0.0, 0.0, 0.0, 0.0), "unanimity is common"),
    ("guess_naive_share", (1.0, 1.0, 1.0, 1.0), "one vote in ten"),
    ("guess_naive_share", (0.1, 0.3, 0.6, 0.9), "are multiplied"),
    ("guess_naive_share", (0, 5, 37, 90), "not a percentage"),
    ("guess_naive_share", 0.37, "a tuple of four"),
    ("vote", variance_for_deviation, "not by its square"),
    ("vote", unit_noise, "sigma is missing"),
    ("vote", noise_alone, "x is missing"),
    ("vote", clipped_to_the_box, "noisy images leave the box"),
    ("vote", mean_of_logits, "the argmax of a mean"),
    ("vote", answer_at_x, "the argmax of a mean, or at x alone"),
    ("vote", soft_votes, "probabilities are no votes"),
    ("vote", shares_of_votes, "a bound needs the counts"),
    ("vote", classes_that_came, "also for one that no draw gives"),
    ("vote", a_class_a_draw, "torch.bincount counts"),
    ("lower_bound", plug_in, "use a lower confidence bound"),
    ("lower_bound", two_sided, "so α and not α/2"),
    ("lower_bound", other_quantile, "1 − α for α"),
    ("lower_bound", upper_bound, "an upper bound returned as a lower one"),
    ("lower_bound", normal_approximation, "at k = n it gives 1"),
    ("lower_bound", hoeffding, "loose where p is near 1"),
    ("lower_bound", always_one_in_a_thousand, "alpha is not used"),
    ("lower_bound", scipy_at_its_word, "no Beta has the parameter 0"),
    ("lower_bound", wrong_parameters, "the parameters k, n − k + 1"),
    ("lower_bound", wilson, "is an approximation"),
    ("lower_bound", inverted_power, "α^(1/n), not α^n"),
    ("lower_bound", jeffreys, "a Bayesian bound"),
    ("radius", below_0, "0, not a negative radius"),
    ("radius", for_an_abstention, "a positive radius where nothing is proved"),
    ("radius", half_of_it, "half of it"),
    ("radius", no_sigma, "sigma is missing"),
    ("radius", sigma_squared, "not with its square"),
    ("radius", phi_for_its_inverse, "Φ for Φ⁻¹"),
    ("radius", without_p_b, "use both"),
    ("radius", where_a_falls_to_p_b, "but B has risen"),
    ("radius", quantile_of_the_difference, "not of probabilities"),
    ("radius", p_b_alone, "p_A is not used"),
    ("radius", majority_wanted, "need not exceed ½"),
    ("radius", cut_off_first, "at the end, not before"),
    ("worst_classifier", through_x, "p_A would be ½"),
    ("worst_classifier", along_delta, "it is the best one"),
    ("worst_classifier", across_delta, "lay it along δ"),
    ("worst_classifier", other_side, "the wrong side of x"),
    ("worst_classifier", at_the_origin, "x is missing"),
    ("worst_classifier", sigma_forgotten, "sigma is missing"),
    ("worst_classifier", length_forgotten, "the deviation σ‖w‖"),
    ("worst_classifier", variance_in_the_wall, "not σ²"),
    ("worst_classifier", through_the_shifted_point, "whatever p_A is"),
    ("ceiling", power_inverted, "p = α^(1/n)"),
    ("ceiling", rounded_down, "one too few"),
    ("ceiling", not_rounded, "a whole number of draws"),
    ("ceiling", to_the_nearest, "not to the nearest"),
    ("ceiling", halved_level, "α, not α/2"),
    ("ceiling", complement_of_the_level, "1 − α for α"),
    ("ceiling", fixed_level, "alpha is not used"),
    ("ceiling", in_units_of_sigma, "sigma is missing"),
    ("ceiling", unanimous_means_certain, "your certificate is infinite"),
    ("ceiling", negative_for_three, "0, no negative radius"),
    ("ceiling", by_hoeffding, "Hoeffding"),
    ("ceiling", for_large_n, "good for large n only"),
    ("ceiling", brackets_forgotten, "alpha ** (1 / n)"),
    ("ceiling", draws_first, "the order is most, draws"),
    ("certify", one_draw_for_both, "share draws"),
    ("certify", first_draws_for_both, "share draws"),
    ("certify", all_draws_for_both, "share draws"),
    ("certify", counts_all_draws, "share draws"),
    ("certify", chooses_from_all_draws, "share draws"),
    ("certify", stages_swapped, "the first draws choose"),
    ("certify", n0_for_n, "n0 and n are confused"),
    ("certify", n0_and_n, "not of n0 + n"),
    ("certify", no_confidence_bound, "your certificate is infinite"),
    ("certify", radius_of_the_share, "use a lower confidence bound"),
    ("certify", two_sided_level, "α, not α/2"),
    ("certify", level_unused, "alpha is not used"),
    ("certify", bonferroni, "do not divide it"),
    ("certify", sigma_left_out, "sigma is missing"),
    ("certify", sigma_twice, "not with its square"),
    ("certify", half_a_radius, "half of it"),
    ("certify", radius_for_an_abstention, "a radius for an abstention"),
    ("certify", never_abstains, "where the bound is ½ or less, abstain"),
    ("certify", minus_one, "absence is a mask"),
    ("certify", abstains_by_the_share, "not where k/n is"),
    ("certify", of_the_wrong_class, "count the class that was chosen"),
    ("certify", median_class, "not the median"),
    ("certify", radius_last, "(label, radius, abstain)"),
    ("certify", no_number_for_an_abstention, "0 where it abstains"),
    ("predict", one_sided_test, "two-sided"),
    ("predict", of_all_draws, "the two top classes only"),
    ("predict", halved_and_doubled, "one of the two"),
    ("predict", mask_inverted, "does not reject"),
    ("predict", top_class_always, "cannot be told apart"),
    ("predict", needs_a_majority, "needs no majority"),
    ("predict", fixed_at_a_thousandth, "alpha is not used"),
    ("predict", absent_label, "absence is a mask"),
    ("predict", exactly_so_many, "the chance of so many or more"),
    ("predict", complement_in_the_test, "1 − α for α"),
    ("certified_accuracy", closed_ball, "radius > eps"),
    ("certified_accuracy", any_label, "a wrong label counts as wrong"),
    ("certified_accuracy", abstentions_count, "is not certified"),
    ("certified_accuracy", abstentions_dropped, "stay in the denominator"),
    ("certified_accuracy", among_the_right, "the share of all images"),
    ("certified_accuracy", shorter_radii, "larger than eps, not smaller"),
    ("certified_accuracy", only_abstentions, "abstain is True where"),
    ("other_norms", no_root_of_d, "√d is missing"),
    ("other_norms", d_itself, "not by d"),
    ("other_norms", multiplied, "far corners"),
    ("other_norms", one_channel, "every channel"),
    ("other_norms", whole_batch, "not of the whole batch"),
    ("other_norms", dual_for_l1, "lies inside"),
    ("other_norms", smaller_for_l1, "lies inside"),
    ("other_norms", swapped, "the order is linf, l1"),
    ("other_norms", number_of_images, "not of the whole batch"),
    ("pick_sigma", first_sigma, "anew in each repetition"),
    ("pick_sigma", last_sigma, "anew in each repetition"),
    ("pick_sigma", smallest, "the other end"),
    ("pick_sigma", mean_radius, "nobody's radius"),
    ("pick_sigma", breaks_the_bound, "in the choice, not in the bound"),
    ("pick_sigma", changes_alpha, "another promise"),
    ("pick_sigma", most_hits, "anew in each repetition"),
    ("average_radius", clean_training, "train on images with this noise"),
    ("average_radius", too_little_noise, "raise it"),
    ("average_radius", too_much_noise, "take less of it"),
    ("average_radius", one_plane, "another σ"),
    ("average_radius", a_sigma_for_each_image, "chosen beforehand"),
    ("average_radius", layers_in_a_list, "return sigma, weight, bias"),
    ("average_radius", weights_the_other_way, "a weight [out ≤ 512, in]"),
]
