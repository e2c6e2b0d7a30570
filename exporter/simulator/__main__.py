"""`python -m exporter.simulator`: the simulator as a process of its own, for load and e2e tests."""

import argparse
from collections.abc import Sequence

import uvicorn

from exporter.simulator.app import Simulator
from exporter.simulator.demo import build_cloud, build_demo
from exporter.simulator.knobs import Knobs, RateLimit
from exporter.simulator.serving import address_of, listen


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m exporter.simulator", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one (default)")
    parser.add_argument("--demo", action="store_true", help="the demo's six instances")
    parser.add_argument("--instances", type=int, default=10)
    parser.add_argument("--backups-per-instance", type=int, default=2016, help="a week of them")
    parser.add_argument("--every", type=float, default=300.0, help="seconds from one to the next")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--rate-limit", type=int, help="requests in each --rate-limit-seconds")
    parser.add_argument("--rate-limit-seconds", type=float, default=1.0)
    parser.add_argument("--control", action="store_true", help="serve /_simulator/")
    return parser.parse_args(arguments)


def build_simulator(options: argparse.Namespace) -> Simulator:
    limit = options.rate_limit and RateLimit(options.rate_limit, options.rate_limit_seconds)
    knobs = Knobs(latency_seconds=options.latency, rate_limit=limit or None)
    if options.demo:
        return build_demo(knobs=knobs, control=options.control)
    return build_cloud(
        options.instances,
        options.backups_per_instance,
        every_seconds=options.every,
        knobs=knobs,
        control=options.control,
    )


def main() -> None:
    options = parse_arguments()
    simulator = build_simulator(options)
    config = uvicorn.Config(
        simulator, lifespan="off", ws="none", access_log=False, log_level="critical"
    )
    with listen(options.host, options.port) as listener:
        # The parent process reads where to find us.
        print(address_of(listener), flush=True)  # noqa: T201
        uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
