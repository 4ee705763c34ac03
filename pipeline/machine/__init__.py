"""How a process shares the machine: threads and memory."""
