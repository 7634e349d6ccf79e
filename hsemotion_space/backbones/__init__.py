"""Architectures that timm lacks, registered with timm on import."""

from hsemotion_space.backbones import mobilefacenet

__all__ = ["mobilefacenet"]
