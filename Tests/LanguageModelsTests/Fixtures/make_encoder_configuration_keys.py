"""Writes `encoder-configuration-keys.json`, which is for encoders and encoder-decoders what `configuration-keys.json` is for
decoders (`make_configuration_keys.py`).

    pip install torch transformers
    python make_encoder_configuration_keys.py
"""
import dataclasses
import json
import pathlib

from transformers import AutoConfig
from transformers.configuration_utils import PreTrainedConfig

FAMILIES = ["bart", "mbart", "pegasus", "marian", "m2m_100", "umt5", "bert", "roberta", "modernbert", "electra", "albert",
            "mpnet", "xlm-roberta-xl", "deberta-v2", "nomic_bert"]

common = {field.name for field in dataclasses.fields(PreTrainedConfig)}
result = {}
for family in FAMILIES:
    config = AutoConfig.for_model(family)
    values = config.to_dict()
    result[family] = {field.name: values.get(field.name) for field in dataclasses.fields(type(config))
                      if field.name not in common}
path = pathlib.Path(__file__).parent / "encoder-configuration-keys.json"
path.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n")
