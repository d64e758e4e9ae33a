"""``python -m prunekit``, as torchrun and accelerate launch it."""

from prunekit.cli import main

if __name__ == "__main__":
    main()
