"""What upstream's BigGANs compute, written down once more: functions over state dicts with upstream's names.

Nothing of the plugin is used: networks of random numbers are laid out as ajbrock/BigGAN-PyTorch,
pytorch-pretrained-biggan and ivclab's BigGAN generators lay theirs out, and evaluated step by step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

State = dict[str, Tensor]

# ajbrock: channels in and out of each stage, in units of ch.
UP = {
    32: ((4, 4, 4), (4, 4, 4)),
    64: ((16, 16, 8, 4), (16, 8, 4, 2)),
    128: ((16, 16, 8, 4, 2), (16, 8, 4, 2, 1)),
    256: ((16, 16, 8, 8, 4, 2), (16, 8, 8, 4, 2, 1)),
    512: ((16, 16, 8, 8, 4, 2, 1), (16, 8, 8, 4, 2, 1, 1)),
}
# Channels out of each stage, and which halve the image; a deep network starts from `stem` units.
DOWN = {
    32: ((4, 4, 4, 4), "yynn"),
    64: ((1, 2, 4, 8, 16), "yyyyn"),
    128: ((1, 2, 4, 8, 16, 16), "yyyyyn"),
    256: ((1, 2, 4, 8, 8, 16, 16), "yyyyyyn"),
}
DEEP_DOWN = {
    32: (4, (4, 4, 4), "yyn"),
    64: (1, (2, 4, 8, 16), "yyyy"),
    128: (1, (2, 4, 8, 16, 16), "yyyyy"),
    256: (1, (2, 4, 8, 8, 16, 16), "yyyyyy"),
}


class Layout:
    """A state dict that grows: each call adds one layer's tensors, of random numbers that leave nothing out."""

    def __init__(self, seed: int):
        self.state: State = {}
        self.chance = torch.Generator().manual_seed(seed)

    def random(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.chance)

    def matrix(self, name: str, outputs: int, *inputs: int, bias: bool = True, spectral: bool = True) -> None:
        self.state[f"{name}.weight"] = self.random(outputs, *inputs) / math.sqrt(math.prod(inputs))
        if bias:
            self.state[f"{name}.bias"] = 0.1 * self.random(outputs)
        if spectral:
            self.state[f"{name}.u0"] = self.random(1, outputs)
            self.state[f"{name}.sv0"] = torch.ones(1)

    def statistics(self, name: str, channels: int, kind: str) -> None:
        inner, kept = {"plain": ("", "stored"), "mybn": (".bn", "stored"), "sync": (".bn", "running")}[kind]
        self.state[f"{name}{inner}.{kept}_mean"] = 0.3 * self.random(channels)
        self.state[f"{name}{inner}.{kept}_var"] = 0.5 + self.random(channels).square()
        if kind == "mybn":
            self.state[f"{name}.bn.accumulation_counter"] = torch.zeros(1)
        if kind == "sync":
            self.state[f"{name}.bn.num_batches_tracked"] = torch.tensor(7)

    def attention(self, name: str, channels: int, spectral: bool = True) -> None:
        for layer, outputs, inputs in (
            ("theta", channels // 8, channels), ("phi", channels // 8, channels), ("g", channels // 2, channels),
            ("o", channels, channels // 2),
        ):  # fmt: skip
            self.matrix(f"{name}.{layer}", outputs, inputs, 1, 1, bias=False, spectral=spectral)
        self.state[f"{name}.gamma"] = torch.tensor(0.7)


# ajbrock's generator.


def generator(
    resolution: int,
    ch: int,
    *,
    classes: int,
    latent: int,
    shared: int,
    hier: bool = True,
    deep: bool = False,
    attention: Sequence[int] = (),
    norms: str = "plain",
    spectral: bool = True,
    seed: int = 0,
) -> State:
    """Lay out G.pth. `latent` as on the command line; `shared` 0: tables in the norms; `attention` at resolutions."""
    made = Layout(seed)
    stages = list(zip(*UP[resolution], strict=True))
    chunk = latent // (len(stages) + 1) if hier and not deep else 0
    head = latent + shared if deep else chunk or latent
    condition = shared + (latent if deep else chunk)
    if shared:
        made.matrix("shared", classes, shared, bias=False, spectral=False)
    made.matrix("linear", stages[0][0] * ch * 16, head, spectral=spectral)

    def norm(name: str, channels: int) -> None:
        for part in ("gain", "bias"):
            if shared:
                made.matrix(f"{name}.{part}", channels, condition, bias=False, spectral=spectral)
            else:
                made.matrix(f"{name}.{part}", classes, channels, bias=False, spectral=False)
        made.statistics(name, channels, norms)

    blocks: list[tuple[int, int, int]] = []              # in, out, resolution after it if a stage ends there
    for i, (a, b) in enumerate(stages):
        blocks += [(a * ch, a * ch, 0)] * deep + [(a * ch, b * ch, 8 << i)]
    for i, (a, b, size) in enumerate(blocks):
        name, inner = f"blocks.{i}.0", a // 4
        if deep:
            shapes = [(inner, a, 1), (inner, inner, 3), (inner, inner, 3), (b, inner, 1)]
        else:
            shapes = [(b, a, 3), (b, b, 3)]
            made.matrix(f"{name}.conv_sc", b, a, 1, 1, spectral=spectral)
        for k, (outputs, inputs, kernel) in enumerate(shapes, 1):
            made.matrix(f"{name}.conv{k}", outputs, inputs, kernel, kernel, spectral=spectral)
            norm(f"{name}.bn{k}", inputs)
        if size in attention:
            made.attention(f"blocks.{i}.1", b, spectral)
    made.state["output_layer.0.gain"] = 1 + 0.3 * made.random(b)
    made.state["output_layer.0.bias"] = 0.1 * made.random(b)
    made.statistics("output_layer.0", b, norms)
    made.matrix("output_layer.2", 3, b, 3, 3, spectral=spectral)
    return made.state


def normal(state: State, name: str) -> Tensor:
    """Return a weight over its norm after one power iteration from u0."""
    weight = state[f"{name}.weight"]
    if f"{name}.u0" not in state:
        return weight
    matrix = weight.reshape(len(weight), -1)
    v = state[f"{name}.u0"] @ matrix
    v = v / v.norm()
    u = v @ matrix.T
    u = u / u.norm()
    return weight / (v @ matrix.T @ u.T).squeeze()


def convolve(state: State, name: str, x: Tensor) -> Tensor:
    weight = normal(state, name)
    return F.conv2d(x, weight, state.get(f"{name}.bias"), padding=weight.shape[-1] // 2)


def normalise(state: State, name: str, x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    prefix = next(p for p in (".stored", ".bn.stored", ".bn.running") if f"{name}{p}_mean" in state)
    mean, var = (state[f"{name}{prefix}_{each}"][:, None, None] for each in ("mean", "var"))
    return (x - mean) / (var + 1e-5).sqrt() * gain[..., None, None] + bias[..., None, None]


def conditional(state: State, name: str, x: Tensor, y: Tensor) -> Tensor:
    """`y`: conditions [N, size], or class indices [N] for tables."""
    gain, bias = (
        y @ normal(state, f"{name}.{part}").T if y.ndim == 2 else state[f"{name}.{part}.weight"][y]
        for part in ("gain", "bias")
    )
    return normalise(state, name, x, 1 + gain, bias)


def attend(state: State, name: str, x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    theta = convolve(state, f"{name}.theta", x).reshape(n, c // 8, h * w)
    phi = F.max_pool2d(convolve(state, f"{name}.phi", x), 2).reshape(n, c // 8, h * w // 4)
    g = F.max_pool2d(convolve(state, f"{name}.g", x), 2).reshape(n, c // 2, h * w // 4)
    shares = torch.einsum("ncq,nck->nqk", theta, phi).softmax(2)
    mixed = torch.einsum("nqk,nck->ncq", shares, g).reshape(n, c // 2, h, w)
    return x + state[f"{name}.gamma"] * convolve(state, f"{name}.o", mixed)


def twice(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


def images(state: State, z: Tensor, y: Tensor) -> Tensor:
    """Evaluate G.pth on latents and class indices [N]."""
    deep, shared = "blocks.0.0.conv4.weight" in state, "shared.weight" in state
    count = sum(name.endswith(".0.conv1.weight") for name in state)
    y = state["shared.weight"][y] if shared else y
    size = state["blocks.0.0.bn1.gain.weight"].shape[1]
    if deep:
        z = torch.cat([y, z], 1)
        conditions = [z] * count
    elif shared and size > y.shape[1]:
        z, *rest = z.split(size - y.shape[1], 1)
        conditions = [torch.cat([y, part], 1) for part in rest]
    else:
        conditions = [y] * count
    x = (z @ normal(state, "linear").T + state["linear.bias"]).reshape(len(z), -1, 4, 4)
    for i, condition in enumerate(conditions):
        name = f"blocks.{i}.0"
        # Of two blocks in a deep stage the second one doubles the size.
        x = (deep_up if deep else up)(state, name, x, condition, not deep or i % 2 == 1)
        if f"blocks.{i}.1.gamma" in state:
            x = attend(state, f"blocks.{i}.1", x)
    x = normalise(state, "output_layer.0", x, state["output_layer.0.gain"], state["output_layer.0.bias"]).relu()
    return convolve(state, "output_layer.2", x).tanh()


def up(state: State, name: str, x: Tensor, y: Tensor, grows: bool) -> Tensor:
    h = convolve(state, f"{name}.conv1", twice(conditional(state, f"{name}.bn1", x, y).relu()))
    h = convolve(state, f"{name}.conv2", conditional(state, f"{name}.bn2", h, y).relu())
    return h + convolve(state, f"{name}.conv_sc", twice(x))


def deep_up(state: State, name: str, x: Tensor, y: Tensor, grows: bool) -> Tensor:
    h = convolve(state, f"{name}.conv1", conditional(state, f"{name}.bn1", x, y).relu())
    h = conditional(state, f"{name}.bn2", h, y).relu()
    x = x[:, : len(state[f"{name}.conv4.weight"])]
    if grows:
        h, x = twice(h), twice(x)
    h = convolve(state, f"{name}.conv2", h)
    h = convolve(state, f"{name}.conv3", conditional(state, f"{name}.bn3", h, y).relu())
    return x + convolve(state, f"{name}.conv4", conditional(state, f"{name}.bn4", h, y).relu())


# ajbrock's discriminator.


def discriminator(
    resolution: int,
    ch: int,
    *,
    classes: int,
    wide: bool = True,
    deep: bool = False,
    depth: int = 2,
    attention: Sequence[int] = (),
    seed: int = 1,
) -> State:
    """Lay out D.pth; attention after these stages."""
    made = Layout(seed)
    if deep:
        stem, outs, _ = DEEP_DOWN[resolution]
        made.matrix("input_conv", stem * ch, 3, 3, 3)
        a = stem * ch
    else:
        (outs, halves), a = DOWN[resolution], 3
    for i, units in enumerate(outs):
        b = units * ch
        for k in range(depth if deep else 1):
            name, inner = f"blocks.{i}.{k}", b // 4
            if deep:
                shapes = [(inner, a, 1), (inner, inner, 3), (inner, inner, 3), (b, inner, 1)]
            else:
                shapes = [(b if wide else a, a, 3), (b, b if wide else a, 3)]
            for place, (outputs, inputs, kernel) in enumerate(shapes, 1):
                made.matrix(f"{name}.conv{place}", outputs, inputs, kernel, kernel)
            if a != b or (not deep and halves[i] == "y"):
                made.matrix(f"{name}.conv_sc", b - a if deep else b, a, 1, 1)
            a = b
        if i in attention:
            made.attention(f"blocks.{i}.{depth if deep else 1}", b)
    made.matrix("linear", 1, b)
    made.matrix("embed", classes, b, bias=False)
    return made.state


def logits(state: State, x: Tensor, y: Tensor, resolution: int) -> Tensor:
    """Evaluate D.pth on images and class indices."""
    deep = "input_conv.weight" in state
    halves = DEEP_DOWN[resolution][2] if deep else DOWN[resolution][1]
    if deep:
        x = convolve(state, "input_conv", x)
    for i, letter in enumerate(halves):
        k = 0
        while f"blocks.{i}.{k}.conv1.weight" in state:
            x = (deep_down if deep else down)(state, f"blocks.{i}.{k}", x, letter == "y" and k == 0, first=i == k == 0)
            k += 1
        if f"blocks.{i}.{k}.gamma" in state:
            x = attend(state, f"blocks.{i}.{k}", x)
    features = x.relu().sum((2, 3))
    score = features @ normal(state, "linear").T + state["linear.bias"]
    return score + (normal(state, "embed")[y] * features).sum(1, keepdim=True)


def down(state: State, name: str, x: Tensor, shrinks: bool, first: bool) -> Tensor:
    h = convolve(state, f"{name}.conv2", convolve(state, f"{name}.conv1", x if first else x.relu()).relu())
    if f"{name}.conv_sc.weight" in state:
        x = convolve(state, f"{name}.conv_sc", x)
    return F.avg_pool2d(h + x, 2) if shrinks else h + x


def deep_down(state: State, name: str, x: Tensor, shrinks: bool, first: bool) -> Tensor:
    h = x
    for k in range(1, 4):
        h = convolve(state, f"{name}.conv{k}", h.relu())
    h = h.relu()
    if shrinks:
        h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
    h = convolve(state, f"{name}.conv4", h)
    if f"{name}.conv_sc.weight" in state:
        x = torch.cat([x, convolve(state, f"{name}.conv_sc", x)], 1)
    return h + x


# pytorch-pretrained-biggan's generator.


class DeepLayout(Layout):
    """Its layers keep weight_orig, weight_u and weight_v."""

    def matrix(self, name: str, outputs: int, *inputs: int, bias: bool = True, spectral: bool = True) -> None:
        weight = self.random(outputs, *inputs) / math.sqrt(math.prod(inputs))
        v = F.normalize(self.random(math.prod(inputs)), dim=0)
        for _ in range(2):                                   # nearer to the norm, and not there
            u = F.normalize(weight.flatten(1) @ v, dim=0)
            v = F.normalize(u @ weight.flatten(1), dim=0)
        self.state |= {f"{name}.weight_orig": weight, f"{name}.weight_u": u, f"{name}.weight_v": v}
        if bias:
            self.state[f"{name}.bias"] = 0.1 * self.random(outputs)

    def rows(self, name: str, channels: int, count: int) -> None:
        self.state[f"{name}.running_means"] = 0.3 * self.random(count, channels)
        self.state[f"{name}.running_vars"] = 0.5 + self.random(count, channels).square()


def deep_generator(config: dict[str, object], seed: int = 2) -> State:
    """Lay out pytorch_model.bin of a config.json."""
    made, ch, size, rows = DeepLayout(seed), config["channel_width"], config["z_dim"], config["n_stats"]
    made.state["embeddings.weight"] = made.random(size, config["num_classes"])
    made.matrix("generator.gen_z", 16 * 16 * ch, 2 * size)
    place = 0
    for i, (_, a, b) in enumerate(config["layers"]):
        if i == config["attention_layer_position"]:
            for layer, outputs, inputs in (("theta", 8, 1), ("phi", 8, 1), ("g", 2, 1), ("o_conv", 1, 2)):
                name = f"generator.layers.{place}.snconv1x1_{layer}"
                made.matrix(name, a * ch // outputs, a * ch // inputs, 1, 1, bias=False)
            made.state[f"generator.layers.{place}.gamma"] = torch.tensor([0.7])
            place += 1
        inner = a * ch // 4
        shapes = [(inner, a * ch, 1), (inner, inner, 3), (inner, inner, 3), (b * ch, inner, 1)]
        for k, (outputs, inputs, kernel) in enumerate(shapes):
            name = f"generator.layers.{place}"
            made.matrix(f"{name}.conv_{k}", outputs, inputs, kernel, kernel)
            made.matrix(f"{name}.bn_{k}.scale", inputs, 2 * size, bias=False)
            made.matrix(f"{name}.bn_{k}.offset", inputs, 2 * size, bias=False)
            made.rows(f"{name}.bn_{k}", inputs, rows)
        place += 1
    made.state["generator.bn.weight"] = 1 + 0.3 * made.random(ch)
    made.state["generator.bn.bias"] = 0.1 * made.random(ch)
    made.rows("generator.bn", ch, rows)
    made.matrix("generator.conv_to_rgb", ch, ch, 3, 3)
    return made.state


def deep_images(state: State, config: dict[str, object], z: Tensor, classes: Tensor, truncation: float) -> Tensor:
    """Evaluate pytorch_model.bin on latents and class rows [N, classes]."""
    share, row = math.modf(truncation / (1.0 / (config["n_stats"] - 1)))

    def weight(name: str) -> Tensor:
        stored = state[f"{name}.weight_orig"]
        return stored / torch.dot(state[f"{name}.weight_u"], stored.flatten(1) @ state[f"{name}.weight_v"])

    def convolved(name: str, x: Tensor) -> Tensor:
        kernel = weight(name)
        return F.conv2d(x, kernel, state.get(f"{name}.bias"), padding=kernel.shape[-1] // 2)

    def normalised(name: str, x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
        mean, var = (
            rows[int(row)] if share == 0 else share * rows[int(row)] + (1 - share) * rows[int(row) + 1]
            for rows in (state[f"{name}.running_means"], state[f"{name}.running_vars"])
        )
        x = (x - mean[:, None, None]) / (var[:, None, None] + config["eps"]).sqrt()
        return x * gain[..., None, None] + bias[..., None, None]

    condition = torch.cat([z, classes @ state["embeddings.weight"].T], 1)
    x = condition @ weight("generator.gen_z").T + state["generator.gen_z.bias"]
    x = x.reshape(len(z), 4, 4, -1).permute(0, 3, 1, 2)
    place = 0
    for i, (grows, a, b) in enumerate(config["layers"]):
        name = f"generator.layers.{place}"
        if i == config["attention_layer_position"]:
            layers = {"theta": "theta", "phi": "phi", "g": "g", "o": "o_conv"}
            plain = {f"a.{ours}.weight": weight(f"{name}.snconv1x1_{theirs}") for ours, theirs in layers.items()}
            x = attend({**plain, "a.gamma": state[f"{name}.gamma"]}, "a", x)
            place += 1
            name = f"generator.layers.{place}"
        h = x
        for k in range(4):
            scale, offset = (condition @ weight(f"{name}.bn_{k}.{part}").T for part in ("scale", "offset"))
            h = normalised(f"{name}.bn_{k}", h, 1 + scale, offset).relu()
            h = convolved(f"{name}.conv_{k}", twice(h) if grows and k == 1 else h)
        x = x[:, : x.shape[1] // 2] if a != b else x
        x = h + (twice(x) if grows else x)
        place += 1
    x = normalised("generator.bn", x, state["generator.bn.weight"], state["generator.bn.bias"]).relu()
    return convolved("generator.conv_to_rgb", x)[:, :3].tanh()


# ivclab's generator: DeepMind's BigGAN.


class ReleasedLayout(Layout):
    """As `DeepLayout`, but the norm of a convolution is that of its weight as [out, height, width, in]."""

    def matrix(self, name: str, outputs: int, *inputs: int, bias: bool = True, spectral: bool = True) -> None:
        weight = self.random(outputs, *inputs) / math.sqrt(math.prod(inputs))
        flat = last_first(weight)
        u = F.normalize(self.random(outputs), dim=0)
        for _ in range(2):
            v = F.normalize(u @ flat, dim=0)
            u = F.normalize(flat @ v, dim=0)
        self.state |= {f"{name}.weight_orig": weight, f"{name}.weight_u": u, f"{name}.weight_v": v}
        if bias:
            self.state[f"{name}.bias"] = 0.1 * self.random(outputs)

    def norm(self, name: str, channels: int) -> None:
        self.state[f"{name}.standing_means"] = 0.3 * self.random(50, channels)
        self.state[f"{name}.standing_vars"] = 0.5 + self.random(50, channels).square()
        self.state[f"{name}.running_mean"] = self.random(channels)
        self.state[f"{name}.running_var"] = self.random(channels).square()
        self.state[f"{name}.num_batches_tracked"] = torch.tensor(0)


def last_first(weight: Tensor) -> Tensor:
    return weight.permute(0, 2, 3, 1).flatten(1) if weight.ndim == 4 else weight


def released_names(resolution: int) -> list[str]:
    return ["gblock", *(f"gblock_{i}" for i in range(1, len(UP[resolution][0])))]


def released_generator(resolution: int, ch: int, *, classes: int, size: int, chunk: int, attended: int) -> State:
    """Lay out bigganN-release.pt; attention takes `attended` units of channels."""
    made = ReleasedLayout(3)
    made.state["linear.weight"] = made.random(classes, size)
    made.matrix("g_z.g_linear", 16 * 16 * ch, chunk)
    for name, a, b in zip(released_names(resolution), *UP[resolution], strict=True):
        made.matrix(f"{name}.conv0", b * ch, a * ch, 3, 3)
        made.matrix(f"{name}.conv1", b * ch, b * ch, 3, 3)
        made.matrix(f"{name}.conv_sc", b * ch, a * ch, 1, 1)
        for part, channels in (("hyperbn", a * ch), ("hyperbn_1", b * ch)):
            made.norm(f"{name}.{part}.crossreplicabn", channels)
            made.matrix(f"{name}.{part}.gamma", channels, chunk + size, bias=False)
            made.matrix(f"{name}.{part}.beta", channels, chunk + size, bias=False)
    channels = attended * ch
    for layer, outputs, inputs in (("theta", 8, 1), ("phi", 8, 1), ("g", 2, 1), ("o_conv", 1, 2)):
        made.matrix(f"attention.{layer}", channels // outputs, channels // inputs, 1, 1, bias=False)
    made.state["attention.gamma"] = torch.tensor([0.7])
    made.norm("scaledcrossreplicabn", ch)
    made.state["scaledcrossreplicabn.weight"] = 1 + 0.3 * made.random(ch)
    made.state["scaledcrossreplicabn.bias"] = 0.1 * made.random(ch)
    made.matrix("conv_2d", 3, ch, 3, 3)
    return made.state


def released_images(state: State, resolution: int, z: Tensor, y: Tensor, step: int) -> Tensor:
    """Evaluate bigganN-release.pt on latents and class indices, at truncation `step` * 0.02."""
    plain = dict(state)
    for name in [name.removesuffix("_orig") for name in state if name.endswith("weight_orig")]:
        stored = state[f"{name}_orig"]
        plain[name] = stored / torch.dot(state[f"{name}_u"], last_first(stored) @ state[f"{name}_v"])

    def normed(name: str, x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
        mean, var = (plain[f"{name}.standing_{part}"][step - 1][:, None, None] for part in ("means", "vars"))
        return (x - mean) / (var + 1e-4).sqrt() * gain[..., None, None] + bias[..., None, None]

    def conditioned(name: str, x: Tensor, condition: Tensor) -> Tensor:
        gain, bias = (condition @ plain[f"{name}.{part}.weight"].T for part in ("gamma", "beta"))
        return normed(f"{name}.crossreplicabn", x, 1 + gain, bias).relu()

    names, rows = released_names(resolution), state["linear.weight"][y]
    head, *chunks = z.chunk(len(names) + 1, 1)
    x = head @ plain["g_z.g_linear.weight"].T + state["g_z.g_linear.bias"]
    x = x.reshape(len(z), 4, 4, -1).permute(0, 3, 1, 2)
    plain |= {"attention.o.weight": plain["attention.o_conv.weight"]}
    for name, part in zip(names, chunks, strict=True):
        condition = torch.cat([part, rows], 1)
        h = convolve(plain, f"{name}.conv0", twice(conditioned(f"{name}.hyperbn", x, condition)))
        h = convolve(plain, f"{name}.conv1", conditioned(f"{name}.hyperbn_1", h, condition))
        x = h + convolve(plain, f"{name}.conv_sc", twice(x))
        if x.shape[1] == state["attention.theta.weight_orig"].shape[1]:
            x = attend(plain, "attention", x)
    x = normed("scaledcrossreplicabn", x, state["scaledcrossreplicabn.weight"], state["scaledcrossreplicabn.bias"])
    return convolve(plain, "conv_2d", x.relu()).tanh()
