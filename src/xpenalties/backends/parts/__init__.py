"""Arrays of which each device holds a part. Reductions along a cut axis are completed by a collective operation.

A `Part` is a local array that knows which of its axes are cut. It has the shape of the whole array. Formulas compute
with it as with any other array, through a namespace of its own, and so get the values of the whole array.
"""
