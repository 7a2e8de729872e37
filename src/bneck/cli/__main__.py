"""`python -m bneck.cli`, which `torchrun -m bneck.cli` starts on every process."""

from bneck.cli.main import run

if __name__ == "__main__":
    run()
