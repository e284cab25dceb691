"""How each framework runs a cell. A module here has one function, ``run(cell, weights, record)``.

It trains the cell's spec from the portable policy in the file ``weights`` (None where the cell's memory is
the framework's own), after checking that its parameters are that policy's, tells the recorder of every
update, and names in ``record.differences`` what it cannot set as the spec says.
"""
