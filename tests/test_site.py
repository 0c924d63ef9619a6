"""The site and the code in it: pages are built, links lead somewhere, and what readers are told to type works."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
import typer
from IPython.core.history import HistoryManager
from IPython.core.interactiveshell import InteractiveShell

from hf_metaprune import Bank, MetaPruner, cli
from hf_metaprune.cli.app import app
from hf_metaprune.cli.commands import method_options
from hf_metaprune.cli.options import field_type, split_values
from hf_metaprune.config import AdaptOptions, SearchOptions, TrainingOptions
from hf_metaprune.files import shipped
from hf_metaprune.methods.method import METHODS
from hf_metaprune.options import option_fields, override
from hf_metaprune.similarity.similarity import SIMILARITIES
from scripts import make_cli_docs
from tests.conftest import REPO
from tests.hub.fixtures import hub

__all__ = ["hub"]

DOCS = REPO / "docs"
GENERATED = {DOCS / "reference" / name for name in make_cli_docs.PAGES}
PAGES = [REPO / "README.md", REPO / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))
SMALL = {"STEPS": 2, "ADAPT_STEPS": 2, "SAMPLES": 10, "NEIGHBORS": 2}
"""Parameters of notebooks, for a test; so few steps hold no schedule of pruning, which a warning says."""

TRAINING = ["--steps", "2", "--batch-size", "16"]
SMALLER = {
    "adapt": TRAINING,
    "sweep": [*TRAINING, "--ratios", "0.8,0.9"],
    "bank build": [*TRAINING, "--tasks", "2", "--classes", "2"],
    "bank trunk": [*TRAINING, "--lr", "0.01"],
}
"""What is added to commands that would take long."""
ANY_TIME = ["--max-latency-ms", "100000"]
"""In the place of milliseconds, which are those of the machine that wrote the page."""
NOT_RUN = {
    "demo": "test_cli runs it with a small bank",
    "space": "tests/app serves it, and visits it",
    "--int8": "test_export runs it; it is refused where labels change, as of a model of two steps",
}


def page_name(path: Path) -> str:
    return path.relative_to(REPO).as_posix()


# --- the site ---------------------------------------------------------------------------------------------------------


class Links(HTMLParser):
    """Where a page of the site leads, the names of its parts, and what a browser would load by itself."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.ids |= {attributes[name] for name in ("id", "name") if name in attributes}
        if tag == "a" and "href" in attributes:
            self.links.append(attributes["href"])
        address = attributes.get("href") if tag == "link" else attributes.get("src")
        if address and attributes.get("rel") != "canonical":
            self.loaded.append(address)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built from the docs of this moment; a warning is an error."""
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    folder = tmp_path_factory.mktemp("site")
    config = load_config(str(REPO / "mkdocs.yml"), site_dir=str(folder), strict=True)
    config.plugins.on_startup(command="build", dirty=False)
    build(config)
    config.plugins.on_shutdown()
    return folder


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of mkdocs and its plugins
def test_every_link_and_every_file_of_the_site_is_there(site: Path) -> None:
    pages = {page: Links(page.read_text()) for page in site.rglob("*.html") if page.name != "404.html"}
    assert len(pages) >= len(NOTEBOOKS) + len(PAGES) - 2
    missing = []
    for page, parser in pages.items():
        for link in [*parser.links, *parser.loaded]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            target = target / "index.html" if target.is_dir() else target
            anchors = pages[target].ids if target in pages else set()
            if not target.is_file() or (parts.fragment and target in pages and unquote(parts.fragment) not in anchors):
                missing.append(f"{page.relative_to(site)}: {link}")
    assert missing == []


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        away = [address for address in Links(page.read_text()).loaded if urlsplit(address).netloc]
        assert away == [], page.relative_to(site)


@pytest.mark.parametrize("name", make_cli_docs.PAGES)
def test_pages_that_are_made_from_the_code_are_up_to_date(name: str) -> None:
    expected, text = make_cli_docs.PAGES[name](), (DOCS / "reference" / name).read_text()
    assert text == expected, "uv run scripts/make_cli_docs.py writes it anew"


@pytest.mark.parametrize("path", [REPO / "README.md", REPO / "CONTRIBUTING.md", REPO / "CHANGELOG.md"], ids=page_name)
def test_what_files_outside_the_site_point_to_is_there(path: Path) -> None:
    text = path.read_text()
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not urlsplit(link).scheme]
    paths = re.findall(r"\b(?:docs|scripts|examples|tests|space|hf_metaprune)/[\w./-]*\w", text)
    assert [link for link in {*links, *paths} if not (REPO / link.partition("#")[0]).exists()] == []


# --- code and commands ------------------------------------------------------------------------------------------------


@dataclass
class Block:
    """A fenced block of a page."""

    language: str
    text: str
    line: int
    not_run: str
    """Why it is not run, if the page says so in a comment before it."""


BLOCK = re.compile(r"(?:<!-- not run: (?P<why>[^>]+?) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S)
COMMAND = re.compile(r"(?:[A-Z_]+=\S+ )*(?:uv run (?:--extra \w+ )*)?hf-metaprune (.+)")


def blocks(path: Path) -> Iterator[Block]:
    text = path.read_text()
    for match in BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("text")) + 1
        yield Block(match["language"], match["text"], line, match["why"] or "")


def commands(text: str) -> list[str]:
    """Commands of ours in a block of shell, as they are typed."""
    lines = [part.strip() for line in text.splitlines() for part in line.split("#")[0].split("&&")]
    return [line for line in lines if COMMAND.fullmatch(line)]


def split_arguments(command: str) -> list[str]:
    match = COMMAND.fullmatch(command)
    assert match is not None
    return shlex.split(match[1])


def all_commands() -> list[tuple[str, str]]:
    """Every command of ours in a block without a language (which is shell), or in text between backticks."""
    pairs = []
    for path in PAGES:
        if path in GENERATED:
            continue
        inline = re.findall(r"(?<!`)`((?:uv run )?hf-metaprune [^`]+)`(?!`)", BLOCK.sub("", path.read_text()))
        lines = [command for block in blocks(path) if not block.language for command in commands(block.text)]
        pairs += [(page_name(path), " ".join(command.split())) for command in [*lines, *inline]]
    return list(dict.fromkeys(pairs))


@pytest.fixture
def parse() -> Callable[[list[str]], str]:
    """Parse a command line without running it, with the values of options checked; gives the command's name."""

    def call(arguments: list[str]) -> str:
        command, name = typer.main.get_command(app), []
        assert hasattr(command, "commands")
        for word in arguments:
            commands = getattr(command, "commands", None)
            if commands is None:
                break
            assert word in commands or word.startswith("-"), f"there is no command {word}"
            if word in commands:
                command = commands[word]
                name.append(word)
        if arguments == name or arguments[-1] in ("--help", "--version"):  # no more than its name is mentioned
            return " ".join(name)
        with command.make_context(" ".join(name), arguments[len(name) :]) as context:
            values = {key: value for key, value in context.params.items() if value is not None}
        pruning = method_options(str(values["method"])) if name == ["bank", "build"] else None
        for cls in (AdaptOptions, TrainingOptions) if pruning is None else (pruning,):
            check_values(cls, values)
        check_values(SearchOptions, values)
        return " ".join(name)

    return call


def check_values(cls: type, values: dict[str, object]) -> None:
    """The values of those options that a dataclass has, checked by it."""
    own = {
        key: split_values(key, field_type(cls, key), value)
        for key, value in values.items()
        if key in option_fields(cls)
    }
    override(cls(), own)


@pytest.mark.parametrize(("page", "command"), all_commands())
def test_commands_are_understood(page: str, command: str, parse: Callable[[list[str]], str]) -> None:
    parse([word for word in split_arguments(command) if word != "..."])


def test_the_check_of_commands_finds_mistakes(parse: Callable[[list[str]], str]) -> None:
    assert parse(["bank", "show", "x"]) == "bank show"
    for wrong in ("adapt a b --out c --stepz 1", "adapt a b", "bank shaw x", "adapt a b --out c --strategy none"):
        with pytest.raises(Exception, match=r"stepz|out|shaw|strategy"):
            parse(wrong.split())
    assert len(all_commands()) > 30


@pytest.fixture
def stage(
    tmp_path: Path,
    photos: Path,
    base_folder: Path,
    bank_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A folder as the pages have it, with a tiny bank in the place of the demo bank; we are in it."""
    folder = tmp_path / "stage"
    shutil.copytree(photos, folder / "photos")
    for name in ("other_photos", "many_classes"):
        shutil.copytree(photos, folder / name)
    photo = next((folder / "photos" / "cat").glob("*.jpg"))
    shutil.copy(photo, folder / "photo.jpg")
    (folder / "new_photos").mkdir()
    shutil.copy(photo, folder / "new_photos" / "one.jpg")
    shutil.copytree(base_folder, folder / "base_folder")
    shutil.copytree(bank_folder, folder / "space" / "demo_bank")
    monkeypatch.setattr(shipped, "_PLACES", (folder / "space",))
    (folder / "examples").symlink_to(REPO / "examples")
    monkeypatch.chdir(folder)
    monkeypatch.delenv("COLUMNS", raising=False)
    for registry in (METHODS, SIMILARITIES):  # what pages register is gone afterwards
        monkeypatch.setattr(registry, "_parts", dict(registry._parts))
    return folder


def prepared(page: str, stage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a page takes for granted."""
    if page in ("docs/howto/publish-a-bank.md", "docs/hub.md"):
        shutil.copytree(stage / "space" / "demo_bank", stage / "my_bank")
    if page == "docs/howto/work-offline.md":  # a bank of the Hub that has been used
        Bank.open(stage / "space" / "demo_bank").push_to_hub("me/my-bank")
        MetaPruner.from_hub("me/my-bank").adapt("photos", by="leep", steps=0)
    if page == "docs/howto/add-a-method.md":
        install_examples(DOCS / "howto" / "add-a-method.md", stage / "site", monkeypatch)


def install_examples(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's package, as an installer lays it out: its module, and its entry points beside."""
    code = next(block.text for block in blocks(page) if block.language == "python")
    project = next(block.text for block in blocks(page) if block.language == "toml")
    name, version = (re.search(rf'^{key} = "(.+)"$', project, re.M)[1] for key in ("name", "version"))  # type: ignore[index]
    facts = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    facts.mkdir(parents=True)
    (folder / "metaprune_examples.py").write_text(code)
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    tables = re.findall(r'^\[project\.entry-points\."(.+)"\]\n((?:.+\n)+)', project, re.M)
    (facts / "entry_points.txt").write_text("\n".join(f"[{group}]\n" + rows.replace('"', "") for group, rows in tables))
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "metaprune_examples", raising=False)


WITH_CODE = [
    path
    for path in PAGES
    if path not in GENERATED
    and any(block.language == "python" or (not block.language and commands(block.text)) for block in blocks(path))
]


QUICK = "docs/howto/add-a-method.md"
"""The page whose code runs by default."""


@pytest.mark.usefixtures("hub", "few_steps")
@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=page_name(path), marks=[pytest.mark.slow] * (page_name(path) != QUICK))
        for path in WITH_CODE
    ],
)
def test_the_code_of_a_page_runs(
    path: Path,
    stage: Path,
    parse: Callable[[list[str]], str],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Python and commands of a page, from its top to its end, in one folder, and with few steps."""
    prepared(page_name(path), stage, monkeypatch)
    names: dict[str, object] = {"__name__": "__main__"}
    parts = {registry: dict(registry._parts) for registry in (METHODS, SIMILARITIES)}
    for block in blocks(path):
        if block.not_run:
            continue
        for registry, own in parts.items():
            registry._parts = dict(own)  # each block is a program of its own, as to what is registered
        if block.language == "python":
            exec(compile("\n" * (block.line - 1) + block.text, str(path), "exec"), names)
        elif not block.language:
            for command in commands(block.text):
                with monkeypatch.context() as patch:
                    run_command(command, parse, patch, capfd)


def run_command(
    command: str, parse: Callable[[list[str]], str], patch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = split_arguments(command)
    name = parse(arguments)
    if NOT_RUN.keys() & {name, *arguments}:
        return
    if command.startswith("HF_HUB_OFFLINE=1 "):
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    capfd.readouterr()
    try:
        cli.main([*arguments, *SMALLER.get(name, []), *(ANY_TIME if "--max-latency-ms" in arguments else [])])
    except SystemExit as error:
        assert not error.code, "\n".join([command, *capfd.readouterr()])


# --- notebooks --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=page_name)
def test_a_notebook_runs(path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """In IPython's shell in this process, because a kernel would import the library anew."""
    notebook = nbformat.read(str(path), as_version=4)
    (parameters,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
    names = re.findall(r"^(\w+) = ", parameters.source, re.M)
    parameters.source = "".join(f"{name} = {SMALL[name]}\n" for name in names)
    monkeypatch.chdir(DOCS / "notebooks")
    monkeypatch.setattr(HistoryManager, "enabled", False)  # it would be written to the home folder
    shell = InteractiveShell()
    try:
        for cell in notebook.cells:
            if cell.cell_type == "code":
                shell.run_cell(cell.source).raise_error()
    finally:
        shell.restore_sys_module_state()
    lines = capfd.readouterr().err.splitlines()
    assert [line for line in lines if "are pruned only after" not in line] == []  # a reader sees no warnings


def test_saved_outputs_of_notebooks_are_small_and_whole() -> None:
    for path in NOTEBOOKS:
        cells = [cell for cell in nbformat.read(str(path), as_version=4).cells if cell.cell_type == "code"]
        assert not any(output.get("name") == "stderr" for cell in cells for output in cell.outputs)
        counts = [cell.execution_count for cell in cells]
        assert counts == list(range(1, len(cells) + 1)), f"{path.name} was not run from its top to its end"
        assert path.stat().st_size < 400_000
