"""How a process ends that cannot end by itself."""

import subprocess
import sys
import textwrap

import pytest

HANGING = """
    import asyncio, threading
    from exporter.reporting.streams import LastResort

    async def main():
        last_resort.arm(0.2, {code})
        asyncio.get_running_loop().run_in_executor(None, threading.Event().wait)

    last_resort = LastResort()
    asyncio.run(main())  # its end waits for the thread
"""


@pytest.mark.parametrize("code", [0, 1])
def test_a_thread_that_hangs_does_not_keep_the_process(code: int) -> None:
    program = textwrap.dedent(HANGING.format(code=code))
    done = subprocess.run([sys.executable, "-c", program], timeout=60, check=False)
    assert done.returncode == code


def test_a_proper_end_is_left_alone() -> None:
    program = """
        import time
        from exporter.reporting.streams import LastResort

        last_resort = LastResort()
        last_resort.disarm()
        last_resort.arm(0.1, 7)
        last_resort.disarm()
        time.sleep(0.3)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], timeout=60, check=False)
    assert done.returncode == 0
