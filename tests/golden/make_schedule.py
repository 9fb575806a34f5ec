"""Golden learning rates of 40 steps, from torch.optim.lr_scheduler. Run: /usr/bin/python3 make_schedule.py > schedule.lua"""
import warnings

import torch
from torch.optim import lr_scheduler as S

warnings.simplefilter("ignore")


def run(make):
    opt = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.4)
    sched, rates = make(opt), []
    for _ in range(40):
        rates.append(opt.param_groups[0]["lr"])
        opt.step()
        if len(rates) < 40:
            sched.step()
    return rates


cases = [
    ("constant", "lr = 0.4", lambda o: S.LambdaLR(o, lambda s: 1)),
    ("cosine", "lr = 0.4, steps = 39, min = 0.01", lambda o: S.CosineAnnealingLR(o, 39, 0.01)),
    ("step", "lr = 0.4, every = 7, gamma = 0.5", lambda o: S.StepLR(o, 7, 0.5)),
    ("multistep", "lr = 0.4, milestones = {5, 20, 21}", lambda o: S.MultiStepLR(o, [5, 20, 21])),
    ("constant", "lr = 0.4, warmup = 8", lambda o: S.LinearLR(o, 1 / 8, 1, 7)),
    ("one_cycle", "lr = 0.4, steps = 40", lambda o: S.OneCycleLR(o, 0.4, 40)),
    ("one_cycle", 'lr = 0.4, steps = 40, rise = 0.45, div = 10, final_div = 100, anneal = "linear"',
     lambda o: S.OneCycleLR(o, 0.4, 40, pct_start=0.45, div_factor=10, final_div_factor=100, anneal_strategy="linear")),
]
print("-- Written by make_schedule.py.\nreturn {")
for name, options, make in cases:
    print(f'  {{name = "{name}", options = {{{options}}}, rates = {{' + ", ".join(f"{r:.9g}" for r in run(make)) + "}},")
print("}")
