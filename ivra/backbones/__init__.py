"""Backbones: Hugging Face classifiers whose attention can be read in the forward pass."""

from ivra.backbones.backbone import Backbone
from ivra.backbones.builder import load_backbone
from ivra.backbones.encoding import Encoding
from ivra.backbones.families import FAMILIES, Family
from ivra.backbones.loading import AS_IT_IS, Dtype, Loading, Lora
from ivra.backbones.sharding import gathered, shard
from ivra.backbones.tiny import TINY

__all__ = [
    "AS_IT_IS",
    "FAMILIES",
    "TINY",
    "Backbone",
    "Dtype",
    "Encoding",
    "Family",
    "Loading",
    "Lora",
    "gathered",
    "load_backbone",
    "shard",
]
