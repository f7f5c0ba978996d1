"""Other names: what other projects call our settings, so that a refusal can name ours.

Belongs here: names that people bring along from librosa, PyTorch, Keras, scikit-learn and their like. Does not belong
here: the settings (``specs``), the comparing of names (``suggestions``).
"""

from collections.abc import Mapping

from heimdall_assets.kinds import (
    APPROVED_MEASUREMENTS,
    CHAMPION_MODEL,
    EVALUATION_METRICS,
    HYPERPARAMETER_SEARCH,
    IQ_FILES,
    MODEL_RELEASE,
    ONNX_MODEL,
    SPECTROGRAM_FEATURES,
    TEST_SPLIT,
    TRAINED_CHECKPOINT,
    VAL_SPLIT,
)

# fmt: off
OTHER_SPECS: Mapping[str, tuple[str, ...]] = {
    "DatasetSpec": ("DataSpec", "SnapshotSpec", APPROVED_MEASUREMENTS),
    "TimingSpec": ("ClockSpec",),
    "FeatureSpec": ("SpectrogramSpec", "MelSpec", SPECTROGRAM_FEATURES),
    "RecordingSpec": ("IqSpec", IQ_FILES),
    "DelaySpec": ("CorrelationSpec", "TdoaSpec"),
    "AugmentationSpec": ("AugmentSpec", "TransformSpec"),
    "SplitSpec": ("SplitsSpec", "FoldSpec"),
    "ModelSpec": ("NetworkSpec", "ArchitectureSpec"),
    "TrainingSpec": ("TrainerSpec", "TrainSpec", "OptimizerSpec", "FitSpec", TRAINED_CHECKPOINT),
    "MachineSpec": ("HardwareSpec", "DataLoaderSpec"),
    "SearchSpec": ("TuningSpec", "SweepSpec", "OptunaSpec", "StudySpec", HYPERPARAMETER_SEARCH),
    "EvaluationSpec": ("EvalSpec", "MetricsSpec", EVALUATION_METRICS),
    "ExportSpec": ("OnnxSpec", ONNX_MODEL),
    "GateSpec": ("QualitySpec", MODEL_RELEASE),
    "PromotionSpec": ("ChampionSpec", CHAMPION_MODEL),
}
"""Spec -> what others call such a group of settings; some have no other name."""

OTHER_SETTINGS: Mapping[str, Mapping[str, str]] = {
    "DatasetSpec": {
        "campaign": "campaigns",
        "source": "origin",
    },
    "TimingSpec": {
        "gnss": "gnss_s",
        "gnss_calibrated": "gnss_calibrated_s",
        "ntp": "ntp_s",
        "reference": "reference_s",
    },
    "FeatureSpec": {
        "n_mels": "num_mels", "mel_bins": "num_mels", "num_mel_bins": "num_mels",
        "n_frames": "num_frames", "target_length": "num_frames",
        "hop_length": "hop", "hop_size": "hop", "frame_step": "hop", "stride": "hop",
        "fft_size": "n_fft", "nfft": "n_fft", "nperseg": "n_fft",
        "win_length": "n_fft", "frame_length": "n_fft", "window_size": "n_fft",
        "f_min": "f_min_hz", "fmin": "f_min_hz", "low_freq": "f_min_hz",
        "f_max": "f_max_hz", "fmax": "f_max_hz", "high_freq": "f_max_hz",
        "top_db": "floor_db",
    },
    "RecordingSpec": {
        "max_clipping": "max_clipped_fraction",
        "min_duration": "min_duration_s",
        "max_length": "max_samples",
    },
    "DelaySpec": {
        "n_lags": "num_lags", "max_lag": "num_lags",
        "bandwidth": "bandwidth_hz",
        "coherence_threshold": "min_coherence",
    },
    "AugmentationSpec": {
        "dropout_rate": "dropout", "drop_prob": "dropout",
        "max_shift": "max_shift_frames", "time_shift": "max_shift_frames",
        "max_gain": "max_gain_db", "gain": "max_gain_db",
    },
    "SplitSpec": {
        "seed": "salt", "random_seed": "salt", "random_state": "salt",
        "val_size": "val_fraction", VAL_SPLIT: "val_fraction",
        "validation_split": "val_fraction", "validation_fraction": "val_fraction",
        "test_size": "test_fraction", TEST_SPLIT: "test_fraction",
        "groups": "group_by",
        "k_folds": "num_folds", "n_folds": "num_folds", "n_splits": "num_folds", "folds": "num_folds",
        "stratify": "stratify_by", "region_size": "region_size_m",
        "site_size": "site_size_m",
    },
    "ModelSpec": {
        "dropout_rate": "dropout", "drop_rate": "dropout", "dropout_p": "dropout",
        "n_layers": "num_layers", "num_hidden_layers": "num_layers", "depth": "num_layers",
        "n_heads": "num_heads", "nhead": "num_heads", "num_attention_heads": "num_heads",
        "d_model": "width", "hidden_size": "width", "hidden_dim": "width", "embed_dim": "width",
        "architecture": "kind", "model_type": "kind",
        "backbone": "backbone_size", "model_size": "backbone_size",
        "freeze": "freeze_backbone",
        "weights": "weights_file", "checkpoint_path": "weights_file",
    },
    "TrainingSpec": {
        "epochs": "max_epochs", "n_epochs": "max_epochs", "num_epochs": "max_epochs", "num_train_epochs": "max_epochs",
        "lr": "learning_rate", "base_lr": "learning_rate", "learning_rate_init": "learning_rate",
        "batch": "batch_size", "bs": "batch_size",
        "train_batch_size": "batch_size", "per_device_train_batch_size": "batch_size",
        "wd": "weight_decay", "weightdecay": "weight_decay", "l2": "weight_decay", "decay": "weight_decay",
        "patience": "early_stopping_patience", "early_stopping": "early_stopping_patience",
        "min_delta": "early_stopping_min_delta",
        "warmup": "warmup_epochs", "warmup_steps": "warmup_epochs",
        "grad_clip": "gradient_clip", "gradient_clip_val": "gradient_clip", "max_grad_norm": "gradient_clip",
        "n_threads": "num_threads", "threads": "num_threads",
        "random_seed": "seed", "random_state": "seed",
        "mixed_precision": "precision", "dtype": "precision",
        "accumulate_grad_batches": "accumulate_batches", "gradient_accumulation_steps": "accumulate_batches",
        "scheduler": "schedule", "lr_scheduler": "schedule", "lr_scheduler_type": "schedule",
        "ema": "ema_decay", "lr_find": "find_learning_rate", "auto_lr_find": "find_learning_rate",
        "gradient_checkpointing": "activation_checkpointing", "fused": "fused_optimizer",
        "torch_compile": "compile", "memory_format": "channels_last",
        "devices": "num_devices", "gpus": "num_devices", "world_size": "num_devices",
        "warm_start": "start_from", "init_from": "start_from",
        "teacher_model": "teacher", "distill_from": "teacher",
        "distillation_weight": "teacher_share", "distill_alpha": "teacher_share", "alpha": "teacher_share",
    },
    "MachineSpec": {
        "device": "accelerator", "workers": "num_workers", "prefetch_factor": "prefetch_batches",
        "dataloader_num_workers": "num_workers", "pin": "pin_memory",
        "every_n_epochs": "checkpoint_every_epochs", "save_every": "checkpoint_every_epochs",
        "every_n_train_steps": "checkpoint_every_steps", "save_steps": "checkpoint_every_steps",
        "power_limit": "max_power_w", "temperature_limit": "max_temperature_c",
    },
    "SearchSpec": {
        "search_space": "space", "param_grid": "space", "param_distributions": "space",
        "n_trials": "num_trials", "n_iter": "num_trials", "max_evals": "num_trials", "num_samples": "num_trials",
        "scheduler": "pruner",
        "min_resource": "min_epochs", "grace_period": "min_epochs",
        "eta": "reduction_factor",
        "max_resource": "max_epochs",
        "metric": "objective",
        "n_jobs": "num_workers",
    },
    "EvaluationSpec": {
        "n_bootstrap": "num_bootstrap", "n_resamples": "num_bootstrap",
        "confidence_level": "confidence",
        "quantiles": "coverage_levels",
        "radii": "accuracy_radii_m",
        "random_seed": "seed", "random_state": "seed",
    },
    "AssessmentSpec": {
        "success_tiers": "tiers", "patience": "over_epochs", "min_delta": "max_val_loss_change",
    },
    "ExportSpec": {
        "opset_version": "opset",
        "tolerance": "max_position_error_sigma", "atol": "max_position_error_sigma",
        "quantization": "variants", "quantize": "variants", "variant": "variants",
        "max_size": "max_size_mb", "max_model_size_mb": "max_size_mb", "size_limit_mb": "max_size_mb",
        "pruning_ratio": "pruned_share", "prune_ratio": "pruned_share", "sparsity": "pruned_share",
        "num_calibration_samples": "num_calibration_examples", "calibration_size": "num_calibration_examples",
    },
    "GateSpec": {
        "min_accuracy": "max_median_m", "max_error": "max_median_m", "max_error_m": "max_median_m",
        "skill": "min_skill", "drift": "max_drift", "drift_threshold": "max_drift",
    },
    "PromotionSpec": {
        "n_bootstrap": "num_bootstrap", "n_resamples": "num_bootstrap",
        "confidence_level": "confidence",
        "random_seed": "seed", "random_state": "seed",
    },
    "AcceleratorSpec": {
        "accelerator_type": "gpu_type", "gpu": "gpu_type",
        "gpus": "num_gpus", "n_gpus": "num_gpus", "gpu_count": "num_gpus",
        "cpus": "num_cpus", "n_cpus": "num_cpus", "cpu": "num_cpus",
        "memory": "memory_gib", "memory_gb": "memory_gib", "mem": "memory_gib",
        "preemptible": "spot", "use_spot": "spot", "interruptible": "spot",
        "time_limit": "time_limit_s", "timeout": "time_limit_s", "active_deadline_seconds": "time_limit_s",
        "walltime": "time_limit_s", "max_wait_s": "wait_limit_s", "wait_limit": "wait_limit_s",
    },
    "KubernetesSpec": {
        "job_image": "image", "container_image": "image",
        "job_namespace": "namespace",
        "service_account_name": "service_account",
        "pull_secrets": "image_pull_secrets", "secrets": "env_secrets", "config_maps": "env_config_maps",
        "volumes": "claims", "volume_claims": "claims",
    },
    "RetentionPolicy": {
        "keep_unchanged": "unchanged_runs", "max_runs": "unchanged_runs",
        "keep_days": "run_days", "max_age_days": "run_days", "purge_after_days": "run_days",
        "keep_trainings": "training_folders", "max_trainings": "training_folders",
        "retention_days": "object_days", "gc_days": "object_days", "grace_days": "object_days",
    },
    "RetrainPolicy": {
        "cooldown": "quiet_period_s", "debounce": "quiet_period_s", "quiet_period": "quiet_period_s",
        "max_wait": "max_wait_s",
        "max_retries": "max_attempts",
    },
    "SimulationSpec": {
        "n_sessions": "num_sessions", "num_samples": "num_sessions",
        "sample_rate": "sample_rate_hz", "sampling_rate": "sample_rate_hz",
        "fs": "sample_rate_hz", "sr": "sample_rate_hz",
        "duration": "duration_s",
        "frequency_hz": "carrier_hz", "center_freq": "carrier_hz",
        "random_seed": "seed", "random_state": "seed",
        "shadowing": "shadowing_db",
    },
}
"""Spec -> what others call a setting of it -> what it is called here."""
# fmt: on
