"""Writes LoRA adapters with what may stand beside projections: embeddings, modules trained in full, biases, tokens.

    pip install torch transformers peft safetensors
    OMP_NUM_THREADS=1 python make_extras_fixtures.py

"""
from peft import LoraConfig, TrainableTokensConfig

from hugging_face import write

TOKENS = [2, 5, 39, 80]

if __name__ == "__main__":
    def lora(name, base, rate, **settings):
        write(name, base, rate, LoraConfig(task_type="SEQ_2_SEQ_LM", r=2, lora_alpha=4, **settings))

    # T5's stacks look up in tables of their own, which share their numbers: `shared` itself is looked up in nowhere.
    lora("embeddings", "t5-tied-gated", 2e-3, target_modules=["q", "embed_tokens", "relative_attention_bias"])
    lora("modules-to-save", "t5-v1.1", 1e-3, target_modules=["q", "v"], modules_to_save=["lm_head", "final_layer_norm"])
    lora("attention-to-save", "t5-v1.0", 1e-3, target_modules=["q", "v"], modules_to_save=["SelfAttention"])
    lora("update-bias", "t5-v1.0", 2e-3, target_modules=["q", "v"], lora_bias=True)
    lora("tokens", "t5-tied-gated", 2e-3, target_modules=["q"], trainable_token_indices=TOKENS)
    lora("tokens-by-table", "t5-tied-gated", 2e-3, target_modules=["q"],
         trainable_token_indices={"encoder.embed_tokens": TOKENS})
    write("trainable-tokens", "t5-tied-gated", 2e-3,
          TrainableTokensConfig(task_type="SEQ_2_SEQ_LM", token_indices=TOKENS))
