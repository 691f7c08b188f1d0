"""How many threads numeric libraries compute with."""

from threadpoolctl import threadpool_limits


def limit_threads(threads: int) -> None:
    """Limits the threads of BLAS and OpenMP in this process, for good; of libraries that are loaded already."""
    threadpool_limits(limits=threads)
