"""Students: the contract and one architecture a file."""
