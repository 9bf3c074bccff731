"""Files of weights, whosever they are: told of without torch, read without running their code, and
carried to the names and shapes that networks have here.
"""
