"""Data with a name and a hash: scikit-learn's digits, embedded."""

import dataclasses
import hashlib
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Dataset:
    """A training and a test set: images `[n, c, h, w]` in [0, 1], labels int64 `[n]`."""

    train_x: Float[Tensor, " n c h w"]
    train_y: Int[Tensor, " n"]
    test_x: Float[Tensor, " m c h w"]
    test_y: Int[Tensor, " m"]
    classes: tuple[str, ...]
    name: str
    sha256: str

    def only(self, *classes: int) -> "Dataset":
        """The examples of these classes, relabelled 0, 1, … in the order given."""

        def pick(x, y):
            keep = torch.isin(y, torch.tensor(classes))
            new = torch.stack([y[keep] == c for c in classes]).int().argmax(0)
            return x[keep], new

        names = tuple(self.classes[c] for c in classes)
        return dataclasses.replace(
            self,
            **dict(zip(("train_x", "train_y"), pick(self.train_x, self.train_y), strict=True)),
            **dict(zip(("test_x", "test_y"), pick(self.test_x, self.test_y), strict=True)),
            classes=names,
            name=f"{self.name}-{'v'.join(names)}",
        )


def load(name: str) -> Dataset:
    """`"digits"`: 1797 grey images of 8×8 with 17 grey values, half for training."""
    if name != "digits":
        raise ValueError(f"name is {name!r}; allowed: 'digits'")
    from sklearn.datasets import load_digits

    raw = load_digits()
    x = torch.tensor(raw.images, dtype=torch.float32)[:, None] / 16
    y = torch.tensor(raw.target).long()
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    train, test = order[: len(y) // 2], order[len(y) // 2 :]
    digest = hashlib.sha256(raw.images.tobytes() + raw.target.tobytes()).hexdigest()
    return Dataset(x[train], y[train], x[test], y[test], tuple("0123456789"), name, digest)
