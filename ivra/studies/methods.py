"""Ways of training an explanation, by name: what each changes of a training configuration."""

from collections.abc import Mapping

PAPER = ("feature", "head", "layer")

METHODS: dict[str, Mapping[str, object]] = {
    "ivra-softmax": {
        "levels": PAPER,
        "reading": "coefficients",
        "coefficients_norm": "softmax",
        "saliency_norm": "softmax",
    },
    "ivra-sparsemax": {
        "levels": PAPER,
        "reading": "coefficients",
        "coefficients_norm": "sparsemax",
        "saliency_norm": "sparsemax",
    },
    "ivra-value": {"levels": (*PAPER, "value"), "reading": "gains"},
    "ivra-fidelity": {
        "levels": (*PAPER, "value", "readout"),
        "reading": "gains",
        "value_hidden": 64,
        "criteria": "fidelity",
        "options": {"fidelity": {"form": "squared", "target": "log-odds"}},
        "lr": 0.02,
    },
    "smat": {"levels": ("head",), "reading": "coefficients", "coefficients_norm": "sparsemax"},
}
"""IvRA with its two NORMs (Xie et al. 2024), ivra's own with the value level, and the explainer
of SMaT (Fernandes et al. 2022). Each is trained for the criterion of its cell but
``ivra-fidelity``, what ivra does best on faithfulness: it trains for local fidelity."""

SHARED = (
    "model",
    "data",
    "eval_data",
    "text_column",
    "pair_column",
    "label_column",
    "max_length",
    "seed",
    "finetune",
    "finetune_epochs",
    "finetune_lr",
    "finetune_weight_decay",
    "finetune_removal",
)
"""Of a training configuration, what makes the model that all methods of a study explain."""
