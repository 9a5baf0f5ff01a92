"""What the paper reports: throttLL'eM, Kakolyris et al., HPCA 2025, arXiv 2408.05235."""

R2_AT_LEAST = 0.97
MAE_BELOW_IPS = 1.0
MAPE = (0.028, 0.058)
BATCH_ERROR, KV_ERROR, DRIFT_S = 0.0019, 0.0226, 0.43e-3
THROTTLING_MEAN, THROTTLING_BEST = 0.247, 0.307
"""Saving by throttling alone, over its engines."""
AUTOSCALING = 0.208
BOTH_BEST, BOTH_AT_30_PERCENT = 0.438, 0.417
"""Both against TP4 at the top clock; with a 95th-percentile length error of 0 and 30 %."""
TOKENS_PER_JOULE_FROM, TOKENS_PER_JOULE_TO = 0.69, (1.19, 1.23)
EFFICIENCY_GAIN = 1.71
SWEET_SPOT_MHZ = 1050
SWEET_SPOT_THROUGHPUT, SWEET_SPOT_TOKENS_PER_JOULE = -0.0625, 0.374
