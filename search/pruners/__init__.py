"""When a trial ends early: a file for each pruner, `choice` for their names.

Optuna's own halving pruners write down, inside the question, that they were asked, so that a driver killed there would be
answered otherwise the second time, and Optuna's Hyperband shows a sampler the trials of one bracket alone. The pruners here read
the reported values and the trials' numbers, and nothing else.
"""
