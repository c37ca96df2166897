import PEFTSupport

/// The default configurations of Hugging Face PEFT 0.21, by `peft_type`.
enum HuggingFaceDefaults {
    /// Fields of every configuration that don't affect the adapter's output.
    static let common: Set = [
        "task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision",
        "inference_mode",
        "runtime_config",
    ]

    static let fields: [String: [String: JSON]] = [
        "ADALORA": [
            "alora_invocation_tokens": nil, "alpha_pattern": [:], "arrow_config": nil, "beta1": 0.85, "beta2": 0.85,
            "bias": "none", "corda_config": nil, "deltaT": 1, "ensure_weight_tying": false, "eva_config": nil,
            "exclude_modules": nil, "fan_in_fan_out": false, "init_lora_weights": true, "init_r": 12,
            "kasa_config": nil, "layer_replication": nil, "layers_pattern": nil, "layers_to_transform": nil,
            "loftq_config": [:], "lora_alpha": 8, "lora_bias": false, "lora_dropout": 0.0, "lora_ga_config": nil,
            "megatron_config": nil, "megatron_core": "megatron.core", "modules_to_save": nil,
            "monteclora_config": nil, "orth_reg_weight": 0.5, "qalora_group_size": 16, "r": 8, "rank_pattern": nil,
            "target_modules": nil, "target_parameters": nil, "target_r": 8, "tfinal": 0, "tinit": 0,
            "total_step": nil, "trainable_token_indices": nil, "use_bdlora": nil, "use_dora": false,
            "use_qalora": false, "use_rslora": false, "velora_config": nil,
        ],
        "ADAPTION_PROMPT": [
            "adapter_layers": nil, "adapter_len": nil, "target_modules": nil,
        ],
        "BEFT": [
            "init_weights": true, "modules_to_save": nil, "target_modules": nil,
        ],
        "BOFT": [
            "bias": "none", "boft_block_num": 0, "boft_block_size": 4, "boft_dropout": 0.0,
            "boft_n_butterfly_factor": 1, "exclude_modules": nil, "fan_in_fan_out": false, "init_weights": true,
            "layers_pattern": nil, "layers_to_transform": nil, "modules_to_save": nil, "target_modules": nil,
        ],
        "C3A": [
            "bias": "none", "block_size": 256, "block_size_pattern": [:], "init_weights": "xavier_uniform",
            "layers_pattern": nil, "layers_to_transform": nil, "modules_to_save": nil, "target_modules": nil,
        ],
        "CARTRIDGE": [
            "modules_to_save": nil, "num_attention_heads": nil, "num_frozen_tokens": 1, "num_layers": nil,
            "num_transformer_submodules": nil, "num_virtual_tokens": nil, "token_dim": nil,
        ],
        "CPT": [
            "cpt_mask": nil, "cpt_token_ids": nil, "cpt_tokens_type_mask": nil, "modules_to_save": nil,
            "num_attention_heads": nil, "num_layers": nil, "num_transformer_submodules": nil,
            "num_virtual_tokens": nil, "opt_loss_decay_factor": 1.0, "opt_projection_epsilon": 0.1,
            "opt_projection_format_epsilon": 0.1, "opt_weighted_loss_type": "none", "token_dim": nil,
            "tokenizer_name_or_path": nil,
        ],
        "DEFT": [
            "alpha": nil, "bias": "none", "decomposition_method": "relu", "deft_dropout": 0.0,
            "exclude_modules": nil, "fan_in_fan_out": false, "init_scale": 1.0, "init_weights": true,
            "layers_pattern": nil, "layers_to_transform": nil, "modules_to_save": nil, "para": false, "r": 8,
            "target_modules": nil,
        ],
        "DELORA": [
            "bias": "none", "delora_lambda": 15, "exclude_modules": nil, "init_weights": true,
            "lambda_pattern": [:], "layers_pattern": nil, "layers_to_transform": nil, "module_dropout": 0.0,
            "modules_to_save": nil, "r": 8, "rank_pattern": [:], "target_modules": nil,
        ],
        "FOURIERFT": [
            "bias": "none", "exclude_modules": nil, "fan_in_fan_out": false, "init_weights": false,
            "layers_pattern": nil, "layers_to_transform": nil, "modules_to_save": nil, "n_frequency": 1000,
            "n_frequency_pattern": [:], "random_loc_seed": 777, "scaling": 150.0, "target_modules": nil,
        ],
        "FROD": [
            "bias": "none", "fan_in_fan_out": false, "frod_dropout": 0.0, "init_weights": true,
            "layers_pattern": nil, "layers_to_transform": nil, "modules_to_save": nil, "progressbar": true,
            "projection_prng_key": 0, "regularization_alpha": 0.001, "runtime_offload_base_weight": false,
            "save_projection": true, "sparse_rate": 0.01, "target_modules": nil,
        ],
        "GLORA": [
            "bias": "none", "config_A_B": "lora", "config_C": "lora", "config_D_E": "constant", "init_weights": true,
            "modules_to_save": nil, "r": 8, "target_modules": nil,
        ],
        "GRALORA": [
            "alpha": 64, "bias": "none", "fan_in_fan_out": false, "gralora_dropout": 0.0, "gralora_k": 2,
            "hybrid_r": 0, "init_weights": true, "layers_pattern": nil, "layers_to_transform": nil,
            "modules_to_save": nil, "r": 32, "target_modules": nil,
        ],
        "HIRA": [
            "exclude_modules": nil, "fan_in_fan_out": false, "hira_dropout": 0.0, "init_weights": true,
            "layers_pattern": nil, "layers_to_transform": nil, "modules_to_save": nil, "r": 32,
            "rank_pattern": [:], "target_modules": nil,
        ],
        "HRA": [
            "apply_GS": false, "bias": "none", "exclude_modules": nil, "init_weights": true,
            "layers_pattern": nil, "layers_to_transform": nil, "modules_to_save": nil, "r": 8,
            "target_modules": nil,
        ],
        "IA3": [
            "exclude_modules": nil, "fan_in_fan_out": false, "feedforward_modules": nil, "init_ia3_weights": true,
            "modules_to_save": nil, "target_modules": nil,
        ],
        "LN_TUNING": [
            "exclude_modules": nil, "modules_to_save": nil, "target_modules": nil,
        ],
        "LOHA": [
            "alpha": 8, "alpha_pattern": [:], "exclude_modules": nil, "init_weights": true, "layers_pattern": nil,
            "layers_to_transform": nil, "module_dropout": 0.0, "modules_to_save": nil, "r": 8, "rank_dropout": 0.0,
            "rank_pattern": [:], "target_modules": nil, "use_effective_conv2d": false,
        ],
        "LOKR": [
            "alpha": 8, "alpha_pattern": [:], "decompose_both": false, "decompose_factor": -1,
            "exclude_modules": nil, "init_weights": true, "layers_pattern": nil, "layers_to_transform": nil,
            "module_dropout": 0.0, "modules_to_save": nil, "r": 8, "rank_dropout": 0.0, "rank_dropout_scale": false,
            "rank_pattern": [:], "target_modules": nil, "use_effective_conv2d": false,
        ],
        "LORA": [
            "alora_invocation_tokens": nil, "alpha_pattern": [:], "arrow_config": nil, "bias": "none",
            "corda_config": nil, "ensure_weight_tying": false, "eva_config": nil, "exclude_modules": nil,
            "fan_in_fan_out": false, "init_lora_weights": true, "kasa_config": nil, "layer_replication": nil,
            "layers_pattern": nil, "layers_to_transform": nil, "loftq_config": [:], "lora_alpha": 8,
            "lora_bias": false, "lora_dropout": 0.0, "lora_ga_config": nil, "megatron_config": nil,
            "megatron_core": "megatron.core", "modules_to_save": nil, "monteclora_config": nil,
            "qalora_group_size": 16, "r": 8, "rank_pattern": [:], "target_modules": nil, "target_parameters": nil,
            "trainable_token_indices": nil, "use_bdlora": nil, "use_dora": false, "use_qalora": false,
            "use_rslora": false, "velora_config": nil,
        ],
        "MISS": [
            "bias": "none", "exclude_modules": nil, "init_weights": true, "layers_pattern": nil,
            "layers_to_transform": nil, "mini_r": 1, "miss_dropout": 0.0, "modules_to_save": nil, "r": 64,
            "target_modules": nil,
        ],
        "MULTITASK_PROMPT_TUNING": [
            "modules_to_save": nil, "num_attention_heads": nil, "num_layers": nil, "num_ranks": 1, "num_tasks": 1,
            "num_transformer_submodules": nil, "num_virtual_tokens": nil, "prompt_tuning_init": "RANDOM",
            "prompt_tuning_init_state_dict_path": nil, "prompt_tuning_init_task": 0, "prompt_tuning_init_text": nil,
            "token_dim": nil, "tokenizer_kwargs": nil, "tokenizer_name_or_path": nil,
        ],
        "OFT": [
            "bias": "none", "block_share": false, "coft": false, "eps": 6e-05, "exclude_modules": nil,
            "fan_in_fan_out": false, "init_weights": true, "layers_pattern": nil, "layers_to_transform": nil,
            "module_dropout": 0.0, "modules_to_save": nil, "num_cayley_neumann_terms": 5, "oft_block_size": 32,
            "r": 0, "target_modules": nil, "use_cayley_neumann": true,
        ],
        "OSF": [
            "effective_rank": nil, "init_weights": true, "modules_to_save": nil, "rank_pattern": nil,
            "target_modules": nil, "target_svd_config": nil,
        ],
        "PEANUT": [
            "act_fn": "relu", "depth": 0, "exclude_modules": nil, "init_weights": true, "layers_pattern": nil,
            "layers_to_transform": nil, "modules_to_save": nil, "r": 32, "scaling": 1.0, "target_modules": nil,
        ],
        "POLY": [
            "exclude_modules": nil, "init_weights": true, "modules_to_save": nil, "n_skills": 4, "n_splits": 1,
            "n_tasks": 1, "poly_type": "poly", "r": 8, "target_modules": nil,
        ],
        "PREFIX_TUNING": [
            "encoder_hidden_size": nil, "init_weights": nil, "modules_to_save": nil, "num_attention_heads": nil,
            "num_layers": nil, "num_transformer_submodules": nil, "num_virtual_tokens": nil,
            "prefix_projection": false, "token_dim": nil,
        ],
        "PROMPT_TUNING": [
            "modules_to_save": nil, "num_attention_heads": nil, "num_layers": nil, "num_transformer_submodules": nil,
            "num_virtual_tokens": nil, "prompt_tuning_init": "RANDOM", "prompt_tuning_init_text": nil,
            "token_dim": nil, "tokenizer_kwargs": nil, "tokenizer_name_or_path": nil,
        ],
        "PSOFT": [
            "ab_svd_init": "psoft_init", "cayley_neumann_eps": nil, "exclude_modules": nil, "fan_in_fan_out": false,
            "init_weights": true, "layers_pattern": nil, "layers_to_transform": nil, "modules_to_save": nil,
            "num_cayley_neumann_terms": 5, "psoft_alpha": 32, "psoft_dropout": 0.0, "psoft_mag_a": true,
            "psoft_mag_b": true, "psoft_orth": true, "psoft_svd": "full", "psoft_svd_lowrank_niter": 10, "r": 32,
            "random_seed": 0, "target_modules": nil, "use_cayley_neumann": false,
        ],
        "PVERA": [
            "bias": "none", "d_initial": 0.1, "fan_in_fan_out": false, "generator_seed": nil,
            "init_weights": true, "layers_pattern": nil, "layers_to_transform": nil, "modules_to_save": nil,
            "projection_prng_key": 0, "pvera_dropout": 0.0, "r": 256, "sample_at_inference": false,
            "save_projection": true, "target_modules": nil,
        ],
        "P_TUNING": [
            "encoder_dropout": 0.0, "encoder_hidden_size": nil, "encoder_num_layers": 2,
            "encoder_reparameterization_type": "MLP", "modules_to_save": nil, "num_attention_heads": nil,
            "num_layers": nil, "num_transformer_submodules": nil, "num_virtual_tokens": nil, "token_dim": nil,
        ],
        "RANDLORA": [
            "bias": "none", "fan_in_fan_out": false, "init_weights": true, "layers_pattern": nil,
            "layers_to_transform": nil, "modules_to_save": nil, "projection_prng_key": 0, "r": 32,
            "randlora_alpha": 640, "randlora_dropout": 0.0, "save_projection": true, "sparse": false,
            "target_modules": nil, "very_sparse": false,
        ],
        "ROAD": [
            "group_size": 64, "init_weights": true, "modules_to_save": nil, "target_modules": nil,
            "variant": "road_1",
        ],
        "SHIRA": [
            "fan_in_fan_out": false, "init_weights": true, "mask_type": "random", "modules_to_save": nil,
            "r": 32, "random_seed": nil, "target_modules": nil,
        ],
        "SUPERTUNING": [
            "init_weights": true, "lora_alpha": nil, "lora_dropout": 0.0, "modules_to_save": nil, "r": nil,
            "save_precomputed_indices": true, "select_top": true, "sparsity": 0.99, "target_modules": nil,
        ],
        "TINYLORA": [
            "bias": "none", "fan_in_fan_out": false, "init_v_bound": 0.02, "init_weights": true,
            "layers_pattern": nil, "layers_to_transform": nil, "modules_to_save": nil, "projection_seed": 42, "r": 2,
            "save_projection": true, "target_modules": nil, "tinylora_dropout": 0.0, "u": 64, "weight_tying": 0.0,
        ],
        "TRAINABLE_TOKENS": [
            "init_weights": true, "target_modules": nil, "token_indices": [],
        ],
        "UNILORA": [
            "bias": "none", "fan_in_fan_out": false, "init_theta_d_bound": 0.02, "init_weights": true,
            "layers_pattern": nil, "layers_to_transform": nil, "modules_to_save": nil, "proj_seed": 42, "r": 4,
            "save_indices": false, "target_modules": nil, "theta_d_length": 256, "unilora_dropout": 0.0,
        ],
        "VBLORA": [
            "bias": "none", "exclude_modules": nil, "fan_in_fan_out": false, "init_logits_std": 0.1,
            "init_vector_bank_bound": 0.02, "layers_pattern": nil, "layers_to_transform": nil,
            "modules_to_save": nil, "num_vectors": 256, "r": 4, "save_only_topk_weights": false,
            "target_modules": nil, "topk": 2, "vblora_dropout": 0.0, "vector_length": 256,
        ],
        "VERA": [
            "bias": "none", "d_initial": 0.1, "fan_in_fan_out": false, "init_weights": true, "layers_pattern": nil,
            "layers_to_transform": nil, "modules_to_save": nil, "projection_prng_key": 0, "r": 256,
            "save_projection": true, "target_modules": nil, "vera_dropout": 0.0,
        ],
        "WAVEFT": [
            "bias": "none", "exclude_modules": nil, "fan_in_fan_out": false, "init_weights": true,
            "layers_pattern": nil, "layers_to_transform": nil, "modules_to_save": nil, "n_frequency": 2592,
            "n_frequency_pattern": [:], "proportional_parameters": false, "random_loc_seed": 777,
            "scaling": 25.0, "target_modules": nil, "use_idwt": true, "wavelet_family": "db1",
        ],
    ]
}
