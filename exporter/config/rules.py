"""What no single key can tell: keys that exclude or need each other, and repeated ids."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from exporter.config.auth import ONE_OF, TEMPORARY_KEY_TYPES
from exporter.config.document import KeyPath, Problem, write_path
from exporter.config.durations import parse_duration
from exporter.config.names import nearest
from exporter.config.regions import KNOWN_REGIONS, default_endpoint, default_iam_endpoint
from exporter.config.scalars import ID_PATTERN

_REGION_SHAPE = re.compile(r"[a-z]{2,6}(-[a-z]{2,12})+-[0-9]{1,3}")

_OWN_IAM_TYPES = ("aksk", *TEMPORARY_KEY_TYPES)


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
    auth = auth if isinstance(auth, dict) else {}
    auth_type = auth.get("type")
    agency = auth.get("assume_agency")
    agency = agency if isinstance(agency, dict) else None
    # With `env` and `profile` the environment or the file may name it.
    by_name = agency is not None and agency.get("agency_name") is not None
    needs_iam = auth_type == "password" or (by_name and auth_type in _OWN_IAM_TYPES)
    yield from _check_endpoints(project, path, needs_iam=needs_iam)
    if isinstance(auth_type, str) and auth_type in ONE_OF:
        yield from _check_one_of(auth, ONE_OF[auth_type], auth_path)
    if agency is not None:
        temporary = auth_type in TEMPORARY_KEY_TYPES or auth.get("security_token") is not None
        yield from _check_agency(agency, (*auth_path, "assume_agency"), temporary=temporary)
    instances, discovery = project.get("instances"), project.get("discovery")
    if instances is None or instances == []:
        if discovery is None:
            yield Problem(path, "needs instances, discovery, or both")
        elif isinstance(discovery, dict) and discovery.get("enabled") in (False, "false"):
            yield Problem(path, "needs instances: discovery is not enabled")
    if isinstance(instances, list):
        yield from _check_repeated(instances, (*path, "instances"), "instance")


def _check_one_of(
    section: Mapping[str, Any], names: tuple[str, ...], path: KeyPath
) -> Iterator[Problem]:
    given = [name for name in names if section.get(name) is not None]
    if len(given) != 1:
        either = " and ".join(names)
        yield Problem(path, f"needs one of {either}" + (", not both" if given else ""))


def _check_agency(
    agency: Mapping[str, Any], path: KeyPath, *, temporary: bool
) -> Iterator[Problem]:
    """`temporary`: the keys that ask for it are themselves temporary."""
    yield from _check_one_of(agency, ("urn", "agency_name"), path)
    if agency.get("agency_name") is not None:
        yield from _check_one_of(agency, ("domain", "domain_id"), path)
        return
    for name in ("domain", "domain_id"):
        if agency.get("urn") is not None and agency.get(name) is not None:
            yield Problem((*path, name), "belongs to agency_name: a urn names the account itself")
    longest, why = ("1h", " with temporary keys") if temporary else ("12h", "")
    try:
        too_long = parse_duration(agency["duration"]) > parse_duration(longest)
    except (KeyError, ValueError, TypeError, AttributeError):
        return
    if too_long:
        yield Problem((*path, "duration"), f"must be at most {longest}: STS gives no more{why}")


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
