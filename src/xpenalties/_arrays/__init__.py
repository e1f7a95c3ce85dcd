"""What the array API standard lacks, for arrays of any framework: numerics at edges, gradients, exchange."""
