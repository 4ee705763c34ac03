"""What a process uses of the machine: its threads, its memory, its device."""
