"""What other people's attacks reach on two stored networks: the answers that ours are held against.

Run in an environment of its own, from the root of the repository, in about ten minutes:

    python -m venv .venv-reference && . .venv-reference/bin/activate
    pip install torch==2.13.0 torchvision==0.28.0 scipy scikit-learn jaxtyping GitPython requests
    pip install --no-deps torchattacks==3.5.1 foolbox==3.3.4 eagerpy==0.30.0 pyautoattack==0.2.0
    OMP_NUM_THREADS=1 python tests/reference/make.py            (--train: new networks as well)

pyautoattack is AutoAttack's own code (Croce & Hein) as a package. Writes `answers.json`: robust
accuracies for each seed, and median minimal distances, with a card. `tests/test_attacks.py` and
`tests/test_blackbox.py` use `load` and `batch`, which need none of these libraries.
"""

# ruff: noqa: T201

import argparse
import datetime
import importlib.metadata
import json
import sys
import warnings
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from robcourse import models  # noqa: E402

NETWORKS = {
    "digits10": lambda: models.small_conv((1, 8, 8), 10, width=4),
    "digits3v8": lambda: models.mlp(64, 2),
}
EPS = {
    "digits10": {"linf": 0.17, "l2": 0.9, "l1": 2.0},
    "digits3v8": {"linf": 0.125, "l2": 0.5, "l1": 2.0},
}
SEEDS = (0, 1, 2)
AUTO = {"linf": "Linf", "l2": "L2", "l1": "L1"}


def load(name: str) -> torch.nn.Module:
    """A stored network; its weights have the precision of float16 and the type float32."""
    net = NETWORKS[name]()
    weights = torch.load(HERE / f"{name}.pt", weights_only=True)
    net.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in weights.items()})
    return net.eval()


def batch(name: str, *, train: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """scikit-learn's digits in a fixed order: the first half to train on, else 200 of the rest."""
    from sklearn.datasets import load_digits

    raw = load_digits()
    x = torch.tensor(raw.images, dtype=torch.float32)[:, None] / 16
    y = torch.tensor(raw.target).long()
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    x, y, half = x[order], y[order], len(y) // 2
    x, y = (x[:half], y[:half]) if train else (x[half:], y[half:])
    if name == "digits3v8":
        keep = (y == 3) | (y == 8)
        x, y = x[keep], (y[keep] == 8).long()
    return (x, y) if train else (x[:200], y[:200])


def train(name: str, *, epochs: int = 20, eps: float = 0.1) -> None:
    """Ten digits on points of a four-step attack, so that attacks differ; 3 against 8 plainly."""
    x, y = batch(name, train=True)
    net, gen = NETWORKS[name](), torch.Generator().manual_seed(0)
    loss = torch.nn.functional.cross_entropy
    optimiser = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=gen).split(32):
            z = x[rows]
            for _ in range(4 if name == "digits10" else 0):
                net.eval()
                z.requires_grad_()
                (g,) = torch.autograd.grad(loss(net(z), y[rows]), z)
                z = z.detach() + eps / 2.5 * g.sign()
                z = z.clamp(x[rows] - eps, x[rows] + eps).clamp(0, 1)
            net.train()
            optimiser.zero_grad()
            loss(net(z), y[rows]).backward()
            optimiser.step()
    weights = {k: v.half() if v.is_floating_point() else v for k, v in net.state_dict().items()}
    torch.save(weights, HERE / f"{name}.pt")
    net, (x, y) = load(name), batch(name)
    print(name, "accuracy", (net(x).argmax(1) == y).double().mean().item())


def survivors(net, x, y, attack) -> list[float]:
    """The accuracy left by attack(seed), for each seed."""
    left = []
    for seed in SEEDS:
        torch.manual_seed(seed)
        left.append(round((net(attack(seed)).argmax(1) == y).double().mean().item(), 4))
    return left


def at_equal_steps(name: str, *, steps: int = 20) -> dict:
    """FGSM and PGD of torchattacks and foolbox: step 2.5·eps/steps, random starts."""
    import foolbox as fb
    import torchattacks as ta

    net, (x, y), eps = load(name), batch(name), EPS[name]
    judge = fb.PyTorchModel(net, bounds=(0, 1), device="cpu")
    own = {
        "torchattacks.FGSM linf": lambda e: ta.FGSM(net, eps=e),
        "torchattacks.PGD linf": lambda e: ta.PGD(net, eps=e, alpha=2.5 * e / steps, steps=steps),
        "torchattacks.PGDL2 l2": lambda e: ta.PGDL2(net, eps=e, alpha=2.5 * e / steps, steps=steps),
    }
    a = fb.attacks
    kind = {"rel_stepsize": 2.5 / steps, "steps": steps}
    theirs = {
        "foolbox.FGSM linf": a.LinfFastGradientAttack(random_start=False),
        "foolbox.FGM l2": a.L2FastGradientAttack(random_start=False),
        "foolbox.FGM l1": a.L1FastGradientAttack(random_start=False),
        "foolbox.LinfPGD linf": a.LinfProjectedGradientDescentAttack(**kind),
        "foolbox.L2PGD l2": a.L2ProjectedGradientDescentAttack(**kind),
        "foolbox.L1PGD l1": a.L1ProjectedGradientDescentAttack(**kind),
        "foolbox.SparseL1Descent l1": a.SparseL1DescentAttack(**kind),
    }
    found = {}
    for label, make in own.items():
        attack = make(eps[label.split()[1]])
        found[label] = survivors(net, x, y, lambda seed, attack=attack: attack(x, y))
    for label, attack in theirs.items():
        e = eps[label.split()[1]]
        found[label] = survivors(
            net, x, y, lambda seed, attack=attack, e=e: attack(judge, x, y, epsilons=e)[1]
        )
    return found


def of_autoattack(name: str, *, steps: int = 50, queries: int = 500) -> dict:
    """AutoAttack's APGD (one run), APGD-T (nine targets) and Square."""
    from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
    from pyautoattack.square import SquareAttack

    net, (x, y) = load(name), batch(name)
    ten = name == "digits10"
    found = {}
    for norm, eps in EPS[name].items():
        kind = {"norm": AUTO[norm], "eps": eps, "n_restarts": 1, "device": "cpu"}
        for loss in ("ce", "dlr") if ten else ("ce",):
            found[f"APGD-{loss} {norm}"] = survivors(
                net, x, y, lambda seed, loss=loss, kind=kind: APGDAttack(
                    net, n_iter=steps, loss=loss, seed=seed, **kind).perturb(x, y)
            )  # fmt: skip
        if ten:
            found[f"APGD-T {norm}"] = survivors(
                net, x, y, lambda seed, kind=kind: APGDAttack_targeted(
                    net, n_iter=steps, seed=seed, n_target_classes=9, **kind).perturb(x, y)
            )  # fmt: skip
        if norm != "l1":
            found[f"Square {norm}"] = survivors(
                net, x, y, lambda seed, kind=kind: SquareAttack(
                    net, n_queries=queries, seed=seed, resc_schedule=True, **kind).perturb(x, y)
            )  # fmt: skip
    return found


def minimal_distances(name: str) -> dict:
    """The median distance that foolbox's minimal attacks reach; ∞ where one found nothing."""
    import foolbox as fb

    net, (x, y) = load(name), batch(name)
    judge = fb.PyTorchModel(net, bounds=(0, 1), device="cpu")
    a = fb.attacks
    found = {}
    for label, attack in {
        "DDN l2": a.DDNAttack(steps=200),
        "FMN l2": a.L2FMNAttack(steps=200),
        "CW l2": a.L2CarliniWagnerAttack(binary_search_steps=9, steps=1000),
        "DeepFool l2": a.L2DeepFoolAttack(),
        "FMN linf": a.LInfFMNAttack(steps=200),
        "DeepFool linf": a.LinfDeepFoolAttack(),
    }.items():
        torch.manual_seed(0)
        z = attack(judge, x, y, epsilons=None)[0]
        p = torch.inf if label.endswith("linf") else 2
        far = torch.linalg.vector_norm((z - x).flatten(1).double(), p, dim=1)
        found[label] = torch.where(net(z).argmax(1) != y, far, torch.inf).median().item()
        print(name, label, found[label], flush=True)
    return found


def card() -> dict:
    libraries = ("torch", "torchattacks", "foolbox", "pyautoattack", "scikit-learn")
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "libraries": {name: importlib.metadata.version(name) for name in libraries},
        "command": "python tests/reference/make.py",
        "seeds": SEEDS,
        "eps": EPS,
        "steps": {"PGD": 20, "APGD": 50, "APGD-T": 50, "Square (queries)": 500},
        "minimal": "DDN, FMN: 200 steps; CW: 9 × 1000; DeepFool: foolbox's default",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", action="store_true", help="train the networks again first")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    answers = {"card": card(), "robust_accuracy": {}, "median_distance": {}}
    for name in NETWORKS:
        if args.train:
            train(name)
        answers["robust_accuracy"][name] = at_equal_steps(name) | of_autoattack(name)
        print(name, json.dumps(answers["robust_accuracy"][name], indent=1), flush=True)
        answers["median_distance"][name] = minimal_distances(name)
    text = json.dumps(answers, indent=1, ensure_ascii=False) + "\n"
    (HERE / "answers.json").write_text(text)


if __name__ == "__main__":
    main()
