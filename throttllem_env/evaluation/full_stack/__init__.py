"""`throttllem serve` as a process over a double of NVML: all real but the silicon, watched from outside."""
