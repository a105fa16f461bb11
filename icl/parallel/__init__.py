"""Meshes and sharding rules: which mesh axes hold which part of an array."""

from icl.parallel.mesh import MESH_AXES, MeshConfig, make_mesh
from icl.parallel.partition import DEFAULT_RULES, Partitioner, Rules, platform_of

__all__ = [
    "DEFAULT_RULES",
    "MESH_AXES",
    "MeshConfig",
    "Partitioner",
    "Rules",
    "make_mesh",
    "platform_of",
]
