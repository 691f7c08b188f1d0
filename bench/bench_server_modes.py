"""Which kind of gRPC server: threads, grpc.aio, or grpc.aio with handlers in a pool (docs/decisions/0002).

An echo of 100 bytes; the server in a process of its own, the load generator on the same cores.
"""

import asyncio
import contextvars
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import uvloop

MODES = ("threads", "aio", "aio-pool", "uvloop", "uvloop-pool")
SECONDS = 3.0
PAYLOAD = b"x" * 100


def _handlers(function):
    return grpc.method_handlers_generic_handler("Echo", {"Echo": grpc.unary_unary_rpc_method_handler(function)})


def _serve_threads() -> None:
    server = grpc.server(ThreadPoolExecutor(16))
    server.add_generic_rpc_handlers((_handlers(lambda data, context: data),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    server.wait_for_termination()


async def _serve_aio(pooled: bool) -> None:
    pool = ThreadPoolExecutor(16)

    async def echo(data, context):
        if pooled:
            run = contextvars.copy_context().run
            return await asyncio.get_running_loop().run_in_executor(pool, run, bytes, data)
        return data

    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_handlers(echo),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


def _one_client(port: str) -> list[float]:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary("/Echo/Echo")
        call(PAYLOAD)
        times = []
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            started = time.perf_counter()
            call(PAYLOAD)
            times.append(time.perf_counter() - started)
    return sorted(times)


async def _many_clients(port: str, clients: int) -> float:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary("/Echo/Echo")
        end = time.monotonic() + SECONDS

        async def client() -> int:
            done = 0
            while time.monotonic() < end:
                await call(PAYLOAD)
                done += 1
            return done

        return sum(await asyncio.gather(*(client() for _ in range(clients)))) / SECONDS


def main() -> None:
    """Serves when given a mode; else measures them all."""
    if len(sys.argv) > 1:
        mode = sys.argv[1]
        if mode == "threads":
            _serve_threads()
        else:
            (uvloop.run if mode.startswith("uvloop") else asyncio.run)(_serve_aio(mode.endswith("-pool")))
        return
    print(f"{'server':14}{'p50, 1 client':>16}{'req/s, 1':>12}{'req/s, 16':>12}")
    for mode in MODES:
        process = subprocess.Popen([sys.executable, __file__, mode], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        times = _one_client(port)
        many = asyncio.run(_many_clients(port, 16))
        process.kill()
        process.wait()
        print(f"{mode:14}{times[len(times) // 2] * 1e6:>13.0f} µs{len(times) / SECONDS:>12.0f}{many:>12.0f}")


if __name__ == "__main__":
    main()
