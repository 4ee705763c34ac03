"""Students: the contract, the built-in architectures, saving and loading."""
