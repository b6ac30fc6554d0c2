"""`repose STAGE --dataset D [--variant V]`: runs one stage of the pipeline, or a command. Dispatch only.

`python -m pipeline` is the same, from the checkout's folder and without an installation: the engines use it.
"""

import argparse
import ast
import errno
import os
import select
import sys
from collections.abc import Iterator
from contextlib import ExitStack, chdir, contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType

from pipeline.core import atomic, console, environment, graph, layout, params, seals, settings_help
from pipeline.core.errors import UserError, is_shortage

# Stage or command -> the axes it takes, in the order of the stage table. Modules load only when asked for.
STAGES = {
    "plan": (),
    "needs": ("dataset",),
    "fetch": ("dataset",),
    "weights": ("net",),
    "index": ("dataset",),
    "keypoints": ("dataset",),
    "parsing": ("dataset",),
    "pairs": ("dataset",),
    "pseudo_labels": ("dataset", "rule"),
    "distance_maps": ("dataset",),
    "describe": ("dataset",),
    "pretrain": ("dataset", "component"),
    "reference": ("dataset",),
    "train": ("dataset", "variant"),
    "draw": ("dataset", "method"),
    "score": ("dataset", "variant"),
    "score_components": ("dataset", "component"),
    "tables": (),
    "report": (),
}
COMMANDS = (
    "list", "about", "cite", "status", "verify", "inspect", "figure", "generate", "export", "handoff", "score_images",
    "check-method", "compare", "calibrate", "reproduced", "study", "record", "architecture", "schema",
)  # fmt: skip
OF_THE_CHECKOUT = {"list", "about", "cite"}  # where no project is, they and any --help speak of where this file lies
ROOT = Path(__file__).parents[1]
OPTIONAL = dict.fromkeys(layout.SPREAD, ("part",))  # an axis that a stage may have
SHELLS = ("bash", "zsh")
READER_LEFT = 141  # as a shell has it of a command that SIGPIPE ends

# What an axis may be: most of it from params.yaml.
CHOICES = {
    "dataset": params.datasets,
    "part": lambda: [*map(str, params.load()["parts"])],
    "rule": lambda: list(layout.RULES),
    "net": lambda: list(params.load()["weights"]),
    "component": lambda: list(next(iter(params.load()["pretrain"].values()))),
    "variant": params.variants,
    "method": params.methods,
}

# What a stage's --help shows it with: what `make demo` runs.
EXAMPLE = {
    "dataset": "synthetic", "rule": "equation", "net": "squeezenet1_1", "component": "spatn", "variant": "spgnet",
    "method": "mine",
}  # fmt: skip


def _about(name: str) -> str:
    """A stage's settings and its command on the demo; a command's examples are in its own description."""
    options = "".join(f" --{axis} {EXAMPLE[axis]}" for axis in STAGES[name])
    return f"{settings_help.of_stage(name)}\n\nexample:\n  repose {name}{options}"


def _parser(name: str) -> argparse.ArgumentParser:
    """A stage's own module is not imported: its description and settings are read (some import torch)."""
    parser = argparse.ArgumentParser(
        prog=f"repose {name}",
        description=_description(name),
        epilog=_about(name) if name in STAGES else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for axis in STAGES.get(name, ()):
        parser.add_argument(f"--{axis}", required=True, help=f"one of: {', '.join(CHOICES[axis]())}")
    for axis in OPTIONAL.get(name, ()):
        parser.add_argument(f"--{axis}", help="make this share of the work alone, one of `parts` (docs/scale.md)")
    if name in COMMANDS:
        _command(name).add_arguments(parser)
    return parser


def _command(name: str) -> ModuleType:
    return import_module(f"pipeline.commands.{name.replace('-', '_')}")


def _version() -> str:
    """The checkout's, whenever it was installed."""
    import tomllib

    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]


def _completion(shell: str) -> str:
    """The script that completes `repose` in a shell; it knows the names in params.yaml as they are now, if there is one
    here. Raises UserError for a shell that is none of SHELLS.
    """
    import shtab

    if shell not in SHELLS:
        raise UserError(f"--print-completion {shell}: give one of {', '.join(SHELLS)}")
    choices = {axis: allowed() for axis, allowed in CHOICES.items()} if layout.PARAMS.exists() else {}

    def add_what_to_complete(parser: argparse.ArgumentParser) -> None:
        for action in parser._actions:
            if action.type is Path:
                action.complete = shtab.FILE
            elif action.dest in choices:
                action.choices = choices[action.dest]
            elif isinstance(action, argparse._SubParsersAction):
                for one in action.choices.values():
                    add_what_to_complete(one)

    whole = argparse.ArgumentParser(prog="repose")
    whole.add_argument("--version", action="store_true", help="say which version this is")
    whole.add_argument("--print-completion", choices=SHELLS, help="print the script that completes this command")
    names = whole.add_subparsers()
    for name in (*STAGES, *COMMANDS):
        one = names.add_parser(name, help=_description(name).splitlines()[0], conflict_handler="resolve")
        for axis in (*STAGES.get(name, ()), *OPTIONAL.get(name, ())):
            one.add_argument(f"--{axis}", help=f"which {axis}")
        for command in (name, "score_images" if name == "score" else ""):
            if command in COMMANDS:
                _command(command).add_arguments(one)
    add_what_to_complete(whole)
    return shtab.complete(whole, shell)


def _description(name: str) -> str:
    room = "stages" if name in STAGES else "commands"
    source = (Path(__file__).parent / room / f"{name.replace('-', '_')}.py").read_text(encoding="utf-8")
    return ast.get_docstring(ast.parse(source), clean=False)


def _overview() -> str:
    lines = [
        "usage: repose STAGE [options]",
        "       repose --version | --print-completion {bash,zsh}",
        "",
        "stages, in order; each explains itself with --help:",
    ]
    for name, axes in STAGES.items():
        lines += [
            " ".join([f"  {name}", *(f"--{axis} {axis.upper()}" for axis in axes)]),
            f"      {_description(name).splitlines()[0]}",
        ]
    lines += ["", "commands:"]
    for name in COMMANDS:
        lines += [f"  {name}", f"      {_description(name).splitlines()[0]}"]
    return "\n".join([*lines, "", "Everything at once: snakemake --cores all, or dvc repro."])


def _remedy(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "free space, then run again"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "permit it, then run again"
    if error.errno in (errno.ENOENT, errno.ESTALE):
        return "missing, or removed while this ran: `repose status` says what to run"
    return "run again when that is put right"


def _reader_left() -> bool:
    """Whether nobody reads standard output any more, as in `repose list | head`: then what is left of it goes nowhere.
    Any other pipe that breaks is a fault.
    """
    try:
        output = sys.stdout.fileno()
    except (AttributeError, OSError):  # closed, or not a file
        return False
    poll = select.poll()
    poll.register(output, 0)
    left = any(event & select.POLLERR for _, event in poll.poll(0))
    if left:
        os.dup2(os.open(os.devnull, os.O_WRONLY), output)
    return left


@contextmanager
def _writing(job: graph.Job) -> Iterator[None]:
    """Its outputs are this run's, from before it reads anything. Raises UserError if another run is writing one."""
    with ExitStack() as locks:
        shared = job.processes > 1 or job.stage in ("train", "pretrain")  # the first process writes for all
        for path in map(Path, job.outputs) if console.RANK == 0 or not shared else ():
            folder = path.parent.resolve()
            if "DVC_STAGE" in os.environ and not folder.is_relative_to(Path.cwd()):
                raise UserError(
                    f"{path} lies behind a link, in {folder}: DVC keeps no output there; make data/ and runs/ real"
                    " folders, by moving the project to that disk (README, Data on another disk), or run snakemake"
                )
            locks.enter_context(atomic.lock(path))
        yield


def main(arguments: list[str]) -> int:
    name, *rest = arguments or ["--help"]
    if name == "score" and {"--images", "--method"} & {option.split("=")[0] for option in rest}:
        name = "score_images"
    if name == "describe" and rest and not rest[0].startswith("-"):
        name = "about"  # what is asked by name, not the stage that writes data cards
    asks = name in OF_THE_CHECKOUT or not {"-h", "--help"}.isdisjoint(rest)
    if asks and not layout.PARAMS.exists() and (ROOT / layout.PARAMS).exists():
        with chdir(ROOT):
            return main([name, *rest])
    try:
        if name in ("-h", "--help"):
            print(_overview())
            return 0
        if name == "--version":
            print(f"repose {_version()}")
            return 0
        if name == "--print-completion":
            print(_completion(*rest[:1] or [""]))
            return 0
        if name not in STAGES and name not in COMMANDS:
            raise UserError(f"unknown stage {name}; stages: {', '.join(STAGES)}; commands: {', '.join(COMMANDS)}")
        options = vars(_parser(name).parse_args(rest))
        if name in ("architecture", "schema") and not layout.PARAMS.exists():  # they write, and read nothing of it
            raise UserError(f"{layout.PARAMS}: not here; run from the project's root folder")
        if name in COMMANDS:
            return _command(name).run(**options) or 0
        axes = {axis: value for axis, value in options.items() if value is not None}
        for axis, value in axes.items():
            if value not in CHOICES[axis]():
                names = ", ".join(CHOICES[axis]()) or "none"
                raise UserError(f"unknown {axis} {value}; {layout.PARAMS} names: {names}")
        graph.stages(params.load())  # a name that no stage is there for is an error, whichever engine runs this
        job = graph.find(name, *axes.values())
        if job.processes > 1 and environment.processes() == 1:  # each of them comes here again, and goes on
            return import_module("pipeline.loading.launch").several(job, [name, *rest])
        with _writing(job), console.logging_to(job.log):
            for path in job.inputs:
                if not path.startswith(graph.SOURCES):
                    seals.check_all(Path(path))
            import_module(f"pipeline.stages.{name}").run(**options)
        return 0
    except UserError as error:
        for said in error.args:
            print(f"repose: {console.line(str(said))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            f"repose: {name} interrupted; nothing half-written was left, run the same command to go on",
            file=sys.stderr,
        )
        return 130
    except OSError as error:
        if isinstance(error, BrokenPipeError) and _reader_left():
            return READER_LEFT
        where = f" ({error.filename})" if error.filename else ""
        what = os.strerror(error.errno) if error.errno else error
        print(console.line(f"repose: {name}: {what}{where}; {_remedy(error)}"), file=sys.stderr)
        return 2
    except UnicodeEncodeError as error:
        text = console.readable(error.object[max(0, error.start - 40) : error.end + 40])
        other = "rename it" if error.encoding == "utf-8" else "set PYTHONUTF8=1, and run again"
        print(f"repose: {name}: {text!a} cannot be written as {error.encoding}; {other}", file=sys.stderr)
        return 2
    except Exception as error:
        if is_shortage(error):
            lacking = "not enough threads" if "thread" in str(error) else "not enough memory"
            print(f"repose: {name}: {lacking}; a smaller batch of its settings takes less", file=sys.stderr)
            return 2
        console.terminal().print_exception(width=110)
        print(f"repose: {name} failed: a fault of ours, not of your input; details above", file=sys.stderr)
        return 1


def command() -> None:
    """What the installed `repose` runs."""
    try:
        status = main(sys.argv[1:])
    except SystemExit as end:  # argparse's, after --help
        status = end.code
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        if _reader_left():
            status = READER_LEFT
    sys.exit(status)


if __name__ == "__main__":
    command()
