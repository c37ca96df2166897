"""Writes adapters over projections and norms that Hugging Face PEFT made (see hugging_face.py).

    pip install torch transformers peft safetensors
    OMP_NUM_THREADS=1 python make_projection_fixtures.py
"""
from peft import IA3Config, LNTuningConfig, LoHaConfig, LoKrConfig, VeraConfig

from hugging_face import jitter, write

SEQ2SEQ = dict(task_type="SEQ_2_SEQ_LM")
Q0 = "encoder.block.0.layer.0.SelfAttention.q"
WO1 = "decoder.block.1.layer.2.DenseReluDense.wo"

if __name__ == "__main__":
    write("vera", "t5-v1.1", 5e-3, VeraConfig(r=8, target_modules=["q", "wo"], projection_prng_key=7, **SEQ2SEQ), [Q0, WO1])
    # Without the shared matrices: a reader has to draw the same ones.
    write("vera-key", "t5-v1.0", 5e-3,
          VeraConfig(r=5, target_modules=["q", "v"], projection_prng_key=3, save_projection=False, d_initial=0.3,
                     layers_to_transform=[0], layers_pattern=["block"], **SEQ2SEQ), [Q0])
    write("loha", "t5-v1.1", 2e-3,
          LoHaConfig(r=3, alpha=6, target_modules=["q", "wo"], rank_pattern={"wo": 2}, alpha_pattern={"q": 5}, **SEQ2SEQ),
          [Q0, WO1], lambda model: jitter(model, 0.3))
    write("lokr", "t5-v1.1", 2e-3,
          LoKrConfig(r=2, alpha=3, target_modules=["q", "wo"], exclude_modules=["EncDecAttention.q"], **SEQ2SEQ), [Q0, WO1])
    write("lokr-both", "t5-v1.0", 2e-3,
          LoKrConfig(r=1, alpha=2, target_modules=["k", "wi"], decompose_both=True, decompose_factor=4,
                     init_weights="lycoris", **SEQ2SEQ), ["encoder.block.0.layer.0.SelfAttention.k"],
          lambda model: jitter(model, 0.3))
    write("ia3", "t5-v1.1", 5e-3, IA3Config(target_modules=["k", "v", "wo"], feedforward_modules=["wo"], **SEQ2SEQ),
          ["encoder.block.0.layer.0.SelfAttention.k", WO1], lambda model: jitter(model, 0.3))
    write("ia3-pattern", "t5-v1.0", 5e-3,
          IA3Config(target_modules=r".*block\.1.*\.(q|wi)", feedforward_modules=r".*\.wi", **SEQ2SEQ),
          ["encoder.block.1.layer.0.SelfAttention.q"], lambda model: jitter(model, 0.3))
    write("layer-norm", "t5-v1.1", 2e-3, LNTuningConfig(**SEQ2SEQ), (), lambda model: jitter(model, 0.2))
    write("layer-norm-final", "t5-v1.0", 2e-3, LNTuningConfig(target_modules=["final_layer_norm"], **SEQ2SEQ), (),
          lambda model: jitter(model, 0.2))
