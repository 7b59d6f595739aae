"""Rows of a batch by a compiled kernel, many in one call that leaves the interpreter's lock to other threads.

It draws random numbers (`draws`), finds random crops (`calls.random_crops`), cuts boxes out, resizes them, and takes a
window of that, which it flips and normalizes (`calls.cut`). Of images that are stored as they are it reads what is cut
out, and compares checksums (`stored`). Of JPEGs it decodes only what is cut out (`jpegs.cut_jpegs`). It does the
operations of policies, and puts occluders in front of images (`pixels`). All of that, for images that are stored as
they are, is one call for each thread (`rows`): it takes the next image that no other thread has, and is done when none
is left.

Its bits are those of the same work in Python and torch, which is done where there is no kernel
(accel_trainer.data.augment.geometry): boxes by the same arithmetic on doubles; torch's antialiased bilinear resize of
bytes, with weights of 16 bits and bytes between its two passes; floats by a product and a sum, each rounded. When it
is loaded it is tried on a small image, and not used where torch gives another one; so are operations and occluders, by
those who use them. What it is given is checked: here that memory is of the type and size that it takes, in C that boxes
are inside of their images.

It is C without Python. `pip install` compiles it where there is a C compiler, and goes on where there is none;
`library.state` says which it is.
"""
