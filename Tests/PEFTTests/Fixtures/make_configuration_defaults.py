"""Writes what Hugging Face PEFT's configurations say where nothing is set, for the methods that are read here.

    pip install peft
    python make_configuration_defaults.py

`configuration-defaults.json` maps each `peft_type` to the fields of its configuration with their defaults. Fields of all
configurations (`peft_type`, the base's name and the like) and those that no file holds are left out.
"""
import dataclasses
import json
from pathlib import Path

from peft.config import PeftConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

TYPES = ["LORA", "ADALORA", "IA3", "VERA", "OFT", "BOFT", "LOHA", "LOKR", "LN_TUNING", "PROMPT_TUNING", "P_TUNING",
         "PREFIX_TUNING", "MULTITASK_PROMPT_TUNING", "TRAINABLE_TOKENS",
         "MISS", "HIRA", "SHIRA", "GRALORA", "C3A", "RANDLORA", "DELORA", "ROAD", "FOURIERFT", "WAVEFT", "VBLORA", "PVERA", "HRA"]
TYPES += ["ADAPTION_PROMPT", "BEFT", "CARTRIDGE", "CPT", "DEFT", "FROD", "GLORA", "OSF", "PEANUT", "PSOFT",
          "SUPERTUNING", "TINYLORA", "UNILORA", "POLY"]
common = {field.name for field in dataclasses.fields(PeftConfig)} | {"runtime_config"}


def default(field):
    if field.default is not dataclasses.MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else None


table = {}
for kind, configuration in PEFT_TYPE_TO_CONFIG_MAPPING.items():
    if kind in TYPES:
        fields = dataclasses.fields(configuration)
        table[str(kind.value)] = {f.name: default(f) for f in fields if f.name not in common}
target = Path(__file__).parent / "configuration-defaults.json"
target.write_text(json.dumps(table, indent=1, sort_keys=True) + "\n")
