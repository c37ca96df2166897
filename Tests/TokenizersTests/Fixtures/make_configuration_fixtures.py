"""Writes configurations.json beside this script: what Python's transformers makes of one `tokenizer.json` with different
files `tokenizer_config.json` beside it.

    python make_configuration_fixtures.py

needs transformers and tokenizers.
"""

import json
import pathlib
import tempfile

from make_fixtures import write
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer

TEXTS = ["a b", "<s>a</s> b", "a<new>b", "a <new> b", "[PAD]a [MASK] b", "a<x>b", "A<x1>B", "<tool> a<tool>b c", "abc cab", ""]
TOKEN = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False, "special": True}
CONFIGURATIONS = {
    "nothing": {},
    "roles": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    "begin and end": {"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": True, "add_eos_token": True},
    "begin only": {"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": True, "add_eos_token": False},
    "end, nothing said of begin": {"bos_token": "<s>", "eos_token": "</s>", "add_eos_token": True},
    "neither": {"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": False, "add_eos_token": False},
    "begin without a token": {"eos_token": "</s>", "add_bos_token": True, "add_eos_token": True},
    "new pad token": {"pad_token": "[PAD]", "eos_token": "</s>"},
    "new tokens": {"pad_token": "[PAD]", "mask_token": {"content": "[MASK]", "__type": "AddedToken", **TOKEN, "lstrip": True}},
    "a piece becomes an added token": {"eos_token": "b"},
    "additional tokens": {"additional_special_tokens": ["<x>", "<new>"]},
    "extra tokens": {"extra_special_tokens": ["<x>", "<new>"]},
    "decoder's tokens": {
        "added_tokens_decoder": {
            "0": {"content": "<unk>", **TOKEN}, "12": {"content": "<x>", **TOKEN, "special": False, "rstrip": True},
            "11": {"content": "<x1>", **TOKEN, "lstrip": True}, "3": {"content": "a", **TOKEN, "single_word": True, "special": False},
        }
    },
    "known tokens with other flags": {"added_tokens_decoder": {"9": {"content": "<tool>", **TOKEN}, "1": {"content": "<s>", **TOKEN, "lstrip": True}}, "eos_token": "<tool>"},
}  # fmt: skip


def tokenizer():
    pieces = ["<unk>", "<s>", "</s>", "a", "b", "c", "Ġ", "ab", "Ġa"]
    model = models.BPE({piece: id for id, piece in enumerate(pieces)}, [("a", "b"), ("Ġ", "a")], unk_token="<unk>")
    result = Tokenizer(model)
    result.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    result.add_special_tokens(["<unk>", "<s>"])
    result.add_tokens([AddedToken("<tool>", lstrip=True)])
    result.post_processor = processors.TemplateProcessing(single="$A <s>", pair="$A <s> $B", special_tokens=[("<s>", 1)])
    return result


def case(name, configuration, folder):
    tokenizer().save(str(folder / "tokenizer.json"))
    configuration = {"tokenizer_class": "PreTrainedTokenizerFast", **configuration}
    (folder / "tokenizer_config.json").write_text(json.dumps(configuration))
    loaded = AutoTokenizer.from_pretrained(folder)
    encoded = [loaded(text)["input_ids"] for text in TEXTS]
    return {
        "name": name,
        "configuration": configuration,
        "ids": encoded,
        "decoded": [loaded.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False) for ids in encoded],
        "pair": loaded("a", "b")["input_ids"],
        "types": loaded("a", "b", return_token_type_ids=True)["token_type_ids"],
        "pad": loaded.pad_token_id, "eos": loaded.eos_token_id, "bos": loaded.bos_token_id,
        "size": len(loaded),
    }  # fmt: skip


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        cases = [case(name, configuration, pathlib.Path(folder)) for name, configuration in CONFIGURATIONS.items()]
    write("configurations.json", {"tokenizer": json.loads(tokenizer().to_str()), "texts": TEXTS, "cases": cases})
