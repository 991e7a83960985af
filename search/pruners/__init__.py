"""When a trial ends early: one file per pruner; `choice` has their names.

Optuna's halving pruners write to the storage when they are asked, so that a driver killed at that moment would get another answer
the second time, and Optuna's Hyperband shows a sampler only the trials of one bracket. The pruners here read only the reported
values and the trials' numbers and states.
"""
