"""Functions that the array API standard lacks, for any framework: numerics at edge cases, gradients, exchange."""
