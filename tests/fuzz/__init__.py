"""Bad bytes for everything that reads foreign bytes: `python -m tests.fuzz`.

mutation.py  damages real files: flipped bits, cuts, splices, edited lengths and tags
seeds.py     real files, made here, a few of each kind
targets.py   the readers, and the errors by which each may refuse
worker.py    one process for one target; each input is written down before it is tried
__main__.py  starts the workers, notes how they die, prints a table
"""
