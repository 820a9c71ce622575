"""PTX text: its data model (`model`), operands (`operands`) and parser (`parser`)."""

from .model import Function, Instr, Label, Module, Variable
from .parser import parse

__all__ = ["Function", "Instr", "Label", "Module", "Variable", "parse"]
