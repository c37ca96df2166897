"""Writes LoRAs with the switches of Hugging Face PEFT's newer LoraConfig over a small Llama (see hugging_face.py).

    pip install torch transformers 'peft>=0.21' safetensors attrs
    OMP_NUM_THREADS=1 python make_lora_switch_fixtures.py [NAME…]

The same things are stored as for the seq2seq models, in folders `hugging-face/<name>`. Weights of the base that an
initialization changed are stored too (`base.*`), where the file alone doesn't say how.
"""
import json
import shutil
import sys

import torch
from peft import LoraConfig, LoraGAConfig, get_peft_model
from peft.tuners.lora.config import BdLoraConfig, CordaConfig, KasaConfig, MontecloraConfig, VeloraConfig
from peft.tuners.lora.corda import preprocess_corda
from peft.tuners.lora.loraga import preprocess_loraga
from transformers import AutoModelForCausalLM

from decoder_adapters import conditioned_losses, gradients, inputs, store, target_logits
from hugging_face import HERE, MODELS, jitter

BASE = "llama"
SVD = torch.linalg.svd
Q, V, O, DOWN = (f"model.layers.0.{name}_proj" for name in ("self_attn.q", "self_attn.v", "self_attn.o", "mlp.down"))
# The invocation is twice in the first row, in the target of the second, and not in the third.
INVOKED = [([39, 7, 9, 89, 12, 90, 7, 9, 74, 56], [40, 74, 60, 43, 1]), ([36, 11, 83, 71, 51, 88], [43, 18, 7, 9, 67, 1]),
           ([54, 13, 7, 88, 9, 12], [33, 41, 1])]


def base():
    model = AutoModelForCausalLM.from_pretrained(MODELS / BASE, dtype=torch.float32, attn_implementation="eager")
    model.config._name_or_path = model.name_or_path = BASE
    return model


def write(name, config, merged=(), rate=1e-3, rows=None, prepare=None, changes_base=False, deviation=0.1, trains=True):
    """prepare(model, config, rows) runs before the adapter is made. trains: False computes as in evaluation, for
    variants that draw random numbers in training."""
    if len(sys.argv) > 1 and name not in sys.argv[1:]:
        return
    torch.manual_seed(sum(map(ord, name)))
    torch.linalg.svd = SVD
    model = base()
    data = rows or json.loads((MODELS / BASE / "expected.json").read_text())["rows"]
    original = {key: value.clone() for key, value in model.state_dict().items()}
    config.task_type = "CAUSAL_LM"
    if prepare:
        prepare(model, config, data)
    prepared = {key: value.clone() for key, value in model.state_dict().items() if not torch.equal(value, original[key])}
    peft = get_peft_model(model, config)
    peft.peft_config["default"].base_model_name_or_path = BASE
    jitter(peft, deviation)
    folder = HERE / "hugging-face" / name
    shutil.rmtree(folder, ignore_errors=True)
    peft.save_pretrained(folder)
    (folder / "README.md").unlink()
    peft.train(trains)
    out = peft(**inputs(data))
    out.loss.backward()
    tensors = {"logits": target_logits(out, data)}
    tensors |= {"base." + key: value for key, value in prepared.items()}
    if changes_base:
        for key, value in peft.base_model.model.state_dict().items():
            key = key.replace(".base_layer", "")
            if key in original and not torch.equal(value, original[key]):
                tensors["base." + key] = value.clone()
        assert any(key.startswith("base.") for key in tensors)
    tensors |= gradients(peft)
    curve, drift = conditioned_losses(name, peft, data, rate)
    store(folder, tensors, peft, merged, base=BASE, rows=data, loss=out.loss.item(), losses=curve, rate=rate)
    print(f"{name}: loss {out.loss.item():.4f}, after 20 steps {curve[-1]:.4f}, drift {drift:.1e}")


def mixed():
    """Three adapters in one batch, in folders `activated/<name>`: logits of the last prompt tokens and greedy texts."""
    folder = HERE / "activated"
    if len(sys.argv) > 1 and folder.name not in sys.argv[1:]:
        return
    torch.manual_seed(5)
    common = dict(r=3, lora_alpha=6, task_type="CAUSAL_LM", target_modules=["q_proj", "k_proj", "v_proj", "down_proj"])
    configs = {"pair": LoraConfig(alora_invocation_tokens=[7, 9], **common), "single": LoraConfig(alora_invocation_tokens=[7], **common),
               "plain": LoraConfig(**common)}
    peft = get_peft_model(base(), configs["pair"], adapter_name="pair")
    for name in ("single", "plain"):
        peft.add_adapter(name, configs[name])
    with torch.no_grad():
        for key, parameter in peft.named_parameters():
            if "lora_" in key:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    peft.eval()
    for config in peft.peft_config.values():
        config.base_model_name_or_path = BASE
    shutil.rmtree(folder, ignore_errors=True)
    peft.save_pretrained(folder)
    (folder / "README.md").unlink()
    # The invocation ends a prompt, is in its middle, twice, only in part, or missing.
    cases = [("pair", [39, 68, 81, 7, 9]), ("pair", [7, 9, 12, 90, 74, 89, 7, 9, 56, 31, 40, 37]), ("pair", [36, 11, 83, 71, 51, 7]),
             ("single", [54, 13, 7]), ("single", [7, 12, 45, 21, 62, 33, 41, 82]), ("plain", [39, 7, 9, 12]), ("__base__", [7, 9, 81, 12]),
             ("pair", [62, 35, 26, 38, 86, 20]), ("single", [88, 12, 45])]
    width = max(len(x) for _, x in cases)
    ids = torch.tensor([[0] * (width - len(x)) + x for _, x in cases])
    mask = torch.tensor([[0] * (width - len(x)) + [1] * len(x) for _, x in cases])
    names = [name for name, _ in cases]
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    logits = peft(input_ids=ids, attention_mask=mask, position_ids=positions, adapter_names=names).logits[:, -1]
    texts = peft.generate(input_ids=ids, attention_mask=mask, adapter_names=names, max_new_tokens=8, min_new_tokens=8, do_sample=False, pad_token_id=0)
    save_file({"logits": logits.detach().contiguous()}, folder / "expected.safetensors")
    (folder / "expected.json").write_text(json.dumps(dict(
        adapters=names, prompts=[x for _, x in cases], texts=texts[:, width:].tolist()), sort_keys=True) + "\n")
    print("activated:", texts[:, width:].tolist())


def decompose_in_double(model, config, data):
    """KaSA's decomposition in single precision has a rounding error of 1e-6 of the weight, as much as the tests allow."""
    torch.linalg.svd = lambda weight, full_matrices: tuple(part.float() for part in SVD(weight.double(), full_matrices=full_matrices))


def covariances(model, config, data):
    """CorDA's pass over the data, one example at a time."""
    def run():
        for x, y in data:
            model(input_ids=torch.tensor([x + y]))
    preprocess_corda(model, config, run_model=run)


def gradients(model, config, data):
    """LoRA-GA's pass over the data."""
    preprocess_loraga(model, config, lambda: model(**inputs(data)).loss.backward())


if __name__ == "__main__":
    mixed()
    common = dict(r=3, lora_alpha=6)
    # Hugging Face PEFT can't merge it.
    write("alora", LoraConfig(target_modules=["q_proj", "k_proj", "v_proj", "down_proj"], alora_invocation_tokens=[7, 9], **common),
          rows=INVOKED)
    write("alora-bias", LoraConfig(target_modules=["v_proj", "o_proj"], alora_invocation_tokens=[7], lora_bias=True, **common),
          rows=INVOKED)
    write("mica", LoraConfig(target_modules=["q_proj", "down_proj", "embed_tokens"], init_lora_weights="mica", **common),
          merged=[Q, DOWN, "model.embed_tokens"])
    write("kasa", LoraConfig(target_modules=["q_proj", "v_proj", "down_proj"], kasa_config=KasaConfig(beta=0.01), **common),
          merged=[Q, V, DOWN], prepare=decompose_in_double)
    # Averages over a batch include padding and last tokens, so this one is compared as in evaluation.
    write("velora-average", LoraConfig(target_modules=["q_proj", "down_proj"], velora_config=VeloraConfig(num_groups=3), **common),
          merged=[Q, DOWN], trains=False)
    write("velora", LoraConfig(target_modules=["q_proj", "v_proj", "down_proj"],
                               velora_config=VeloraConfig(num_groups=3, scale=0.7, init_type="random"), **common), merged=[Q, DOWN])
    write("bdlora", LoraConfig(r=4, lora_alpha=6, target_modules=["q_proj", "v_proj", "o_proj", "down_proj"],
                               use_bdlora=BdLoraConfig(target_modules_bd_a=["o_proj", "down_proj"], target_modules_bd_b=["q_proj"], nblocks=2,
                                                       match_strict=False)), merged=[Q, V, O, DOWN])
    write("monteclora", LoraConfig(target_modules=["q_proj", "v_proj"], monteclora_config=MontecloraConfig(num_samples=2, buffer_size=2), **common),
          merged=[Q], trains=False)
    # Layers 0, 1, 1, 2, of which Hugging Face PEFT merges none.
    write("replication", LoraConfig(target_modules=["q_proj", "v_proj", "down_proj"], layer_replication=[[0, 2], [1, 3]],
                                    rank_pattern={"layers.2.*q_proj": 2}, **common))
    write("corda", LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights="corda", corda_config=CordaConfig(corda_method="kpm"), **common),
          merged=[Q], prepare=covariances, changes_base=True)
    write("lora-ga", LoraConfig(target_modules=["q_proj", "down_proj"], init_lora_weights="lora_ga", lora_ga_config=LoraGAConfig(stable_gamma=8),
                                **common), merged=[Q], prepare=gradients, changes_base=True)
