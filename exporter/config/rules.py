"""What no single key can tell: keys that exclude or need each other, and repeated ids."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from exporter.config.document import KeyPath, Problem, write_path
from exporter.config.names import nearest
from exporter.config.regions import KNOWN_REGIONS, default_endpoint, default_iam_endpoint
from exporter.config.scalars import ID_PATTERN
from exporter.config.schema import ONE_OF

_REGION_SHAPE = re.compile(r"[a-z]{2,6}(-[a-z]{2,12})+-[0-9]{1,3}")


def find_conflicts(tree: Mapping[str, Any]) -> Iterator[Problem]:
    """The problems that lie between keys. Of the plain tree: told even where a key is wrong."""
    projects = tree.get("projects")
    if not isinstance(projects, list):
        return
    yield from _check_repeated(projects, ("projects",), "project")
    for i, project in enumerate(projects):
        if isinstance(project, dict):
            yield from _check_project(project, ("projects", i))


def _check_project(project: Mapping[str, Any], path: KeyPath) -> Iterator[Problem]:
    auth, auth_path = project.get("auth"), (*path, "auth")
    auth_type = auth.get("type") if isinstance(auth, dict) else None
    yield from _check_endpoints(project, path, needs_iam=auth_type == "password")
    if isinstance(auth, dict) and isinstance(auth_type, str) and auth_type in ONE_OF:
        given = [name for name in ONE_OF[auth_type] if auth.get(name) is not None]
        if len(given) != 1:
            either = " and ".join(ONE_OF[auth_type])
            yield Problem(auth_path, f"needs one of {either}" + (", not both" if given else ""))
    instances, discovery = project.get("instances"), project.get("discovery")
    if instances is None or instances == []:
        if discovery is None:
            yield Problem(path, "needs instances, discovery, or both")
        elif isinstance(discovery, dict) and discovery.get("enabled") in (False, "false"):
            yield Problem(path, "needs instances: discovery is not enabled")
    if isinstance(instances, list):
        yield from _check_repeated(instances, (*path, "instances"), "instance")


def _check_endpoints(
    project: Mapping[str, Any], path: KeyPath, *, needs_iam: bool
) -> Iterator[Problem]:
    region = project.get("region")
    if region is not None and not isinstance(region, str):
        return
    missing = []
    if project.get("endpoint") is None and not default_endpoint(region or ""):
        missing.append("endpoint")
    if needs_iam and project.get("iam_endpoint") is None and not default_iam_endpoint(region or ""):
        missing.append("iam_endpoint")
    if not missing:
        return
    wanted, known, meant = " and ".join(missing), ", ".join(KNOWN_REGIONS), ""
    if not region:
        problem = f"is required, unless {wanted} {'is' if len(missing) == 1 else 'are'} set"
    else:
        # Whatever else stands here might be a secret.
        shown = f" for {region}" if _REGION_SHAPE.fullmatch(region) else ""
        near = nearest(region, KNOWN_REGIONS, cutoff=0.85)
        meant = f"; did you mean {near}?" if near is not None else ""
        problem = f"no default is known{shown}: set {wanted}"
    yield Problem((*path, "region"), f"{problem} (regions with a default: {known}){meant}")


def _check_repeated(items: list[Any], path: KeyPath, what: str) -> Iterator[Problem]:
    first: dict[str, int] = {}
    for i, item in enumerate(items):
        id_ = item.get("id") if isinstance(item, dict) else item
        if isinstance(id_, str) and ID_PATTERN.fullmatch(id_):
            if id_ in first:
                earlier = write_path((*path, first[id_]))
                yield Problem((*path, i), f"{what} {id_} is listed twice, first as {earlier}")
            first.setdefault(id_, i)
