"""Published models: the attention shapes that their users run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct

from ..facts import Document, Provenance, Shelf, UserError, unknown_name
from .layout import TokenLayout
from .ops import Form
from .problem import AttentionProblem, Phase

Size = Annotated[int, Meta(ge=1, le=2**40)]


class Shape(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One setting in which a model is run."""

    grid: tuple[Size, ...]
    """Tokens per axis: (frames, height, width) of the latent video, or (tokens,)."""
    text: Annotated[int, Meta(ge=0)] = 0
    """Text tokens in the same self-attention."""
    batch: Size = 1
    steps: Annotated[int, Meta(ge=0)] = 0
    """Denoising steps."""
    note: str = ""


class Projection(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One matrix product of a layer."""

    name: str
    inputs: Size
    outputs: Size
    rows: Literal["tokens", "cross_text", "one"] = "tokens"
    """What it is applied to: every token, the text of cross-attention, or one vector an item (a modulation)."""


class Elementwise(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Elementwise work of a layer as a framework runs it op by op: kernels of one form, each over its values in memory."""

    name: str
    """Ops of one name are shown as one part."""
    bytes: Size
    """Read and written for each value by each kernel: of strided 16-bit values, all that lies between them too."""
    width: Size
    """Values of a token, of each kernel."""
    layers: Size
    """Layers that have it."""
    kernels: Size = 1
    """How many of them a layer runs."""
    form: Form = "vector"
    divisions: Annotated[int, Meta(ge=0, le=16)] = 0
    """Form of the kernel and divisions that find a value, as in `Memory`."""
    row: Annotated[int, Meta(ge=0)] = 0
    """Values that a CTA of four warps norms; 0 where CTAs do not count."""


class Model(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A published model: sizes of its layers, and the settings in which it is run.

    Examples
    --------
    >>> hunyuan = models.load("hunyuan-video")
    >>> hunyuan.layout().tokens, hunyuan.problem().q_heads
    (115456, 24)
    """

    name: str
    title: str
    kind: Literal["mmdit", "dit", "llm"]
    layers: Size
    hidden: Size
    q_heads: Size
    kv_heads: Size
    head_dim: Size
    head_dim_v: Annotated[int, Meta(ge=0)] = 0
    ffn_hidden: Size
    ffn_matrices: Literal[2, 3] = 2
    """Matrices of a feed-forward: 3 where it is gated."""
    projections: tuple[Projection, ...] = ()
    """Matrix products of a layer where its sizes do not imply them."""
    eager: tuple[Elementwise, ...] = ()
    """Elementwise work as the model's own code runs it without a compiler, where it was counted."""
    vocab: Annotated[int, Meta(ge=0)] = 0
    phase: Phase
    causal: bool = False
    cfg_batch: Size = 1
    """Forward passes of a denoising step (2 with classifier-free guidance)."""
    cross_text: Annotated[int, Meta(ge=0)] = 0
    """Text tokens that enter by cross-attention, outside of self-attention."""
    default: str
    shapes: dict[str, Shape]
    note: str = ""
    meta: dict[str, Provenance]

    def shape(self, name: str | None = None) -> Shape:
        """A setting by name, the default one without."""
        if not self.shapes:
            raise UserError(f"model {self.name} does not say how many tokens it has: give its grid (and text), or seq_q")
        if name is not None and name not in self.shapes:
            raise unknown_name(f"shape of {self.name}", name, self.shapes)
        return self.shapes[name or self.default]

    def layout(self, shape: str | None = None) -> TokenLayout:
        """The tokens of its self-attention."""
        chosen = self.shape(shape)
        return TokenLayout(grid=chosen.grid, text=chosen.text)

    def problem(self, shape: str | None = None, layout: TokenLayout | None = None) -> AttentionProblem:
        """Its self-attention as a problem, over the tokens of a setting or over others."""
        return AttentionProblem(
            batch=self.shape(shape).batch if self.shapes else 1,
            q_heads=self.q_heads,
            kv_heads=self.kv_heads,
            seq_q=(layout or self.layout(shape)).tokens,
            head_dim=self.head_dim,
            head_dim_v=self.head_dim_v,
            phase=self.phase,
            causal=self.causal,
        )


class _Models(Shelf[Model]):
    """The shipped models, and whatever a Hugging Face `config.json` describes."""

    def load(self, name: str, overrides: Document | None = None) -> Model:
        if name.endswith(".json"):
            from .hf_config import read_config

            return read_config(name)
        return super().load(name, overrides)


models = _Models(Path(__file__).parent / "models", "model", Model)
"""Every model that ships with the package."""
