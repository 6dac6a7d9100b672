"""The watchdog: looks at samples and at the critic while a training goes on, and says in words what goes wrong.

`look` measures, `signs` says which numbers are a bad sign and why, `history` keeps what was seen and asks that it lasts
before it is called anything. What is then done is the training's affair (`zoo.training.watching`), what to try next
that of `zoo.explanation`.
"""
