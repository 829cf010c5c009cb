"""The README and the docs against the code: flags, names, options, links and code blocks."""

import itertools
import json
import math
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, cast

import click
import pytest
import torch
import yaml

import ivra
from ivra.attention import LEVELS, NORMALISERS, READINGS
from ivra.backbones import FAMILIES, TINY, load_backbone
from ivra.cli.main import COMMANDS, main
from ivra.contract import check_criterion
from ivra.data import Row, encode_rows, read_rows
from ivra.data.builtin import SIZES
from ivra.evaluation import BASELINES, CHOICES, METRICS, PRESETS, token_scores
from ivra.explainers import PROJECTIONS, STATIC, explainer_options
from ivra.losses import (
    AOPC_BINS,
    TOPK_GRADIENTS,
    Criterion,
    Setup,
    View,
    check_terms,
)
from ivra.losses.registry import BUILT_IN
from ivra.studies import METHODS, SCALES, Study, make_study, plan, read_study
from ivra.studies import PRESETS as STUDIES
from ivra.training import TrainConfig, make_config, read_config
from ivra.training.combining import COMBINERS, NORMALISATIONS

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXT = {page.name: page.read_text(encoding="utf-8") for page in PAGES}

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*")

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


class Block(NamedTuple):
    """A fenced block: where it stands, its language and its text."""

    page: str
    language: str
    text: str


def blocks(language: str | None = None) -> list[Block]:
    found = [
        Block(name, match[1], match[2])
        for name, text in TEXT.items()
        for match in FENCE.finditer(text)
    ]
    return [block for block in found if language in (None, block.language)]


def inline(text: str) -> list[str]:
    return INLINE.findall(FENCE.sub("", text))


def flags_of(command: str) -> set[str]:
    found = main.get_command(click.Context(main), command)  # type: ignore[attr-defined]
    return {option for parameter in found.params for option in parameter.opts}


FLAGS = {command: flags_of(command) for command in COMMANDS}


def command_lines() -> Iterator[tuple[str, str]]:
    """Every ``ivra ...`` in a shell block or in inline code, continued lines joined."""
    for name, text in TEXT.items():
        shell = "\n".join(block.text for block in blocks("bash") if block.page == name)
        for line in [*shell.replace("\\\n", " ").splitlines(), *inline(text)]:
            line = line.partition(" #")[0].strip()
            if re.match(r"(\S*/)?ivra \S", line):
                yield name, line


def test_every_command_named_exists_with_its_flags() -> None:
    lines = list(command_lines())
    assert {line.split()[1] for _, line in lines} >= set(COMMANDS)
    wrong = []
    for page, line in lines:
        command = line.split()[1]
        if command == "...":
            continue
        known = FLAGS.get(command)
        if known is None or set(FLAG.findall(line)) - known:
            wrong.append(f"{page}: {line}")
    assert wrong == []


@each_page
def test_every_flag_named_alone_exists(page: Path) -> None:
    known = set().union(*FLAGS.values())
    code = [
        code
        for code in inline(TEXT[page.name])
        if not code.startswith(("ivra ", "pip ", "python "))
    ]
    assert {flag for piece in code for flag in FLAG.findall(piece)} - known == set()


def shown(default: object) -> str:
    if default is None or default == {}:
        return "none"
    if isinstance(default, tuple):
        return ",".join(shown(part) for part in default)
    return f"{default:g}" if isinstance(default, float) else str(default)


@pytest.mark.parametrize("name", TrainConfig.model_fields)
def test_every_option_of_training_stands_in_the_table(name: str) -> None:
    """With its default and description as they are in the code."""
    field = TrainConfig.model_fields[name]
    row = f"| `{name}` | {shown(field.default)} | {field.description} |"
    assert row in TEXT["runs.md"].splitlines(), f"docs/runs.md lacks the line: {row}"


def test_the_table_has_no_option_that_is_gone() -> None:
    table = TEXT["runs.md"].partition("| key | default | meaning |")[2]
    named = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert named == list(TrainConfig.model_fields)


@pytest.mark.parametrize("name", ivra.__all__)
def test_every_public_name_is_documented(name: str) -> None:
    code = [*(block.text for block in blocks("python"))]
    code += [piece for text in TEXT.values() for piece in inline(text)]
    word = re.compile(rf"(?<!\w){re.escape(name)}(?!\w)")
    assert any(word.search(piece) for piece in code)


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("attention.md", [*LEVELS, *READINGS, *NORMALISERS]),
        ("backbones.md", [*FAMILIES, *TINY]),
        ("criteria.md", [*TOPK_GRADIENTS, "attention", "embedding", "ivra.criteria"]),
        ("criteria.md", [criterion.name for criterion in BUILT_IN]),
        ("evaluation.md", [*PRESETS, *(value for values in CHOICES.values() for value in values)]),
        ("evaluation.md", ["ivra", "none", *BASELINES, *(f"--{name}" for name in METRICS)]),
        ("mixing.md", [*COMBINERS, *NORMALISATIONS]),
        ("explainers.md", [*STATIC, "ivra", *PROJECTIONS, "ivra.explainers"]),
        (
            "explainers.md",
            [option for kind in STATIC.values() for option in explainer_options(kind)],
        ),
    ],
)
def test_every_choice_is_documented(page: str, names: list[str]) -> None:
    assert set(names) - set(inline(TEXT[page])) == set()


@pytest.mark.parametrize("described", [View, Setup], ids=lambda described: described.__name__)
def test_every_field_a_criterion_may_read_stands_in_a_table(described: type) -> None:
    fields = set(described.__dataclass_fields__)  # type: ignore[attr-defined]
    fields |= {name for name, value in vars(described).items() if isinstance(value, property)}
    rows = re.findall(r"^\| `(\w+)[`(]", TEXT["criteria.md"], re.MULTILINE)
    assert fields - set(rows) == set()


def test_the_bins_and_the_sizes_are_those_of_the_code() -> None:
    bins = f"{', '.join(f'{percent:g}' for percent in AOPC_BINS)} percent by default"
    assert all(bins in TEXT[page] for page in ("criteria.md", "evaluation.md"))
    train, dev, test = (SIZES[split] for split in ("train", "dev", "test"))
    assert f"{train} training rows, {dev} dev, {test} test" in TEXT["data.md"]


def test_the_two_commands_of_the_readme_are_targets_of_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = re.findall(r"^make (\w+)", blocks("bash")[0].text, re.MULTILINE)
    assert named == ["demo", "test"]
    for target in named:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_the_readme_shows_the_documents() -> None:
    for page in PAGES[1:]:
        assert f"](docs/{page.name})" in TEXT["README.md"]


@pytest.mark.parametrize(
    ("page", "title"), [("README.md", "Results"), ("attention.md", "Measured")]
)
def test_the_places_of_generated_tables_are_there(page: str, title: str) -> None:
    section = TEXT[page].partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    assert f"<!-- {title.lower()} -->" in section


@each_page
def test_links_resolve(page: Path) -> None:
    broken = []
    for link in LINK.findall(FENCE.sub("", TEXT[page.name])):
        path, _, anchor = link.partition("#")
        if link.startswith(("http://", "https://")):
            continue
        target = page.parent / path if path else page
        there = target.exists()
        if not there or (anchor and anchor not in anchors(target.read_text(encoding="utf-8"))):
            broken.append(link)
    assert broken == []


def anchors(text: str) -> set[str]:
    """The names GitHub gives to the headings of a page."""
    titles = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@each_page
def test_fences_are_closed_and_have_a_language(page: Path) -> None:
    assert TEXT[page.name].count("```") == 2 * len(FENCE.findall(TEXT[page.name]))
    assert all(block.language for block in blocks() if block.page == page.name)


def test_python_blocks_compile_and_their_imports_exist() -> None:
    for block in blocks("python"):
        compile(block.text, block.page, "exec")
        for line in re.findall(r"^from ivra.*$", block.text, re.MULTILINE):
            module, _, names = line.removeprefix("from ").partition(" import ")
            found = __import__(module, fromlist=["_"])
            assert all(hasattr(found, name.strip()) for name in names.split(","))


def test_yaml_blocks_are_configurations() -> None:
    assert blocks("yaml")
    for block in blocks("yaml"):
        make = make_study if block.page == "studies.md" else make_config
        make(yaml.safe_load(block.text))


def test_the_study_of_the_docs_has_the_cells_it_speaks_of(tmp_path: Path) -> None:
    text = next(block.text for block in blocks("yaml") if block.page == "studies.md")
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    cells = plan(read_study(tmp_path / "mine.yaml"), tmp_path / "out")
    assert len(cells) == 3 * (1 + 3 * 2)


def test_the_tables_of_studies_are_those_of_the_code() -> None:
    lines = TEXT["studies.md"].splitlines()
    for name, field in Study.model_fields.items():
        default = ",".join(map(str, field.default)) if field.default else ""
        if not isinstance(field.default, dict | tuple):
            default = str(field.default)
        assert f"| `{name}` | {default or 'none'} | {field.description} |" in lines
    for table in (STUDIES, SCALES):
        for name, entry in table.items():  # type: ignore[attr-defined]
            assert f"| `{name}` | {entry.summary} |" in lines
    for method in METHODS:
        assert any(line.startswith(f"| `{method}` | ") for line in lines)


def test_the_example_configuration_fits() -> None:
    config = make_config(read_config(ROOT / "examples" / "config.yaml"))
    assert config.criteria == "sim,suff:0.5"


def test_the_example_configuration_names_real_keys_in_its_comments_too() -> None:
    text = (ROOT / "examples" / "config.yaml").read_text(encoding="utf-8")
    whole = yaml.safe_load(re.sub(r"^# (?=\w+: )", "", text, flags=re.MULTILINE))
    assert set(whole) - set(TrainConfig.model_fields) == set()
    assert "eval_data" in whole


@pytest.mark.parametrize("language", ["jsonl", "csv"])
def test_rows_of_the_data_formats_are_read(language: str, tmp_path: Path) -> None:
    found = blocks(language)
    assert found
    for number, block in enumerate(found):
        path = tmp_path / f"{number}.{language}"
        path.write_text(block.text, encoding="utf-8")
        assert any(row.rationale or row.answers for row in read_rows(path))


def test_a_marked_word_is_the_word_the_text_speaks_of(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(blocks("jsonl")[0].text, encoding="utf-8")
    row = read_rows(path)[0]
    assert row.rationale is not None
    assert [row.texts[0][start:end] for start, end in row.rationale[0]] == ["not", "good"]


class OnlySaliency:
    """All that the plugin of the docs reads of a view."""

    def __init__(self, saliency: torch.Tensor) -> None:
        self.saliency = saliency


@pytest.mark.parametrize("page", ["criteria.md", "README.md"])
def test_the_plugin_of_under_ten_lines_works(page: str, tmp_path: Path) -> None:
    source = next(b for b in blocks("python") if b.page == page and "Criterion)" in b.text).text
    assert len(source.strip().splitlines()) < 10
    path = tmp_path / "plugin.py"
    path.write_text(source, encoding="utf-8")
    criterion: Criterion = runpy.run_path(str(path))["Brevity"]()
    rows = [[0.5, 0.25, 0.25, 0.0], [1.0, 0.0, 0.0, 0.0], [0.25, 0.25, 0.25, 0.25]]
    saliency = torch.tensor(rows, dtype=torch.float64, requires_grad=True)
    terms = check_terms(criterion, criterion(cast(View, OnlySaliency(saliency))), rows=3)
    by_hand = [-sum(p * math.log(p) for p in row if p > 0) for row in rows]
    assert terms.total().tolist() == pytest.approx(by_hand, abs=1e-9)
    terms.total().sum().backward()
    assert saliency.grad is not None
    assert torch.isfinite(saliency.grad).all()
    verdicts = check_criterion(type(criterion).build)
    assert [verdict for verdict in verdicts if verdict.outcome == "fail"] == []


def test_the_explainer_of_the_docs_works(tmp_path: Path) -> None:
    source = next(b for b in blocks("python") if "Explainer)" in b.text).text
    path = tmp_path / "plugin.py"
    path.write_text(source, encoding="utf-8")
    kind = runpy.run_path(str(path))["Lead"]
    assert list(explainer_options(kind)) == ["decay"]
    backbone = load_backbone("tiny-gpt2", ("no", "yes"))
    rows = [Row("one", ("not good .",)), Row("two", ("great",))]
    items = encode_rows(rows, backbone.tokenizer, None, 32)
    found = token_scores(kind(0.5), backbone, items)
    kept = [
        scores[torch.tensor(item.explainable)].tolist()
        for item, scores in zip(items, found, strict=True)
    ]
    assert kept == [[1.0, 0.5, 0.25], [1.0]]


def test_the_first_thing_in_the_docs_of_criteria_is_the_plugin() -> None:
    first = next(block for block in blocks() if block.page == "criteria.md")
    assert "class Brevity(Criterion)" in first.text


def test_log_lines_have_the_keys_of_the_code() -> None:
    """The dots of the example stand for numbers."""
    from ivra.training.log import LogEntry

    example = next(b.text for b in blocks("text") if b.page == "runs.md" and '"stage"' in b.text)
    lines = [
        json.loads(re.sub(r"\{\.\.\.\}", "{}", line).replace("...", "0"))
        for line in example.splitlines()
    ]
    assert set(lines[0]) == set(LogEntry.__required_keys__)
    assert set().union(*lines) == set(LogEntry.__annotations__)
    for one, other in itertools.combinations(lines[1:], 2):
        assert set(one) & set(other) == set(LogEntry.__required_keys__)
