"""The builtin base's training: a run that goes on for days, branches off shippable weights, and says how good they are.

``python -m builtin_base.training --help`` lists the commands; `loop` is the run, `decay` the branch, `bar` the table,
`text` and `programmatic` what is learnt from, `gpu` the same within minutes on a lent machine.
"""
