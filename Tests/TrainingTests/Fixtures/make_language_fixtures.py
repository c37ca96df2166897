"""Writes small tokenizers of models that translate, with the ids that transformers gives texts of several languages.

    pip install torch transformers tokenizers
    OMP_NUM_THREADS=1 python make_language_fixtures.py

Each folder of `languages/` holds a tokenizer and `expected.json`: for pairs of languages the ids of a text, and of the same
text as a target. `generated.json` holds what the random models of `LanguageModelsTests` generate if each text of a batch
begins with the token of another language.
"""
import json
import pathlib
import shutil

import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, MBart50Tokenizer, MBartTokenizer, NllbTokenizer

HERE = pathlib.Path(__file__).parent
MODELS = HERE.parent.parent / "LanguageModelsTests" / "Fixtures" / "decoders"
LETTERS = ["▁"] + list("abcdefghijklmnopqrstuvwxyz.")
TEXT = "a cat sat on the mat."
NLLB = ["ace_Arab", "deu_Latn", "eng_Latn", "fra_Latn", "zho_Hans"]


def unigram(kind):
    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    return kind(vocab=pieces + [(letter, -float(i + 1)) for i, letter in enumerate(LETTERS)])


def bpe(**settings):
    tokens = ["<s>", "<pad>", "</s>", "<unk>"] + LETTERS
    return NllbTokenizer(
        vocab={token: i for i, token in enumerate(tokens)}, merges=[], extra_special_tokens=NLLB, **settings)


# name: tokenizer, pairs of languages
TOKENIZERS = {
    "nllb": (bpe(), [("eng_Latn", "fra_Latn"), ("deu_Latn", "zho_Hans")]),
    "nllb-legacy": (bpe(legacy_behaviour=True, src_lang="deu_Latn", tgt_lang="eng_Latn"), [("eng_Latn", "fra_Latn")]),
    "mbart": (unigram(MBartTokenizer), [("en_XX", "ro_RO"), ("de_DE", "fr_XX")]),
    "mbart50": (unigram(MBart50Tokenizer), [("en_XX", "ro_RO"), ("uk_UA", "fr_XX")]),
}


def ids(tokenizer):
    return dict(ids=tokenizer(TEXT)["input_ids"], labels=tokenizer(text_target=TEXT)["input_ids"])


def main():
    for name, (tokenizer, pairs) in TOKENIZERS.items():
        folder = HERE / "languages" / name
        shutil.rmtree(folder, ignore_errors=True)
        tokenizer.save_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        expected = dict(text=TEXT, default=ids(tokenizer), pairs=[])
        for source, target in pairs:
            tokenizer = AutoTokenizer.from_pretrained(folder, src_lang=source, tgt_lang=target)
            expected["pairs"].append(dict(
                source=source, target=target, id=tokenizer.convert_tokens_to_ids(target), **ids(tokenizer)))
        (folder / "expected.json").write_text(json.dumps(expected, sort_keys=True) + "\n")
        print(name, expected["default"], expected["pairs"][0])
    generated = []
    for name, option in [("m2m_100", "forced_bos_token_id"), ("mbart", "decoder_start_token_id")]:
        model = AutoModelForSeq2SeqLM.from_pretrained(MODELS / name, dtype=torch.float32, attn_implementation="eager").eval()
        prompts, tokens = [[5, 9, 12, 3, 1], [8, 4, 4, 7, 2, 6, 1]], [11, 23]
        for beams in (1, 3):
            texts = []
            for prompt, token in zip(prompts, tokens):
                made = model.generate(
                    torch.tensor([prompt]), max_new_tokens=8, num_beams=beams, do_sample=False, **{option: token})[0].tolist()
                texts.append(made[1:])
            generated.append(dict(model=name, option=option, beams=beams, prompts=prompts, tokens=tokens, texts=texts,
                                  end=model.generation_config.eos_token_id))
            print(name, beams, texts)
    (HERE / "languages" / "generated.json").write_text(json.dumps(generated, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
