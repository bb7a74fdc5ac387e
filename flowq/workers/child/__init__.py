"""What runs in the processes of a worker's children, and nowhere else."""
