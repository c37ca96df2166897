#!/usr/bin/env python3
"""Writes the golden numbers of the metric tests beside this script.

    pip install rouge_score==0.1.2 sacrebleu==2.6.0 nltk==3.10.4
    python make_metric_fixtures.py

- porter.json: words built from stems and suffixes, with NLTK's stems.
- pairs.json: texts built from a word list, with ROUGE and BLEU.
- dialogsum.json: numbers only, for rows of DialogSum's test file where it lies beside the package in
  shared/data/dialogsum (summary1 against summary2, and against summary2 and summary3).
"""

import json
import pathlib
import random

import nltk
import sacrebleu
from nltk.stem.porter import PorterStemmer
from rouge_score import rouge_scorer

HERE = pathlib.Path(__file__).resolve().parent
SHARED = HERE.parents[3] / "shared" / "data" / "dialogsum" / "dialogsum.test.jsonl"
VARIANTS = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
SOURCE = {
    "script": "make_metric_fixtures.py",
    "nltk": nltk.__version__,
    "sacrebleu": sacrebleu.__version__,
    "rouge_score": "0.1.2",
}

STEMS = """
    a be by do eye fly try spy toy tie die lie dye sky ski news inning outing canning howe proceed exceed succeed
    agree feed bleed free tree plaster motor sing ring hop hopp tan tann fall hiss fizz fail fil file fall roll
    controll control compell conflat troubl siz happ enjoy pony cat caress relat condit ration valenc hesitanc
    digit conform radic nation differ vil analog vietnam predic oper feud decis hope call formal sensit sensib
    triplic form electr good reviv allow infer airlin gyroscop adjust defens irrit replac depend adopt homolog
    commun activ angular effect bowdler probat rate ceas geo theo archaeo philo bio apolog ideolog use care
    beaut duti yell yyy yes yak syzygy oyster x box mix row bow play obey key 3d 1990 4x4 mp3 b2b 100 7up
    generaliz oscillat knack knit queue aqua ooze eau tsk hmm rhythm myth nymph
""".split()

SUFFIXES = """
    s es ies ied ss sses ed eed ing at bl iz y ly ily ally alli ational tional enci anci encies ancies izer bli ably
    ibly alli entli ently eli ely ousli ously ization isation ation ator ators alism iveness fulness ousness aliti
    ality iviti ivity biliti bility fulli fully logi logy logies logical icate icates ative alize alized iciti
    icity ical ically ful ness nesses al ance ence er ers ic able ible ant ement ements ment ments ent ion sion
    tion ions ou ism isms ate ated iti ous ive ize ized izing e ee ll lle lled lling tted tting bbed gging ss
    sing ying yed yies 's 2 s2
""".split()

WORDS = """
    the a an of and to was is in it on for with meeting meetings meet met report reports reported reporting plan
    plans planned planning quickly quick relation relational relations happy happily happiness unhappiness flies
    flying dying lying tying skies sky news generalization generalizations oscillators controlling controlled
    controls troubled trouble hopping hoped hoping argument arguments argue argued rational rationalize
    electricity electrical electric adjustment adjustable replacement dependent irritant homologous effective
    effectively apology apologies biology biological fulfil fully hopefully national nationality sensibility
    proceed exceed succeed proceeds agreed agreeing feed feeding inning innings ties tied dies died cries cried
    café naïve résumé Zürich straße ÉCOLE İstanbul 5K Ωmega 東京 🙂 don't it's mother-in-law state-of-the-art
    3.14 1,000 10-20 $5.99 50% #Person1# #Person2# U.S. e.g. i.e., Mr. end. (yes) [no] {maybe} <skipped> &amp;
    &lt;b&gt; "quoted" 'single' a/b x=y C++ semi;colon colon:colon what?! ... -- – — email@example.com A1B2 2nd
    &quot;said&quot; &amp;lt; .5 ,, 1.2.3 9- 9-a -9 ~ ^ ` | \\ _under_score_ ®
""".split()

FIXED = [
    ("", [""]),
    ("", ["a reference"]),
    ("a prediction", [""]),
    ("   ", ["\n\n"]),
    ("...", ["!!!"]),
    ("same text here now", ["same text here now"]),
    ("same words different order", ["order different words same"]),
    ("the the the the the the the", ["the cat is on the mat", "there is a cat on the mat"]),
    ("one", ["one"]),
    ("one two", ["one two"]),
    ("one two three", ["one two three"]),
    ("one two three four", ["one two three four", "four"]),
    ("line one\nline two", ["line two\nline one"]),
    ("line one\r\nline two\r\n", ["line one line two\n\n\nline three"]),
    ("hyphen-\nated words", ["hyphenated words"]),
    ("tab\tand\u00a0no-break\u2003spaces \u2028 here", ["tab and no break spaces here"]),
    ("unit\u001fseparated text \u001c", ["unit separated text"]),
    ("e\u0301cole and \u00e9cole", ["école and e\u0301cole"]),
    ("\u212a is kelvin, \u0130 is dotted", ["k is kelvin i is dotted"]),
    ("a b c d e f g", ["a c e g b d f", "g f e d c b a", "a b c d e f g h"]),
    ("He said, \"5,000.50 dollars.\"", ["He said \"5000.50 dollars\" .", "She said 5,000.50 dollars."]),
    ("a.b.c.,d,,e 1.,2", ["a . b . c . , d , , e 1 . , 2"]),
]


def sentence(random, low, high):
    words = [random.choice(WORDS) for _ in range(random.randint(low, high))]
    words = [w.upper() if random.random() < 0.05 else w for w in words]
    return random.choice([" ", " ", "  "]).join(words) + random.choice(["", ".", "!", " ?", ","])


def text(random):
    lines = [sentence(random, 0, 14) for _ in range(random.choice([1, 1, 1, 2, 3, 4]))]
    return "\n".join(lines)


def variation(random, source):
    """The same text with words dropped, swapped and repeated, so that long subsequences stay."""
    lines = []
    for line in source.split("\n"):
        words = line.split(" ")
        out = []
        for word in words:
            roll = random.random()
            if roll < 0.15:
                continue
            if roll < 0.25:
                out.append(random.choice(WORDS))
            out.append(word)
            if roll > 0.95:
                out.append(word)
        if out and random.random() < 0.3:
            i = random.randrange(len(out))
            out[i:i + 2] = reversed(out[i:i + 2])
        lines.append(" ".join(out))
    if random.random() < 0.4:
        random.shuffle(lines)
    return "\n".join(lines)


def rounded(score):
    return [round(float(v), 7) for v in (score.precision, score.recall, score.fmeasure)]


def rouge(scorer, prediction, references):
    if len(references) == 1:
        scores = scorer.score(references[0], prediction)
    else:
        scores = scorer.score_multi(references, prediction)
    return {variant: rounded(scores[variant]) for variant in VARIANTS}


def corpus_bleu(pairs):
    most = max(len(references) for _, references in pairs)
    streams = [[r[i] if i < len(r) else None for _, r in pairs] for i in range(most)]
    bleu = sacrebleu.BLEU(force=True).corpus_score([p for p, _ in pairs], streams)
    return round(bleu.score / 100, 12)


def statistics(prediction, references):
    bleu = sacrebleu.BLEU(force=True)
    (row,) = bleu._extract_corpus_statistics([prediction], [[r] for r in references])
    return [int(v) for v in row]


def write(name, value):
    with open(HERE / name, "w", encoding="utf-8") as file:
        json.dump(value, file, ensure_ascii=True, separators=(",", ":"))
        file.write("\n")


def main():
    stemmer = PorterStemmer()
    words = sorted({
        w.replace("'", "") for stem in STEMS for w in [stem] + [stem + suffix for suffix in SUFFIXES]
    })
    words = [w for w in words if all(c in "abcdefghijklmnopqrstuvwxyz0123456789" for c in w)]
    # Every stem, and enough of its forms; all 16,000 would only make the file larger.
    words = sorted(set(random.Random(7).sample(words, 6000)) | {w for w in words if w in STEMS})
    write("porter.json", {"source": SOURCE, "stems": {w: stemmer.stem(w) for w in words}})

    stemmed = rouge_scorer.RougeScorer(VARIANTS, use_stemmer=True)
    plain = rouge_scorer.RougeScorer(VARIANTS, use_stemmer=False)
    generator = random.Random(20240607)
    pairs = list(FIXED)
    for _ in range(240):
        reference = text(generator)
        references = [reference] + [variation(generator, reference) for _ in range(generator.choice([0, 0, 1, 2]))]
        prediction = variation(generator, reference) if generator.random() < 0.85 else text(generator)
        pairs.append((prediction, references))
    rows = []
    for prediction, references in pairs:
        rows.append({
            "prediction": prediction,
            "references": references,
            "stemmed": rouge(stemmed, prediction, references),
            "plain": rouge(plain, prediction, references),
            "bleu": corpus_bleu([(prediction, references)]),
            "statistics": statistics(prediction, references),
        })
    # Parts of the list as corpora: with the edge cases, without them, one reference only.
    corpora = [[0, 22], [22, len(pairs)], [0, len(pairs)], [40, 60], [100, 103]]
    write("pairs.json", {
        "source": SOURCE,
        "rows": rows,
        "corpora": [{"rows": c, "bleu": corpus_bleu(pairs[c[0]:c[1]])} for c in corpora],
    })

    if not SHARED.exists():
        print(f"{SHARED} is absent: dialogsum.json stays as it is")
        return
    with open(SHARED, encoding="utf-8") as file:
        summaries = [[json.loads(line)[f"summary{i}"] for i in (1, 2, 3)] for line in file]
    numbers = []
    for line, (first, second, third) in enumerate(summaries, start=1):
        numbers.append({
            "line": line,
            "single": rouge(stemmed, first, [second]),
            "multiple": rouge(stemmed, first, [second, third]),
        })
    write("dialogsum.json", {
        "source": SOURCE,
        "rows": numbers,
        "bleuSingle": corpus_bleu([(a, [b]) for a, b, _ in summaries]),
        "bleuMultiple": corpus_bleu([(a, [b, c]) for a, b, c in summaries]),
    })


if __name__ == "__main__":
    main()
