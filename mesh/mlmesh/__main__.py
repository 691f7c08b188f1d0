"""`python -m mlmesh` is the command mlmesh."""

from mlmesh.cli import main

if __name__ == "__main__":
    main()
