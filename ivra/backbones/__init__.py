"""Backbones: Hugging Face classifiers whose attention can be read in the forward pass."""

from ivra.backbones.backbone import Backbone, Encoding
from ivra.backbones.builder import load_backbone
from ivra.backbones.families import FAMILIES, Family
from ivra.backbones.tiny import TINY

__all__ = ["FAMILIES", "TINY", "Backbone", "Encoding", "Family", "load_backbone"]
