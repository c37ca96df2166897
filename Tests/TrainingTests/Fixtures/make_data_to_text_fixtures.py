#!/usr/bin/env python3
"""Writes data-to-text.json beside this script: NIST, CIDEr and METEOR of the texts in pairs.json.

    pip install sacrebleu==2.6.0 nltk==3.10.4 pycocoevalcap==1.2 numpy
    python make_data_to_text_fixtures.py

NIST of single references and METEOR come from NLTK (with an empty WordNet), CIDEr from pycocoevalcap. NLTK takes the best
reference per order where there are several, while mteval clips counts over all of them: for several references the formula
is written out here.
"""
import collections
import json
import math
import pathlib

import nltk
from nltk.stem.porter import PorterStemmer
from nltk.translate.meteor_score import meteor_score
from nltk.translate.nist_score import corpus_nist
from pycocoevalcap.cider.cider_scorer import CiderScorer
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

HERE = pathlib.Path(__file__).resolve().parent
tokenizer = Tokenizer13a()


class NoSynonyms:
    def synsets(self, word):
        return []


def tokens(text):
    return tokenizer(text.lower()).split()


def nist(predictions, references, longest=5):
    grams = lambda words, n: collections.Counter(tuple(words[i:i + n]) for i in range(len(words) - n + 1))
    total, seen = 0, collections.Counter()
    for row in references:
        for reference in row:
            total += len(reference)
            for n in range(1, longest + 1):
                seen.update(grams(reference, n))
    score = 0
    for n in range(1, longest + 1):
        bits, count = 0.0, 0
        for prediction, row in zip(predictions, references):
            own, others = grams(prediction, n), [grams(r, n) for r in row]
            count += sum(own.values())
            for gram, times in own.items():
                hit = min(times, max(o[gram] for o in others))
                if hit:
                    bits += hit * math.log2((seen[gram[:-1]] if n > 1 else total) / seen[gram])
        score += bits / count if count else 0
    ratio = min(1, sum(map(len, predictions)) / sum(sum(map(len, row)) / len(row) for row in references))
    return score * math.exp(math.log(0.5) / math.log(1.5) ** 2 * math.log(ratio) ** 2)


def main():
    rows = json.loads((HERE / "pairs.json").read_text())["rows"]
    predictions = [tokens(row["prediction"]) for row in rows]
    references = [[tokens(text) for text in row["references"]] for row in rows]
    stemmer = PorterStemmer()
    meteor = [meteor_score(r, p, stemmer=stemmer, wordnet=NoSynonyms()) for p, r in zip(predictions, references)]
    words = lambda text: " ".join(token for token in text if any(c.isalnum() for c in token))
    scorer = CiderScorer(n=4, sigma=6.0)
    for p, r in zip(predictions, references):
        scorer += (words(p), [words(text) for text in r])
    _, cider = scorer.compute_score()
    single = [i for i, r in enumerate(references) if len(r) == 1 and r[0] and predictions[i]]
    value = {
        "source": {"script": "make_data_to_text_fixtures.py", "nltk": nltk.__version__, "pycocoevalcap": "1.2"},
        "meteor": [round(x, 9) for x in meteor],
        "cider": [round(float(x), 9) for x in cider],
        "nist": nist(predictions, references),
        "singleRows": single,
        "nistSingle": corpus_nist([references[i] for i in single], [predictions[i] for i in single], n=5),
        "nistSingleFormula": nist([predictions[i] for i in single], [references[i] for i in single]),
    }
    with open(HERE / "data-to-text.json", "w") as file:
        json.dump(value, file, separators=(",", ":"))
        file.write("\n")
    print(value["nist"], value["nistSingle"], value["nistSingleFormula"])


main()
