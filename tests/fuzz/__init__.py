"""Bad bytes for everything that reads foreign bytes: `python -m tests.fuzz`.

mutation.py  real files, spoilt: flipped bits, cuts, splices, edited lengths
seeds.py     the real files, made here, a few of each kind
targets.py   what reads them, and by which errors it may refuse
worker.py    one child process: input after input, each noted before it is tried
__main__.py  the parent: children watched for crashes, hangs and memory; a table
"""
