"""`python -m tests.support.ways_in_cloud`: a cloud with an agency and a project for each way in.

Their keys live for some seconds, so that a test sees them renewed. Prints its address.
"""

import uvicorn

from exporter.simulator import SERVER, Knobs, SimulatedAgency, Simulator
from exporter.simulator.serving import address_of, listen
from tests.support.factories import ACCESS_KEY, DOMAIN, instance_id, make_instance, make_project
from tests.support.ways_in import FIRST_TOKEN, IDP_ID, NAMES, PROVIDER_URN

KEYS_LIVE_SECONDS = 8.0


def agency_name(way: str) -> str:
    return f"reader-{NAMES.index(way)}"


def project_id(way: str) -> str:
    return f"project-{NAMES.index(way)}"


def idp_id(way: str) -> str:
    """Each way has a provider of its own, and so an agency of its own."""
    return f"{IDP_ID}-{NAMES.index(way)}"


def build_cloud() -> Simulator:
    projects, agencies = [make_project(id="elsewhere")], []
    for number, way in enumerate(NAMES):
        project = make_project(make_instance(id=instance_id(number)), id=project_id(way))
        project.users, project.access_keys, project.tokens = {}, {}, set()
        project.agency = False
        projects.append(project)
        agencies.append(
            SimulatedAgency(
                name=agency_name(way),
                account_name=DOMAIN,
                projects={project.id},
                trusted={ACCESS_KEY, SERVER},
                pod_tokens={FIRST_TOKEN} if way == "pod-identity" else set(),
                oidc={(PROVIDER_URN, FIRST_TOKEN)},
                id_tokens={(idp_id(way), FIRST_TOKEN)},
            )
        )
    by_way = dict(zip(NAMES, agencies, strict=True))
    by_way["pod-identity assumes by STS"].trusted.add(by_way["pod-identity"].urn)
    knobs = Knobs(issued_key_seconds=KEYS_LIVE_SECONDS)
    return Simulator(projects, knobs=knobs, agencies=agencies, control=True)


def main() -> None:
    config = uvicorn.Config(
        build_cloud(), lifespan="off", ws="none", access_log=False, log_level="critical"
    )
    with listen("127.0.0.1", 0) as listener:
        print(address_of(listener), flush=True)
        uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
