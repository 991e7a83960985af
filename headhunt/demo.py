"""The configuration of `headhunt demo`: drawn cars, the backbone whose weights are installed, few trials."""

from __future__ import annotations

from typing import Any

DEMO: dict[str, Any] = {
    "name": "demo",
    "dataset": {
        "kind": "toy_cars",
        "classes": 16,
        "image_size": 224,
        "split": {"train": 0.6, "val": 0.15, "test": 0.25},  # many test photos: narrow intervals
    },
    "features": {"backbone": "efficientnet_lite0", "copies": 2, "workers": {"count": 2, "cpus": 1}},
    "search": {
        "trials": 16,
        "pruner": "none",  # so that even the worst head trains to the end
        "confirm": {"top": 3},
    },
    "train": {
        "workers": {"count": 1},  # one promotion: all cores are its own
        "finetune": {
            "augmentation": "mild",
            "unfreeze_conv_layers": 20,
            "epochs": 4,
            "batch_size": 16,
            "schedule": {"kind": "warmup_cosine", "learning_rate": 6e-4, "warmup_epochs": 1},
        },
    },
    "reports": {
        "fidelity": {  # for `headhunt reports fidelity`, which the demo does not run
            "configurations": 6,
            "seeds": 2,
            "epochs": 3,
            "copies": [0, 1, 2],
            "clean_shares": [0.5],
            "policies": [],
            "finetuned": 3,
            "finetune": {
                "augmentation": "mild",
                "unfreeze_conv_layers": 3,
                "epochs": 2,
                "learning_rate": 3e-4,
                "activation_copies": 1,
            },
            "cost_photos": 16,
        }
    },
}
"""The configuration of `headhunt demo`, without its `workdir`."""
