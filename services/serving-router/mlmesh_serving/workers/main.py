"""The program of a worker process; small, for it is run anew in each."""

from mlmesh_serving.workers.process import main

if __name__ == "__main__":
    main()
