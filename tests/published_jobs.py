"""The 25 job files of a published study, from a table of what differs between them.

From https://github.com/ddcoggan/DNN_natural_occlusion (MIT, Copyright (c) 2025 David Coggan), commit 112109f,
`models/training/configs/*.json`, where `Occlusion.occluder_dir` is a path of its author's: here it is an argument.
"""

from copy import deepcopy
from typing import Any

_OF_ALL: dict[str, Any] = {
    "amp": True,
    "architecture_args": {},
    "batch_dependence": False,
    "batch_size": 32,
    "checkpoint": 0,
    "criterion": "CrossEntropyLoss",
    "cutmix": None,
    "dataset": "ILSVRC2012",
    "finetune": False,
    "finetune_args": {},
    "image_size": 224,
    "num_epochs": 90,
    "num_views": 1,
    "optimizer": "SGD",
    "optimizer_args": {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.0001},
    "primary_metric": "acc1",
    "save_interval": None,
    "scheduler": "StepLR",
    "scheduler_args": {"gamma": 0.1, "step_size": 30},
    "swa": None,
    "transform_type": "contrastive-weak-resize",
}
_OF_CORNET: dict[str, Any] = {
    "batch_size": 256,
    "num_epochs": 43,
    "scheduler_args": {"gamma": 0.1, "step_size": 20},
}
_OF_SIMCLR: dict[str, Any] = {
    "amp": False,
    "criterion": "SimCLRLoss",
    "num_views": 2,
    "primary_metric": "SimCLRLoss",
}
_OF_VIT: dict[str, Any] = {
    "batch_size": 512,
    "num_epochs": 300,
    "optimizer": "AdamW",
    "optimizer_args": {"lr": 0.003, "weight_decay": 0.3},
    "save_interval": 10,
    "scheduler": "CosineAnnealingLR",
    "scheduler_args": {"T_max": 270, "eta_min": 0},
    "video": False,
    "view_dependence": False,
    "warmup_scheduler": "LinearLR",
    "warmup_scheduler_args": {"start_factor": 0.033, "total_iters": 30},
}
_NETWORKS: dict[str, dict[str, Any]] = {
    "cornet_s_plus__classification": _OF_CORNET,
    "cornet_s_plus__simclr": {**_OF_CORNET, **_OF_SIMCLR},
    "efficientnet_b1__classification": {},
    "resnet101__classification": {},
    "vit_b_16__classification": _OF_VIT,
}
_FORMS: dict[str, Any] = {
    "no_occlusion": None,
    "natural": "natural",
    "natural_silhouette": "natural_silhouette",
    "artificial_1": [
        "horizontal_bars_04", "vertical_bars_04", "oblique_bars_04", "cardinal_crossed_bars", "oblique_crossed_bars",
        "mud_splash", "polkadot", "polkasquare",
    ],
    "artificial_2": [
        "curved_lines", "straight_lines", "empty_rectangles", "filled_rectangles", "empty_triangles",
        "filled_triangles", "empty_ellipses", "filled_ellipses",
    ],
}  # fmt: skip


def published_jobs(occluder_dir: str = "OCCLUDER_DIR") -> dict[str, dict[str, Any]]:
    """The jobs by their names, each a copy of its own."""
    jobs = {}
    for network, own in _NETWORKS.items():
        for condition, form in _FORMS.items():
            name = f"{network}__{condition}"
            folder = "models" if name == "vit_b_16__classification__artificial_1" else "models/training"
            job = {**_OF_ALL, **own, "architecture": network.partition("__")[0], "model_dir": f"{folder}/{name}"}
            if form is not None:
                job["Occlusion"] = {
                    "color": "random",
                    "form": form,
                    "occluder_dir": occluder_dir,
                    "probability": 0.8,
                    "views": [0],
                    "visibility": [*([] if network.startswith("cornet") else [0.5]), 0.6, 0.7, 0.8, 0.9],
                }
            jobs[name] = deepcopy(job)
    return jobs
