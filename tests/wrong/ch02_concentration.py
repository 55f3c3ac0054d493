"""Planted wrong answers of chapter 2: (exercise, answer, words that its message must hold)."""

import math

import torch
from scipy import special, stats

PHI = torch.special.ndtr
QUANTILE = torch.special.ndtri


def tensor(array):
    return torch.as_tensor(array, dtype=torch.float64)


# shell


def radii(d, p, degrees=0):
    return tensor(stats.chi2.ppf(p, (d - degrees).numpy())).sqrt()


def squared_norms(d, sd, share):
    return tuple(sd**2 * radii(d, p) ** 2 for p in ((1 - share) / 2, (1 + share) / 2))


def squares_of_unit_sd(d, sd, share):
    return tuple(radii(d, p) ** 2 for p in ((1 - share) / 2, (1 + share) / 2))


def no_sd(d, sd, share):
    return tuple(radii(d, p) for p in ((1 - share) / 2, (1 + share) / 2))


def variance_outside(d, sd, share):
    return tuple(sd**2 * r for r in no_sd(d, sd, share))


def whole_tails(d, sd, share):
    return sd * radii(d, 1 - share), sd * radii(d, share)


def one_tail(d, sd, share):
    return torch.zeros(len(d)), sd * radii(d, share)


def one_degree_less(d, sd, share):
    d = d.double() + 1e-9
    return tuple(sd * radii(d, p, 1) for p in ((1 - share) / 2, (1 + share) / 2))


def nearly_normal(d, sd, share):
    z = stats.norm.ppf((1 + share) / 2).item()
    return tuple(sd * (d.double().sqrt() + s * z / 2**0.5) for s in (-1, 1))


# cap_measure


def beta(a, b, x):
    return tensor(special.betainc(a, b, x.numpy()))


def cap(d, angle):
    half = beta((d - 1) / 2, 0.5, angle.sin() ** 2) / 2
    return torch.where(angle <= math.pi / 2, half, 1 - half)


def both_caps(d, angle):
    return beta((d - 1) / 2, 0.5, angle.sin() ** 2)


def both_caps_up_to_1(d, angle):
    return 2 * cap(d, angle)


def d_halves(d, angle):
    half = beta(d / 2, 0.5, angle.sin() ** 2) / 2
    return torch.where(angle <= math.pi / 2, half, 1 - half)


def cap_of_the_ball(d, angle):
    half = beta((d + 1) / 2, 0.5, angle.sin() ** 2) / 2
    return torch.where(angle <= math.pi / 2, half, 1 - half)


def no_reflection(d, angle):
    return beta((d - 1) / 2, 0.5, angle.sin() ** 2) / 2


def sine_not_squared(d, angle):
    half = beta((d - 1) / 2, 0.5, angle.sin()) / 2
    return torch.where(angle <= math.pi / 2, half, 1 - half)


def one_minus_p(d, angle):
    half = (1 - beta(0.5, (d - 1) / 2, angle.cos() ** 2)) / 2
    return torch.where(angle <= math.pi / 2, half, 1 - half)


def from_the_normal_function(d, angle):
    return PHI(-angle.cos() * d**0.5)


def levys_bound(d, angle):
    return (-(d - 2) * angle.cos() ** 2 / 2).exp()


def the_rest_of_the_sphere(d, angle):
    return cap(d, math.pi - angle)


def a_chord(d, angle):
    return cap(d, (1 - angle**2 / 2).clamp(-1, 1).acos())


def a_height(d, angle):
    return cap(d, angle.clamp(max=1).acos())


# levy_bound


def levy(k, t, factor=2.0):
    return (factor * (-k * t**2 / 2).exp()).clamp(max=1)


def all_dimensions(d, t, lipschitz, radius):
    return levy(d, t / lipschitz / radius)


def intrinsic_dimension(d, t, lipschitz, radius):
    return levy(d - 1, t / lipschitz / radius)


def one_sided(d, t, lipschitz, radius):
    return levy(d - 2, t / lipschitz / radius, 1.0)


def above_1(d, t, lipschitz, radius):
    return 2 * (-(d - 2) * (t / lipschitz / radius) ** 2 / 2).exp()


def radius_forgotten(d, t, lipschitz, radius):
    return levy(d - 2, t / lipschitz)


def constant_forgotten(d, t, lipschitz, radius):
    return levy(d - 2, t / radius)


def constant_multiplies(d, t, lipschitz, radius):
    return levy(d - 2, t * lipschitz / radius)


def half_forgotten(d, t, lipschitz, radius):
    return levy(2 * (d - 2), t / lipschitz / radius)


def scale_not_squared(d, t, lipschitz, radius):
    return levy((d - 2) / (lipschitz * radius), t)


def the_share_near_the_median(d, t, lipschitz, radius):
    return 1 - levy(d - 2, t / lipschitz / radius)


def the_exact_tail(d, t, lipschitz, radius):
    height = (t / lipschitz / radius).clamp(max=1)
    return beta((d - 1) / 2, 0.5, 1 - height**2)


# distance_is_lipschitz


def away(a, x):
    return torch.linalg.vector_norm(x[:, None] - a, dim=2)


def sides(reduce, power=1):
    def answer(a, x, z):
        change = reduce(away(a, x)) ** power - reduce(away(a, z)) ** power
        return change.abs(), (x - z).norm(dim=1) ** power

    return answer


def nearest(distances):
    return distances.amin(1)


squared_distances = sides(nearest, 2)
mean_over_the_set = sides(lambda distances: distances.mean(1))
farthest_point = sides(lambda distances: distances.amax(1))


def signed_change(a, x, z):
    return nearest(away(a, x)) - nearest(away(a, z)), (x - z).norm(dim=1)


def to_the_middle(a, x, z):
    middle = a.mean(0, keepdim=True)
    return sides(nearest)(middle, x, z)


def one_nearest_point_for_both(a, x, z):
    near = away(a, x)
    at = near.argmin(1, keepdim=True)
    change = (near - away(a, z)).gather(1, at)[:, 0].abs()
    return change, (x - z).norm(dim=1)


def sums_of_differences(a, x, z):
    near, far = ((p[:, None] - a).abs().sum(2).amin(1) for p in (x, z))
    return (near - far).abs(), (x - z).abs().sum(1)


def an_equality(a, x, z):
    change = (nearest(away(a, x)) - nearest(away(a, z))).abs()
    return change, change


# worst_distance


def reach(mu, share):
    return (stats.norm.ppf(share) - QUANTILE(mu)).clamp(min=0)


def no_root_of_d(mu, share, d, radius):
    return radius * reach(mu, share)


def root_of_d_multiplies(mu, share, d, radius):
    return radius * d**0.5 * reach(mu, share)


def d_without_its_root(mu, share, d, radius):
    return radius / d * reach(mu, share)


def wrong_sign_of_mu(mu, share, d, radius):
    return radius / d**0.5 * (stats.norm.ppf(share) + QUANTILE(mu))


def half_for_mu(mu, share, d, radius):
    return radius / d**0.5 * stats.norm.ppf(share) * torch.ones_like(mu)


def the_median_point(mu, share, d, radius):
    return -radius / d**0.5 * QUANTILE(mu)


def on_the_unit_sphere(mu, share, d, radius):
    return reach(mu, share) / d**0.5


def share_beyond(mu, share, d, radius):
    return radius / d**0.5 * reach(mu, 1 - share)


def below_0(mu, share, d, radius):
    return radius / d**0.5 * (stats.norm.ppf(share) - QUANTILE(mu))


def by_levys_bound(mu, share, d, radius):
    near = (2 * (1 / mu).log()).sqrt() + (2 * math.log(1 / (1 - share))) ** 0.5
    return radius / d**0.5 * near


# in_pixels


def scaled(radius, distance, levels, d):
    return radius * distance, levels * radius * distance / d**0.5


def around_black(x, distance, levels):
    radius = x.flatten(1).square().sum(1).mean().sqrt().item()
    return scaled(radius, distance, levels, x[0].numel())


def one_mean_for_all_pixels(x, distance, levels):
    return around_black(x - x.mean(), distance, levels)


def unit_sphere_in_grey(x, distance, levels):
    return scaled(1.0, distance, levels, x[0].numel())


def norm_of_the_whole_batch(x, distance, levels):
    return scaled((x - x.mean(0)).norm().item(), distance, levels, x[0].numel())


def mean_of_norms(x, distance, levels):
    radius = (x - x.mean(0)).flatten(1).norm(dim=1).mean().item()
    return scaled(radius, distance, levels, x[0].numel())


def over_n_minus_1(x, distance, levels):
    radius = x.flatten(1).var(0).sum().sqrt().item()
    return scaled(radius, distance, levels, x[0].numel())


def not_spread(x, distance, levels):
    radius = (x - x.mean(0)).flatten(1).square().sum(1).mean().sqrt().item()
    return scaled(radius, distance, levels, 1)


def spread_twice(x, distance, levels):
    radius = (x - x.mean(0)).flatten(1).square().sum(1).mean().sqrt().item()
    return scaled(radius, distance, levels, x[0].numel() ** 2)


def one_channel(x, distance, levels):
    radius = (x - x.mean(0)).flatten(1).square().sum(1).mean().sqrt().item()
    return scaled(radius, distance, levels, x[0, 0].numel())


def no_levels(x, distance, levels):
    radius = (x - x.mean(0)).flatten(1).square().sum(1).mean().sqrt().item()
    return scaled(radius, distance, 1, x[0].numel())


def root_d_for_the_radius(x, distance, levels):
    d = x[0].numel()
    return scaled(d**0.5 / 2, distance, levels, d)


# escape


def caps(angle, distance=lambda angle: math.pi / 2 - angle):
    def answer(d):
        angles = torch.as_tensor(angle(d), dtype=torch.float64).expand(len(d)).clone()
        return angles, torch.as_tensor(distance(angles), dtype=torch.float64)

    return answer


a_constant = caps(lambda d: 0.0)
it_concentrates = caps(lambda d: math.pi / 2 - 2 / d.sqrt())
a_little_near = caps(lambda d: 1.4)
more_than_half = caps(lambda d: 2.0)
in_degrees = caps(lambda d: 60.0)
straight_way = caps(lambda d: math.pi / 3, lambda angle: 2 * ((math.pi / 2 - angle) / 2).sin())
height_of_the_edge = caps(lambda d: math.pi / 4, lambda angle: angle.cos())
to_the_pole = caps(lambda d: 1.0, lambda angle: math.pi / 2 + 0 * angle)
own_angle = caps(lambda d: 1.0, lambda angle: angle)
shrinking = caps(lambda d: math.pi / 2 - 5 / d.sqrt(), lambda angle: math.pi / 2 - angle)


# gaussian_floor


def grown(mu, step):
    return stats.norm.cdf(stats.norm.ppf(mu) + step).item()


def by_the_variance(cov, mu, eps):
    return grown(mu, eps / torch.linalg.eigvalsh(cov)[-1].item())


def times_the_deviation(cov, mu, eps):
    return grown(mu, eps * torch.linalg.eigvalsh(cov)[-1].item() ** 0.5)


def smallest_eigenvalue(cov, mu, eps):
    return grown(mu, eps / torch.linalg.eigvalsh(cov)[0].item() ** 0.5)


def as_if_round(cov, mu, eps):
    return grown(mu, eps / cov.diagonal().mean().item() ** 0.5)


def by_the_whole_radius(cov, mu, eps):
    return grown(mu, eps / cov.trace().item() ** 0.5)


def by_the_largest_pixel(cov, mu, eps):
    return grown(mu, eps / cov.diagonal().max().item() ** 0.5)


def it_shrinks(cov, mu, eps):
    return grown(mu, -eps / torch.linalg.eigvalsh(cov)[-1].item() ** 0.5)


def adds_a_length(cov, mu, eps):
    return mu + eps


def dimension_again(cov, mu, eps):
    return grown(mu, eps * (len(cov) / torch.linalg.eigvalsh(cov)[-1].item()) ** 0.5)


def theorem_without_mu(cov, mu, eps):
    return grown(0.5, eps / torch.linalg.eigvalsh(cov)[-1].item() ** 0.5)


# half_space_expansion


def wall(points, w, share):
    return (points @ w).sort(descending=True).values[round(share * len(points)) - 1]


def of(points, w, c, step):
    scores = points @ w
    return (scores >= c).double().mean().item(), (scores >= c - step).double().mean().item()


def threshold_from_test(train, test, w, share, eps):
    return of(test, w, wall(test, w, share), eps * w.norm())


def measured_on_training(train, test, w, share, eps):
    return of(train, w, wall(train, w, share), eps * w.norm())


def length_of_w_forgotten(train, test, w, share, eps):
    return of(test, w, wall(train, w, share), eps)


def divided_by_the_length(train, test, w, share, eps):
    return of(test, w, wall(train, w, share), eps / w.norm())


def dual_of_linf(train, test, w, share, eps):
    return of(test, w, wall(train, w, share), eps * w.abs().sum())


def inwards(train, test, w, share, eps):
    return of(test, w, wall(train, w, share), -eps * w.norm())


def the_smallest_scores(train, test, w, share, eps):
    return of(test, w, -wall(train, -w, share), eps * w.norm())


def complement(train, test, w, share, eps):
    c = wall(train, w, share)
    rest = (test @ w < c + eps * w.norm()).double().mean().item()
    return of(test, w, c, 0)[0], rest


def ring_alone(train, test, w, share, eps):
    measure, expanded = of(test, w, wall(train, w, share), eps * w.norm())
    return measure, expanded - measure


# small_expansion


def along(w, x, share):
    return w, (x @ w).topk(round(share * len(x))).values[-1].item()


def main_direction(x, share, eps):
    w = torch.linalg.svd(x - x.mean(0), full_matrices=False).Vh[0]
    sides_ = along(w, x, 1.6 * share), along(-w, x, 1.6 * share)
    return min(sides_, key=lambda rule: (x @ rule[0] >= rule[1] - eps).sum())


def a_pixel(x, share, eps):
    return along(torch.eye(64)[27], x, 1.6 * share)


def too_small(x, share, eps):
    return along(main_direction(x, share, eps)[0], x, 0.4 * share)


def nothing_in_it(x, share, eps):
    return main_direction(x, share, eps)[0], 99.0


def everything_in_it(x, share, eps):
    return torch.ones(64), 0.0


def no_direction(x, share, eps):
    return torch.zeros(64), 0.0


def of_the_unit_vector(x, share, eps):
    w, c = main_direction(x, 1.5 * share, eps)
    return 3 * w, c


def in_a_gap(x, share):
    """A direction along which the digits have a gap, found by the same descent as the solution."""
    w = torch.linalg.svd(x - x.mean(0), full_matrices=False).Vh[1].clone().requires_grad_()
    k, optimiser = round(1.6 * share * len(x)), torch.optim.Adam([w], 0.02)
    for _ in range(80):
        scores = x @ (w / w.norm())
        optimiser.zero_grad()
        torch.sigmoid((scores - scores.topk(k).values[-1] + 0.5) / 0.15).mean().backward()
        optimiser.step()
    return along((w / w.norm()).detach(), x, 1.6 * share)


def other_side(x, share, eps):
    w, c = in_a_gap(x, share)
    return -w, -c


def wrong_sign_of_c(x, share, eps):
    w, c = in_a_gap(x, share)
    return w, -c


def the_mask(x, share, eps):
    w, c = main_direction(x, share, eps)
    return x @ w >= c


WRONG = [
    ("guess_share", (0.02, 0.02, 0.02, 0.02), "the share rises with d"),
    ("guess_share", (0.5, 0.2, 0.05, 0.0), "near its equator"),
    ("guess_share", (0.02, 0.67, 1.0, 1.0), "1/√d, not 1/d"),
    ("guess_share", (0.01, 0.08, 0.34, 0.5), "two sides"),
    ("guess_share", (0.02, 0.05, 0.3, 0.9), "is how many"),
    ("guess_share", (2, 16, 68, 100), "not a percentage"),
    ("guess_share", 0.68, "a tuple of four"),
    ("shell", squared_norms, "the norm is near √d"),
    ("shell", squares_of_unit_sd, "the norm is near √d"),
    ("shell", no_sd, "sd is missing"),
    ("shell", variance_outside, "not with its square"),
    ("shell", whole_tails, "on both sides together"),
    ("shell", one_tail, "leave out both tails"),
    ("shell", one_degree_less, "d degrees"),
    ("shell", nearly_normal, "good for large d only"),
    ("cap_measure", both_caps, "one cap, not the two"),
    ("cap_measure", both_caps_up_to_1, "one cap, not the two"),
    ("cap_measure", d_halves, "not d/2"),
    ("cap_measure", cap_of_the_ball, "a cap of the ball"),
    ("cap_measure", no_reflection, "more than half of the sphere"),
    ("cap_measure", sine_not_squared, "at sin², not at sin"),
    ("cap_measure", one_minus_p, "loses its digits"),
    ("cap_measure", from_the_normal_function, "right for large d only"),
    ("cap_measure", levys_bound, "a bound like Lévy's"),
    ("cap_measure", the_rest_of_the_sphere, "1 − P for P"),
    ("cap_measure", a_chord, "an arc, not the straight way"),
    ("cap_measure", a_height, "angle is no height"),
    ("levy_bound", all_dimensions, "d − 2, not d"),
    ("levy_bound", intrinsic_dimension, "d − 2, not d − 1"),
    ("levy_bound", one_sided, "has two sides"),
    ("levy_bound", above_1, "at most 1"),
    ("levy_bound", radius_forgotten, "the radius is missing"),
    ("levy_bound", constant_forgotten, "the Lipschitz constant is missing"),
    ("levy_bound", constant_multiplies, "makes the bound weaker"),
    ("levy_bound", half_forgotten, "divided by 2"),
    ("levy_bound", scale_not_squared, "squared, all three"),
    ("levy_bound", the_share_near_the_median, "f is near M"),
    ("levy_bound", the_exact_tail, "the exact tail of x₁"),
    ("distance_is_lipschitz", squared_distances, "is not Lipschitz"),
    ("distance_is_lipschitz", mean_over_the_set, "not the mean"),
    ("distance_is_lipschitz", farthest_point, "not the farthest"),
    ("distance_is_lipschitz", signed_change, "the absolute value is missing"),
    ("distance_is_lipschitz", to_the_middle, "not to its middle"),
    ("distance_is_lipschitz", one_nearest_point_for_both, "each has its own nearest point"),
    ("distance_is_lipschitz", sums_of_differences, "Euclidean"),
    ("distance_is_lipschitz", an_equality, "an inequality, not an equality"),
    ("worst_distance", no_root_of_d, "√d is missing"),
    ("worst_distance", root_of_d_multiplies, "√d divides"),
    ("worst_distance", d_without_its_root, "not by d"),
    ("worst_distance", wrong_sign_of_mu, "take it off, do not add it"),
    ("worst_distance", half_for_mu, "mu is missing"),
    ("worst_distance", the_median_point, "share is missing"),
    ("worst_distance", on_the_unit_sphere, "the radius is missing"),
    ("worst_distance", share_beyond, "share lies within"),
    ("worst_distance", below_0, "is at distance 0"),
    ("worst_distance", by_levys_bound, "Lévy's bound allows this"),
    ("in_pixels", around_black, "around the mean image"),
    ("in_pixels", one_mean_for_all_pixels, "a mean for each pixel"),
    ("in_pixels", unit_sphere_in_grey, "the radius is missing"),
    ("in_pixels", norm_of_the_whole_batch, "the norm of one image"),
    ("in_pixels", mean_of_norms, "not the mean of the norms"),
    ("in_pixels", over_n_minus_1, "not over n − 1"),
    ("in_pixels", not_spread, "√d is missing"),
    ("in_pixels", spread_twice, "not by d"),
    ("in_pixels", one_channel, "every channel"),
    ("in_pixels", no_levels, "multiply by `levels`"),
    ("in_pixels", root_d_for_the_radius, "not √d/2"),
    ("escape", a_constant, "give one with both classes"),
    ("escape", it_concentrates, "concentrates: choose a smaller cap"),
    ("escape", a_little_near, "choose a smaller cap"),
    ("escape", more_than_half, "holds the typical point"),
    ("escape", in_degrees, "degrees?"),
    ("escape", straight_way, "the straight way"),
    ("escape", height_of_the_edge, "distance is an angle"),
    ("escape", to_the_pole, "to the middle of the cap"),
    ("escape", own_angle, "the cap's own angle"),
    ("escape", shrinking, "concentrates"),
    ("gaussian_floor", by_the_variance, "the root of the eigenvalue"),
    ("gaussian_floor", times_the_deviation, "do not multiply"),
    ("gaussian_floor", smallest_eigenvalue, "the smallest eigenvalue"),
    ("gaussian_floor", as_if_round, "a round Gaussian"),
    ("gaussian_floor", by_the_whole_radius, "the square of the whole radius"),
    ("gaussian_floor", by_the_largest_pixel, "not the largest pixel variance"),
    ("gaussian_floor", it_shrinks, "an expansion grows"),
    ("gaussian_floor", adds_a_length, "ε is a length"),
    ("gaussian_floor", dimension_again, "no √d here"),
    ("gaussian_floor", theorem_without_mu, "mu is missing"),
    ("half_space_expansion", threshold_from_test, "comes from the test points"),
    ("half_space_expansion", measured_on_training, "shares of the training points"),
    ("half_space_expansion", length_of_w_forgotten, "moves by ε‖w‖"),
    ("half_space_expansion", divided_by_the_length, "moves by ε‖w‖"),
    ("half_space_expansion", dual_of_linf, "belongs to ℓ∞"),
    ("half_space_expansion", inwards, "the threshold goes down"),
    ("half_space_expansion", the_smallest_scores, "the largest scores"),
    ("half_space_expansion", complement, "expands the complement"),
    ("half_space_expansion", ring_alone, "do not take it off"),
    ("small_expansion", main_direction, "a Gaussian with this covariance"),
    ("small_expansion", a_pixel, "larger than it has to be"),
    ("small_expansion", too_small, "leave a margin"),
    ("small_expansion", nothing_in_it, "leave a margin"),
    ("small_expansion", everything_in_it, "larger than it has to be"),
    ("small_expansion", other_side, "−w and −c"),
    ("small_expansion", wrong_sign_of_c, "the sign of c"),
    ("small_expansion", no_direction, "bounds no half-space"),
    ("small_expansion", of_the_unit_vector, "c belongs to w"),
    ("small_expansion", the_mask, "a tuple (w, c)"),
]
