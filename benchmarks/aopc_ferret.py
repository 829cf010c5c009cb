"""AOPC by ferret-xai itself, for ``aopc.py``; runs under an interpreter that has ferret-xai.

    PYTHON_OF_FERRET benchmarks/aopc_ferret.py FOLDER

``FOLDER`` holds a saved model with its tokenizer and ``rows.json``. Every line read from standard
input starts one run over all rows; a line of JSON with seconds and values answers it.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from ferret.evaluators.faithfulness_measures import (
    AOPC_Comprehensiveness_Evaluation,
    AOPC_Sufficiency_Evaluation,
)
from ferret.explainers.explanation import Explanation
from transformers import AutoModelForSequenceClassification, AutoTokenizer


def main() -> None:
    folder = Path(sys.argv[1])
    given = json.loads((folder / "rows.json").read_text(encoding="utf-8"))
    torch.set_num_threads(given["threads"])
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, model_max_length=given["max_length"])
    evaluators = {
        "comp": AOPC_Comprehensiveness_Evaluation(model, tokenizer),
        "suff": AOPC_Sufficiency_Evaluation(model, tokenizer),
    }
    removal = {"remove_tokens": True, "based_on": "perc", "thresholds": given["shares"]}
    explanations = [
        Explanation(
            text=row["text"],
            tokens=tokenizer.convert_ids_to_tokens(row["ids"]),
            scores=np.array(row["scores"]),
            explainer="given",
            target=row["target"],
        )
        for row in given["rows"]
    ]
    print("ready", flush=True)
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        values = {
            name: [
                float(
                    evaluator.compute_evaluation(one, one.target, removal_args=dict(removal)).score
                )
                for one in explanations
            ]
            for name, evaluator in evaluators.items()
        }
        seconds = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        print(json.dumps({"seconds": seconds, **values}), flush=True)


if __name__ == "__main__":
    main()
