"""Small faults in Python source: one changed comparison, operator, number, name, branch or result each."""

import ast
from collections.abc import Iterator
from typing import NamedTuple

_SWAPS = """Lt:LtE,GtE LtE:Lt,Gt Gt:GtE,LtE GtE:Gt,Lt Eq:NotEq NotEq:Eq Is:IsNot IsNot:Is In:NotIn NotIn:In
And:Or Or:And Add:Sub Sub:Add Mult:Div Div:Mult FloorDiv:Mult Pow:Mult BitAnd:BitOr"""
OPERATORS: dict[type, list[type]] = {
    getattr(ast, old): [getattr(ast, name) for name in new.split(",")]
    for old, _, new in (pair.partition(":") for pair in _SWAPS.split())
}
_PAIRS = (
    "min max",
    "any all",
    "minimum maximum",
    "floor ceil",
    "argmin argmax",
    "startswith endswith",
)
NAMES = {a: b for pair in _PAIRS for a, b in (pair.split(), pair.split()[::-1])}
SKIPPED = (ast.Raise, ast.Assert, ast.JoinedStr, ast.Import, ast.ImportFrom)
SKIPPED_FIELDS = ("annotation", "returns", "decorator_list", "op", "ops")


class Mutant(NamedTuple):
    """One fault: its module, how it reads, and the text of the module with it.

    `key` names it by function, line and change, and is the same wherever the line has moved to.
    """

    module: str
    key: str
    source: str


def changes(node: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
    """Parts of a node and what stands there instead."""
    match node:
        case ast.Compare(left, ops, right):
            for i, op in enumerate(ops):
                for other in OPERATORS[type(op)]:
                    yield node, ast.Compare(left, [*ops[:i], other(), *ops[i + 1 :]], right)
        case ast.BoolOp(op, values):
            yield node, ast.BoolOp(OPERATORS[type(op)][0](), values)
        case ast.BinOp(left, op, right) if type(op) in OPERATORS:
            yield node, ast.BinOp(left, OPERATORS[type(op)][0](), right)
        case ast.AugAssign(target, op, value) if type(op) in OPERATORS:
            yield node, ast.AugAssign(target, OPERATORS[type(op)][0](), value)
        case ast.UnaryOp(ast.Not() | ast.USub(), operand):
            yield node, operand
        case ast.Constant(bool(value)):
            yield node, ast.Constant(not value)
        case ast.Constant(int(value)):
            yield from ((node, ast.Constant(value + step)) for step in (1, -1))
        case ast.Constant(float(value)):
            step = 0.02 if value == 0 or 0.1 <= abs(value) < 1 else 0.1 * value
            yield from ((node, ast.Constant(float(f"{value + s:.6g}"))) for s in (step, -step))
        case ast.Name(name) | ast.Attribute(_, name) if name in NAMES:
            new = ast.Name(NAMES[name])
            yield node, new if isinstance(node, ast.Name) else ast.Attribute(node.value, new.id)
        case ast.IfExp(_, body, orelse):
            yield from ((node, body), (node, orelse))
        case ast.If(test) | ast.While(test) if isinstance(
            test, ast.Name | ast.Attribute | ast.Call
        ):
            yield test, ast.UnaryOp(ast.Not(), test)
        case ast.Return(ast.expr() as value) if not isinstance(value, ast.Constant):
            yield value, ast.Constant(None)


def _nodes(node: ast.AST, function: str = "module") -> Iterator[tuple[ast.AST, str]]:
    """The nodes of which changes may matter, with the function or class they are in."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        function = node.name
    yield node, function
    for field, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or isinstance(child, SKIPPED):
                continue
            if field not in SKIPPED_FIELDS:
                yield from _nodes(child, function)


def mutants_of(module: str, source: str) -> list[Mutant]:
    """Every fault of a module that `changes` knows; `module` is `stats/rates`."""
    lines = source.encode().splitlines(keepends=True)
    starts = [sum(map(len, lines[:i])) for i in range(len(lines))]
    whole, found = b"".join(lines), []
    for node, function in _nodes(ast.parse(source)):
        for old, new in changes(node):
            begin = starts[old.lineno - 1] + old.col_offset  # type: ignore[attr-defined]
            end = starts[old.end_lineno - 1] + old.end_col_offset  # type: ignore[attr-defined]
            text = ast.unparse(new) if isinstance(new, ast.stmt) else f"({ast.unparse(new)})"
            mutated = (whole[:begin] + text.encode() + whole[end:]).decode()
            line = lines[old.lineno - 1].decode().strip()  # type: ignore[attr-defined]
            change = f"{ast.unparse(old)} -> {ast.unparse(new)}"
            found.append(Mutant(module, f"{module}.py {function} | {line} | {change}", mutated))
    return found
