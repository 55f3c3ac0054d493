"""Planted wrong answers of chapter 4: (exercise, answer, words that its message must hold)."""

import math

import torch

ROOT = math.sqrt(2)
TOP = lambda w: torch.linalg.matrix_norm(w, 2)


# product_bound


def multiplied(norm, scale=lambda weights, std: 1 / std):
    def answer(weights, std):
        return math.prod(norm(w).item() for w in weights) * scale(weights, std)

    return answer


frobenius = multiplied(torch.linalg.matrix_norm)
largest_entry = multiplied(lambda w: w.abs().max())
smallest_value = multiplied(lambda w: torch.linalg.matrix_norm(w, -2))
row_sums = multiplied(lambda w: torch.linalg.matrix_norm(w, math.inf))
nuclear = multiplied(lambda w: torch.linalg.matrix_norm(w, "nuc"))
eigenvalues = multiplied(lambda w: torch.linalg.eigvalsh(w.T @ w)[-1])
std_forgotten = multiplied(TOP, lambda weights, std: 1)
std_multiplied = multiplied(TOP, lambda weights, std: std)
std_in_each_layer = multiplied(TOP, lambda weights, std: std ** -len(weights))


def summed(weights, std):
    return sum(TOP(w).item() for w in weights) / std


def of_the_product(weights, std):
    return TOP(torch.linalg.multi_dot(weights[::-1])).item() / std


def of_one_layer(weights, std):
    return max(TOP(w).item() for w in weights) / std


def without_the_first(weights, std):
    return multiplied(TOP)(weights[1:], std)


def half_of_it_all(weights, std):
    return multiplied(TOP)(weights, std) / 2


def largest_column(weights, std):
    return multiplied(lambda w: torch.linalg.matrix_norm(w, 1))(weights, std)


def by_power_steps(weights, std):
    return multiplied(lambda w: iterated(w, 20))(weights, std)


# certified_radius


def gaps(logits, y):
    """z_y − z_j, infinite for j = y."""
    at = torch.nn.functional.one_hot(y, logits.shape[1]).bool()
    return (logits.gather(1, y[:, None]) - logits).masked_fill(at, math.inf)


def least_gap(logits, y):
    return gaps(logits, y).amin(1)


def halved(logits, y, limit):
    return least_gap(logits, y).clamp(min=0) / (2 * limit)


def no_root(logits, y, limit):
    return least_gap(logits, y).clamp(min=0) / limit


def root_above(logits, y, limit):
    return ROOT * least_gap(logits, y).clamp(min=0) / limit


def sign_lost(logits, y, limit):
    return least_gap(logits, y).abs() / (ROOT * limit)


def of_the_answer(logits, y, limit):
    first, second = logits.topk(2).values.T
    return (first - second) / (ROOT * limit)


def negative_radius(logits, y, limit):
    return least_gap(logits, y) / (ROOT * limit)


def weakest_class(logits, y, limit):
    own = logits.gather(1, y[:, None])[:, 0]
    return (own - logits.amin(1)).clamp(min=0) / (ROOT * limit)


def next_class(logits, y, limit):
    other = (y + 1) % logits.shape[1]
    two = logits.gather(1, torch.stack([y, other], 1))
    return (two[:, 0] - two[:, 1]).clamp(min=0) / (ROOT * limit)


def of_probabilities(logits, y, limit):
    return least_gap(logits.softmax(1), y).clamp(min=0) / (ROOT * limit)


def limit_unused(logits, y, limit):
    return least_gap(logits, y).clamp(min=0) / ROOT


def limit_multiplied(logits, y, limit):
    return least_gap(logits, y).clamp(min=0) / ROOT * limit


def y_left_out_with(number):
    """y's own logit replaced by a number that the rivals may be below."""

    def answer(logits, y, limit):
        other = logits.scatter(1, y[:, None], number).amax(1)
        own = logits.gather(1, y[:, None])[:, 0]
        return (own - other).clamp(min=0) / (ROOT * limit)

    return answer


left_out_with_0, left_out_with_minus_1 = map(y_left_out_with, (0.0, -1.0))


def masked_by_a_product(logits, y, limit):
    other = logits * (1 - torch.nn.functional.one_hot(y, logits.shape[1]))
    own = logits.gather(1, y[:, None])[:, 0]
    return (own - other.amax(1)).clamp(min=0) / (ROOT * limit)


def y_not_left_out(logits, y, limit):
    own = logits.gather(1, y[:, None])[:, 0]
    return (own - logits.amax(1)).clamp(min=0) / (ROOT * limit)


def root_of_both(logits, y, limit):
    return least_gap(logits, y).clamp(min=0) / math.sqrt(2 * limit)


# pair_radius


def between(weight, y):
    return weight[y][:, None] - weight


def least_ratio(logits, y, size):
    return (gaps(logits, y) / size).amin(1).clamp(min=0)


def runner_up_only(logits, weight, y, before):
    other = gaps(logits, y).argmin(1)
    size = (weight[y] - weight[other]).norm(dim=1)
    return least_gap(logits, y).clamp(min=0) / (size * before)


def of_all_logits(logits, weight, y, before):
    return least_gap(logits, y).clamp(min=0) / (ROOT * TOP(weight) * before)


def root_twice(logits, weight, y, before):
    return least_ratio(logits, y, ROOT * between(weight, y).norm(dim=2) * before)


def sum_of_norms(logits, weight, y, before):
    sizes = weight.norm(dim=1)
    return least_ratio(logits, y, (sizes[y][:, None] + sizes) * before)


def rivals_row_only(logits, weight, y, before):
    return least_ratio(logits, y, weight.norm(dim=1) * before)


def last_layer_only(logits, weight, y, before):
    return least_ratio(logits, y, between(weight, y).norm(dim=2))


def farthest_class(logits, weight, y, before):
    ratio = gaps(logits, y) / (between(weight, y).norm(dim=2) * before)
    return ratio.masked_fill(ratio.isinf(), -math.inf).amax(1).clamp(min=0)


def pair_with_itself(logits, weight, y, before):
    gap = logits.gather(1, y[:, None]) - logits
    return (gap / (between(weight, y).norm(dim=2) * before)).amin(1).clamp(min=0)


def signed_ratio(logits, weight, y, before):
    gap = logits.gather(1, y[:, None]) - logits
    return gap / (between(weight, y).norm(dim=2) * before)


def positive_ones_only(logits, weight, y, before):
    ratio = signed_ratio(logits, weight, y, before)
    return torch.where(ratio > 0, ratio, math.inf).amin(1).nan_to_num(posinf=0)


def two_best_rivals(logits, weight, y, before):
    at = gaps(logits, y).topk(2, largest=False).indices
    ratio = signed_ratio(logits, weight, y, before)
    return ratio.gather(1, at).amin(1).clamp(min=0)


def nan_made_0(logits, weight, y, before):
    return signed_ratio(logits, weight, y, before).nan_to_num(nan=0.0).amin(1).clamp(min=0)


def with_a_tiny_number(logits, weight, y, before):
    gap = logits.gather(1, y[:, None]) - logits
    size = between(weight, y).norm(dim=2) * before
    return (gap / (size + 1e-12)).amin(1).clamp(min=0)


def as_if_perpendicular(logits, weight, y, before):
    sizes = weight.norm(dim=1)
    return least_ratio(logits, y, torch.hypot(sizes[y][:, None], sizes) * before)


def norm_of_them_all(logits, weight, y, before):
    return least_ratio(logits, y, between(weight, y).norm() * before)


def squared_length(logits, weight, y, before):
    return least_ratio(logits, y, between(weight, y).square().sum(2) * before)


# root_two


def built(step=lambda gap, limit: gap / (ROOT * limit), size=1 / ROOT, sign=1, fall=1, rise=1,
          at=1):  # fmt: skip
    """The tight network, with any of its parts replaced; `at` is the rival's rank."""

    def answer(x, logits, limit):
        order = logits.argsort(descending=True)
        first, second = order[0], order[min(at, len(order) - 1)]
        move = torch.zeros_like(logits)
        move[first], move[second] = -fall, rise
        u = torch.ones_like(x) / len(x) ** 0.5
        far = step((logits[first] - logits[second]).item(), limit)
        return sign * limit * size * torch.outer(move, u), x + far * u

    return answer


too_steep = built(size=1.0)
half_of_the_way = built(step=lambda gap, limit: gap / (2 * limit))
one_logit_moves = built(step=lambda gap, limit: gap / limit, size=1.0, rise=0)
both_fall_short = built(size=1.0, rise=0)
helps_the_answer = built(sign=-1)
third_class = built(at=2)
limit_left_out = built(step=lambda gap, limit: gap / ROOT)
half_the_speed = built(size=0.5)


def stays(x, logits, limit):
    return built()(x, logits, limit)[0], x


# conv_norm


def layer_of(kernel, stride, padding=None, mode="constant"):
    pad = kernel.shape[-1] // 2 if padding is None else padding

    def layer(x):
        x = torch.nn.functional.pad(x, (pad,) * 4, mode=mode) if pad else x
        return torch.nn.functional.conv2d(x, kernel, stride=stride)

    return layer


def written_out(layer, channels, size):
    n = channels * math.prod(size)
    return layer(torch.eye(n, dtype=torch.float64).reshape(n, channels, *size)).flatten(1)


def matrix_norm_of(order=2, **parts):
    def answer(kernel, size, stride):
        layer = layer_of(kernel, parts.get("stride", stride), parts.get("padding"),
                         parts.get("mode", "constant"))  # fmt: skip
        turned = size[::-1] if parts.get("turned") else size
        return torch.linalg.matrix_norm(written_out(layer, kernel.shape[1], turned), order)

    return answer


circular_padding = matrix_norm_of(mode="circular")
no_padding = matrix_norm_of(padding=0)
stride_ignored = matrix_norm_of(stride=1)
frobenius_of_the_layer = matrix_norm_of("fro")
turned_image = matrix_norm_of(turned=True)


def reshaped_kernel(kernel, size, stride):
    return TOP(kernel.flatten(1))


def scaled_kernel(kernel, size, stride):
    return kernel.shape[-1] * TOP(kernel.flatten(1))


def iterated(a, count):
    v = torch.randn(a.shape[1], generator=torch.Generator().manual_seed(0)).double()
    for _ in range(count):
        v = a.T @ (a @ v)
        v = v / v.norm()
    return (a @ v).norm()


def power_steps(count):
    def answer(kernel, size, stride):
        return iterated(written_out(layer_of(kernel, stride), kernel.shape[1], size).T, count)

    return answer


one_power_step = power_steps(1)
three_power_steps = power_steps(3)


def square_of_it(kernel, size, stride):
    return matrix_norm_of()(kernel, size, stride) ** 2


# cheat


def along_and_across(along, across):
    """One factor along the start, another across it."""

    def answer(start, steps):
        own = torch.outer(start, start)
        return along * own + across * (torch.eye(len(start), dtype=torch.float64) - own)

    return answer


steep_along_the_start = along_and_across(1.5, 1.0)
steep_everywhere = along_and_across(1.5, 1.5)
too_tame = along_and_across(1.0, 1.2)
start_goes_to_0 = along_and_across(0.0, 1.5)
honest_one = along_and_across(1.0, 1.0)


def any_direction(start, steps):
    r = torch.randn(len(start), generator=torch.Generator().manual_seed(1)).double()
    r = r / r.norm()
    return 0.9 * torch.eye(len(start), dtype=torch.float64) + 0.6 * torch.outer(r, r)


def in_single_precision(start, steps):
    return along_and_across(1.0, 1.5)(start.float().double(), steps).float()


def no_numbers(start, steps):
    return torch.full((len(start), len(start)), math.nan)


# cayley


def transform(skew=lambda u: u - u.T, gram=1.0, factor=-2.0):
    def answer(w):
        if w.shape[0] < w.shape[1]:
            return answer(w.T).T
        n = w.shape[1]
        u, v, one = w[:n], w[n:], torch.eye(n, dtype=w.dtype)
        a = skew(u) + gram * v.T @ v
        inverse = torch.linalg.inv(one + a)
        return torch.cat([inverse @ (one - a), factor * v @ inverse])

    return answer


not_skew = transform(skew=lambda u: u)
half_of_it = transform(skew=lambda u: (u - u.T) / 2)
gram_forgotten = transform(gram=0.0)
two_forgotten = transform(factor=-1.0)


def spectral_normalised(w):
    return w / TOP(w)


def columns_of_length_1(w):
    return w / w.norm(dim=0, keepdim=True)


def rows_of_length_1(w):
    return w / w.norm(dim=1, keepdim=True)


def other_one_inverted(w):
    if w.shape[0] < w.shape[1]:
        return other_one_inverted(w.T).T
    n = w.shape[1]
    u, v, one = w[:n], w[n:], torch.eye(n, dtype=w.dtype)
    a = u - u.T + v.T @ v
    return torch.cat([one + a, -2 * v]) @ torch.linalg.inv(one - a)


def by_qr(w):
    if w.shape[0] < w.shape[1]:
        return torch.linalg.qr(w.T).Q.T
    return torch.linalg.qr(w).Q


def square_ones_only(w):
    n = min(w.shape)
    q = torch.zeros_like(w)
    q[:n, :n] = transform()(w[:n, :n])
    return q


# group_sort


def pairs(h):
    even = h.shape[1] // 2 * 2
    return h[:, 0:even:2], h[:, 1:even:2], h[:, even:]


def woven(first, second, rest):
    both = torch.stack([first, second], 2).flatten(1, 2)
    return torch.cat([both, rest], 1)


def larger_first(h):
    a, b, rest = pairs(h)
    return woven(torch.maximum(a, b), torch.minimum(a, b), rest)


def only_the_larger(h):
    a, b, rest = pairs(h)
    return torch.cat([torch.maximum(a, b), rest], 1)


def larger_twice(h):
    a, b, rest = pairs(h)
    return woven(torch.maximum(a, b), torch.maximum(a, b), rest)


def across_the_batch(h):
    return h.sort(0, descending=True).values


def all_channels(h):
    return h.sort(1, descending=True).values


def one_of_each_half(h):
    n = h.shape[1] // 2
    a, b = h[:, :n], h[:, n : 2 * n]
    return torch.cat([torch.maximum(a, b), torch.minimum(a, b), h[:, 2 * n :]], 1)


def all_larger_first(h):
    a, b, rest = pairs(h)
    return torch.cat([torch.maximum(a, b), torch.minimum(a, b), rest], 1)


def odd_one_dropped(h):
    a, b, _ = pairs(h)
    return woven(torch.minimum(a, b), torch.maximum(a, b), h[:, :0])


def odd_one_with_0(h):
    a, b, rest = pairs(h)
    return woven(torch.minimum(a, b), torch.maximum(a, b), rest.relu())


def overwritten(h):
    out = h.clone()
    for i in range(0, h.shape[1] - 1, 2):
        out[:, i] = torch.minimum(out[:, i], out[:, i + 1])
        out[:, i + 1] = torch.maximum(out[:, i], out[:, i + 1])
    return out


def overlapping(h):
    out = h.clone()
    for i in range(h.shape[1] - 1):
        out[:, i : i + 2] = out[:, i : i + 2].sort(1).values
    return out


def overlapping_old_values(h):
    out = h.clone()
    for i in range(h.shape[1] - 1):
        out[:, i : i + 2] = h[:, i : i + 2].sort(1).values
    return out


def relu(h):
    return h.relu()


# certify_more


def max_min(h):
    a, b, rest = pairs(h)
    return woven(torch.minimum(a, b), torch.maximum(a, b), rest)


def trained(x, y, sizes, margin=0.0, normed=False, steps=60, activation=max_min):
    g = torch.Generator().manual_seed(0)
    shapes = list(zip(sizes[1:], sizes, strict=False))
    weights = [torch.randn(s, generator=g) / s[1] ** 0.5 for s in shapes]
    biases = [torch.zeros(s[0]) for s in shapes]
    optimiser = torch.optim.Adam([p.requires_grad_() for p in weights + biases], 0.01)
    scale = (lambda w: w / TOP(w)) if normed else (lambda w: w)
    for _ in range(steps):
        layers, z = [scale(w) for w in weights], x
        for w, b in zip(layers[:-1], biases, strict=False):
            z = activation(z @ w.T + b)
        z = z @ layers[-1].T + biases[-1]
        z = z - margin * torch.nn.functional.one_hot(y, 10)
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(8 * z if normed else z, y).backward()
        optimiser.step()
    return tuple(p.detach() for pair in zip(map(scale, weights), biases, strict=True) for p in pair)


def unconstrained(x, y):
    return trained(x, y, (64, 64, 10))


def one_layer(x, y):
    return trained(x, y, (64, 10))


def no_margin(x, y):
    return trained(x, y, (64, 64, 10), normed=True)


def far_too_much_margin(x, y):
    return trained(x, y, (64, 16, 10), margin=30.0, normed=True, steps=10)


def untrained(x, y):
    return trained(x, y, (64, 64, 10), steps=0)


def trained_with_relu(x, y):
    return trained(x, y, (64, 64, 10), normed=True, activation=torch.relu)


def divided_afterwards(x, y):
    return tuple(p / TOP(p) if p.ndim == 2 else p for p in trained(x, y, (64, 64, 10), steps=150))


def odd_width(x, y):
    return trained(x, y, (64, 33, 10), steps=0)


def layers_in_a_list(x, y):
    return list(unconstrained(x, y))


def weights_the_other_way(x, y):
    return tuple(p.T if p.ndim == 2 else p for p in unconstrained(x, y))


WRONG = [
    ("guess_v", (1.0, 1.0, 1.0, 1.0), "without a limit on the norms"),
    ("guess_v", (0.0, 0.0, 0.0, 1.0), "not every V"),
    ("guess_v", (0.25, 0.5, 1.0, 1.0), "a V, but not the steepest"),
    ("guess_v", torch.tensor([0.35, 0.35, 0.35, 1.0]), "a V, but not the steepest"),
    ("guess_v", (0.7, 0.7, 0.7, 1.0), "two matrices"),
    ("guess_v", (0.5, 1.0, 1.0, 1.0), "wider does not help"),
    ("guess_v", (0.5, 0.5, 0.5, 1.0), "deeper helps"),
    ("guess_v", (0.5, 0.5, 1.0, 0.5), "is not thrown away"),
    ("guess_v", (50, 50, 100, 100), "not a percentage"),
    ("guess_v", 0.5, "a tuple of four"),
    ("product_bound", frobenius, "valid, but loose"),
    ("product_bound", summed, "their norms multiply"),
    ("product_bound", largest_entry, "returned as a lower one"),
    ("product_bound", smallest_value, "the largest is asked for"),
    ("product_bound", row_sums, "here lengths are ℓ2"),
    ("product_bound", nuclear, "not their sum"),
    ("product_bound", eigenvalues, "the square of the norm"),
    ("product_bound", of_the_product, "the activations stand between"),
    ("product_bound", of_one_layer, "every layer counts"),
    ("product_bound", std_forgotten, "std is missing"),
    ("product_bound", std_multiplied, "so the bound is, too"),
    ("product_bound", std_in_each_layer, "only the first layer"),
    ("product_bound", without_the_first, "every layer counts"),
    ("product_bound", half_of_it_all, "below the norm"),
    ("product_bound", largest_column, "here lengths are ℓ2"),
    ("product_bound", by_power_steps, "which comes from below"),
    ("certified_radius", halved, "valid, but not tight: off by √2"),
    ("certified_radius", no_root, "too large: off by √2"),
    ("certified_radius", root_above, "not by its inverse"),
    ("certified_radius", sign_lost, "a wrong prediction got a positive radius"),
    ("certified_radius", of_the_answer, "of the answer, not of y"),
    ("certified_radius", negative_radius, "certified nowhere: 0"),
    ("certified_radius", weakest_class, "the wrong pair of classes"),
    ("certified_radius", next_class, "the wrong pair of classes"),
    ("certified_radius", of_probabilities, "not of probabilities"),
    ("certified_radius", limit_unused, "L is missing"),
    ("certified_radius", limit_multiplied, "divide by L"),
    ("certified_radius", left_out_with_0, "with −∞, not with a number"),
    ("certified_radius", left_out_with_minus_1, "with −∞, not with a number"),
    ("certified_radius", masked_by_a_product, "with −∞, not with a number"),
    ("certified_radius", y_not_left_out, "leave y out"),
    ("certified_radius", root_of_both, "not √(2L)"),
    ("pair_radius", runner_up_only, "need not be the nearest"),
    ("pair_radius", of_all_logits, "L of the logits"),
    ("pair_radius", root_twice, "taken twice"),
    ("pair_radius", sum_of_norms, "not the sum"),
    ("pair_radius", rivals_row_only, "not with w_j"),
    ("pair_radius", last_layer_only, "the layers before are missing"),
    ("pair_radius", farthest_class, "the nearest class decides"),
    ("pair_radius", pair_with_itself, "0/0: leave it out"),
    ("pair_radius", squared_length, "squared where the norm belongs"),
    ("pair_radius", positive_ones_only, "a wrong prediction got a positive radius"),
    ("pair_radius", two_best_rivals, "need not be the nearest"),
    ("pair_radius", nan_made_0, "leave y out"),
    ("pair_radius", with_a_tiny_number, "leave y out"),
    ("pair_radius", as_if_perpendicular, "at right angles"),
    ("pair_radius", norm_of_them_all, "one length for each pair"),
    ("root_two", too_steep, "belongs to the norm of w, too"),
    ("root_two", half_of_the_way, "no network of this limit"),
    ("root_two", one_logit_moves, "let one fall and the other rise"),
    ("root_two", both_fall_short, "by the same amount"),
    ("root_two", helps_the_answer, "you are helping the classifier"),
    ("root_two", third_class, "the runner-up is the first"),
    ("root_two", limit_left_out, "L is missing"),
    ("root_two", half_the_speed, "use all of L"),
    ("root_two", stays, "nothing has moved"),
    ("conv_norm", reshaped_kernel, "the norm of the reshaped kernel"),
    ("conv_norm", scaled_kernel, "a true bound, but not the norm"),
    ("conv_norm", one_power_step, "which comes from below"),
    ("conv_norm", three_power_steps, "which comes from below"),
    ("conv_norm", circular_padding, "it differs at the rim"),
    ("conv_norm", no_padding, "K // 2 zeros, not 0"),
    ("conv_norm", stride_ignored, "the stride leaves outputs away"),
    ("conv_norm", frobenius_of_the_layer, "valid, but loose"),
    ("conv_norm", square_of_it, "the square of the norm"),
    ("conv_norm", turned_image, "size is (height, width)"),
    ("cheat", steep_along_the_start, "each step raises it"),
    ("cheat", steep_everywhere, "each step raises it"),
    ("cheat", any_direction, "each step raises it"),
    ("cheat", in_single_precision, "each step raises it"),
    ("cheat", too_tame, "keeps its promise"),
    ("cheat", honest_one, "keeps its promise"),
    ("cheat", start_goes_to_0, "starts from rounding errors"),
    ("cheat", no_numbers, "NaN"),
    ("cayley", not_skew, "A is not skew"),
    ("cayley", half_of_it, "of half the parameters"),
    ("cayley", gram_forgotten, "VᵀV is missing"),
    ("cayley", two_forgotten, "the 2 is missing"),
    ("cayley", other_one_inverted, "invert I + A"),
    ("cayley", spectral_normalised, "other lengths shrink"),
    ("cayley", columns_of_length_1, "lengths need WᵀW = I"),
    ("cayley", rows_of_length_1, "lengths need WᵀW = I"),
    ("cayley", by_qr, "not the Cayley transform"),
    ("cayley", square_ones_only, "not the Cayley transform"),
    ("group_sort", larger_first, "smaller first"),
    ("group_sort", only_the_larger, "half of the gradient is lost"),
    ("group_sort", larger_twice, "half of the gradient is lost"),
    ("group_sort", across_the_batch, "no image may see another"),
    ("group_sort", all_channels, "not all channels at once"),
    ("group_sort", one_of_each_half, "not one of each half"),
    ("group_sort", all_larger_first, "keep each where it stood"),
    ("group_sort", odd_one_dropped, "stays as it is"),
    ("group_sort", odd_one_with_0, "stays as it is"),
    ("group_sort", overwritten, "was overwritten"),
    ("group_sort", overlapping, "pairs do not overlap"),
    ("group_sort", overlapping_old_values, "pairs do not overlap"),
    ("group_sort", relu, "ReLU throws away"),
    ("certify_more", unconstrained, "hold the norms while you train"),
    ("certify_more", one_layer, "add a hidden layer"),
    ("certify_more", no_margin, "ask for a margin"),
    ("certify_more", far_too_much_margin, "or a smaller margin"),
    ("certify_more", untrained, "it has not learnt enough"),
    ("certify_more", trained_with_relu, "not the one that you trained"),
    ("certify_more", divided_afterwards, "needs its bias rescaled"),
    ("certify_more", odd_width, "MaxMin takes pairs"),
    ("certify_more", layers_in_a_list, "return weight, bias"),
    ("certify_more", weights_the_other_way, "a weight [out ≤ 256, in]"),
]
