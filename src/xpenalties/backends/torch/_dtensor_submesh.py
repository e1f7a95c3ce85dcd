"""Parts of a mesh: the processes that hold the parts of one axis of a tensor."""

from __future__ import annotations

from typing import Any

from torch.distributed.device_mesh import DeviceMesh

__all__ = ["submesh"]

#: By the id of a mesh and its axes: that mesh, which keeps its id, and the part of it along these axes.
_SUBMESHES: dict[tuple[int, tuple[int, ...]], tuple[Any, Any]] = {}


def submesh(mesh: Any, axes: tuple[int, ...]) -> Any:
    """Return the mesh of the processes that differ from this one only along some axes of the mesh."""
    if len(axes) == mesh.ndim:
        return mesh
    key = id(mesh), axes  # two meshes are equal if one was made after the end of the other's processes
    if key not in _SUBMESHES:
        place = mesh.get_coordinate()
        ranks = mesh.mesh[tuple(slice(None) if i in axes else place[i] for i in range(mesh.ndim))]
        groups = [mesh.get_group(i) for i in axes]
        names = tuple(f"axis_{i}" for i in axes)
        if len(groups) == 1:
            made = DeviceMesh.from_group(groups[0], mesh.device_type, mesh_dim_names=names)
        else:
            made = DeviceMesh.from_group(groups, mesh.device_type, mesh=ranks, mesh_dim_names=names)
        _SUBMESHES[key] = mesh, made
    return _SUBMESHES[key][1]
