"""Writes the golden numbers of the metrics of classes, labels, numbers, entities and vectors beside this script.

    pip install scikit-learn scipy seqeval
    python make_task_metric_fixtures.py
"""
import json
import pathlib
import random

import numpy as np
from scipy import stats
from seqeval.metrics import f1_score as entity_f1, precision_score as entity_precision, recall_score as entity_recall
from sklearn import metrics
from sklearn.preprocessing import MultiLabelBinarizer

HERE = pathlib.Path(__file__).parent
random.seed(4)
CLASSES = ["no", "yes", "maybe", "later", "café"]

classes = []
for count, flip in [(40, 0.3), (25, 0.9), (12, 0.0), (9, 1.0)]:
    right = random.choices(CLASSES, weights=[8, 4, 2, 1, 1], k=count)
    made = [random.choice(CLASSES) if random.random() < flip else r for r in right]
    classes.append(dict(predictions=made, references=right))
classes.append(dict(predictions=["no"] * 6, references=["no", "yes", "no", "no", "yes", "maybe"]))
for case in classes:
    y, x = case["references"], case["predictions"]
    case.update(accuracy=metrics.accuracy_score(y, x), macroF1=metrics.f1_score(y, x, average="macro"),
                microF1=metrics.f1_score(y, x, average="micro"), mcc=metrics.matthews_corrcoef(y, x))

labels = []
binarizer = MultiLabelBinarizer(classes=CLASSES)
for count in (30, 8):
    right = [[c for c in CLASSES[:4] if random.random() < 0.35] for _ in range(count)]
    made = [[c for c in CLASSES[:4] if (c in r) != (random.random() < 0.2)] for r in right]
    y, x = binarizer.fit_transform(right), binarizer.fit_transform(made)
    labels.append(dict(predictions=made, references=right, accuracy=metrics.accuracy_score(y, x),
                       microF1=metrics.f1_score(y, x, average="micro"),
                       macroF1=metrics.f1_score(y, x, average="macro", zero_division=0)))

numbers = []
for count, digits in [(40, 6), (30, 0), (3, 2)]:
    right = [round(random.uniform(0, 5), digits) for _ in range(count)]
    made = [round(r + random.gauss(0, 1), digits) for r in right]
    numbers.append(dict(predictions=made, references=right, pearson=stats.pearsonr(made, right)[0],
                        spearman=stats.spearmanr(made, right)[0], mse=metrics.mean_squared_error(right, made),
                        mae=metrics.mean_absolute_error(right, made)))

entities = []
TAGS = ["O", "O", "O", "B-PER", "I-PER", "B-LOC", "I-LOC", "E-PER", "S-LOC", "I-MISC", "B-X-Y", "I-X-Y"]
for tags, flip in [(TAGS[:7], 0.2), (TAGS, 0.3), (TAGS[:3], 0.0), (TAGS[3:7], 0.5)]:
    right = [random.choices(tags, k=random.randint(1, 14)) for _ in range(20)]
    made = [[random.choice(tags) if random.random() < flip else t for t in row] for row in right]
    flat = [(a, b) for r, m in zip(right, made) for a, b in zip(r, m)]
    entities.append(dict(predictions=made, references=right, entityF1=entity_f1(right, made, zero_division=0),
                         entityPrecision=entity_precision(right, made, zero_division=0),
                         entityRecall=entity_recall(right, made, zero_division=0),
                         accuracy=sum(a == b for a, b in flat) / len(flat)))

rng = np.random.default_rng(3)
queries = rng.normal(size=(20, 4)).round(3)
names = [f"d{i % 13}" for i in range(20)]
table = {name: rng.normal(size=4).round(3) for name in sorted(set(names))}
documents = [(0.6 * table[n] + 0).round(3) for n in names]
unit = lambda m: m / np.linalg.norm(m, axis=1, keepdims=True)
unique = sorted(set(names), key=names.index)
scores = unit(queries + 0.5 * np.array(documents)) @ unit(np.array([0.6 * table[n] for n in unique]).round(3)).T
own = np.array([unique.index(n) for n in names])
ranks = (scores > scores[np.arange(20), own][:, None]).sum(1) + 1
retrieval = dict(queries=(queries + 0.5 * np.array(documents)).tolist(), documents=[d.tolist() for d in documents],
                 names=names, recall1=float((ranks == 1).mean()), mrr=float((1 / ranks).mean()))

(HERE / "task-metrics.json").write_text(json.dumps(
    dict(classes=classes, labels=labels, labelNames=CLASSES, numbers=numbers, entities=entities, retrieval=retrieval),
    sort_keys=True, ensure_ascii=False) + "\n")
