"""Trees, systems, tokens, grammar: what is written can be read, what is drawn is valid, and values agree."""

from __future__ import annotations

import ast
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import sympy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sciode import prose
from sciode.prose import (
    SYSTEMS,
    Expression,
    Grammar,
    Programs,
    Vocabulary,
    constant,
    cos,
    latex,
    of_dimension,
    on_grid,
    parameter,
    sin,
    to_sympy,
    variable,
    variables,
)
from sciode.prose.guesses import with_less, with_more
from sciode.prose.vocabulary import DIGITS

U, V = variables(2)
LEAVES = st.one_of(
    st.integers(0, 2).map(variable), st.floats(-50, 50).filter(lambda x: x == 0 or abs(x) > 1e-6).map(constant)
)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda pair: pair[0] + pair[1]),
        st.tuples(inner, inner).map(lambda pair: pair[0] - pair[1]),
        st.tuples(inner, inner).map(lambda pair: pair[0] * pair[1]),
        inner.map(sin),
        inner.map(cos),
        inner.map(lambda one: one**2),
        inner.map(lambda one: -one),
    ),
    max_leaves=8,
)


def rounded(tree: Expression) -> Expression:
    return tree.with_constants([on_grid(one) for one in tree.constants])


@given(st.lists(TREES, min_size=1, max_size=3))
@settings(deadline=None, max_examples=60)
def test_what_is_written_is_read_back(equations: list[Expression]) -> None:
    vocabulary = Vocabulary(3)
    assert vocabulary.decoded(vocabulary.encoded(equations)) == tuple(rounded(one) for one in equations)


@given(st.floats(-1e9, 1e9).filter(lambda x: x == 0 or abs(x) > 1e-7))
def test_the_grid_is_three_digits_and_its_own_grid(value: float) -> None:
    found = on_grid(value)
    assert on_grid(found) == found
    assert abs(found - value) <= 0.5 * 10 ** (1 - DIGITS) * abs(value) * (1 + 1e-12)


def test_numbers_that_tokens_cannot_say_are_refused_or_nothing() -> None:
    assert on_grid(1e-20) == 0.0
    for value in (math.nan, math.inf, 1e20):
        with pytest.raises(ValueError):
            on_grid(value)


@given(st.lists(TREES, min_size=1, max_size=4), st.integers(0, 2**16))
@settings(deadline=None, max_examples=40)
def test_programs_say_what_trees_say(trees: list[Expression], seed: int) -> None:
    """A tree, sympy, and many trees at once are one function."""
    u = torch.randn(len(trees), 5, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    programs = Programs([[tree] for tree in trees], 3)
    found = programs(u)
    assert found[..., 1:].eq(0).all()
    for place, tree in enumerate(trees):
        value = tree.at([u[place, :, k] for k in range(3)])
        torch.testing.assert_close(found[place, :, 0], torch.as_tensor(value).expand(5), rtol=1e-12, atol=1e-12)
    symbols = {sympy.Symbol(f"u_{k}"): float(u[0, 0, k]) for k in range(3)}
    shown = float(sympy.N(to_sympy(trees[0]).subs(symbols)))
    assert shown == pytest.approx(float(found[0, 0, 0]), rel=1e-4, abs=1e-3)


def test_gradients_of_programs_reach_numbers_and_variables() -> None:
    tree = 2.0 * U * V + sin(3.0 * U)
    programs = Programs([[tree, V], [U**2]], 2)
    u = torch.tensor([[0.3, -0.7], [1.1, 0.4]], dtype=torch.float64)
    numbers = programs.constants.clone().requires_grad_()
    assert torch.autograd.gradcheck(programs, (u.requires_grad_(), numbers))
    assert programs.owners.tolist() == [0, 0]


@given(st.lists(TREES, min_size=1, max_size=3))
@settings(deadline=None, max_examples=30)
def test_numbers_of_programs_are_those_of_trees_in_their_order(trees: list[Expression]) -> None:
    programs = Programs([[tree] for tree in trees], 3)
    assert programs.constants.tolist() == [one for tree in trees for one in tree.constants]
    u = torch.randn(len(trees), 4, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    moved = programs.constants + 0.5
    left = iter(moved.tolist())
    others = [[tree.with_constants([next(left) for _ in tree.constants])] for tree in trees]
    torch.testing.assert_close(programs(u, moved), Programs(others, 3)(u), rtol=1e-12, atol=1e-12)


def test_a_system_with_parameters_is_no_program() -> None:
    with pytest.raises(ValueError, match="p_a"):
        Programs([[parameter("a") * U]], 2)
    with pytest.raises(ValueError, match="u_1"):
        Programs([[V]], 1)


def test_sequences_that_are_no_trees_are_refused() -> None:
    for symbols in (("add", "u_0"), ("u_0", "u_1"), ()):
        with pytest.raises(ValueError):
            Expression(symbols)
    vocabulary = Vocabulary(2)
    for words in (["u_0"], ["+", "u_0", "end"], ["C", "end"], ["add", "u_0", "end"]):
        with pytest.raises(ValueError):
            vocabulary.decoded([vocabulary.ids[word] for word in words])


@given(TREES)
@settings(deadline=None, max_examples=60)
def test_the_terms_of_a_sum_add_up_to_it(tree: Expression) -> None:
    u = torch.randn(3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    whole = torch.as_tensor(tree.at(list(u)), dtype=torch.float64).expand(4)
    parts = sum(torch.as_tensor(one.at(list(u)), dtype=torch.float64).expand(4) for one in tree.terms())
    torch.testing.assert_close(parts, whole, rtol=1e-9, atol=1e-9)


def drawn(grammar: Grammar, dimensions: Sequence[int], longest: int, seed: int) -> list[list[int]]:
    """Sequences of tokens drawn evenly from what is allowed."""
    generator = torch.Generator().manual_seed(seed)
    state = grammar.begin(torch.tensor(dimensions), longest)
    found = []
    for _ in range(longest):
        mask = grammar.allowed(state)
        assert bool(mask.any(1).all())
        tokens = torch.multinomial(mask.double(), 1, generator=generator)[:, 0]
        state = grammar.advanced(state, tokens)
        found.append(tokens)
    assert state.over.eq(1).all()
    return torch.stack(found, 1).tolist()


@pytest.mark.parametrize("longest", [10, 11, 12, 30, 80])
def test_whatever_the_grammar_allows_is_a_system_that_ends_in_time(longest: int) -> None:
    vocabulary = Vocabulary(5)
    dimensions = [1, 2, 3, 4, 5] * 20
    for ids, dimension in zip(drawn(Grammar(vocabulary), dimensions, longest, longest), dimensions, strict=True):
        end = ids.index(vocabulary.ids["end"])
        assert all(one == vocabulary.ids["pad"] for one in ids[end + 1 :])
        equations = vocabulary.decoded(ids[: end + 1])
        assert len(equations) == dimension
        Programs([equations], dimension)


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_can_be_spelt_and_the_grammar_allows_it(name: str) -> None:
    system, vocabulary = SYSTEMS[name], Vocabulary(5)
    equations = tuple(one.bound(system.nominal) for one in system.equations)
    ids = vocabulary.encoded(equations)
    assert len(ids) <= 150
    grammar = Grammar(vocabulary)
    state = grammar.begin(torch.tensor([system.dimension]), len(ids))
    for one in ids:
        assert bool(grammar.allowed(state)[0, one]), vocabulary.words[one]
        state = grammar.advanced(state, torch.tensor([one]))
    assert vocabulary.decoded(ids) == tuple(rounded(one) for one in equations)
    assert r"\dot" in latex(equations)


def test_too_few_tokens_for_a_system_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 6"):
        Grammar(Vocabulary(3)).begin(torch.tensor([3]), 5)
    with pytest.raises(ValueError, match="between 1 and 3"):
        Grammar(Vocabulary(3)).begin(torch.tensor([4]), 50)


def field(name: str, u: Sequence[float]) -> list[float]:
    system = SYSTEMS[name]
    at = [torch.tensor(one, dtype=torch.float64) for one in u]
    return [float(one.at(at, system.nominal)) for one in system.equations]


def test_right_hand_sides_are_those_of_the_literature() -> None:
    """Written out a second time by hand, at one point each."""
    x, y, z = 0.7, -1.3, 0.4
    assert field("lorenz", (x, y, z)) == pytest.approx([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z])
    assert field("thomas", (x, y, z)) == pytest.approx(
        [math.sin(y) - 0.17 * x, math.sin(z) - 0.17 * y, math.sin(x) - 0.17 * z]
    )
    aizawa = 0.6 + 0.95 * z - z**3 / 3 - x**2 + 0.1 * z * x**3
    assert field("aizawa", (x, y, z)) == pytest.approx([(z - 0.7) * x - 3.5 * y, 3.5 * x + (z - 0.7) * y, aizawa])
    assert field("roessler", (x, y, z)) == pytest.approx([-y - z, x + 0.1 * y, 0.1 + z * (x - 14)])
    assert field("duffing", (x, y, z)) == pytest.approx([1, z, -0.02 * z - y - 5 * y**3 + 8 * math.cos(0.5 * x)])
    assert field("four_wing", (x, y, z)) == pytest.approx([0.2 * x + y * z, 0.01 * x - 0.4 * y - x * z, -z - x * y])
    u = (0.3, -0.2, 1.1, 0.8)
    expected = [(u[(i + 1) % 4] - u[i - 2]) * u[i - 1] - u[i] + 8 for i in range(4)]
    assert field("lorenz_96_4", u) == pytest.approx(expected)


def test_the_double_pendulum_keeps_its_energy() -> None:
    """E = v^2 + w^2 / 2 + v w cos(a - b) - g (2 cos a + cos b) for unit masses and lengths."""
    at = torch.tensor([0.4, -0.9, 0.7, 1.3], dtype=torch.float64, requires_grad=True)
    a, b, v, w = at
    energy = v**2 + w**2 / 2 + v * w * torch.cos(a - b) - 9.81 * (2 * torch.cos(a) + torch.cos(b))
    slope = torch.autograd.grad(energy, at)[0]
    rate = torch.tensor(field("double_pendulum", at.tolist()), dtype=torch.float64)
    assert float((slope * rate).sum()) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("name", sorted(SYSTEMS))
def test_wrong_guesses_are_one_term_more_or_one_fewer_in_one_component(name: str) -> None:
    system = SYSTEMS[name]
    equations = tuple(one.bound(system.nominal) for one in system.equations)

    def count(some: tuple[Expression, ...]) -> int:
        return sum(len(list(one.terms())) for one in some)

    more = list(with_more(equations, [U, U * V]))
    assert len(more) == 2 * system.dimension
    assert {count(one) for one in more} == {count(equations) + 1}
    several = [one for one in equations if len(list(one.terms())) > 1]
    fewer = list(with_less(equations))
    assert len(fewer) == count(tuple(several))
    assert {count(one) for one in fewer} <= {count(equations) - 1}
    for one in (*more, *fewer):
        assert sum(a != b for a, b in zip(equations, one, strict=True)) == 1


def test_the_sets_of_the_paper_have_twelve_and_fifteen_systems() -> None:
    assert len(of_dimension(3)) == 12 and len(of_dimension(5)) == 15


def test_nothing_is_run_or_parsed_as_code_or_by_sympy() -> None:
    """Text becomes equations by `Vocabulary.decoded` alone: no name in the package evaluates or parses any."""
    forbidden = {"eval", "exec", "compile", "sympify", "parse_expr", "lambdify", "S"}
    for file in sorted(Path(prose.__file__).parent.glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
            called = isinstance(node, ast.Name) or name in ("sympify", "parse_expr", "lambdify")
            assert not (called and name in forbidden), f"{file.name}: {name}"
